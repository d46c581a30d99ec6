use serde_json::{Value, json};

use super::keys::{ACTIVATIONS, Keys};
use super::reader::{Reader, in_layer};
use super::rope::{self, Style};
use super::window::{Windowed, windows};
use super::{Family, Layout, gemma3};
use crate::Result;
use crate::config::{Activation, DecoderConfig, Direction, Mlp, Norm};
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostNorm, HostUnembedding, Matrix};

/// Llama and the families that differ from it in few places: RMS norms, rotary positions, grouped
/// queries, a gated MLP.
pub(super) struct LlamaLike {
    name: &'static str,
    model_type: &'static str,
    variant: Variant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Gemma,
    Gemma2,
    Gemma3,
    Phi3,
}

/// Llama 1 to 3.
pub(super) const LLAMA: LlamaLike = LlamaLike::new("Llama", "llama", Variant::Llama);
/// Mistral: a window for all layers.
pub(super) const MISTRAL: LlamaLike = LlamaLike::new("Mistral", "mistral", Variant::Mistral);
/// Qwen 2 and 2.5: biases of queries, keys and values.
pub(super) const QWEN2: LlamaLike = LlamaLike::new("Qwen2", "qwen2", Variant::Qwen2);
/// Qwen 3: norms of queries and keys.
pub(super) const QWEN3: LlamaLike = LlamaLike::new("Qwen3", "qwen3", Variant::Qwen3);
/// Gemma 1: gains stored less 1, a scaled embedding, GELU.
pub(super) const GEMMA: LlamaLike = LlamaLike::new("Gemma", "gemma", Variant::Gemma);
/// Gemma 2: also soft caps, a window for every other layer, norms after attention and MLP.
pub(super) const GEMMA2: LlamaLike = LlamaLike::new("Gemma 2", "gemma2", Variant::Gemma2);
/// Gemma 3: windows for five layers of six, with angles of their own, and norms of queries and keys.
pub(super) const GEMMA3: LlamaLike = LlamaLike::new("Gemma 3", "gemma3_text", Variant::Gemma3);
/// Phi-3: fused weights.
pub(super) const PHI3: LlamaLike = LlamaLike::new("Phi-3", "phi3", Variant::Phi3);

const PHI3_ROPE: Style = Style {
    base: &["rope_theta"],
    partial: &["partial_rotary_factor"],
    partial_default: 1.0,
};

/// Where the configuration says whether queries, keys, values and outputs have biases.
#[derive(Clone, Copy)]
struct Biases {
    qkv: bool,
    output: bool,
    mlp: bool,
}

impl LlamaLike {
    const fn new(name: &'static str, model_type: &'static str, variant: Variant) -> Self {
        Self {
            name,
            model_type,
            variant,
        }
    }

    const fn is_gemma(&self) -> bool {
        matches!(
            self.variant,
            Variant::Gemma | Variant::Gemma2 | Variant::Gemma3
        )
    }

