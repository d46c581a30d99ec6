//! Families: each a parser into [`DecoderConfig`] and a table of weight names.

mod findings;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod gptj;
mod keys;
mod layout;
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
pub(crate) use keys::Keys;
pub(crate) use layout::Layout;
pub(crate) use reader::Reader;

use crate::config::DecoderConfig;
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostUnembedding};
use crate::{Error, Result};

/// A model family. A new one is an implementation and a line in [`BY_MODEL_TYPE`].
pub(crate) trait Family: Sync {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// The validated configuration.
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

    /// Whether an unused tensor of this name is a known leftover.
    fn is_leftover(&self, name: &str) -> bool;
}

/// `model_type` of Hugging Face configurations, with the family that reads them.
const BY_MODEL_TYPE: [(&str, &dyn Family); 13] = [
    ("gemma", &llama::GEMMA),
    ("gemma2", &llama::GEMMA2),
    ("gemma3", &gemma3::Multimodal),
    ("gemma3_text", &llama::GEMMA3),
    ("gpt2", &gpt2::Gpt2),
    ("gpt_neox", &gpt_neox::GptNeoX),
    ("gptj", &gptj::GptJ),
    ("llama", &llama::LLAMA),
    ("mistral", &llama::MISTRAL),
    ("opt", &opt::Opt),
    ("phi3", &llama::PHI3),
    ("qwen2", &llama::QWEN2),
    ("qwen3", &llama::QWEN3),
];

/// The families that can be loaded: `model_type` in `config.json`, and name in reports.
/// TransformerLens configurations, which have no `model_type`, come on top.
///
/// ```
/// assert!(circuitscope_model::family_names().contains(&("gpt2", "GPT-2")));
/// ```
#[must_use]
pub fn names() -> Vec<(&'static str, &'static str)> {
    let families = BY_MODEL_TYPE.iter();
    families
        .map(|(model_type, family)| (*model_type, family.name()))
        .collect()
}

/// The family that a `config.json` belongs to.
pub(crate) fn detect(path: &Path, json: &Map<String, Value>) -> Result<&'static dyn Family> {
    if let Some(model_type) = json.get("model_type") {
        let known = BY_MODEL_TYPE.iter().find(|(name, _)| model_type == name);
        return known.map(|(_, family)| *family).ok_or_else(|| {
            let names: Vec<_> = BY_MODEL_TYPE
                .iter()
                .map(|(name, _)| format!("{name:?}"))
                .collect();
            Error::Unsupported {
                path: path.to_owned(),
                key: "model_type".to_owned(),
                found: model_type.to_string(),
                expected: format!("{}, or a TransformerLens configuration", names.join(", ")),
            }
        });
    }
    if json.contains_key("d_model") {
        return Ok(&transformer_lens::TransformerLens);
    }
    Err(Error::Config {
        path: path.to_owned(),
        reason: "neither `model_type` (Hugging Face) nor `d_model` (TransformerLens) is there: \
                 cannot tell the model's family"
            .to_owned(),
    })
}
