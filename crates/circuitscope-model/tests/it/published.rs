//! Configurations and weights as they are published: keys that nobody reads, keys that are absent or null, tied and
//! prefixed tensors.

use std::collections::BTreeSet;

use circuitscope_model::{Decoder, Error, LoadSettings, Loaded, Processing, load_dir};
use circuitscope_testkit::{Golden, Values, assert_close_named, device};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::folder::{ModelFolder, Stored};
use crate::{B, PARITY, golden_folder, right_padded, try_load};

fn golden(name: &str) -> ModelFolder {
    match name {
        "gpt2_tiny" => ModelFolder::copy_of(&golden_folder(name)),
        _ => ModelFolder::copy_of(&golden_folder("families").join(name)),
    }
}

fn raw(folder: &ModelFolder) -> Loaded<B> {
    try_load(folder.path(), Processing::Raw).unwrap()
}

fn message(folder: &ModelFolder) -> String {
    match try_load(folder.path(), Processing::Raw) {
        Ok(_) => panic!("loaded"),
        Err(error) => error.to_string(),
    }
}

fn logits(model: &Decoder<B>, tokens: &[Vec<u32>]) -> Values {
    Values::from(model.logits(&right_padded(tokens)))
}

/// Keys in published configurations that no version of transformers reads: of `SmolLM2`, unsloth, gpt2-medium, gpt2-xl,
/// distilgpt2, TRL, Galactica.
#[test]
fn unknown_keys_are_named_together_and_do_not_stop() {
    let harmless = [
        ("_num_labels", json!(1)),
        ("is_llama_config", json!(true)),
        ("learned_embeddings", json!(true)),
        ("n_special", json!(0)),
        ("neftune_noise_alpha", json!(5)),
        ("output_past", json!(true)),
        ("predict_special_tokens", json!(true)),
        ("rope_interleaved", json!(false)),
        ("scale_embeddings", json!(false)),
        (
            "transformers.js_config",
            json!({"kv_cache_dtype": {"q4f16": "float16"}}),
        ),
        ("unsloth_fixed", json!(true)),
    ];
    for name in ["gpt2_tiny", "llama", "opt", "gpt_neox"] {
        let folder = golden(name);
        assert_eq!(
            raw(&folder).provenance.notes,
            Vec::<String>::new(),
            "{name}"
        );
        folder.edit_config(|config| config.extend(harmless.clone().map(|(k, v)| (k.into(), v))));
        let loaded = raw(&folder);
        assert_eq!(loaded.model.config(), raw(&golden(name)).model.config());
        let [note] = loaded.provenance.notes.as_slice() else {
            panic!("{name}: {:?}", loaded.provenance.notes);
        };
        for key in [
            "is_llama_config",
            "n_special",
            "transformers.js_config",
            "unsloth_fixed",
        ] {
            assert!(note.contains(&format!("`{key}`")), "{name}: {note}");
        }
        // At values that change nothing there is nothing to say.
        assert!(!note.contains("rope_interleaved"), "{name}: {note}");

        let strict = LoadSettings::from(Processing::Raw).with_strict_config(true);
        let refused = load_dir::<B>(
            folder.path(),
            strict,
            &device(),
            &circuitscope_core::NoProgress,
        );
        match refused {
            Err(Error::UnknownKeys { path, keys }) => {
                assert!(path.ends_with("config.json"));
                assert!(keys.len() >= 6, "{keys:?}");
            }
            other => panic!("{name}: {:?}", other.map(drop)),
        }
    }
}

#[test]
fn a_misspelt_key_is_named_with_the_one_it_is_near() {
    for (name, key, near) in [
        ("gpt2_tiny", "layer_norm_eps", "layer_norm_epsilon"),
        ("llama", "rope_thetas", "rope_theta"),
    ] {
        let folder = golden(name);
        folder.edit_config(|config| drop(config.insert(key.into(), json!(2))));
        let notes = raw(&folder).provenance.notes;
        let expected = format!("`{key}` (did you mean `{near}`?)");
        assert!(
            notes.len() == 1 && notes[0].contains(&expected),
            "{notes:?}"
        );
    }
}