    fn biases(&self, flag: impl Fn(&'static str) -> bool) -> Biases {
        let attention = match self.variant {
            Variant::Llama
            | Variant::Qwen3
            | Variant::Gemma
            | Variant::Gemma2
            | Variant::Gemma3 => flag("attention_bias"),
            Variant::Mistral | Variant::Qwen2 | Variant::Phi3 => false,
        };
        Biases {
            qkv: attention || self.variant == Variant::Qwen2,
            output: attention,
            mlp: self.variant == Variant::Llama && flag("mlp_bias"),
        }
    }

    fn activation(&self, keys: &Keys<'_>) -> Result<Activation> {
        if !self.is_gemma() {
            let named = keys.choice("hidden_act", &ACTIVATIONS)?;
            return Ok(named.unwrap_or(Activation::Silu));
        }
        // Published configurations say "gelu" in `hidden_act` where the model was trained with the tanh form, and
        // transformers 5 takes it for that. Of other names programs differ in which they follow.
        let tanh = ("gelu_pytorch_tanh", Activation::GeluTanh);
        keys.choice("hidden_activation", &[tanh])?;
        let act = keys.get("hidden_act");
        keys.choice("hidden_act", &[tanh, ("gelu", Activation::GeluTanh)])?;
        if act.is_some_and(|act| act == "gelu") {
            keys.note(
                "`hidden_act` is \"gelu\", which in this family means \"gelu_pytorch_tanh\", as in transformers",
            );
        }
        Ok(Activation::GeluTanh)
    }

    /// Keys that always have a value.
    const fn never_null(&self) -> &'static [&'static str] {
        match self.variant {
            Variant::Llama => &["attention_bias", "hidden_act", "mlp_bias"],
            Variant::Mistral => &["hidden_act"],
            Variant::Qwen2 => &["hidden_act", "max_window_layers", "use_sliding_window"],
            Variant::Qwen3 => &[
                "attention_bias",
                "hidden_act",
                "max_window_layers",
                "use_sliding_window",
            ],
            Variant::Gemma => &["attention_bias", "hidden_act"],
            Variant::Gemma2 | Variant::Gemma3 => &[
                "attention_bias",
                "hidden_activation",
                "query_pre_attn_scalar",
            ],
            Variant::Phi3 => &["hidden_act", "partial_rotary_factor"],
        }
    }

    /// The number of heads where the configuration does not say.
    const fn n_heads(&self) -> usize {
        match self.variant {
            Variant::Gemma => 16,
            Variant::Gemma2 | Variant::Gemma3 => 8,
            _ => 32,
        }
    }

    /// The context where the configuration does not say.
    const fn n_ctx(&self) -> usize {
        match self.variant {
            Variant::Llama => 2048,
            Variant::Mistral | Variant::Gemma3 => 131_072,
            Variant::Qwen2 | Variant::Qwen3 => 32_768,
            Variant::Gemma | Variant::Gemma2 => 8192,
            Variant::Phi3 => 4096,
        }
    }

    fn norm(&self, reader: Reader<'_>, layer: usize, name: &str) -> HostNorm {
        let name = format!("model.layers.{layer}.{name}.weight");
        self.gain(reader, &name)
    }

    fn gain(&self, reader: Reader<'_>, name: &str) -> HostNorm {
        let w = self.gains(reader, name, reader.config.d_model);
        HostNorm { w, b: None }
    }

    fn gains(&self, reader: Reader<'_>, name: &str, len: usize) -> Vec<f32> {
        let mut w = reader.vector(name, len);
        if self.is_gemma() {
            for gain in &mut w {
                *gain += 1.0;
            }
        }
        w
    }
}

const LAYOUT: Layout = Layout {
    base: "model.",
    embedding: "model.embed_tokens.weight",
    head: "lm_head.weight",
};

impl Family for LlamaLike {
    fn name(&self) -> &str {
        self.name
    }

    fn model_type(&self) -> Option<&str> {
        Some(self.model_type)
    }

    fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig> {
        if self.variant == Variant::Gemma3 {
            return gemma3::config(keys);
        }
        let d_model = keys.size("hidden_size")?;
        let n_heads = keys.size_assumed("num_attention_heads", self.n_heads())?;
        let n_layers = keys.layers("num_hidden_layers")?;
        let d_vocab = keys.size("vocab_size")?;
        // Where no width is given, heads divide that of the stream; Qwen3 and Gemma have their own.
        let d_head = match (keys.get("head_dim"), self.variant) {
            (Some(_), _) => keys.size("head_dim")?,
            (None, Variant::Qwen3) => 128,
            (None, Variant::Gemma | Variant::Gemma2) => 256,
            _ => {
                let heads = "num_attention_heads";
                d_model / keys.divisor_or(heads, Some(n_heads), d_model, "hidden_size")?
            }
        };
        if n_heads.saturating_mul(d_head) > u32::MAX as usize {
            let found = Value::from(d_head);
            return Err(keys.unsupported("head_dim", &found, "heads of a total width below 2^32"));
        }
        let kv_heads = match self.variant {
            Variant::Mistral => 8,
            Variant::Gemma2 | Variant::Gemma3 => 4,
            Variant::Gemma => 16,
            Variant::Qwen2 | Variant::Qwen3 => 32,
            Variant::Llama | Variant::Phi3 => n_heads,
        };
        // Absent, a family's default holds; null stands for as many as there are heads.
        let default = if keys.has("num_key_value_heads") {
            n_heads
        } else {
            kv_heads
        };
        let heads = "num_attention_heads";
        let n_key_value_heads =
            keys.divisor_or("num_key_value_heads", Some(default), n_heads, heads)?;
        keys.plain_decoder()?;
        keys.never_null(&[
            "max_position_embeddings",
            "rms_norm_eps",
            "rope_theta",
            "tie_word_embeddings",
        ])?;
        keys.never_null(self.never_null())?;
        keys.off(&[
            ("use_bidirectional_attention", json!(false)),
            ("use_mrope", json!(false)),
        ])?;
        let flags = ["attention_bias", "mlp_bias"];
        for key in flags {
            keys.flag_or(key, false)?;
        }
        let biases = self.biases(|key| keys.flag_or(key, false).unwrap_or_default());
        for (key, used) in flags.into_iter().zip([biases.output, biases.mlp]) {
            if !used {
                keys.off(&[(key, json!(false))])?;
            }
        }
        let style = match self.variant {
            Variant::Phi3 => PHI3_ROPE,
            _ => Style::WHOLE,
        };
        let windows = match self.variant {
            Variant::Llama | Variant::Gemma => {
                keys.off(&[("sliding_window", Value::Null)])?;
                Vec::new()
            }
            Variant::Mistral => windows(keys, Windowed::All, Some(4096), n_layers)?,
            Variant::Phi3 => windows(keys, Windowed::All, None, n_layers)?,
            Variant::Gemma2 => windows(keys, Windowed::Alternate, Some(4096), n_layers)?,
            Variant::Gemma3 => windows(keys, Windowed::AllBut { every: 6 }, Some(4096), n_layers)?,
            Variant::Qwen2 | Variant::Qwen3 => windows(keys, Windowed::Late, Some(4096), n_layers)?,
        };
        let (scale, soft_caps) = if self.variant == Variant::Gemma2 {
            let caps = [
                keys.nullable_or("attn_logit_softcapping", 50.0)?,
                keys.nullable_or("final_logit_softcapping", 30.0)?,
            ];
            (keys.positive_or("query_pre_attn_scalar", 256.0)?, caps)
        } else {
            (d_head as f64, [None, None])
        };
        let config = DecoderConfig {
            n_layers,
            n_heads,
            n_key_value_heads,
            d_model,
            d_head,
            n_ctx: keys.size_assumed("max_position_embeddings", self.n_ctx())?,
            d_vocab,
            d_vocab_out: d_vocab,
            embed_scale: if self.is_gemma() {
                (d_model as f64).sqrt()
            } else {
                1.0
            },
            tied_embeddings: keys.flag_or("tie_word_embeddings", self.is_gemma())?,
            mlp: Some(Mlp {
                d_mlp: keys.size("intermediate_size")?,
                activation: self.activation(keys)?,
                gated: true,
            }),
            parallel_attn_mlp: false,
            norm: Norm::Rms,
            norm_after: self.variant == Variant::Gemma2,
            qk_norm: self.variant == Variant::Qwen3,
            eps: match self.variant {
                Variant::Phi3 => keys.positive_or("rms_norm_eps", 1e-5)?,
                _ => keys.positive_or("rms_norm_eps", 1e-6)?,
            },
            positions: rope::positions(keys, &style, d_head)?,
            direction: Direction::Causal,
            windows,
            attn_scale: scale.sqrt(),
            scale_attn_by_inverse_layer_idx: false,
            attn_scores_soft_cap: soft_caps[0],
            output_logits_soft_cap: soft_caps[1],
            bos_token: keys.bos_token(d_vocab)?,
        };
        // `pretraining_tp` splits products into parts of the same sum.
        keys.finish(&[
            "auto_map",
            "cache_implementation",
            "embd_pdrop",
            "max_window_layers",
            "original_max_position_embeddings",
            "pretraining_tp",
            "resid_pdrop",
            "use_sliding_window",
        ])?;
        Ok(config)
    }

