use serde_json::{Map, Value, json};

use super::Family;
use super::keys::{ACTIVATIONS, Keys};
use super::reader::{Reader, in_layer};
use crate::Result;
use crate::config::{Activation, DecoderConfig, Direction, Mlp, Norm, Positions};
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostNorm, HostUnembedding, Matrix};

/// A TransformerLens `HookedTransformerConfig` as JSON with the state dict of a `HookedTransformer`
/// (names `blocks.{l}.attn.W_Q`, shapes `[head, d_model, d_head]`). Compiled (Tracr) models arrive
/// this way too.
pub(super) struct TransformerLens;

/// Keys that cannot change a forward pass, or only together with an option that is refused.
const IRRELEVANT: &[&str] = &[
    "NTK_by_parts_factor",
    "NTK_by_parts_high_freq_factor",
    "NTK_by_parts_low_freq_factor",
    "NTK_original_ctx_len",
    "checkpoint_index",
    "checkpoint_label_type",
    "checkpoint_value",
    "decoder_start_token_id",
    "default_prepend_bos",
    "device",
    "dtype",
    "experts_per_token",
    "from_checkpoint",
    "init_mode",
    "init_weights",
    "initializer_range",
    "model_name",
    "n_devices",
    "n_params",
    "original_architecture",
    "relative_attention_max_distance",
    "relative_attention_num_buckets",
    "rotary_adjacent_pairs",
    "rotary_base",
    "rotary_dim",
    "seed",
    "tie_word_embeddings",
    "tokenizer_name",
    "tokenizer_prepends_bos",
    "trust_remote_code",
    "ungroup_grouped_query_attention",
    "use_attn_in",
    "use_attn_result",
    "use_hook_mlp_in",
    "use_hook_tokens",
    "use_split_qkv_input",
];

