//! Attribution graphs: which features, through which heads, make an answer of which tokens.

mod ablate;
mod build;
mod direct;
mod heads;
mod influence;
mod source;
mod targets;
mod viewer;

pub use build::{AttributionGraph, GraphNode, GraphSettings, NodeKind, Transcoders};
pub use heads::{HeadInfluence, HeadRow, head_table};
pub use influence::{PruneSettings, PrunedGraph, ReplacementScores};
pub(crate) use source::Source;
pub use targets::{LogitTarget, Targets};
pub use viewer::ViewerPrompt;
