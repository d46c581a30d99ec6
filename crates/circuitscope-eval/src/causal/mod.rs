//! What causal methods start from: the model itself, matched prompts with answers, and a metric.

mod evidence;
mod gradients;
mod metric;
mod patched;
mod per_pair;

pub use evidence::{Ablation, CausalEvidence, PairBatch, TokenPair};
pub(crate) use gradients::{Differentiable, ReaderGradients, host};
pub use metric::{Metric, Targets};
pub use patched::{PatchedRuns, Prepared};
pub use per_pair::PairEffects;
