use std::collections::BTreeMap;
use std::path::Path;

use circuitscope_files::{Entry, Writer, write_atomic};
use serde_json::{Map, Value, json};

use super::keys::{ACTIVATIONS, Keys};
use super::reader::{Reader, in_layer};
use super::{Family, Layout};
use crate::config::{Activation, DecoderConfig, Mlp};
use crate::config::{Direction, Norm, Positions};
use crate::host::Matrix;
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostNorm, HostUnembedding};
use crate::host_decoder::HostDecoder;
use crate::source::SINGLE;
use crate::{Error, Result};

/// GPT-2 in Hugging Face layout. `Conv1D` weights are stored input-first; tensor names may carry the
/// prefix `transformer.`; the unembedding is tied to the embedding unless the configuration says not.
pub(super) struct Gpt2;

/// Keys that cannot change a forward pass in evaluation mode.
const IRRELEVANT: &[&str] = &[
    "attn_pdrop",
    "embd_pdrop",
    "n_ctx",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
];

const LAYOUT: Layout = Layout {
    base: "transformer.",
    embedding: "transformer.wte.weight",
    head: "lm_head.weight",
};

impl Family for Gpt2 {
    fn name(&self) -> &'static str {
        "GPT-2"
    }

    fn model_type(&self) -> Option<&str> {
        Some("gpt2")
    }

    fn config(&self, keys: &Keys<'_>) -> Result<DecoderConfig> {
        let d_model = keys.size("n_embd")?;
        let n_heads = keys.size_assumed("n_head", 12)?;
        let n_heads = keys.divisor_or("n_head", Some(n_heads), d_model, "n_embd")?;
        let d_vocab = keys.size("vocab_size")?;
        let d_head = d_model / n_heads;
        let d_mlp = keys.size_or("n_inner", Some(4 * d_model))?;
        let activation = keys
            .choice("activation_function", &ACTIVATIONS)?
            .unwrap_or(Activation::GeluTanh);
        let scaled = keys.flag_or("scale_attn_weights", true)?;
        keys.plain_decoder()?;
        keys.never_null(&[
            "activation_function",
            "layer_norm_epsilon",
            "n_positions",
            "scale_attn_by_inverse_layer_idx",
            "scale_attn_weights",
            "tie_word_embeddings",
        ])?;
        let config = DecoderConfig {
            n_ctx: keys.size_or("n_positions", Some(1024))?,
            tied_embeddings: keys.flag_or("tie_word_embeddings", true)?,
            mlp: Some(Mlp {
                d_mlp,
                activation,
                gated: false,
            }),
            eps: keys.positive_or("layer_norm_epsilon", 1e-5)?,
            attn_scale: if scaled { (d_head as f64).sqrt() } else { 1.0 },
            scale_attn_by_inverse_layer_idx: keys
                .flag_or("scale_attn_by_inverse_layer_idx", false)?,
            bos_token: keys.bos_token(d_vocab)?,
            ..DecoderConfig::gpt2(keys.layers("n_layer")?, n_heads, d_model, 1, d_vocab)
        };
        keys.finish(IRRELEVANT)?;
        Ok(config)
    }

    fn layout(&self) -> Option<Layout> {
        Some(LAYOUT)
    }

    fn embedding(&self, reader: Reader<'_>) -> HostEmbedding {
        let DecoderConfig {
            d_vocab,
            d_model,
            n_ctx,
            ..
        } = *reader.config;
        HostEmbedding {
            w_e: reader.matrix("transformer.wte.weight", d_vocab, d_model),
            w_pos: Some(reader.matrix("transformer.wpe.weight", n_ctx, d_model)),
        }
    }

    fn attention(&self, reader: Reader<'_>, layer: usize) -> HostAttention {
        let d = reader.config.d_model;
        let at = |name: &str| format!("transformer.h.{layer}.{name}");
        HostAttention {
            ln1: Some(reader.layer_norm(&at("ln_1"))),
            w_qkv: reader.matrix(&at("attn.c_attn.weight"), d, 3 * d),
            b_qkv: reader.vector(&at("attn.c_attn.bias"), 3 * d),
            qk_norm: None,
            w_o: reader.matrix(&at("attn.c_proj.weight"), d, d),
            b_o: reader.vector(&at("attn.c_proj.bias"), d),
            ln1_post: None,
        }
    }

    fn mlp(&self, reader: Reader<'_>, layer: usize) -> Option<HostMlp> {
        let (d, d_mlp) = (reader.config.d_model, reader.config.mlp?.d_mlp);
        let at = |name: &str| format!("transformer.h.{layer}.{name}");
        Some(HostMlp {
            ln2: Some(reader.layer_norm(&at("ln_2"))),
            gate: None,
            w_in: reader.matrix(&at("mlp.c_fc.weight"), d, d_mlp),
            b_in: reader.vector(&at("mlp.c_fc.bias"), d_mlp),
            w_out: reader.matrix(&at("mlp.c_proj.weight"), d_mlp, d),
            b_out: reader.vector(&at("mlp.c_proj.bias"), d),
            ln2_post: None,
        })
    }

    fn unembedding(&self, reader: Reader<'_>) -> HostUnembedding {
        HostUnembedding {
            ln_final: Some(reader.layer_norm("transformer.ln_f")),
            w_u: reader.untied("lm_head.weight"),
            b_u: None,
        }
    }

    fn prepends_bos(&self, _json: &Map<String, Value>) -> Option<bool> {
        Some(true)
    }

    /// Causal masks that old checkpoints carry, and the copy of the tied embedding.
    fn is_leftover(&self, name: &str) -> bool {
        let name = name.strip_prefix("transformer.").unwrap_or(name);
        let mask = in_layer(name, "h.");
        matches!(mask, Some("attn.bias" | "attn.masked_bias")) || name == "lm_head.weight"
    }
}

