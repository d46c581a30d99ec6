//! Families: each a parser into [`DecoderConfig`] and a table of weight names.
//!
//! **Unstable**: public with the cargo feature `unstable-family`, and free to change in any release.
//!
//! A family of your own is a type that implements [`Family`]; [`Loaded::from_families`](crate::Loaded::from_families)
//! loads a folder with it. The forward pass is written once, for all families: what it has is what [`DecoderConfig`] can
//! say.
//!
//! ```
//! # #[cfg(feature = "unstable-family")] {
//! use burn_flex::{Flex, FlexDevice};
//! use circuitscope_core::NoProgress;
//! use circuitscope_model::family::{
//!     Family, HostAttention, HostEmbedding, HostMlp, HostUnembedding, Keys, Reader,
//! };
//! use circuitscope_model::{DecoderConfig, Error, Loaded, Processing};
//!
//! /// Attention without norms or MLPs, one tensor for each matrix.
//! struct Bare;
//!
//! impl Family for Bare {
//!     fn name(&self) -> &'static str {
//!         "bare"
//!     }
//!
//!     fn model_type(&self) -> Option<&str> {
//!         Some("bare")
//!     }
//!
//!     fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig, Error> {
//!         let d_model = keys.size("width")?;
//!         let n_heads = keys.divisor_or("heads", Some(1), d_model, "width")?;
//!         let (n_ctx, d_vocab) = (keys.size("context")?, keys.size("tokens")?);
//!         let n_layers = keys.layers("layers")?;
//!         let gpt2 = DecoderConfig::gpt2(n_layers, n_heads, d_model, n_ctx, d_vocab);
//!         keys.finish(&[])?;
//!         Ok(gpt2.with_mlp(None).with_norm(circuitscope_model::Norm::None))
//!     }
//!
//!     fn embedding(&self, reader: Reader<'_>) -> HostEmbedding {
//!         let config = reader.config();
//!         HostEmbedding {
//!             w_e: reader.matrix("token", config.d_vocab, config.d_model),
//!             w_pos: Some(reader.matrix("position", config.n_ctx, config.d_model)),
//!         }
//!     }
//!
//!     fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention {
//!         let d = reader.config().d_model;
//!         HostAttention {
//!             ln1: None,
//!             w_qkv: reader.matrix(&format!("{layer}.qkv"), d, 3 * d),
//!             b_qkv: reader.zeros(3 * d),
//!             qk_norm: None,
//!             w_o: reader.matrix(&format!("{layer}.out"), d, d),
//!             b_o: reader.zeros(d),
//!             ln1_post: None,
//!         }
//!     }
//!
//!     fn mlp(&self, _: Reader<'_>, _: usize) -> Option<HostMlp> {
//!         None
//!     }
//!
//!     fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding {
//!         let config = reader.config();
//!         let w_u = reader.matrix("logits", config.d_model, config.d_vocab);
//!         HostUnembedding { ln_final: None, w_u: Some(w_u), b_u: None }
//!     }
//! }
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! let config = r#"{"model_type": "bare", "width": 8, "context": 16, "tokens": 10, "layers": 1}"#;
//! std::fs::write(folder.join("config.json"), config).unwrap();
//! // Without weights: an error that names the folder.
//! let loaded = Loaded::<Flex>::from_families(
//!     folder, &[&Bare], Processing::Raw, &FlexDevice, &NoProgress,
//! );
//! assert!(matches!(loaded, Err(Error::NotAModel { .. })));
//! # }
//! ```

mod findings;
mod gemma3;
mod gemma3_multimodal;
mod gpt2;
mod gpt_neox;
mod gptj;
mod keys;
pub(crate) mod layout;
mod llama;
mod opt;
mod reader;
mod rope;
mod transformer_lens;
mod window;

use std::path::Path;

use serde_json::{Map, Value};

pub(crate) use findings::Findings;
pub(crate) use gpt2::save as save_gpt2_folder;
#[cfg(feature = "unstable-family")]
pub use keys::ACTIVATIONS;
pub use keys::Keys;
pub use layout::Layout;
pub use reader::Reader;

use crate::config::DecoderConfig;
pub use crate::host::{HostAttention, HostEmbedding, HostMlp, HostUnembedding};
#[cfg(feature = "unstable-family")]
pub use crate::host::{HostBlock, HostNorm, Matrix};
#[cfg(feature = "unstable-family")]
pub use crate::host_decoder::HostDecoder;
use crate::{Error, Result};

