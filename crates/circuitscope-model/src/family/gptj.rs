use serde_json::{Value, json};

use super::keys::{ACTIVATIONS, Keys};
use super::reader::{Reader, in_layer};
use super::{Family, Layout};
use crate::Result;
use crate::config::{Activation, DecoderConfig, Mlp, Positions, RopeScaling, Rotary, RotaryPairs};
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostUnembedding, Matrix};

/// GPT-J: one norm a block, read by attention and MLP in parallel; adjacent entries rotate; the
/// unembedding has a bias.
pub(super) struct GptJ;

const LAYOUT: Layout = Layout {
    base: "transformer.",
    embedding: "transformer.wte.weight",
    head: "lm_head.weight",
};

impl Family for GptJ {
    fn name(&self) -> &'static str {
        "GPT-J"
    }

    fn model_type(&self) -> Option<&str> {
        Some("gptj")
    }

    fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig> {
        let d_model = keys.size("n_embd")?;
        let n_heads = keys.size_assumed("n_head", 16)?;
        let n_heads = keys.divisor_or("n_head", Some(n_heads), d_model, "n_embd")?;
        let d_vocab = keys.size("vocab_size")?;
        let d_head = d_model / n_heads;
        let dim = keys.size_or("rotary_dim", Some(64))?;
        if dim > d_head || !dim.is_multiple_of(2) {
            let expected = format!("an even number up to n_embd / n_head = {d_head}");
            return Err(keys.unsupported("rotary_dim", &Value::from(dim), &expected));
        }
        keys.plain_decoder()?;
        keys.never_null(&[
            "activation_function",
            "layer_norm_epsilon",
            "n_positions",
            "rotary_dim",
            "tie_word_embeddings",
        ])?;
        keys.off(&[
            ("rope_scaling", Value::Null),
            ("scale_attn_weights", json!(true)),
            ("tie_word_embeddings", json!(false)),
        ])?;
        let activation = keys
            .choice("activation_function", &ACTIVATIONS)?
            .unwrap_or(Activation::GeluTanh);
        let n_layers = keys.layers("n_layer")?;
        let config = DecoderConfig {
            n_ctx: keys.size_or("n_positions", Some(2048))?,
            mlp: Some(Mlp {
                d_mlp: keys.size_or("n_inner", Some(4 * d_model))?,
                activation,
                gated: false,
            }),
            parallel_attn_mlp: true,
            eps: keys.positive_or("layer_norm_epsilon", 1e-5)?,
            positions: Positions::Rotary(Rotary {
                dim,
                base: 10_000.0,
                pairs: RotaryPairs::Adjacent,
                scaling: RopeScaling::None,
            }),
            bos_token: keys.bos_token(d_vocab)?,
            ..DecoderConfig::gpt2(n_layers, n_heads, d_model, 1, d_vocab)
        };
        keys.finish(&[
            "attn_pdrop",
            "embd_pdrop",
            "n_ctx",
            "resid_pdrop",
            "rotary",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        ])?;
        Ok(config)
    }

    fn layout(&self) -> Option<Layout> {
        Some(LAYOUT)
    }

    fn embedding(&self, reader: Reader<'_>) -> HostEmbedding {
        reader.tokens_only("transformer.wte.weight")
    }

    fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention {
        let d = reader.config.d_model;
        let at = |name: &str| format!("transformer.h.{layer}.{name}");
        let qkv = ["q", "k", "v"];
        let qkv = qkv.map(|port| reader.matrix(&at(&format!("attn.{port}_proj.weight")), d, d));
        HostAttention {
            ln1: Some(reader.layer_norm(&at("ln_1"))),
            w_qkv: Matrix::side_by_side(&qkv),
            b_qkv: reader.zeros(3 * d),
            qk_norm: None,
            w_o: reader.linear(&at("attn.out_proj.weight"), d, d),
            b_o: reader.zeros(d),
            ln1_post: None,
        }
    }

    /// With a copy of the one norm, so that it can be folded into the MLP too.
    fn mlp(&self, reader: Reader<'_>, layer: usize) -> Option<HostMlp> {
        let at = |name: &str| format!("transformer.h.{layer}.{name}");
        let layers = [&at("mlp.fc_in"), &at("mlp.fc_out")];
        reader.plain_mlp(&at("ln_1"), layers.map(String::as_str), true)
    }

    fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding {
        let config = reader.config;
        HostUnembedding {
            ln_final: Some(reader.layer_norm("transformer.ln_f")),
            w_u: Some(reader.linear("lm_head.weight", config.d_model, config.d_vocab)),
            b_u: Some(reader.vector("lm_head.bias", config.d_vocab)),
        }
    }

    /// Causal masks and position tables.
    fn is_leftover(&self, name: &str) -> bool {
        let name = name.strip_prefix("transformer.").unwrap_or(name);
        let buffers = ["attn.bias", "attn.masked_bias", "attn.embed_positions"];
        in_layer(name, "h.").is_some_and(|rest| buffers.contains(&rest))
    }
}