/// Writes a raw model of GPT-2's architecture as a Hugging Face folder: `config.json` and
/// `model.safetensors` (f32). The unembedding is tied if it was and still equals the embedding.
pub(crate) fn save(config: &DecoderConfig, weights: &HostDecoder, folder: &Path) -> Result<()> {
    let no = |reason: &str| Error::Save {
        layout: "GPT-2",
        reason: reason.to_owned(),
    };
    let mlp = config.mlp.ok_or_else(|| no("it has no MLP"))?;
    let activation = ACTIVATIONS
        .iter()
        .find(|(_, a)| *a == mlp.activation)
        .map_or("gelu_new", |(name, _)| name);
    let scaled = config.attn_scale == (config.d_head as f64).sqrt();
    let is_gpt2 = config.norm == Norm::Layer
        && config.positions == Positions::Learned
        && config.direction == Direction::Causal
        && config.d_head * config.n_heads == config.d_model
        && config.d_vocab == config.d_vocab_out
        && !mlp.gated
        && config.n_key_value_heads == config.n_heads
        && !config.parallel_attn_mlp
        && !config.norm_after
        && !config.qk_norm
        && config.windows.is_empty()
        && config.embed_scale == 1.0
        && config.attn_scores_soft_cap.is_none()
        && config.output_logits_soft_cap.is_none()
        && (scaled || config.attn_scale == 1.0);
    if !is_gpt2 {
        return Err(no(
            "only raw causal models with LayerNorm and learned positions fit",
        ));
    }
    let HostUnembedding { ln_final, w_u, b_u } = &weights.unembedding;
    if b_u
        .as_ref()
        .is_some_and(|b_u| b_u.iter().any(|&b| b != 0.0))
    {
        return Err(no("its unembedding has a bias"));
    }
    let w_e = &weights.embedding.w_e;
    let head = w_u.as_ref().map_or_else(|| w_e.clone(), Matrix::transposed);
    let tied = config.tied_embeddings && head == *w_e;
    let json = json!({
        "activation_function": activation,
        "architectures": ["GPT2LMHeadModel"],
        "bos_token_id": config.bos_token,
        "eos_token_id": config.bos_token,
        "layer_norm_epsilon": config.eps,
        "model_type": "gpt2",
        "n_embd": config.d_model,
        "n_head": config.n_heads,
        "n_inner": mlp.d_mlp,
        "n_layer": config.n_layers,
        "n_positions": config.n_ctx,
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
        "scale_attn_weights": scaled,
        "tie_word_embeddings": tied,
        "torch_dtype": "float32",
        "vocab_size": config.d_vocab,
    });
    let text = format!("{json:#}\n");
    let mut tensors: BTreeMap<String, (Vec<usize>, &[f32])> = BTreeMap::new();
    if !tied {
        let shape = vec![head.rows, head.cols];
        tensors.insert("lm_head.weight".to_owned(), (shape, &head.data));
    }
    fill(&mut tensors, weights, ln_final.as_ref());
    write_atomic(&folder.join("config.json"), |out| {
        out.write_all(text.as_bytes())
    })?;
    let entries = tensors.iter();
    let entries = entries.map(|(name, (shape, _))| Entry::of::<f32>(name.as_str(), shape));
    let path = folder.join(SINGLE);
    let mut file = Writer::create_for_others(&path, entries.collect(), "format", "pt")?;
    for (name, (_, data)) in &tensors {
        file.fill(name, data)?;
    }
    Ok(file.finish()?)
}

