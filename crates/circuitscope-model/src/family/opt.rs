use serde_json::json;

use super::keys::{ACTIVATIONS, Keys};
use super::reader::Reader;
use super::{Family, Layout};
use crate::Result;
use crate::config::{Activation, DecoderConfig, Mlp};
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostUnembedding, Matrix};

/// OPT. Its table of positions begins with two rows that no token uses. Only the variant with norms
/// before attention and MLP is there: the one with norms after them (OPT-350m) is refused.
pub(super) struct Opt;

/// Rows of `embed_positions` before the one of position 0.
const OFFSET: usize = 2;

const LAYOUT: Layout = Layout {
    base: "model.",
    embedding: "model.decoder.embed_tokens.weight",
    head: "lm_head.weight",
};

impl Family for Opt {
    fn name(&self) -> &'static str {
        "OPT"
    }

    fn model_type(&self) -> Option<&str> {
        Some("opt")
    }

    fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig> {
        let d_model = keys.size("hidden_size")?;
        let n_heads = keys.size_assumed("num_attention_heads", 12)?;
        let n_heads =
            keys.divisor_or("num_attention_heads", Some(n_heads), d_model, "hidden_size")?;
        let d_vocab = keys.size("vocab_size")?;
        keys.plain_decoder()?;
        keys.never_null(&[
            "_remove_final_layer_norm",
            "activation_function",
            "do_layer_norm_before",
            "enable_bias",
            "layer_norm_elementwise_affine",
            "max_position_embeddings",
            "tie_word_embeddings",
        ])?;
        keys.off(&[
            ("do_layer_norm_before", json!(true)),
            ("_remove_final_layer_norm", json!(false)),
            ("layer_norm_elementwise_affine", json!(true)),
            ("word_embed_proj_dim", json!(d_model)),
        ])?;
        keys.flag_or("enable_bias", true)?;
        let activation = keys
            .choice("activation_function", &ACTIVATIONS)?
            .unwrap_or(Activation::Relu);
        let n_layers = keys.layers("num_hidden_layers")?;
        let config = DecoderConfig {
            n_ctx: keys.size_or("max_position_embeddings", Some(2048))?,
            tied_embeddings: keys.flag_or("tie_word_embeddings", true)?,
            mlp: Some(Mlp {
                d_mlp: keys.size("ffn_dim")?,
                activation,
                gated: false,
            }),
            bos_token: keys.bos_token(d_vocab)?,
            ..DecoderConfig::gpt2(n_layers, n_heads, d_model, 1, d_vocab)
        };
        keys.finish(&["dropout", "init_std", "layerdrop", "activation_dropout"])?;
        Ok(config)
    }

    fn layout(&self) -> Option<Layout> {
        Some(LAYOUT)
    }

    fn embedding(&self, reader: Reader<'_>) -> HostEmbedding {
        let config = reader.config;
        let rows = config.n_ctx + OFFSET;
        let table = "model.decoder.embed_positions.weight";
        let name = "model.decoder.embed_tokens.weight";
        HostEmbedding {
            w_e: reader.matrix(name, config.d_vocab, config.d_model),
            w_pos: Some(
                reader
                    .matrix(table, rows, config.d_model)
                    .rows(config.n_ctx, OFFSET..rows),
            ),
        }
    }

    fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention {
        let d = reader.config.d_model;
        let bias = reader.flag_or("enable_bias", true);
        let at = |name: &str| format!("model.decoder.layers.{layer}.{name}");
        let qkv = ["q", "k", "v"].map(|port| at(&format!("self_attn.{port}_proj")));
        let w_qkv = qkv
            .each_ref()
            .map(|name| reader.matrix(&format!("{name}.weight"), d, d));
        let b_qkv = qkv.map(|name| reader.vector_if(bias, &format!("{name}.bias"), d));
        HostAttention {
            ln1: Some(reader.layer_norm(&at("self_attn_layer_norm"))),
            w_qkv: Matrix::side_by_side(&w_qkv),
            b_qkv: b_qkv.concat(),
            qk_norm: None,
            w_o: reader.linear(&at("self_attn.out_proj.weight"), d, d),
            b_o: reader.vector_if(bias, &at("self_attn.out_proj.bias"), d),
            ln1_post: None,
        }
    }

    fn mlp(&self, reader: Reader<'_>, layer: usize) -> Option<HostMlp> {
        let bias = reader.flag_or("enable_bias", true);
        let at = |name: &str| format!("model.decoder.layers.{layer}.{name}");
        let layers = [&at("fc1"), &at("fc2")];
        reader.plain_mlp(&at("final_layer_norm"), layers.map(String::as_str), bias)
    }

    fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding {
        let norm = "model.decoder.final_layer_norm";
        HostUnembedding {
            ln_final: Some(reader.layer_norm(norm)),
            w_u: reader.untied("lm_head.weight"),
            b_u: None,
        }
    }

    /// The copy of the tied embedding.
    fn is_leftover(&self, name: &str) -> bool {
        name == "lm_head.weight"
    }
}
