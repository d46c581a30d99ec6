//! Circuits and scores in the files of other tools.

mod eap_ig;

pub use eap_ig::{EdgeEntry, FormatError, GraphFile, NodeEntry};