    fn layout(&self) -> Option<Layout> {
        Some(LAYOUT)
    }

    fn embedding(&self, reader: Reader<'_>) -> HostEmbedding {
        reader.tokens_only("model.embed_tokens.weight")
    }

    fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention {
        let config = reader.config;
        let d = config.d_model;
        let (q, kv) = (config.q_width(), config.kv_width());
        let biases = self.biases(|key| reader.flag_or(key, false));
        let at = |name: &str| format!("model.layers.{layer}.self_attn.{name}");
        let ports = [("q", q), ("k", kv), ("v", kv)];
        let w_qkv = if self.variant == Variant::Phi3 {
            reader.linear(&at("qkv_proj.weight"), d, q + 2 * kv)
        } else {
            let weight =
                |(port, width)| reader.matrix(&at(&format!("{port}_proj.weight")), width, d);
            Matrix::side_by_side(&ports.map(weight))
        };
        let bias =
            |(port, width)| reader.vector_if(biases.qkv, &at(&format!("{port}_proj.bias")), width);
        let head_norm = |port| {
            let name = at(&format!("{port}_norm.weight"));
            self.gains(reader, &name, config.d_head)
        };
        HostAttention {
            ln1: Some(self.norm(reader, layer, "input_layernorm")),
            w_qkv,
            b_qkv: ports.map(bias).concat(),
            qk_norm: config.qk_norm.then(|| (head_norm("q"), head_norm("k"))),
            w_o: reader.linear(&at("o_proj.weight"), q, d),
            b_o: reader.vector_if(biases.output, &at("o_proj.bias"), d),
            ln1_post: config
                .norm_after
                .then(|| self.norm(reader, layer, "post_attention_layernorm")),
        }
    }

    fn mlp(&self, reader: Reader<'_>, layer: usize) -> Option<HostMlp> {
        let config = reader.config;
        let (d, d_mlp) = (config.d_model, config.mlp?.d_mlp);
        let expected = self.biases(|key| reader.flag_or(key, false)).mlp;
        let at = |name: &str| format!("model.layers.{layer}.mlp.{name}");
        let (w_gate, w_in) = if self.variant == Variant::Phi3 {
            let both = reader.matrix(&at("gate_up_proj.weight"), 2 * d_mlp, d);
            let half = |rows| both.rows(d_mlp, rows).transposed();
            (half(0..d_mlp), half(d_mlp..2 * d_mlp))
        } else {
            let weight = |name| reader.linear(&at(name), d, d_mlp);
            (weight("gate_proj.weight"), weight("up_proj.weight"))
        };
        let bias = |name: &str, len| reader.vector_if(expected, &at(name), len);
        // In Gemma 2 and 3 the norm after attention has the name that the one before the MLP has elsewhere.
        let before = if config.norm_after {
            "pre_feedforward_layernorm"
        } else {
            "post_attention_layernorm"
        };
        Some(HostMlp {
            ln2: Some(self.norm(reader, layer, before)),
            gate: Some((w_gate, bias("gate_proj.bias", d_mlp))),
            w_in,
            b_in: bias("up_proj.bias", d_mlp),
            w_out: reader.linear(&at("down_proj.weight"), d_mlp, d),
            b_out: bias("down_proj.bias", d),
            ln2_post: config
                .norm_after
                .then(|| self.norm(reader, layer, "post_feedforward_layernorm")),
        })
    }

    fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding {
        HostUnembedding {
            ln_final: Some(self.gain(reader, "model.norm.weight")),
            w_u: reader.untied("lm_head.weight"),
            b_u: None,
        }
    }

    /// Rotation rates of old checkpoints, and the copy of a tied embedding.
    fn is_leftover(&self, name: &str) -> bool {
        let name = name.strip_prefix("model.").unwrap_or(name);
        let rates = in_layer(name, "layers.") == Some("self_attn.rotary_emb.inv_freq");
        rates || matches!(name, "rotary_emb.inv_freq" | "lm_head.weight")
    }
}
