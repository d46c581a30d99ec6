//! The architectures of llama.cpp that are read, each as the configuration and the tensor names that
//! its Hugging Face counterpart has.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::tensor::Rewritten;
use crate::{Error, Result};

/// An architecture.
pub(super) struct Arch {
    /// `general.architecture`.
    name: &'static str,
    /// `model_type` of the Hugging Face configuration.
    model_type: &'static str,
    /// Names of what is in a block, in GGUF and in Hugging Face's layout, both less `.weight` or `.bias`.
    block: &'static [Names],
    /// Whether its converter interleaves the rows of queries and keys.
    interleaved: bool,
    /// Whether its converter adds 1 to the gains of norms.
    plus_one: bool,
    /// What its configuration has besides the common part.
    special: fn(&Metadata<'_>, &Facts<'_>, &mut Map<String, Value>) -> Result<()>,
}

/// What the tensors of a file say.
pub(super) struct Facts<'a> {
    /// Number of rows of `token_embd.weight`.
    pub(super) vocabulary: usize,
    /// Whether a tensor is there.
    pub(super) has: &'a dyn Fn(&str) -> bool,
    /// Factors of `rope_freqs.weight`, by which the wave lengths of the rotation grow.
    pub(super) rope_factors: Option<&'a [f32]>,
}

const COMMON: [(&str, &str); 8] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

type Names = &'static [(&'static str, &'static str)];

const PLAIN: &[Names] = &[&COMMON, &[("ffn_norm", "post_attention_layernorm")]];