impl Family for TransformerLens {
    fn name(&self) -> &'static str {
        "TransformerLens"
    }

    fn model_type(&self) -> Option<&str> {
        None
    }

    fn reads(&self, json: &Map<String, Value>) -> bool {
        !json.contains_key("model_type") && json.contains_key("d_model")
    }

    fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig> {
        keys.off(&[
            ("attn_scores_soft_cap", json!(-1)),
            ("attn_types", Value::Null),
            ("final_rms", json!(false)),
            ("gated_mlp", json!(false)),
            ("load_in_4bit", json!(false)),
            ("n_key_value_heads", Value::Null),
            ("num_experts", Value::Null),
            ("output_logits_soft_cap", json!(-1)),
            ("parallel_attn_mlp", json!(false)),
            ("post_embedding_ln", json!(false)),
            ("use_NTK_by_parts_rope", json!(false)),
            ("use_local_attn", json!(false)),
            ("use_normalization_before_and_after", json!(false)),
            ("use_qk_norm", json!(false)),
            ("window_size", Value::Null),
        ])?;
        let d_model = keys.size("d_model")?;
        let d_head = keys.size("d_head")?;
        let n_heads = keys.size_or("n_heads", Some((d_model / d_head).max(1)))?;
        if n_heads.saturating_mul(d_head) > u32::MAX as usize {
            let found = Value::from(d_head);
            return Err(keys.unsupported("d_head", &found, "heads of a total width below 2^32"));
        }
        let d_vocab = keys.size("d_vocab")?;
        let d_vocab_out = match keys.get("d_vocab_out").and_then(Value::as_i64) {
            Some(-1) => d_vocab,
            _ => keys.size_or("d_vocab_out", Some(d_vocab))?,
        };
        let d_mlp = keys.size_or("d_mlp", Some(4 * d_model))?;
        let mlp = if keys.flag_or("attn_only", false)? {
            keys.get("act_fn");
            None
        } else {
            let activation = keys
                .choice("act_fn", &ACTIVATIONS)?
                .unwrap_or(Activation::Relu);
            Some(Mlp {
                d_mlp,
                activation,
                gated: false,
            })
        };
        let norms = [("LN", Norm::Layer), ("LNPre", Norm::LayerPre)];
        let norm = if keys.has("normalization_type") {
            keys.choice("normalization_type", &norms)?
                .unwrap_or(Norm::None)
        } else {
            Norm::Layer
        };
        let positions = [
            ("standard", Positions::Learned),
            ("shortformer", Positions::Shortformer),
        ];
        let directions = [
            ("causal", Direction::Causal),
            ("bidirectional", Direction::Bidirectional),
        ];
        let scaled = keys.flag_or("use_attn_scale", true)?;
        // TransformerLens writes -1 for "√d_head".
        let attn_scale = match keys.get("attn_scale").and_then(Value::as_f64) {
            Some(scale) if scale < 0.0 => (d_head as f64).sqrt(),
            _ => keys.positive_or("attn_scale", (d_head as f64).sqrt())?,
        };
        let config = DecoderConfig {
            n_layers: keys.layers("n_layers")?,
            n_heads,
            n_key_value_heads: n_heads,
            d_model,
            d_head,
            n_ctx: keys.size("n_ctx")?,
            d_vocab,
            d_vocab_out,
            embed_scale: 1.0,
            tied_embeddings: false,
            mlp,
            parallel_attn_mlp: false,
            norm,
            norm_after: false,
            qk_norm: false,
            eps: keys.positive_or("eps", 1e-5)?,
            positions: keys
                .choice("positional_embedding_type", &positions)?
                .unwrap_or(Positions::Learned),
            direction: keys
                .choice("attention_dir", &directions)?
                .unwrap_or(Direction::Causal),
            windows: Vec::new(),
            attn_scale: if scaled { attn_scale } else { 1.0 },
            scale_attn_by_inverse_layer_idx: keys
                .flag_or("scale_attn_by_inverse_layer_idx", false)?,
            attn_scores_soft_cap: None,
            output_logits_soft_cap: None,
            // Not a field of HookedTransformerConfig: `convert_transformer_lens.py` takes it over from the
            // tokenizer.
            bos_token: keys.bos_token(d_vocab)?,
        };
        keys.finish(IRRELEVANT)?;
        Ok(config)
    }

    fn embedding(&self, reader: Reader<'_>) -> HostEmbedding {
        let config = reader.config;
        let w_pos = config.has_position_vectors();
        HostEmbedding {
            w_e: reader.matrix("embed.W_E", config.d_vocab, config.d_model),
            w_pos: w_pos.then(|| reader.matrix("pos_embed.W_pos", config.n_ctx, config.d_model)),
        }
    }

    fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention {
        let config = reader.config;
        let (d, heads, d_head) = (config.d_model, config.n_heads, config.d_head);
        let width = heads * d_head;
        let at = |name: &str| format!("blocks.{layer}.{name}");
        let mut w_qkv = Vec::new();
        let mut b_qkv = Vec::new();
        for (port, name) in ["Q", "K", "V"].into_iter().enumerate() {
            // [head, d_model, d_head] into columns port * width + head * d_head …
            let shape = [heads, d, d_head];
            let w = reader.tensor(&at(&format!("attn.W_{name}")), &shape);
            if !w.is_empty() {
                w_qkv.resize(d * 3 * width, 0.0);
            }
            for (i, row) in w.chunks_exact(d_head).enumerate() {
                let (head, r) = (i / d, i % d);
                let start = r * 3 * width + port * width + head * d_head;
                w_qkv[start..start + d_head].copy_from_slice(row);
            }
            let shape = [heads, d_head];
            b_qkv.extend(reader.tensor(&at(&format!("attn.b_{name}")), &shape));
        }
        let w_o = reader.tensor(&at("attn.W_O"), &[heads, d_head, d]);
        HostAttention {
            ln1: norm(reader, &at("ln1")),
            w_qkv: Matrix::new(d, 3 * width, w_qkv),
            b_qkv,
            qk_norm: None,
            w_o: Matrix::new(width, d, w_o),
            b_o: reader.vector(&at("attn.b_O"), d),
            ln1_post: None,
        }
    }

    fn mlp(&self, reader: Reader<'_>, layer: usize) -> Option<HostMlp> {
        let (d, d_mlp) = (reader.config.d_model, reader.config.mlp?.d_mlp);
        let at = |name: &str| format!("blocks.{layer}.{name}");
        Some(HostMlp {
            ln2: norm(reader, &at("ln2")),
            gate: None,
            w_in: reader.matrix(&at("mlp.W_in"), d, d_mlp),
            b_in: reader.vector(&at("mlp.b_in"), d_mlp),
            w_out: reader.matrix(&at("mlp.W_out"), d_mlp, d),
            b_out: reader.vector(&at("mlp.b_out"), d),
            ln2_post: None,
        })
    }

    fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding {
        let config = reader.config;
        HostUnembedding {
            ln_final: norm(reader, "ln_final"),
            w_u: Some(reader.matrix("unembed.W_U", config.d_model, config.d_vocab_out)),
            b_u: Some(reader.vector("unembed.b_U", config.d_vocab_out)),
        }
    }

    fn prepends_bos(&self, json: &Map<String, Value>) -> Option<bool> {
        Some(json.get("default_prepend_bos") != Some(&json!(false)))
    }

    /// Causal masks and the constant for masked scores.
    fn is_leftover(&self, name: &str) -> bool {
        matches!(in_layer(name, "blocks."), Some("attn.mask" | "attn.IGNORE"))
    }
}

fn norm(reader: Reader<'_>, name: &str) -> Option<HostNorm> {
    (reader.config.norm == Norm::Layer).then(|| HostNorm {
        w: reader.vector(&format!("{name}.w"), reader.config.d_model),
        b: Some(reader.vector(&format!("{name}.b"), reader.config.d_model)),
    })
}
