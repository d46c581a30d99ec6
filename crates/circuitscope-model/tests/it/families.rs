//! Every family against Hugging Face and TransformerLens on the committed golden models
//! (`golden/families/make.py`), and the options that are refused. `cargo xtask parity` prints the
//! differences.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use circuitscope_core::Exec;
use circuitscope_hooks::Site;
use circuitscope_model::{Error, Processing, TokenBatch, family_names};
use circuitscope_testkit::{Golden, Values, assert_close_named, device};
use serde_json::{Value, json};

use crate::folder::ModelFolder;
use crate::{B, PARITY, capture, check_sites, golden_folder, load, right_padded, try_load};

/// Folder, sites recorded from TransformerLens raw and processed, and from Hugging Face.
const MODELS: [(&str, [usize; 3]); 16] = [
    ("gemma", [44, 21, 0]),
    ("gemma2", [54, 21, 0]),
    ("gemma3", [0, 0, 0]),
    ("gemma3_text", [0, 0, 30]),
    ("gpt_neox", [42, 21, 0]),
    ("gpt_neox_sequential", [42, 0, 0]),
    ("gptj", [40, 21, 0]),
    ("llama", [46, 21, 0]),
    ("llama_biases", [0, 0, 20]),
    ("llama_rope_linear", [0, 0, 20]),
    ("llama_rope_llama3", [44, 0, 0]),
    ("mistral", [44, 0, 0]),
    ("opt", [39, 21, 0]),
    ("phi3", [44, 21, 0]),
    ("qwen2", [44, 21, 0]),
    ("qwen3", [44, 21, 0]),
];

fn folder(name: &str) -> std::path::PathBuf {
    golden_folder("families").join(name)
}

#[test]
fn every_family_matches_what_others_compute() {
    for (name, recorded) in MODELS {
        let golden = Golden::read(&folder(name).join("reference.safetensors"));
        let batch = right_padded(&golden.tokens("input_ids"));
        let model = load(&folder(name), Processing::Raw);
        let logits = Values::from(model.logits(&batch));
        let expected = golden.floats("hf.logits");
        assert_close_named(&format!("{name} hf.logits"), &logits, expected, PARITY);
        let folded = load(&folder(name), Processing::Folded);
        let found = [
            check_sites(name, &model, &golden, "tl_raw.", &batch),
            check_sites(name, &folded, &golden, "tl_processed.", &batch),
            hugging_face_sites(name, &model, &golden, &batch),
        ];
        assert_eq!(found, recorded, "{name}: recorded sites");
        // Without steps in place the numbers are made of other operations.
        let serial = [model.clone(), folded.clone()].map(|model| model.with_exec(Exec::serial()));
        check_sites(name, &serial[0], &golden, "tl_raw.", &batch);
        check_sites(name, &serial[1], &golden, "tl_processed.", &batch);
        hugging_face_sites(name, &serial[0], &golden, &batch);
        let label = format!("{name} hf.logits by operations of the device");
        let logits = Values::from(serial[0].logits(&batch));
        assert_close_named(&label, &logits, expected, PARITY);
        // Folding moves numbers between sites and keeps what the model says.
        let said = |logits| Values::from(log_softmax(logits, 2));
        let (raw, folded) = (said(model.logits(&batch)), said(folded.logits(&batch)));
        assert_close_named(&format!("{name} folded"), &folded, &raw, PARITY);
    }
}

/// `mlp.hook_in` is what the weights of the file multiply, raw weights with the gain of the norm in it; of folded ones it is the
/// norm's output.
#[test]
fn mlps_read_what_their_weights_multiply() {
    let torch = |w: Tensor<B, 2>| w.swap_dims(0, 1);
    for (name, weight, bias) in [
        ("llama", "model.layers.1.mlp.gate_proj.weight", None),
        ("gemma2", "model.layers.1.mlp.gate_proj.weight", None),
        (
            "gpt_neox",
            "gpt_neox.layers.1.mlp.dense_h_to_4h.weight",
            Some("gpt_neox.layers.1.mlp.dense_h_to_4h.bias"),
        ),
    ] {
        let golden = Golden::read(&folder(name).join("reference.safetensors"));
        let batch = right_padded(&golden.tokens("input_ids"));
        let model = load(&folder(name), Processing::Raw);
        let sites = [Site::MlpHookIn(1), Site::MlpPre(1)];
        let seen = capture(&model, &batch, sites);
        let file = Golden::read(&folder(name).join("model.safetensors"));
        let w = torch(file.floats(weight).tensor());
        let made = seen[&sites[0]].tensor::<3>().matmul(w.unsqueeze_dim(0));
        let made = match bias {
            Some(bias) => made + file.floats(bias).tensor::<1>().unsqueeze(),
            None => made,
        };
        assert_close_named(name, &Values::from(made), &seen[&sites[1]], PARITY);
    }
}

