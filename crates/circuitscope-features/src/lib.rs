//! Features of dictionaries inside a model: what a feature of a sparse autoencoder or a transcoder reads, from which head and
//! which token, what it writes, and what the model loses without it.
//!
//! A dictionary by itself knows nothing of models ([`circuitscope_sae`]); a model knows nothing of dictionaries. This crate
//! is where both meet.
//!
//! # Symbols
//! `d_in`, `d_out`: widths of what a dictionary reads and writes; `d_sae`: number of features; `rows`: number of vectors,
//! one for each token.

mod changed;
mod contexts;
mod controls;
mod dfa;
mod error;
mod explain;
mod frozen;
mod graph;
mod paths;
mod pull;
mod replace;
mod rows;
mod shares;
mod splice;

pub use contexts::{contexts, read_texts, repeated};
pub use controls::Directions;
pub use dfa::ZAttribution;
pub use error::{Error, Result};
pub use explain::{
    AblationEffect, ExplainSettings, Explained, FeatureAblation, FeatureCard, FeatureContext,
    HeadControl, MadeOf, SourceShares, What, explain,
};
pub use frozen::Frozen;
pub use graph::{
    AttributionGraph, GraphNode, GraphSettings, HeadInfluence, HeadRow, LogitTarget, NodeKind,
    PruneSettings, PrunedGraph, ReplacementScores, Targets, Transcoders, ViewerPrompt, head_table,
};
pub use paths::{PathNode, PathSettings, PathStep, PathTree, Paths};
pub use pull::{Part, Pull, Reader, Writer};
pub use replace::{Leftover, ReplaceMlps};
pub use rows::{
    Batch, Batches, CHECKPOINT_ROWS_FILE, Course, ROWS_FILE, RowSettings, Rows, RowsMetadata,
    Shard, TrainedRows, train_rows, write_rows,
};
pub use shares::{Source, weight_shares};
pub use splice::{Fidelity, FidelityTable, Replacement, Splice, fidelity, next_token_loss};