const QWEN3: &[Names] = &[
    &COMMON,
    &[
        ("ffn_norm", "post_attention_layernorm"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
    ],
];

const GEMMA_2_AND_3: &[Names] = &[
    &COMMON,
    &[
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_norm", "pre_feedforward_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
    ],
];

const PHI3: &[Names] = &[&[
    ("attn_norm", "input_layernorm"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_up", "mlp.gate_up_proj"),
    ("ffn_down", "mlp.down_proj"),
]];

const GPT2: &[Names] = &[&[
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
]];

const ARCHES: [Arch; 8] = [
    Arch::new("gemma", "gemma", PLAIN, gemma).with_plus_one(),
    Arch::new("gemma2", "gemma2", GEMMA_2_AND_3, gemma2).with_plus_one(),
    Arch::new("gemma3", "gemma3_text", GEMMA_2_AND_3, gemma3).with_plus_one(),
    Arch::new("gpt2", "gpt2", GPT2, gpt2),
    Arch::new("llama", "llama", PLAIN, llama).interleaved(),
    Arch::new("phi3", "phi3", PHI3, phi3),
    Arch::new("qwen2", "qwen2", PLAIN, nothing),
    Arch::new("qwen3", "qwen3", QWEN3, nothing),
];

impl Arch {
    const fn new(
        name: &'static str,
        model_type: &'static str,
        block: &'static [Names],
        special: fn(&Metadata<'_>, &Facts<'_>, &mut Map<String, Value>) -> Result<()>,
    ) -> Self {
        Self {
            name,
            model_type,
            block,
            interleaved: false,
            plus_one: false,
            special,
        }
    }

    const fn interleaved(mut self) -> Self {
        self.interleaved = true;
        self
    }

    const fn with_plus_one(mut self) -> Self {
        self.plus_one = true;
        self
    }

    pub(super) fn of(metadata: &Metadata<'_>) -> Result<&'static Self> {
        static ALL: [Arch; 8] = ARCHES;
        let known = ALL.iter().find(|arch| arch.name == metadata.arch);
        known.ok_or_else(|| {
            let names: Vec<&str> = ALL.iter().map(|arch| arch.name).collect();
            let found = Value::from(metadata.arch).to_string();
            metadata.unsupported("general.architecture", found, &names.join(", "))
        })
    }

    fn is_gpt2(&self) -> bool {
        self.model_type == "gpt2"
    }

    /// A tensor's name in the Hugging Face layout.
    pub(super) fn hugging_face(&self, name: &str) -> Option<String> {
        let (stem, kind) = name.rsplit_once('.')?;
        if !matches!(kind, "weight" | "bias") {
            return None;
        }
        if let Some(rest) = stem.strip_prefix("blk.") {
            let (layer, part) = rest.split_once('.')?;
            let (_, part) = self.parts().find(|(gguf, _)| *gguf == part)?;
            let blocks = if self.is_gpt2() {
                "transformer.h"
            } else {
                "model.layers"
            };
            return Some(format!("{blocks}.{layer}.{part}.{kind}"));
        }
        let top = self.top().iter().find(|(gguf, _)| *gguf == stem)?;
        Some(format!("{}.{kind}", top.1))
    }

    /// A tensor's name in GGUF.
    pub(super) fn gguf(&self, name: &str) -> Option<String> {
        let (stem, kind) = name.rsplit_once('.')?;
        if let Some((gguf, _)) = self.top().iter().find(|(_, theirs)| *theirs == stem) {
            return Some(format!("{gguf}.{kind}"));
        }
        let rest = stem
            .strip_prefix("transformer.h.")
            .or_else(|| stem.strip_prefix("model.layers."))?;
        let (layer, part) = rest.split_once('.')?;
        let (gguf, _) = self.parts().find(|(_, theirs)| *theirs == part)?;
        Some(format!("blk.{layer}.{gguf}.{kind}"))
    }

    fn parts(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        self.block.iter().copied().flatten()
    }

    fn top(&self) -> Names {
        if self.is_gpt2() {
            &[
                ("token_embd", "transformer.wte"),
                ("position_embd", "transformer.wpe"),
                ("output_norm", "transformer.ln_f"),
                ("output", "lm_head"),
            ]
        } else {
            &[
                ("token_embd", "model.embed_tokens"),
                ("output_norm", "model.norm"),
                ("output", "lm_head"),
            ]
        }
    }

    /// What the converter did to the tensor of this (GGUF) name.
    pub(super) fn rewritten(&self, name: &str, metadata: &Metadata<'_>) -> Result<Rewritten> {
        let part = name.rsplit('.').nth(1).unwrap_or_default();
        if self.interleaved && matches!(part, "attn_q" | "attn_k") {
            let heads = metadata.needed("attention.head_count")?;
            let heads = match part {
                "attn_k" => metadata.count("attention.head_count_kv")?.unwrap_or(heads),
                _ => heads,
            };
            let heads = usize::try_from(heads).unwrap_or(usize::MAX / 2);
            return Ok(Rewritten::Interleaved {
                heads: heads.clamp(1, usize::MAX / 2),
            });
        }
        let of_gpt2 = matches!(part, "attn_qkv" | "attn_output" | "ffn_up" | "ffn_down");
        if self.is_gpt2() && of_gpt2 && name.ends_with(".weight") {
            return Ok(Rewritten::Transposed);
        }
        if self.plus_one && name.ends_with("norm.weight") {
            return Ok(Rewritten::PlusOne);
        }
        Ok(Rewritten::No)
    }

    /// The configuration as a Hugging Face `config.json`.
    pub(super) fn config(
        &self,
        metadata: &Metadata<'_>,
        facts: &Facts<'_>,
    ) -> Result<Map<String, Value>> {
        // Read elsewhere, or said again by the tensors' shapes.
        for key in ["vocab_size", "tensor_data_layout", "rope.scaling.finetuned"] {
            metadata.get(&format!("{}.{key}", self.name));
        }
        // What changes a forward pass and has a neutral value.
        metadata.off(&[
            ("attention.causal", 1.0),
            ("attention.clamp_kqv", 0.0),
            ("attention.max_alibi_bias", 0.0),
            ("embedding_scale", 1.0),
            ("expert_count", 0.0),
            ("expert_used_count", 0.0),
            ("logit_scale", 1.0),
            ("residual_scale", 1.0),
        ])?;
        let mut json = Map::new();
        json.insert("model_type".into(), self.model_type.into());
        let bos = metadata.token("tokenizer.ggml.bos_token_id")?;
        if let Some(bos) = bos.filter(|&bos| (bos as usize) < facts.vocabulary) {
            json.insert("bos_token_id".into(), bos.into());
        }
        json.insert("vocab_size".into(), facts.vocabulary.into());
        let tied = !(facts.has)("output.weight");
        json.insert("tie_word_embeddings".into(), tied.into());
        if !self.is_gpt2() {
            common(metadata, facts, &mut json)?;
        }
        (self.special)(metadata, facts, &mut json)?;
        Ok(json)
    }
}

/// What all but GPT-2 have.
fn common(metadata: &Metadata<'_>, facts: &Facts<'_>, json: &mut Map<String, Value>) -> Result<()> {
    let heads = metadata.needed("attention.head_count")?;
    let width = metadata.needed("embedding_length")?;
    let d_head = match metadata.count("attention.key_length")? {
        Some(length) => length,
        None => width.checked_div(heads).unwrap_or(0),
    };
    if let Some(values) = metadata.count("attention.value_length")?
        && values != d_head
    {
        let key = format!("{}.attention.value_length", metadata.arch);
        let expected = format!("{d_head}, as keys have");
        return Err(metadata.unsupported(&key, values.to_string(), &expected));
    }
    let kv_heads = metadata.count("attention.head_count_kv")?.unwrap_or(heads);
    let number = |key: &str| {
        metadata
            .number(key)?
            .ok_or_else(|| metadata.missing(&format!("{}.{key}", metadata.arch)))
    };
    let base = metadata.number("rope.freq_base")?.unwrap_or(10_000.0);
    for (key, value) in [
        ("hidden_size", json!(width)),
        ("num_hidden_layers", json!(metadata.needed("block_count")?)),
        ("num_attention_heads", json!(heads)),
        ("num_key_value_heads", json!(kv_heads)),
        ("head_dim", json!(d_head)),
        (
            "intermediate_size",
            json!(metadata.needed("feed_forward_length")?),
        ),
        (
            "max_position_embeddings",
            json!(metadata.needed("context_length")?),
        ),
        (
            "rms_norm_eps",
            json!(number("attention.layer_norm_rms_epsilon")?),
        ),
        ("rope_theta", json!(base)),
    ] {
        json.insert(key.to_owned(), value);
    }
    rotation(metadata, facts, d_head, base, json)
}

/// The share of a head that rotates, and how the rotation is stretched.
fn rotation(
    metadata: &Metadata<'_>,
    facts: &Facts<'_>,
    d_head: u64,
    base: f64,
    json: &mut Map<String, Value>,
) -> Result<()> {
    let rotated = metadata.count("rope.dimension_count")?.unwrap_or(d_head);
    if rotated != d_head {
        if metadata.arch != "phi3" || rotated > d_head {
            let key = format!("{}.rope.dimension_count", metadata.arch);
            let expected = format!("{d_head}, the width of a head");
            return Err(metadata.unsupported(&key, rotated.to_string(), &expected));
        }
        let share = rotated as f64 / d_head as f64;
        json.insert("partial_rotary_factor".into(), share.into());
    }
    let original = metadata.count("rope.scaling.original_context_length")?;
    if metadata.arch == "phi3"
        && let Some(original) = original
    {
        json.insert("original_max_position_embeddings".into(), original.into());
    }
    let key = format!("{}.rope.scaling.type", metadata.arch);
    let kind = metadata.text(&key)?;
    let factor = match metadata.number("rope.scaling.factor")? {
        // An old name of it.
        None => metadata.number("rope.scale_linear")?,
        factor => factor,
    };
    match kind {
        None | Some("none" | "linear") => {}
        Some(other) => {
            let found = Value::from(other).to_string();
            return Err(metadata.unsupported(&key, found, "\"none\" or \"linear\""));
        }
    }
    if let Some(factor) = factor.filter(|&factor| factor != 1.0 && kind != Some("none")) {
        let scaling = json!({"rope_type": "linear", "factor": factor});
        json.insert("rope_scaling".into(), scaling);
    }
    if let Some(factors) = facts.rope_factors {
        let scaling = llama3(factors, base, d_head).ok_or_else(|| Error::Unsupported {
            path: metadata.path().to_owned(),
            key: "rope_freqs.weight".to_owned(),
            found: format!("{} factors of another rule", factors.len()),
            expected: "the factors of Llama 3's rotation (rope_type \"llama3\")".to_owned(),
        })?;
        json.insert("rope_scaling".into(), scaling);
    }
    Ok(())
}

/// The rule of Llama 3.1 and later that gives these factors. The file keeps the factors alone; the rule
/// has one number that differs between models, the largest of them.
fn llama3(factors: &[f32], base: f64, d_head: u64) -> Option<Value> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    let factor = factors.iter().copied().fold(1.0_f32, f32::max);
    let factor = f64::from(factor);
    let fits = |original: f64| {
        factors.len() as u64 == d_head / 2
            && factors.iter().enumerate().all(|(i, &stored)| {
                let wave = std::f64::consts::TAU * base.powf(2.0 * i as f64 / d_head as f64);
                let rule = if wave < original / HIGH {
                    1.0
                } else if wave > original / LOW {
                    factor
                } else {
                    let smooth = (original / wave - LOW) / (HIGH - LOW);
                    1.0 / ((1.0 - smooth) / factor + smooth)
                };
                (f64::from(stored) / rule - 1.0).abs() < 1e-4
            })
    };
    // A factor between the bounds tells the length that the rule starts from.
    let between = factors.iter().enumerate().find_map(|(i, &stored)| {
        let stored = f64::from(stored);
        let wave = std::f64::consts::TAU * base.powf(2.0 * i as f64 / d_head as f64);
        let smooth = (1.0 / stored - 1.0 / factor) / (1.0 - 1.0 / factor);
        (stored > 1.0 && stored < factor).then(|| (wave * (smooth * (HIGH - LOW) + LOW)).round())
    });
    let original = [between.unwrap_or(8192.0), 8192.0]
        .into_iter()
        .find(|&original| fits(original))?;
    Some(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW,
        "high_freq_factor": HIGH,
        "original_max_position_embeddings": original as u64,
    }))
}

