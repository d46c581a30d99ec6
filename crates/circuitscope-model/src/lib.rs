//! One decoder for every model, driven by its configuration, and the loaders of its weights.
//!
//! A family of models is a parser of its configuration into [`DecoderConfig`] and a table of the names
//! of its weights; the forward pass is written once. It hands every named intermediate to a
//! [`circuitscope_hooks::Tap`], computes no further than the last one that is wanted, and nothing that
//! is not.
//!
//! Loading is strict: an option that is not implemented, a tensor that is missing, left over, of another
//! shape or not finite is an error that names it. Configuration keys that nobody knows, and what was
//! assumed or resolved between files that disagree, stand in [`ModelProvenance::notes`]. Nothing is silently
//! ignored, because a model that is almost right gives numbers that look right.
//!
//! ```
//! use burn::tensor::Tensor;
//! use circuitscope_core::Seed;
//! use circuitscope_hooks::{Capture, Intervene, Intervention, Op, Site};
//! use circuitscope_model::{DecoderConfig, PaddingSide, TokenBatch};
//!
//! type B = burn_flex::Flex;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let device = Default::default();
//! let config = DecoderConfig::gpt2(2, 2, 8, 16, 10);
//! let model = config.init::<B>(Seed::new(0), &device);
//! let batch = TokenBatch::new(&[vec![1, 2, 3], vec![4, 5]], PaddingSide::Right, &device)?;
//!
//! // What head L1H0 writes, and the logits when it writes nothing.
//! let mut capture = Capture::new([Site::Result(1)]);
//! model.forward(&batch, &mut capture);
//! let result = capture.finish()?.remove(&Site::Result(1)).expect("captured");
//! assert_eq!(result.dims(), [2, 3, 2, 8]);
//!
//! let silence = Intervention::new(Site::Z(1), Op::Zero).with_heads([0]);
//! let mut run = (Intervene::new([silence]), Capture::new([Site::Logits]));
//! model.forward(&batch, &mut run);
//! let logits: Tensor<B, 3> = run.1.take(Site::Logits).and_then(|x| x.get()).expect("captured");
//! assert_eq!(logits.dims(), [2, 3, 10]);
//! # Ok(())
//! # }
//! ```

#![recursion_limit = "256"]

mod answers;
mod batch;
mod block;
mod bos;
mod bytes;
mod capture;
mod config;
mod decoder;
mod error;
#[cfg(feature = "unstable-family")]
pub mod family;
#[cfg(not(feature = "unstable-family"))]
#[expect(unreachable_pub, reason = "public with the feature `unstable-family`")]
mod family;
mod finite;
mod fold;
mod fused;
mod gguf;
#[cfg_attr(
    not(feature = "unstable-family"),
    expect(unreachable_pub, reason = "public with the feature `unstable-family`")
)]
mod host;
#[cfg_attr(
    not(feature = "unstable-family"),
    expect(unreachable_pub, reason = "public with the feature `unstable-family`")
)]
mod host_decoder;
#[cfg(feature = "hub")]
pub mod hub;
mod init;
mod loaded;
mod mlp;
mod norm;
mod numbers;
mod pass;
mod past;
mod pickle;
mod ports;
mod precision;
mod prefix;
mod products;
mod provenance;
mod quantised;
mod resume;
mod rotary;
mod rows;
mod score_parts;
mod source;
mod tokenizer;
mod upload;
mod weights;

pub use answers::logits_at;
pub use batch::TokenBatch;
pub use bos::PrependBos;
pub use capture::{
    SiteSink, SiteValues, capture_head_means, capture_head_means_and_last, capture_sites,
    capture_sites_into, pack_by_length,
};
pub use config::{
    Activation, DecoderConfig, Direction, Mlp, Norm, Positions, RopeScaling, Rotary, RotaryPairs,
};
pub use decoder::Decoder;
pub use error::{Error, Result};
pub use family::names as family_names;
pub use finite::check_finite;
pub use fold::Processing;
pub use gguf::is_gguf;
pub use loaded::{
    LoadSettings, Loaded, ModelBytes, load_bytes, load_dir, load_gguf, read_config, save_gpt2,
};
pub use past::Past;
pub use precision::Precision;
pub use products::Product;
pub use provenance::{FileHash, HubOrigin, ModelProvenance};
pub use resume::Resume;
pub use rows::{PaddedRows, PaddingSide};
pub use score_parts::ScoreParts;
pub use tokenizer::{ChatPrompt, Tokenizer, TokenizerSettings};
pub use weights::{MlpParts, NormAt, NormParts};