/// A key that changes the forward pass of some model is refused where it is not read, unless it says nothing.
#[test]
fn keys_that_would_change_the_model() {
    for (name, key, value) in [
        ("gpt2_tiny", "alibi", json!(true)),
        (
            "gpt2_tiny",
            "position_embedding_type",
            json!("relative_key"),
        ),
        ("gpt2_tiny", "rope_theta", json!(1e4)),
        ("llama", "logit_scale", json!(0.0625)),
        ("llama", "residual_multiplier", json!(0.22)),
        ("llama", "attention_multiplier", json!(0.015_625)),
        ("llama", "embedding_multiplier", json!(12)),
        ("llama", "num_local_experts", json!(8)),
        ("llama", "attn_logit_softcapping", json!(50.0)),
        ("llama", "final_logit_softcapping", json!(30.0)),
        ("llama", "clip_qkv", json!(8.0)),
        ("llama", "rope_interleaved", json!(true)),
        (
            "llama",
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
        ),
        ("llama", "sliding_window", json!(4096)),
        ("mistral", "num_experts", json!(4)),
        ("opt", "scale_embeddings", json!(true)),
        ("gpt_neox", "use_qk_norm", json!(true)),
    ] {
        let folder = golden(name);
        folder.edit_config(|config| drop(config.insert(key.into(), value.clone())));
        let found = message(&folder);
        assert!(
            found.contains(&format!("{key} = {value} is not supported")),
            "{found}"
        );
        folder.edit_config(|config| drop(config.insert(key.into(), Value::Null)));
        assert_eq!(
            raw(&folder).provenance.notes,
            Vec::<String>::new(),
            "{key} null"
        );
    }
    let folder = golden("llama");
    folder.edit_config(|config| {
        for (key, value) in [
            ("alibi", json!(false)),
            ("embedding_multiplier", json!(1.0)),
            ("layer_types", json!(["full_attention", "full_attention"])),
            ("num_local_experts", json!(0)),
            ("residual_multiplier", json!(1)),
        ] {
            config.insert(key.into(), value);
        }
    });
    assert_eq!(raw(&folder).provenance.notes, Vec::<String>::new());
}

#[derive(Deserialize)]
struct Absent {
    tokens: Vec<Vec<u32>>,
    same: Vec<String>,
    refused: Vec<String>,
}

/// Keys of GPT-2's configuration whose null changes nothing, though transformers does not take it.
const HARMLESS_NULL: [&str; 2] = [
    "gpt2_tiny/add_cross_attention/null",
    "gpt2_tiny/return_dict/null",
];

/// A quarter of heads of six is no whole number of pairs: transformers rotates something, here it is refused.
const ODD: [&str; 2] = [
    "gpt_neox/rotary_pct/absent",
    "gpt_neox_sequential/rotary_pct/absent",
];

/// Every key of every golden model left out and set to null in turn, against transformers
/// (`golden/families/absent.py`).
#[test]
fn keys_that_are_absent_or_null_mean_what_they_mean_in_transformers() {
    let folder = golden_folder("families");
    let lists = fs_err::read(folder.join("absent.json")).unwrap();
    let lists: Absent = serde_json::from_slice(&lists).unwrap();
    let changed = Golden::read(&folder.join("absent.safetensors"));
    let edited = |label: &str| {
        let [name, key, kind] = label.split('/').collect::<Vec<_>>().try_into().unwrap();
        let folder = golden(name);
        folder.edit_config(|config| match kind {
            "absent" => assert!(config.remove(key).is_some(), "{label}"),
            _ => drop(config.insert(key.into(), Value::Null)),
        });
        (name.to_owned(), folder)
    };
    for label in &lists.same {
        let (name, folder) = edited(label);
        let model = try_load(folder.path(), Processing::Raw);
        let model = model
            .unwrap_or_else(|error| panic!("{label}: {error}"))
            .model;
        let whole = raw(&golden(&name)).model;
        let expected = logits(&whole, &lists.tokens);
        assert_close_named(label, &logits(&model, &lists.tokens), &expected, 0.0);
    }
    let mut compared = 0;
    for (label, expected) in changed.floats_under("") {
        let (_, folder) = edited(label);
        if ODD.contains(&label) {
            assert!(message(&folder).contains("an even number"), "{label}");
            continue;
        }
        let model = try_load(folder.path(), Processing::Raw);
        let model = model
            .unwrap_or_else(|error| panic!("{label}: {error}"))
            .model;
        assert_close_named(label, &logits(&model, &lists.tokens), expected, PARITY);
        compared += 1;
    }
    assert!(compared >= 25, "{compared}");
    let taken = |label: &&String| {
        let (_, folder) = edited(label);
        try_load(folder.path(), Processing::Raw).is_ok()
    };
    let taken: Vec<&String> = lists.refused.iter().filter(taken).collect();
    assert_eq!(taken, HARMLESS_NULL);
}

