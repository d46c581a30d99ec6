use serde_json::{Value, json};

use super::keys::Keys;
use super::rope;
use super::window::{Windowed, windows};
use crate::Result;
use crate::config::{Activation, DecoderConfig, Direction, Mlp, Norm};

/// Reads a `gemma3_text` configuration. What is absent is as transformers has it for this family:
/// configurations on the hub leave out whatever is so.
pub(super) fn config(keys: &Keys<'_>) -> Result<DecoderConfig> {
    let d_model = keys.size_or("hidden_size", Some(2304))?;
    let n_heads = keys.size_assumed("num_attention_heads", 8)?;
    let n_layers = match keys.get("num_hidden_layers") {
        Some(_) => keys.layers("num_hidden_layers")?,
        None => 26,
    };
    let d_vocab = keys.size_or("vocab_size", Some(262_208))?;
    let d_head = keys.size_or("head_dim", Some(256))?;
    if n_heads.saturating_mul(d_head) > u32::MAX as usize {
        let found = Value::from(d_head);
        return Err(keys.unsupported("head_dim", &found, "heads of a total width below 2^32"));
    }
    let heads = "num_attention_heads";
    let n_key_value_heads = keys.divisor_or("num_key_value_heads", Some(4), n_heads, heads)?;
    keys.plain_decoder()?;
    keys.never_null(&[
        "attention_bias",
        "head_dim",
        "hidden_activation",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_key_value_heads",
        "query_pre_attn_scalar",
        "rms_norm_eps",
        "rope_local_base_freq",
        "rope_theta",
        "sliding_window_pattern",
        "tie_word_embeddings",
        "vocab_size",
    ])?;
    // Read by transformers, and passed on to nothing.
    keys.off(&[("attn_logit_softcapping", Value::Null)])?;
    keys.off(&[("use_bidirectional_attention", json!(false))])?;
    keys.flag_or("attention_bias", false)?;
    let tanh = [("gelu_pytorch_tanh", Activation::GeluTanh)];
    let activation = keys.choice("hidden_activation", &tanh)?;
    let every = keys.size_or("sliding_window_pattern", Some(6))?;
    let config = DecoderConfig {
        n_layers,
        n_heads,
        n_key_value_heads,
        d_model,
        d_head,
        n_ctx: keys.size_assumed("max_position_embeddings", 131_072)?,
        d_vocab,
        d_vocab_out: d_vocab,
        embed_scale: (d_model as f64).sqrt(),
        tied_embeddings: keys.flag_or("tie_word_embeddings", true)?,
        mlp: Some(Mlp {
            d_mlp: keys.size_or("intermediate_size", Some(9216))?,
            activation: activation.unwrap_or(Activation::GeluTanh),
            gated: true,
        }),
        parallel_attn_mlp: false,
        norm: Norm::Rms,
        norm_after: true,
        qk_norm: true,
        eps: keys.positive_or("rms_norm_eps", 1e-6)?,
        positions: rope::by_window(keys, d_head)?,
        direction: Direction::Causal,
        windows: windows(keys, Windowed::AllBut { every }, Some(4096), n_layers)?,
        attn_scale: keys.positive_or("query_pre_attn_scalar", 256.0)?.sqrt(),
        scale_attn_by_inverse_layer_idx: false,
        attn_scores_soft_cap: None,
        output_logits_soft_cap: keys.number("final_logit_softcapping")?,
        bos_token: if keys.has("bos_token_id") {
            keys.bos_token(d_vocab)?
        } else {
            Some(2).filter(|bos| (*bos as usize) < d_vocab)
        },
    };
    keys.finish(&["_sliding_window_pattern", "cache_implementation"])?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Positions, RopeScaling};
    use crate::family::Findings;

    /// A Gemma 3 on the hub leaves out what is as transformers has it.
    #[test]
    fn absent_keys_of_gemma_3() {
        let published = json!({
            "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 8, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024, "vocab_size": 262_144, "torch_dtype": "bfloat16",
        });
        let published = published.as_object().unwrap();
        let findings = Findings::default();
        let keys = Keys::new(Path::new("config.json"), published, &findings);
        let config = config(&keys).unwrap();
        assert_eq!((config.n_heads, config.n_key_value_heads), (8, 4));
        assert_eq!((config.d_head, config.n_ctx), (256, 131_072));
        assert_eq!((config.attn_scale, config.eps), (16.0, 1e-6));
        assert_eq!(config.output_logits_soft_cap, None);
        assert_eq!(config.bos_token, Some(2));
        assert!(config.tied_embeddings);
        let mut windows = vec![Some(1024); 8];
        windows[5] = None;
        assert_eq!(config.windows, windows);
        let Positions::RotaryByWindow { windowed, whole } = config.positions else {
            panic!("{:?}", config.positions)
        };
        assert_eq!((windowed.base, windowed.scaling), (1e4, RopeScaling::None));
        assert_eq!(
            (whole.base, whole.scaling),
            (1e6, RopeScaling::Linear { factor: 8.0 })
        );
    }
}
