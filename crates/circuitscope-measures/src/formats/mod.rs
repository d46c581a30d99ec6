//! Circuits and scores in the files of other tools.

mod eap_ig;
mod neuronpedia;
mod python_json;
mod strict;

pub use eap_ig::{EdgeEntry, FileScores, FormatError, GraphFile, NodeEntry};
pub use neuronpedia::ViewerGraph;