/// Windows do not show in short prompts.
#[test]
fn windows_that_nobody_mentions() {
    let windows = |name: &str, edits: &[(&str, Value)]| {
        let folder = golden(name);
        folder.edit_config(|config| {
            for key in ["sliding_window", "layer_types"] {
                config.remove(key);
            }
            config.extend(
                edits
                    .iter()
                    .cloned()
                    .map(|(key, value)| (key.into(), value)),
            );
        });
        let loaded = raw(&folder);
        let said = loaded.provenance.notes.iter();
        let said = said
            .filter(|note| note.contains("`sliding_window`"))
            .count();
        let windows: BTreeSet<Option<usize>> =
            loaded.model.config().windows.iter().copied().collect();
        (windows.into_iter().collect::<Vec<_>>(), said)
    };
    let whole = Some(4096);
    assert_eq!(windows("mistral", &[]), (vec![whole], 1));
    assert_eq!(
        windows("mistral", &[("sliding_window", Value::Null)]),
        (vec![], 0)
    );
    assert_eq!(windows("gemma2", &[]), (vec![None, whole], 1));
    assert_eq!(windows("phi3", &[]), (vec![], 0));
    assert_eq!(windows("qwen2", &[]), (vec![], 0));
    let late = [
        ("use_sliding_window", json!(true)),
        ("max_window_layers", json!(1)),
    ];
    assert_eq!(windows("qwen2", &late), (vec![None, whole], 1));
    assert_eq!(windows("qwen3", &late), (vec![None, whole], 1));
    let null = [late.as_slice(), &[("sliding_window", Value::Null)]].concat();
    assert_eq!(windows("qwen2", &null), (vec![], 0));
}

#[test]
fn soft_caps_that_nobody_mentions() {
    let folder = golden("gemma2");
    folder.edit_config(|config| {
        config.remove("attn_logit_softcapping");
        config.remove("final_logit_softcapping");
    });
    let loaded = raw(&folder);
    let config = loaded.model.config();
    assert_eq!(config.attn_scores_soft_cap, Some(50.0));
    assert_eq!(config.output_logits_soft_cap, Some(30.0));
    assert_eq!(
        loaded.provenance.notes.len(),
        2,
        "{:?}",
        loaded.provenance.notes
    );
}

/// Gemma 1 was published with `gelu` for the tanh form.
#[test]
fn the_activation_of_published_gemma() {
    let base = golden("gemma");
    let expected = raw(&base).model.config().clone();
    for (act, activation) in [
        (json!("gelu"), Some(json!("gelu_pytorch_tanh"))),
        (json!("gelu"), Some(Value::Null)),
        (json!("gelu"), None),
        (json!("gelu_pytorch_tanh"), None),
    ] {
        let folder = golden("gemma");
        folder.edit_config(|config| {
            config.remove("hidden_activation");
            config.insert("hidden_act".into(), act.clone());
            config.extend(
                activation
                    .clone()
                    .map(|value| ("hidden_activation".into(), value)),
            );
        });
        let loaded = raw(&folder);
        assert_eq!(*loaded.model.config(), expected, "{act} {activation:?}");
        let notes = loaded.provenance.notes.len();
        assert_eq!(
            notes,
            usize::from(act == json!("gelu")),
            "{act} {activation:?}"
        );
    }
    let folder = golden("gemma");
    folder.edit_config(|config| drop(config.insert("hidden_activation".into(), json!("gelu"))));
    assert!(message(&folder).contains("hidden_activation = \"gelu\""));
}