/// What `w_v` and `b_v` make of the norm's output is what the pass calls values, head by head.
#[test]
fn values_are_made_by_w_v() {
    for (name, _) in MODELS {
        let model = load(&folder(name), Processing::Folded);
        let golden = Golden::read(&folder(name).join("reference.safetensors"));
        let batch = right_padded(&golden.tokens("input_ids"));
        let sites = [
            Site::Ln1Normalized(1),
            Site::V(1),
            Site::Ln2Normalized(1),
            Site::MlpHookIn(1),
        ];
        let seen = capture(&model, &batch, sites);
        // [batch, 1, pos, d_model] x [1, kv_head, d_model, d_head]
        let x = seen[&sites[0]].tensor::<3>().unsqueeze_dim::<4>(1);
        let values = x.matmul(model.w_v(1).unsqueeze_dim(0)).swap_dims(1, 2);
        let values = values + model.b_v(1).unsqueeze::<4>();
        assert_close_named(name, &Values::from(values), &seen[&sites[1]], PARITY);
        assert_close_named(name, &seen[&sites[2]], &seen[&sites[3]], 0.0);
    }
}

/// `hf.blocks.*`: sites as Hugging Face computes them.
fn hugging_face_sites(
    name: &str,
    model: &circuitscope_model::Decoder<B>,
    golden: &Golden,
    batch: &TokenBatch<B>,
) -> usize {
    let expected: BTreeMap<Site, &Values> = golden
        .floats_under("hf.")
        .filter(|(site, _)| site.starts_with("blocks."))
        .map(|(site, values)| (site.parse().unwrap(), values))
        .collect();
    let actual = capture(model, batch, expected.keys().copied());
    for (site, expected) in &expected {
        let label = format!("{name} hf.{site}");
        assert_close_named(&label, &actual[site], expected, PARITY);
    }
    expected.len()
}

/// Rows of 10, 7 and 3 real tokens: rotations and windows count from the first of them.
#[test]
fn padded_rows_match_hugging_face() {
    let mut compared = 0;
    for (name, _) in MODELS {
        let golden = Golden::read(&folder(name).join("reference.safetensors"));
        for side in ["leftpad", "rightpad"] {
            let Some((_, expected)) = golden
                .floats_under(&format!("{side}."))
                .find(|(name, _)| *name == "hf.logits")
            else {
                continue;
            };
            let tokens = golden.tokens(&format!("{side}.input_ids"));
            let mask = golden.mask(&format!("{side}.attention_mask"));
            let batch = TokenBatch::from_masked(&tokens, &mask, &device()).unwrap();
            let logits = Values::from(load(&folder(name), Processing::Raw).logits(&batch));
            for (row, mask) in mask.iter().enumerate() {
                let first = mask.iter().position(|&real| real == 1).unwrap();
                let end = first + mask.iter().map(|&real| usize::from(real)).sum::<usize>();
                let real = |values: &Values| values.row(row).slice(0, first, end);
                let label = format!("{name} {side} row {row}");
                assert_close_named(&label, &real(&logits), &real(expected), PARITY);
                compared += 1;
            }
        }
    }
    assert!(compared >= 18, "{compared} rows");
}

/// The configuration as transformers 5 writes it loads as the same model.
#[test]
fn configurations_of_transformers_5() {
    let mut checked = 0;
    for (name, _) in MODELS {
        let Ok(v5) = fs_err::read(folder(name).join("config.v5.json")) else {
            continue;
        };
        let copy = ModelFolder::copy_of(&folder(name));
        copy.write("config.json", &v5);
        let config = |folder| load(folder, Processing::Raw).config().clone();
        assert_eq!(config(copy.path()), config(&folder(name)), "{name}");
        checked += 1;
    }
    assert!(checked >= 4, "{checked} configurations");
}

#[test]
fn every_family_has_a_golden_model() {
    let of = |name: &str| -> String {
        let json = fs_err::read(folder(name).join("config.json")).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        json["model_type"].as_str().unwrap().to_owned()
    };
    let golden: Vec<String> = MODELS.iter().map(|(name, _)| of(name)).collect();
    for (model_type, name) in family_names() {
        let tested = model_type == "gpt2" || golden.iter().any(|of| of == model_type);
        assert!(tested, "{name}: no golden model");
    }
}

