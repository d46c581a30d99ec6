//! What a `cfg.json` is of: this program, SAELens 6, SAELens 3 to 5, or another tool.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Whose fields a `cfg.json` has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// SAELens 6, and this crate.
    SaeLens6,
    /// SAELens 3 to 5: everything in one object.
    SaeLens5,
}

/// Fields of SAELens 3 to 5 beside those of version 6 that cannot change the codes.
pub(crate) const OLD_FIELDS: [&str; 17] = [
    "activation_fn",
    "activation_fn_kwargs",
    "activation_fn_str",
    "context_size",
    "dataset_path",
    "dataset_trust_remote_code",
    "finetuning_scaling_factor",
    "hook_head_index",
    "hook_layer",
    "hook_name",
    "model_from_pretrained_kwargs",
    "model_name",
    "neuronpedia_id",
    "prepend_bos",
    "sae_lens_training_version",
    "sae_lens_version",
    "seqpos_slice",
];

/// Fields that sparsify (of Eleuther AI) writes and no SAELens does.
const SPARSIFY: [&str; 4] = [
    "expansion_factor",
    "multi_topk",
    "num_latents",
    "skip_connection",
];

impl Format {
    /// Tells the format by its fields.
    ///
    /// # Errors
    /// [`Error::OtherFormat`] for sparsify, and for what SAELens 5 has beyond a standard autoencoder.
    pub(crate) fn of(path: &Path, fields: &Map<String, Value>) -> Result<Self> {
        let other = |found: String| Error::OtherFormat {
            path: path.to_owned(),
            found,
        };
        let has = |field: &&str| fields.contains_key(*field);
        if !fields.contains_key("architecture") && SPARSIFY.iter().any(has) {
            let k = fields
                .get("k")
                .map_or_else(String::new, |k| format!(", k = {k}"));
            return Err(other(format!(
                "a dictionary of sparsify (TopK{k}, in sae.safetensors)"
            )));
        }
        let old = [
            "activation_fn",
            "activation_fn_str",
            "hook_layer",
            "finetuning_scaling_factor",
        ];
        if !old.iter().any(has) {
            return Ok(Self::SaeLens6);
        }
        let version = fields
            .get("sae_lens_training_version")
            .and_then(Value::as_str);
        let tool = version.map_or_else(|| "SAELens 3 to 5".to_owned(), |v| format!("SAELens {v}"));
        let activation = fields
            .get("activation_fn_str")
            .or(fields.get("activation_fn"));
        let plain = [
            (
                "architecture",
                fields.get("architecture"),
                json!("standard"),
            ),
            ("activation_fn_str", activation, json!("relu")),
            (
                "finetuning_scaling_factor",
                fields.get("finetuning_scaling_factor"),
                json!(false),
            ),
        ];
        for (field, found, plain) in plain {
            if let Some(found) = found.filter(|found| !found.is_null() && **found != plain) {
                return Err(other(format!(
                    "a dictionary of {tool} with {field} {found}, where {plain} is read"
                )));
            }
        }
        Ok(Self::SaeLens5)
    }
}
