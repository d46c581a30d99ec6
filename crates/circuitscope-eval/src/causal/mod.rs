//! What causal methods start from: the model itself, matched prompts with answers, and a metric.

mod align;
mod batches;
mod evidence;
mod gradients;
mod nodes;
mod patched;
mod path;
mod per_pair;
mod rules;
mod targets;
mod writers;

pub use align::Alignment;
pub(crate) use batches::Held;
pub use batches::PairBatch;
pub use circuitscope_core::Metric;
pub use evidence::{Ablation, CausalEvidence, TokenPair, last_logits};
pub(crate) use evidence::{compared, contrast, last_logits_tapped};
pub(crate) use gradients::{Differentiable, ReaderGradients, host, values};
pub(crate) use patched::mean;
pub use patched::{FromLayer, PatchedRuns, Prepared};
pub use path::{Between, Receiver, path_patching};
pub(crate) use per_pair::Effects;
pub use per_pair::PairEffects;
pub(crate) use rules::Rules;
pub use targets::Targets;
pub(crate) use writers::{SingleWriters, WholeWriters, side_by_side, threads};