/// `tie_word_embeddings` against what is stored, as transformers 5 resolves it.
#[test]
fn what_the_weights_say_of_tied_embeddings() {
    const EMBEDDING: &str = "model.embed_tokens.weight";
    const HEAD: &str = "lm_head.weight";
    let tokens = vec![vec![1, 2, 3, 4, 5]];
    // The golden Llama has a head of its own.
    let own = golden("llama");
    let untied = logits(&raw(&own).model, &tokens);
    own.edit_config(|config| drop(config.insert("tie_word_embeddings".into(), json!(true))));
    let loaded = raw(&own);
    assert_close_named("own head", &logits(&loaded.model, &tokens), &untied, 0.0);
    assert!(!loaded.model.config().tied_embeddings);
    let [note] = loaded.provenance.notes.as_slice() else {
        panic!("{:?}", loaded.provenance.notes);
    };
    assert!(
        note.contains(HEAD) && note.contains("other values"),
        "{note}"
    );

    // The embedding under the head's name, under both, and under its own.
    let stored = |names: &'static [&'static str]| {
        let folder = golden("llama");
        folder.edit_config(|config| drop(config.insert("tie_word_embeddings".into(), json!(true))));
        folder.edit_tensors(|tensors| {
            tensors.remove(HEAD).unwrap();
            let embedding: Stored = tensors.remove(EMBEDDING).unwrap();
            for name in names {
                tensors.insert((*name).into(), embedding.clone());
            }
        });
        let loaded = raw(&folder);
        let folded = try_load(folder.path(), Processing::Folded).unwrap();
        (
            logits(&loaded.model, &tokens),
            loaded.provenance.notes,
            folded,
        )
    };
    let (expected, notes, _) = stored(&[EMBEDDING]);
    assert_eq!(notes, Vec::<String>::new());
    let (both, notes, _) = stored(&[EMBEDDING, HEAD]);
    assert_eq!(notes, Vec::<String>::new());
    assert_close_named("both", &both, &expected, 0.0);
    let (head, notes, folded) = stored(&[HEAD]);
    assert_close_named("the head's name alone", &head, &expected, 0.0);
    assert!(notes.len() == 1 && notes[0].contains(HEAD), "{notes:?}");
    assert_eq!(folded.provenance.notes, notes);
}

/// Tensors of the base model lack its prefix; those of a model of several parts have one more.
#[test]
fn prefixes_that_come_and_go() {
    let tokens = vec![vec![1, 2, 3, 4, 5]];
    let renamed = |name: &str, rename: &dyn Fn(&str) -> String| {
        let folder = golden(name);
        folder.edit_tensors(|tensors| {
            let all = std::mem::take(tensors);
            tensors.extend(
                all.into_iter()
                    .map(|(name, tensor)| (rename(&name), tensor)),
            );
        });
        let loaded = raw(&folder);
        let expected = logits(&raw(&golden(name)).model, &tokens);
        assert_close_named(name, &logits(&loaded.model, &tokens), &expected, 0.0);
        let notes = loaded.provenance.notes;
        assert!(
            notes.len() == 1 && notes[0].contains("stands for"),
            "{name}: {notes:?}"
        );
    };
    let without = |prefix: &'static str| {
        move |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_owned()
    };
    renamed("llama", &without("model."));
    renamed("gpt2_tiny", &without("transformer."));
    renamed("gptj", &without("transformer."));
    renamed("gpt_neox", &without("gpt_neox."));
    renamed("opt", &without("model."));
    renamed("llama", &|name| format!("language_model.{name}"));
    renamed("llama", &|name| {
        name.replacen("model.", "model.language_model.", 1)
    });
    renamed("llama", &|name| {
        name.replacen("lm_head", "model.lm_head", 1)
    });
}
