//! Features of dictionaries inside a model: what a feature of a sparse autoencoder or a transcoder reads, from which head and
//! which token, what it writes, and what the model loses without it.
//!
//! A dictionary by itself knows nothing of models ([`circuitscope_sae`]); a model knows nothing of dictionaries. This crate
//! is where both meet.
//!
//! # Symbols
//! `d_in`, `d_out`: widths of what a dictionary reads and writes; `d_sae`: number of features; `rows`: number of vectors,
//! one for each token.

mod contexts;
mod controls;
mod error;
mod heads;
mod rows;
mod splice;

pub use contexts::{contexts, read_texts};
pub use controls::Directions;
pub use error::{Error, Result};
pub use heads::{HeadPass, Source, weight_shares};
pub use rows::{Batch, Batches, ROWS_FILE, RowSettings, Rows, RowsMetadata, Shard, write_rows};
pub use splice::{Fidelity, FidelityTable, Replacement, Splice, fidelity, next_token_loss};