fn fill<'w>(
    tensors: &mut BTreeMap<String, (Vec<usize>, &'w [f32])>,
    weights: &'w HostDecoder,
    ln_final: Option<&'w HostNorm>,
) {
    let mut matrix = |name: String, m: &'w Matrix| {
        tensors.insert(
            format!("transformer.{name}.weight"),
            (vec![m.rows, m.cols], &m.data),
        );
    };
    matrix("wte".to_owned(), &weights.embedding.w_e);
    if let Some(w_pos) = &weights.embedding.w_pos {
        matrix("wpe".to_owned(), w_pos);
    }
    for (l, block) in weights.blocks.iter().enumerate() {
        matrix(format!("h.{l}.attn.c_attn"), &block.attention.w_qkv);
        matrix(format!("h.{l}.attn.c_proj"), &block.attention.w_o);
        if let Some(mlp) = &block.mlp {
            matrix(format!("h.{l}.mlp.c_fc"), &mlp.w_in);
            matrix(format!("h.{l}.mlp.c_proj"), &mlp.w_out);
        }
    }
    let mut vector = |name: String, v: &'w [f32]| {
        tensors.insert(format!("transformer.{name}"), (vec![v.len()], v));
    };
    let mut norms: Vec<(String, &HostNorm)> = Vec::new();
    for (l, block) in weights.blocks.iter().enumerate() {
        vector(format!("h.{l}.attn.c_attn.bias"), &block.attention.b_qkv);
        vector(format!("h.{l}.attn.c_proj.bias"), &block.attention.b_o);
        if let Some(mlp) = &block.mlp {
            vector(format!("h.{l}.mlp.c_fc.bias"), &mlp.b_in);
            vector(format!("h.{l}.mlp.c_proj.bias"), &mlp.b_out);
        }
        let ln1 = block.attention.ln1.as_ref();
        norms.extend(ln1.map(|norm| (format!("h.{l}.ln_1"), norm)));
        let ln2 = block.mlp.as_ref().and_then(|mlp| mlp.ln2.as_ref());
        norms.extend(ln2.map(|norm| (format!("h.{l}.ln_2"), norm)));
    }
    norms.extend(ln_final.map(|norm| ("ln_f".to_owned(), norm)));
    for (name, norm) in norms {
        vector(format!("{name}.weight"), &norm.w);
        if let Some(b) = &norm.b {
            vector(format!("{name}.bias"), b);
        }
    }
}
