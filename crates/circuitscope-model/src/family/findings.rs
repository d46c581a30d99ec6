use std::cell::RefCell;
use std::path::Path;

use circuitscope_core::did_you_mean;
use serde_json::Value;

use crate::{Error, Result};

/// What reading a configuration turned up beside the configuration: keys that nothing reads, and what was
/// assumed.
#[derive(Default)]
pub(crate) struct Findings {
    unknown: RefCell<Vec<String>>,
    notes: RefCell<Vec<String>>,
}

impl Findings {
    /// A key that nobody knows, with the most similar known one.
    pub(super) fn unknown(&self, key: &str, nearest: Option<&str>) {
        let hint = did_you_mean(nearest);
        self.unknown.borrow_mut().push(format!("`{key}`{hint}"));
    }

    /// Something worth a sentence.
    pub(crate) fn note(&self, note: String) {
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// An error if there were unknown keys.
    pub(crate) fn refuse_unknown(&self, path: &Path) -> Result<()> {
        let keys = self.unknown.borrow().clone();
        if keys.is_empty() {
            return Ok(());
        }
        let path = path.to_owned();
        Err(Error::UnknownKeys { path, keys })
    }

    /// All there is to say, unknown keys together in one sentence.
    pub(crate) fn into_notes(self) -> Vec<String> {
        let keys = self.unknown.into_inner();
        let mut notes = self.notes.into_inner();
        if !keys.is_empty() {
            let keys = keys.join(", ");
            notes.insert(0, format!("config.json: passed over unknown keys: {keys}"));
        }
        notes
    }
}

/// Keys that change the forward pass of some model and that only some families read or none does, each with the
/// values that change nothing, as JSON. `null` never does.
const CHANGES: &[(&str, &[&str])] = &[
    ("activation_sparsity_pattern", &[]),
    ("alibi", &["false"]),
    ("altup_num_inputs", &[]),
    ("apply_residual_connection_post_layernorm", &["false"]),
    ("attention_chunk_size", &[]),
    ("attention_in_multiplier", &["1"]),
    ("attention_multiplier", &[]),
    ("attention_out_multiplier", &["1"]),
    ("attention_sink", &["false"]),
    ("attn_logit_softcapping", &[]),
    ("attn_output_gate", &["false"]),
    ("attn_scale", &[]),
    ("attn_scores_soft_cap", &["-1"]),
    ("attn_temperature_tuning", &["false", "0"]),
    ("clip_qkv", &[]),
    ("cross_attention_layers", &["[]"]),
    ("embedding_multiplier", &["1"]),
    ("embedding_scale", &["1"]),
    ("final_logit_softcapping", &[]),
    ("hidden_size_per_layer_input", &["0"]),
    ("is_causal", &["true"]),
    ("key_multiplier", &["1"]),
    ("kv_lora_rank", &[]),
    ("layer_types", &[]),
    ("learned_embeddings", &["true"]),
    ("lm_head_multiplier", &["1"]),
    ("logit_scale", &["1"]),
    ("logits_scaling", &["1"]),
    ("mlp_multipliers", &["[1,1]"]),
    ("moe_intermediate_size", &["0"]),
    ("multi_query", &["false"]),
    ("mup_width_scale", &["1"]),
    ("n_routed_experts", &["0"]),
    ("new_decoder_architecture", &["false"]),
    ("no_rope_layer_interval", &[]),
    ("no_rope_layers", &["[]"]),
    ("num_experts", &["0"]),
    ("num_experts_per_tok", &["0"]),
    ("num_kv_shared_layers", &["0"]),
    ("num_local_experts", &["0"]),
    ("parallel_attn", &["false"]),
    ("partial_rotary_factor", &["1"]),
    (
        "position_embedding_type",
        &["\"absolute\"", "\"rotary\"", "\"rope\""],
    ),
    ("q_lora_rank", &[]),
    ("qk_layernorm", &["false"]),
    ("qk_norm", &["false"]),
    ("query_pre_attn_scalar", &[]),
    ("residual_multiplier", &["1"]),
    ("rope_interleave", &["false"]),
    ("rope_interleaved", &["false"]),
    ("rope_parameters", &["{}"]),
    ("rope_scaling", &["{}"]),
    ("rope_theta", &[]),
    ("rotary_dim", &[]),
    ("rotary_emb_interleaved", &["false"]),
    ("scale_attn_by_inverse_layer_idx", &["false"]),
    ("scale_attn_weights", &["true"]),
    ("scale_depth", &[]),
    ("scale_emb", &["1"]),
    ("scale_embedding", &["false"]),
    ("scale_embeddings", &["false"]),
    ("sliding_window", &[]),
    ("softmax_scale", &[]),
    ("ssm_multipliers", &[]),
    ("use_alibi", &["false"]),
    ("use_attention_sinks", &["false"]),
    ("use_bidirectional_attention", &["false"]),
    ("use_cla", &["false"]),
    ("use_mrope", &["false"]),
    ("use_parallel_residual", &["false"]),
    ("use_qk_norm", &["false"]),
];

/// Whether a key changes the forward pass of some model: what it would have to be to change nothing, if
/// `value` is something else.
pub(super) fn changes(key: &str, value: &Value) -> Change {
    let Some((_, neutral)) = CHANGES.iter().find(|(name, _)| *name == key) else {
        return Change::Unknown;
    };
    let same = |text: &&str| {
        serde_json::from_str::<Value>(text).is_ok_and(|neutral| same(value, &neutral))
    };
    let whole = key == "layer_types"
        && value
            .as_array()
            .is_some_and(|layers| layers.iter().all(|layer| layer == "full_attention"));
    if value.is_null() || whole || neutral.iter().any(same) {
        return Change::Neutral;
    }
    let expected = match *neutral {
        [] => "no such key in this family".to_owned(),
        some => format!("{}, or no such key in this family", some.join(" or ")),
    };
    Change::Refused(expected)
}

/// Equal, with `-1` and `-1.0` the same.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

/// What a key that a family does not read may mean.
pub(super) enum Change {
    /// Nothing that is known here.
    Unknown,
    /// At the value that changes nothing.
    Neutral,
    /// Another computation than ours; what was expected.
    Refused(String),
}
