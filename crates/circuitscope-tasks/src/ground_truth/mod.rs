//! Circuits known for a task, published or planted.

mod acdc_edge;
mod known;
mod planted;
mod published;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use circuitscope_core::{Circuit, HeadId, nearest};
use serde::Serialize;

pub use acdc_edge::AcdcEdge;
pub use known::{KNOWN_MODELS, KnownModel};

use crate::{Error, Result, Task};

/// The models whose circuits are known for some task: GPT-2 small (12 layers × 12 heads), the
/// attention-only 4-layer model of Heimersheim and Janiak (4 × 8), and the shipped reference
/// model (4 × 8).
pub const MODELS: [&str; 3] = [GPT2_SMALL, ATTN_ONLY_4L, REFERENCE];

const GPT2_SMALL: &str = "gpt2-small";
const ATTN_ONLY_4L: &str = "attn-only-4l";
pub(crate) const REFERENCE: &str = "reference";

/// A circuit that is known, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroundTruth {
    /// The behaviour.
    pub task: Task,
    /// The model, one of [`MODELS`].
    pub model: String,
    /// Which of several published versions this is, such as `acdc` or `authors`.
    pub variant: String,
    /// Where it was published, and what was taken over or changed.
    pub source: String,
    /// The heads by role. Every head of the circuit is in at least one group.
    pub groups: BTreeMap<String, Vec<HeadId>>,
    /// Heads planted so as to look involved without being so; empty for published circuits.
    pub decoys: Vec<HeadId>,
    /// Its heads and, where edges were published or planted, all nodes that they join. Edges are
    /// those of the residual stream, from writer to reader; without ports where none are known.
    pub circuit: Circuit,
    /// The published edge set in ACDC's finer graph, which also counts the steps inside a head;
    /// empty where no edges were published. Its residual-stream part is `circuit.edges`.
    pub acdc_edges: BTreeSet<AcdcEdge>,
}

/// The circuits known for `task` in `model` (one of [`MODELS`]), the default variant first; empty
/// where that model has none for this task.
///
/// | task | model | variants |
/// |---|---|---|
/// | `ioi` | `gpt2-small` | `acdc` (26 heads, 1041 edges), `authors` (L11H3 in place of L9H0) |
/// | `greater-than` | `gpt2-small` | `acdc` (9 heads, 262 edges), `cd-t` (8 heads) |
/// | `docstring` | `attn-only-4l` | `acdc` (6 heads, 37 edges), `authors` (L1H0 in place of L1H2), `hj-8`, `hj-11` |
/// | all four | `reference` | `planted` (in greater-than, no head reads another: no edges) |
///
/// # Errors
/// [`Error::UnknownModel`] for another model, and [`Error::Data`] if a data file breaks its rules.
///
/// # Examples
/// ```
/// use circuitscope_tasks::{Task, ground_truths};
///
/// # fn main() -> Result<(), circuitscope_tasks::Error> {
/// let truths = ground_truths(Task::Ioi, "gpt2-small")?;
/// assert_eq!(truths[0].variant, "acdc");
/// assert_eq!(truths[0].circuit.heads().count(), 26);
/// assert_eq!(truths[0].acdc_edges.len(), 1041);
/// assert_eq!(truths[0].circuit.head_pairs().len(), 88);
/// assert!(ground_truths(Task::Docstring, "gpt2-small")?.is_empty());
/// # Ok(())
/// # }
/// ```
pub fn ground_truths(task: Task, model: &str) -> Result<Vec<GroundTruth>> {
    match model {
        GPT2_SMALL => match task {
            Task::Ioi => published::IOI.read(),
            Task::GreaterThan => published::GREATER_THAN.read(),
            Task::Docstring | Task::Induction => Ok(Vec::new()),
        },
        ATTN_ONLY_4L => match task {
            Task::Docstring => published::DOCSTRING.read(),
            Task::Ioi | Task::GreaterThan | Task::Induction => Ok(Vec::new()),
        },
        REFERENCE => planted::read(task, planted::FILE),
        _ => Err(Error::UnknownModel {
            found: model.to_owned(),
            nearest: nearest(model, MODELS),
        }),
    }
}