/// A model family. A new one of this crate is an implementation and a line in `BUILT_IN`.
///
/// The four parts are asked for twice. At first only names and shapes are checked, and all that a [`Reader`] gives is
/// empty, so that everything wrong with a file is one error; then the values are read, part by part. What a part
/// returns is compared with the configuration before it is used.
pub trait Family: Sync {
    /// Its name in reports.
    fn name(&self) -> &str;

    /// `model_type` in the `config.json` of its models; `None` if they have no such key.
    fn model_type(&self) -> Option<&str>;

    /// Whether a `config.json` is one of its models'. Default: by [`model_type`](Self::model_type).
    fn reads(&self, json: &Map<String, Value>) -> bool {
        let found = json.get("model_type").and_then(Value::as_str);
        found.is_some() && found == self.model_type()
    }

    /// The validated configuration: every key is read, listed as irrelevant, noted as unknown or refused, which
    /// [`Keys::finish`] sees to at the end.
    ///
    /// # Errors
    /// For the first key that is missing or that the family does not have so; [`Keys`] words it.
    fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig>;

    /// How its tensors are named; `None` where they can lie in one way only.
    fn layout(&self) -> Option<Layout> {
        None
    }

    /// Token embedding and position vectors.
    fn embedding(&self, reader: Reader<'_>) -> HostEmbedding;

    /// The attention layer of a block.
    fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention;

    /// The MLP of a block, if it has one.
    fn mlp(&self, reader: Reader<'_>, layer: usize) -> Option<HostMlp>;

    /// Final norm and unembedding; no `w_u` where the configuration ties it to the embedding.
    fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding;

    /// Whether the beginning-of-sequence token goes before a text where nobody says otherwise; `None` if
    /// that is the tokenizer's to say.
    fn prepends_bos(&self, _json: &Map<String, Value>) -> Option<bool> {
        None
    }

    /// Whether an unused tensor of this name is a known leftover. Default: none is.
    fn is_leftover(&self, _name: &str) -> bool {
        false
    }
}

/// The families of this crate.
const BUILT_IN: [&dyn Family; 14] = [
    &llama::GEMMA,
    &llama::GEMMA2,
    &gemma3_multimodal::Multimodal,
    &llama::GEMMA3,
    &gpt2::Gpt2,
    &gpt_neox::GptNeoX,
    &gptj::GptJ,
    &llama::LLAMA,
    &llama::MISTRAL,
    &opt::Opt,
    &llama::PHI3,
    &llama::QWEN2,
    &llama::QWEN3,
    &transformer_lens::TransformerLens,
];

/// The families that can be loaded: `model_type` in `config.json`, and name in reports.
/// TransformerLens configurations, which have no `model_type`, come on top.
///
/// ```
/// assert!(circuitscope_model::family_names().contains(&("gpt2", "GPT-2")));
/// ```
#[must_use]
pub fn names() -> Vec<(&'static str, &'static str)> {
    let names = BUILT_IN.iter();
    let names = names.filter_map(|family| Some((family.model_type()?, family.name())));
    names.collect()
}

/// The family that a `config.json` belongs to: the first of `others`, else of this crate, that reads it.
pub(crate) fn detect<'f>(
    path: &Path,
    json: &Map<String, Value>,
    others: &[&'f dyn Family],
) -> Result<&'f dyn Family> {
    let all = || others.iter().chain(&BUILT_IN).copied();
    if let Some(family) = all().find(|family| family.reads(json)) {
        return Ok(family);
    }
    let Some(model_type) = json.get("model_type") else {
        return Err(Error::Config {
            path: path.to_owned(),
            reason:
                "neither `model_type` (Hugging Face) nor `d_model` (TransformerLens) is there: \
                     cannot tell the model's family"
                    .to_owned(),
        });
    };
    let names = all().filter_map(Family::model_type);
    let names: Vec<_> = names.map(|name| format!("{name:?}")).collect();
    Err(Error::Unsupported {
        path: path.to_owned(),
        key: "model_type".to_owned(),
        found: model_type.to_string(),
        expected: format!("{}, or a TransformerLens configuration", names.join(", ")),
    })
}