/// What is not implemented is refused by name, never ignored.
#[test]
fn options_that_are_not_implemented() {
    let rope = |kind: &str| json!({"rope_type": kind, "factor": 2.0});
    for (name, key, value, named) in [
        (
            "llama",
            "rope_scaling",
            rope("yarn"),
            "rope_scaling.rope_type",
        ),
        (
            "llama",
            "rope_scaling",
            rope("dynamic"),
            "rope_scaling.rope_type",
        ),
        (
            "phi3",
            "rope_scaling",
            json!({"type": "longrope"}),
            "rope_scaling.type",
        ),
        ("llama", "rope_scaling", json!(3), "rope_scaling"),
        ("llama", "rope_theta", json!(0), "rope_theta"),
        (
            "llama",
            "partial_rotary_factor",
            json!(0.5),
            "partial_rotary_factor",
        ),
        (
            "llama",
            "num_key_value_heads",
            json!(3),
            "num_key_value_heads",
        ),
        ("llama", "sliding_window", json!(4), "sliding_window"),
        ("llama", "hidden_act", json!("mish"), "hidden_act"),
        (
            "llama",
            "quantization_config",
            json!({"bits": 4}),
            "quantization_config.quant_method",
        ),
        (
            "llama",
            "num_hidden_layers",
            json!(1u32 << 30),
            "num_hidden_layers",
        ),
        ("mistral", "attention_bias", json!(true), "attention_bias"),
        (
            "mistral",
            "layer_types",
            json!(["full_attention"]),
            "layer_types",
        ),
        (
            "mistral",
            "layer_types",
            json!(["full_attention", "chunked_attention"]),
            "layer_types",
        ),
        ("gemma", "hidden_act", json!("silu"), "hidden_act"),
        (
            "gemma2",
            "use_bidirectional_attention",
            json!(true),
            "use_bidirectional_attention",
        ),
        (
            "gemma3_text",
            "attn_logit_softcapping",
            json!(50.0),
            "attn_logit_softcapping",
        ),
        (
            "gemma3_text",
            "use_bidirectional_attention",
            json!(true),
            "use_bidirectional_attention",
        ),
        (
            "gemma3_text",
            "rope_parameters",
            json!({"full_attention": {"rope_type": "linear"}}),
            "rope_scaling",
        ),
        (
            "gemma3_text",
            "hidden_activation",
            json!("gelu"),
            "hidden_activation",
        ),
        ("gemma3", "text_config", json!([]), "text_config"),
        (
            "gpt_neox",
            "rotary_pct",
            json!(0.01),
            "partial_rotary_factor",
        ),
        ("gpt_neox", "rope_theta", json!(5.0), "rope_theta"),
        ("gptj", "rotary_dim", json!(3), "rotary_dim"),
        (
            "gptj",
            "tie_word_embeddings",
            json!(true),
            "tie_word_embeddings",
        ),
        (
            "opt",
            "do_layer_norm_before",
            json!(false),
            "do_layer_norm_before",
        ),
        (
            "opt",
            "word_embed_proj_dim",
            json!(8),
            "word_embed_proj_dim",
        ),
    ] {
        let copy = ModelFolder::copy_of(&folder(name));
        copy.edit_config(|config| {
            config.insert(key.into(), value.clone());
        });
        match try_load(copy.path(), Processing::Raw) {
            Err(Error::Unsupported { key: found, .. }) => {
                assert_eq!(found, named, "{name}: {key} = {value}");
            }
            other => panic!("{name}: {key} = {value}: {:?}", other.map(drop)),
        }
    }
}

#[test]
fn rope_scaling_that_lacks_a_number() {
    let copy = ModelFolder::copy_of(&folder("llama_rope_llama3"));
    copy.edit_config(|config| {
        let scaling = config["rope_scaling"].as_object_mut().unwrap();
        scaling.remove("high_freq_factor");
    });
    let error = try_load(copy.path(), Processing::Raw)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("key `rope_scaling.high_freq_factor` is missing"),
        "{error}"
    );
    copy.edit_config(|config| {
        let scaling = config["rope_scaling"].as_object_mut().unwrap();
        scaling.insert("high_freq_factor".into(), json!(4.0));
        scaling.insert("mystery".into(), json!(1));
    });
    let loaded = try_load(copy.path(), Processing::Raw).unwrap();
    let notes = loaded.provenance.notes;
    assert!(
        notes.len() == 1 && notes[0].contains("`rope_scaling.mystery`"),
        "{notes:?}"
    );
}

/// transformers 4 and 5 name the text part of a model that sees images differently.
#[test]
fn names_of_the_text_part() {
    let golden = Golden::read(&folder("gemma3").join("reference.safetensors"));
    let batch = right_padded(&golden.tokens("input_ids"));
    let copy = ModelFolder::copy_of(&folder("gemma3"));
    copy.edit_tensors(|tensors| {
        let renamed = core::mem::take(tensors).into_iter().map(|(name, tensor)| {
            let name = name.replace("language_model.model.", "language_model.");
            (format!("model.{name}"), tensor)
        });
        *tensors = renamed.collect();
    });
    let model = load(copy.path(), Processing::Raw);
    let logits = Values::from(model.logits(&batch));
    assert_close_named("renamed", &logits, golden.floats("hf.logits"), PARITY);
}

/// A pickle that cannot be read gets the command that converts it.
#[test]
fn pickles_are_refused() {
    let copy = ModelFolder::copy_of(&folder("llama"));
    copy.remove("model.safetensors");
    copy.write("pytorch_model.bin", b"\x80\x02");
    let error = try_load(copy.path(), Processing::Raw).unwrap_err();
    assert!(matches!(error, Error::Pickle { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("pytorch_model.bin"), "{message}");
    assert!(message.contains("save_pretrained"), "{message}");
}
