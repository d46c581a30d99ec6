//! Sparse autoencoders: how vectors become integer codes.
//!
//! The discrete method of O'Neill & Bui (2024, arXiv 2405.12522) trains one small autoencoder on
//! the outputs of all attention heads on a few prompts, then names every head output by its
//! strongest feature. This crate does that part: vectors in, codes out. It knows nothing of
//! models, prompts or heads; a vector is a row.
//!
//! Decisions worth knowing:
//!
//! - *Constraints live in the optimiser step.* Weights of unit length stay so because a step
//!   removes the radial part of the gradient and rescales afterwards. Encoding and decoding never
//!   change a weight.
//! - *The authors' decoder constraint and the usual one are both here*, as [`Dictionary`].
//! - *The untrained dictionary is a value*: [`SaeConfig::init`] gives exactly what [`train`] starts
//!   from, so that the effect of training can be measured.
//! - *The host waits for the device only at the ends*: losses and codes are gathered on the device
//!   and read back once.
//! - *"No feature is active" is a code of its own*, [`INACTIVE`].
//! - *Any dictionary is an [`Encoder`]*: those that are trained here, those that SAELens, sparsify, Gemma Scope and others
//!   left in a folder ([`load_dir`]; one file for each [`Architecture`]), and those of other crates.
//! - *A transcoder is a dictionary that writes elsewhere*: any architecture with a `W_dec` of another site and maybe a skip
//!   connection ([`Affine::transcoder`]); those of all layers of a model are read together by [`load_set`].
//! - *Rows may come in streams*: [`StreamTrainer`] trains `TopK`, `BatchTopK` and `JumpReLU` dictionaries and transcoders on batches,
//!   with checkpoints; [`synthetic`] has rows whose features are known. [`train`] is the paper's, full batch.
//! - Everything is generic over burn's `Backend`; random numbers are drawn on the host, so that all
//!   backends start alike.
//!
//! # Symbols
//! `d_in`: width of the vectors; `d_sae`: number of features; `m` or `rows`: number of vectors.
//!
//! # Example
//! Vectors around two directions; after training, each group has one code.
//!
//! ```
//! use burn::tensor::Tensor;
//! use circuitscope_core::{NoProgress, Seed};
//! use circuitscope_sae::{Encoder as _, SaeConfig, TrainConfig, train};
//!
//! type B = burn_flex::Flex;
//! # fn main() -> Result<(), circuitscope_sae::Error> {
//! let device = Default::default();
//! let x = Tensor::<B, 2>::from_floats(
//!     [[2.0, 0.1, 0.0], [1.9, 0.0, 0.1], [0.0, 2.0, 0.1], [0.1, 2.1, 0.0]],
//!     &device,
//! );
//! let config = SaeConfig::new(3).with_d_sae(8);
//! let steps = TrainConfig::new().with_steps(100);
//! let trained = train(&config, &steps, x.clone(), Seed::new(1), &NoProgress)?;
//! let codes = trained.sae.codes(x)?;
//! assert_eq!(codes[0], codes[1]);
//! assert_eq!(codes[2], codes[3]);
//! assert_ne!(codes[0], codes[2]);
//! assert!(trained.history.loss[99] < trained.history.loss[0]);
//! # Ok(())
//! # }
//! ```
#![recursion_limit = "256"]

mod adam;
mod architecture;
mod autoencoder;
mod config;
mod dictionary;
mod encoder;
mod error;
mod files;
mod history;
mod init;
mod many;
mod read;
mod stack;
mod stream;
pub mod synthetic;
mod tensors;
mod train;

pub use architecture::{
    Affine, Architecture, BatchTopK, Gated, GroupMax, JumpRelu, Normalisation, Standard, TopK,
};
pub use autoencoder::SparseAutoencoder;
pub use config::{SaeConfig, TrainConfig};
pub use dictionary::Dictionary;
pub use encoder::{Codes, EncodeConfig, Encoder, INACTIVE, Reads};
pub use error::{Error, Result};
pub use files::{
    Activations, CFG_FILE, Format, SPARSITY_FILE, SaeMetadata, SavedSae, TrainedOn, TranscoderSet,
    WEIGHTS_FILE, load_dir, load_layer, load_set, save_dir, save_trained,
};
pub use history::History;
pub use many::{TrainJob, train_many, train_stacked};
pub use stack::{Gradients, Trained};
pub use stream::{
    CHECKPOINT_FILE, Objective, StepRecord, StreamConfig, StreamGradients, StreamStatistics,
    StreamTrainer, TrainedDictionary,
};
pub use train::{Trainer, train};
