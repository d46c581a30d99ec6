use serde_json::{Map, Value};

use super::keys::Keys;
use super::llama::GEMMA3;
use super::reader::Reader;
use super::{Family, Layout, gemma3};
use crate::Result;
use crate::config::DecoderConfig;
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostUnembedding};

/// The text model of a Gemma 3 that also sees images: its configuration is the object `text_config`,
/// and what sees images is left where it is.
pub(super) struct Multimodal;

/// Tensors of the part that sees images.
const IMAGES: [&str; 2] = ["vision_tower.", "multi_modal_projector."];

/// `text_config`, or nothing where it is no object: [`Multimodal::config`] has refused that.
fn text<'a>(json: &'a Map<String, Value>, none: &'a Map<String, Value>) -> &'a Map<String, Value> {
    json.get("text_config")
        .and_then(Value::as_object)
        .unwrap_or(none)
}

impl Family for Multimodal {
    fn name(&self) -> &'static str {
        "Gemma 3, text part"
    }

    fn model_type(&self) -> Option<&str> {
        Some("gemma3")
    }

    fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig> {
        keys.plain_decoder()?;
        let inner = match keys.get("text_config") {
            Some(Value::Object(inner)) => inner,
            Some(other) => return Err(keys.unsupported("text_config", other, "an object")),
            None => return Err(keys.missing("text_config")),
        };
        let mut config = gemma3::config(&keys.within(inner))?;
        if let Some(cap) = config.output_logits_soft_cap {
            let expected = "null: whether it holds beside images depends on the program";
            let key = "text_config.final_logit_softcapping";
            return Err(keys.unsupported(key, &Value::from(cap), expected));
        }
        // The flag of the whole model counts.
        config.tied_embeddings = keys.flag_or("tie_word_embeddings", config.tied_embeddings)?;
        config.bos_token = keys.bos_token(config.d_vocab)?.or(config.bos_token);
        keys.finish(&[
            "boi_token_id",
            "boi_token_index",
            "eoi_token_id",
            "eoi_token_index",
            "image_token_id",
            "image_token_index",
            "mm_tokens_per_image",
            "vision_config",
        ])?;
        Ok(config)
    }

    fn layout(&self) -> Option<Layout> {
        GEMMA3.layout()
    }

    fn embedding(&self, reader: Reader<'_>) -> HostEmbedding {
        GEMMA3.embedding(reader)
    }

    fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention {
        let none = Map::new();
        let json = text(reader.json, &none);
        GEMMA3.attention(reader.within(json), layer)
    }

    fn mlp(&self, reader: Reader<'_>, layer: usize) -> Option<HostMlp> {
        GEMMA3.mlp(reader, layer)
    }

    fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding {
        GEMMA3.unembedding(reader)
    }

    fn is_leftover(&self, name: &str) -> bool {
        let whole = name.strip_prefix("model.").unwrap_or(name);
        let images = IMAGES.iter().any(|part| whole.starts_with(part));
        images || GEMMA3.is_leftover(name)
    }
}