#[expect(clippy::unnecessary_wraps, reason = "one signature for all")]
fn nothing(_: &Metadata<'_>, _: &Facts<'_>, _: &mut Map<String, Value>) -> Result<()> {
    Ok(())
}

fn llama(metadata: &Metadata<'_>, facts: &Facts<'_>, json: &mut Map<String, Value>) -> Result<()> {
    metadata.off(&[("attention.sliding_window", 0.0), ("attention.scale", 0.0)])?;
    for (key, tensor) in [
        ("attention_bias", "blk.0.attn_q.bias"),
        ("mlp_bias", "blk.0.ffn_gate.bias"),
    ] {
        json.insert(key.to_owned(), (facts.has)(tensor).into());
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "one signature for all")]
fn gemma(_: &Metadata<'_>, _: &Facts<'_>, json: &mut Map<String, Value>) -> Result<()> {
    json.insert("hidden_activation".into(), "gelu_pytorch_tanh".into());
    Ok(())
}

/// A window, and the scale of attention scores: √(width / heads) in the largest model of a generation,
/// which has `largest` layers, `√d_head` in the others (so llama.cpp: the file does not say).
fn gemma_2_and_3(
    metadata: &Metadata<'_>,
    window: u64,
    largest: u64,
    json: &mut Map<String, Value>,
) -> Result<()> {
    json.insert("hidden_activation".into(), "gelu_pytorch_tanh".into());
    let window = metadata
        .count("attention.sliding_window")?
        .unwrap_or(window);
    json.insert("sliding_window".into(), window.into());
    let scalar = if metadata.needed("block_count")? == largest {
        let width = metadata.needed("embedding_length")? as f64;
        json!(width / metadata.needed("attention.head_count")? as f64)
    } else {
        json["head_dim"].clone()
    };
    json.insert("query_pre_attn_scalar".into(), scalar);
    Ok(())
}

