use super::keys::{ACTIVATIONS, Keys};
use super::reader::{Reader, in_layer};
use super::rope::{self, Style};
use super::{Family, Layout};
use crate::Result;
use crate::config::{Activation, DecoderConfig, Mlp};
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostUnembedding, Matrix};

/// GPT-NeoX, and so Pythia. Queries, keys and values of a head stand together in one weight; attention
/// and MLP run in parallel unless the configuration says not; part of every head rotates.
pub(super) struct GptNeoX;

const ROPE: Style = Style {
    base: &["rotary_emb_base", "rope_theta"],
    partial: &["rotary_pct", "partial_rotary_factor"],
    partial_default: 0.25,
};

const LAYOUT: Layout = Layout {
    base: "gpt_neox.",
    embedding: "gpt_neox.embed_in.weight",
    head: "embed_out.weight",
};

impl Family for GptNeoX {
    fn name(&self) -> &'static str {
        "GPT-NeoX"
    }

    fn model_type(&self) -> Option<&str> {
        Some("gpt_neox")
    }

    fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig> {
        let d_model = keys.size("hidden_size")?;
        let n_heads = keys.size_assumed("num_attention_heads", 64)?;
        let n_heads =
            keys.divisor_or("num_attention_heads", Some(n_heads), d_model, "hidden_size")?;
        let d_vocab = keys.size("vocab_size")?;
        let d_head = d_model / n_heads;
        keys.plain_decoder()?;
        keys.never_null(&[
            "attention_bias",
            "hidden_act",
            "layer_norm_eps",
            "max_position_embeddings",
            "rotary_emb_base",
            "rotary_pct",
            "tie_word_embeddings",
            "use_parallel_residual",
        ])?;
        keys.flag_or("attention_bias", true)?;
        let activation = keys
            .choice("hidden_act", &ACTIVATIONS)?
            .unwrap_or(Activation::GeluExact);
        let n_layers = keys.layers("num_hidden_layers")?;
        let config = DecoderConfig {
            n_ctx: keys.size_or("max_position_embeddings", Some(2048))?,
            tied_embeddings: keys.flag_or("tie_word_embeddings", false)?,
            mlp: Some(Mlp {
                d_mlp: keys.size("intermediate_size")?,
                activation,
                gated: false,
            }),
            parallel_attn_mlp: keys.flag_or("use_parallel_residual", true)?,
            eps: keys.positive_or("layer_norm_eps", 1e-5)?,
            positions: rope::positions(keys, &ROPE, d_head)?,
            bos_token: keys.bos_token(d_vocab)?,
            ..DecoderConfig::gpt2(n_layers, n_heads, d_model, 1, d_vocab)
        };
        keys.finish(&[])?;
        Ok(config)
    }

    fn layout(&self) -> Option<Layout> {
        Some(LAYOUT)
    }

    fn embedding(&self, reader: Reader<'_>) -> HostEmbedding {
        reader.tokens_only("gpt_neox.embed_in.weight")
    }

    fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention {
        let config = reader.config;
        let (d, heads, d_head) = (config.d_model, config.n_heads, config.d_head);
        let bias = reader.flag_or("attention_bias", true);
        let at = |name: &str| format!("gpt_neox.layers.{layer}.{name}");
        // Row head * 3 * d_head + port * d_head + entry is entry of that port of that head.
        let place = |port: usize| {
            (0..heads).flat_map(move |head| {
                let start = (head * 3 + port) * d_head;
                start..start + d_head
            })
        };
        let order = || (0..3).flat_map(place);
        let w_qkv = reader.matrix(&at("attention.query_key_value.weight"), 3 * d, d);
        let b_qkv = reader.vector_if(bias, &at("attention.query_key_value.bias"), 3 * d);
        HostAttention {
            ln1: Some(reader.layer_norm(&at("input_layernorm"))),
            w_qkv: w_qkv.rows(3 * d, order()).transposed(),
            b_qkv: Matrix::new(3 * d, 1, b_qkv).rows(3 * d, order()).data,
            qk_norm: None,
            w_o: reader.linear(&at("attention.dense.weight"), d, d),
            b_o: reader.vector_if(bias, &at("attention.dense.bias"), d),
            ln1_post: None,
        }
    }

    fn mlp(&self, reader: Reader<'_>, layer: usize) -> Option<HostMlp> {
        let at = |name: &str| format!("gpt_neox.layers.{layer}.{name}");
        let layers = [&at("mlp.dense_h_to_4h"), &at("mlp.dense_4h_to_h")];
        reader.plain_mlp(
            &at("post_attention_layernorm"),
            layers.map(String::as_str),
            true,
        )
    }

    fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding {
        let norm = "gpt_neox.final_layer_norm";
        HostUnembedding {
            ln_final: Some(reader.layer_norm(norm)),
            w_u: reader.untied("embed_out.weight"),
            b_u: None,
        }
    }

    /// Causal masks and rotation rates of old checkpoints, and the copy of a tied embedding.
    fn is_leftover(&self, name: &str) -> bool {
        let name = name.strip_prefix("gpt_neox.").unwrap_or(name);
        let rest = in_layer(name, "layers.");
        let buffers = [
            "attention.bias",
            "attention.masked_bias",
            "attention.rotary_emb.inv_freq",
        ];
        rest.is_some_and(|rest| buffers.contains(&rest)) || name == "embed_out.weight"
    }
}