fn gemma2(metadata: &Metadata<'_>, _: &Facts<'_>, json: &mut Map<String, Value>) -> Result<()> {
    gemma_2_and_3(metadata, 4096, 46, json)?;
    for (key, theirs, default) in [
        ("attn_logit_softcapping", "attn_logit_softcapping", 50.0),
        ("final_logit_softcapping", "final_logit_softcapping", 30.0),
    ] {
        let cap = metadata.number(key)?.unwrap_or(default);
        json.insert(theirs.to_owned(), cap.into());
    }
    Ok(())
}

fn gemma3(metadata: &Metadata<'_>, _: &Facts<'_>, json: &mut Map<String, Value>) -> Result<()> {
    gemma_2_and_3(metadata, 1024, 62, json)?;
    metadata.off(&[("final_logit_softcapping", 0.0)])?;
    // Five layers with a window, one without.
    let period = metadata
        .count("attention.sliding_window_pattern")?
        .unwrap_or(6)
        .max(1);
    let layers = metadata.needed("block_count")?.min(1 << 16);
    let types: Vec<&str> = (1..=layers)
        .map(|layer| {
            if layer.is_multiple_of(period) {
                "full_attention"
            } else {
                "sliding_attention"
            }
        })
        .collect();
    json.insert("layer_types".into(), json!(types));
    let local = metadata.number("rope.freq_base_swa")?.unwrap_or(10_000.0);
    json.insert("rope_local_base_freq".into(), local.into());
    Ok(())
}

fn phi3(metadata: &Metadata<'_>, facts: &Facts<'_>, json: &mut Map<String, Value>) -> Result<()> {
    for name in ["rope_factors_long.weight", "rope_factors_short.weight"] {
        if (facts.has)(name) {
            return Err(Error::Unsupported {
                path: metadata.path().to_owned(),
                key: name.to_owned(),
                found: "factors of rope_type \"longrope\"".to_owned(),
                expected: "no such tensor, as in Phi-3 models of 4k tokens".to_owned(),
            });
        }
    }
    let window = metadata.count("attention.sliding_window")?;
    if let Some(window) = window.filter(|&window| window > 0) {
        json.insert("sliding_window".into(), window.into());
    }
    Ok(())
}

fn gpt2(metadata: &Metadata<'_>, _: &Facts<'_>, json: &mut Map<String, Value>) -> Result<()> {
    let epsilon = "attention.layer_norm_epsilon";
    let eps = metadata
        .number(epsilon)?
        .ok_or_else(|| metadata.missing(&format!("gpt2.{epsilon}")))?;
    for (key, value) in [
        ("n_embd", json!(metadata.needed("embedding_length")?)),
        ("n_head", json!(metadata.needed("attention.head_count")?)),
        ("n_layer", json!(metadata.needed("block_count")?)),
        ("n_positions", json!(metadata.needed("context_length")?)),
        ("n_inner", json!(metadata.needed("feed_forward_length")?)),
        ("layer_norm_epsilon", json!(eps)),
    ] {
        json.insert(key.to_owned(), value);
    }
    Ok(())
}
