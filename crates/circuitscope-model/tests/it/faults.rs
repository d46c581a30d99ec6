//! Every broken model folder is an error that says what is wrong, and nothing panics.

use circuitscope_files::FileErrorKind;
use circuitscope_model::{Error, Processing};
use serde_json::{Value, json};

use crate::folder::{ModelFolder, Stored, Tensors};
use crate::{golden_folder, try_load};

const WEIGHTS: &str = "model.safetensors";
const QKV: &str = "transformer.h.0.attn.c_attn.weight";

fn gpt2() -> ModelFolder {
    ModelFolder::copy_of(&golden_folder("gpt2_tiny"))
}

fn lens() -> ModelFolder {
    ModelFolder::copy_of(&golden_folder("attn_only_shortformer"))
}

fn error(folder: &ModelFolder) -> Error {
    match try_load(folder.path(), Processing::Folded) {
        Ok(_) => panic!("loaded"),
        Err(error) => error,
    }
}

/// The problems of a folder whose weights do not fit.
fn problems(folder: &ModelFolder) -> Vec<String> {
    match error(folder) {
        Error::Weights { path, problems } => {
            assert!(path.starts_with(folder.path()));
            problems
        }
        other => panic!("{other}"),
    }
}

fn with_tensors(edit: impl FnOnce(&mut Tensors)) -> ModelFolder {
    let folder = gpt2();
    folder.edit_tensors(edit);
    folder
}

#[test]
fn files_that_are_not_safetensors() {
    let whole = gpt2().read(WEIGHTS);
    let header = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let mut json = whole.clone();
    json[8] = b'[';
    for (what, bytes) in [
        ("empty", vec![]),
        ("shorter than a header's length", whole[..5].to_vec()),
        ("cut in the header", whole[..100].to_vec()),
        ("cut in the data", whole[..whole.len() - 1].to_vec()),
        ("with a tail", [&whole[..], b"tail"].concat()),
        ("a header longer than the file", header(whole.len() as u64)),
        ("a header of 200 MB", header(200_000_000)),
        ("a header of 2^64 - 1 bytes", header(u64::MAX)),
        ("a header that is not JSON", json),
        ("a pickle", b"PK\x03\x04archive/data.pkl".to_vec()),
    ] {
        let folder = gpt2();
        folder.write(WEIGHTS, &bytes);
        let error = error(&folder);
        assert!(
            matches!(&error, Error::File(error) if *error.kind() == FileErrorKind::NotSafetensors),
            "{what}: {error}"
        );
        assert!(error.to_string().contains(WEIGHTS), "{what}: {error}");
    }
}

#[test]
fn tensors_that_do_not_fit() {
    let found = problems(&with_tensors(|tensors| {
        let shape = &mut tensors.get_mut(QKV).unwrap().shape;
        assert_eq!(*shape, [12, 36]);
        shape.reverse();
    }));
    assert_eq!(found, [format!("{QKV}: shape [36, 12], expected [12, 36]")]);

    let found = problems(&with_tensors(|tensors| {
        tensors.remove(QKV);
    }));
    assert_eq!(found, [format!("{QKV}: missing, expected shape [12, 36]")]);

    let found = problems(&with_tensors(|tensors| {
        let extra = Stored::f32s(&[1], &[0.0]);
        tensors.insert("transformer.h.2.ln_1.weight".into(), extra);
    }));
    assert_eq!(
        found,
        ["transformer.h.2.ln_1.weight: unused, the configuration has no place for it"]
    );

    let found = problems(&with_tensors(|tensors| {
        let tensor = tensors.get_mut(QKV).unwrap();
        tensor.dtype = safetensors::Dtype::I32;
    }));
    assert_eq!(
        found,
        [format!("{QKV}: type I32, expected F32, F16 or BF16")]
    );
}

#[test]
fn weights_that_are_not_finite() {
    for (value, name) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
    ] {
        let found = problems(&with_tensors(|tensors| {
            let tensor = tensors.get_mut(QKV).unwrap();
            let mut values = tensor.to_f32s();
            values[77] = value;
            *tensor = Stored::f32s(&[12, 36], &values);
        }));
        let expected = format!("{QKV}: {name} at entry 77, expected finite numbers");
        assert_eq!(found, [expected]);
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let found = problems(&with_tensors(|tensors| {
        tensors.remove("transformer.wpe.weight");
        tensors.remove("transformer.h.1.ln_2.bias");
        tensors.insert("classifier".into(), Stored::f32s(&[1], &[f32::NAN]));
    }));
    assert_eq!(found.len(), 3, "{found:?}");
    for name in [
        "transformer.wpe.weight",
        "transformer.h.1.ln_2.bias",
        "classifier",
    ] {
        let named = found
            .iter()
            .filter(|line| line.starts_with(&format!("{name}: ")));
        assert_eq!(named.count(), 1, "{name} in {found:?}");
    }
}

/// What old checkpoints carry beside their weights is no error.
#[test]
fn known_leftovers_are_ignored() {
    let folder = with_tensors(|tensors| {
        let mask = Stored {
            dtype: safetensors::Dtype::U8,
            shape: vec![1, 1, 9, 9],
            data: vec![1; 81],
        };
        tensors.insert("transformer.h.1.attn.bias".into(), mask);
        tensors.insert(
            "transformer.h.1.attn.masked_bias".into(),
            Stored::f32s(&[], &[-1e4]),
        );
        let tied = tensors["transformer.wte.weight"].clone();
        tensors.insert("lm_head.weight".into(), tied);
    });
    try_load(folder.path(), Processing::Raw).unwrap();
}

#[test]
fn options_that_are_not_implemented() {
    for (folder, key, value) in [
        (gpt2(), "model_type", json!("bloom")),
        (gpt2(), "model_type", json!(3)),
        (gpt2(), "activation_function", json!("mish")),
        (gpt2(), "add_cross_attention", json!(true)),
        (gpt2(), "pruned_heads", json!({"0": [1]})),
        (gpt2(), "n_head", json!(5)),
        (gpt2(), "n_layer", json!(0)),
        (gpt2(), "n_layer", json!(-1)),
        (gpt2(), "n_layer", json!(1.5)),
        (gpt2(), "n_layer", json!("2")),
        (gpt2(), "n_embd", json!(u64::MAX)),
        (gpt2(), "layer_norm_epsilon", json!(0.0)),
        (gpt2(), "bos_token_id", json!(29)),
        (lens(), "positional_embedding_type", json!("rotary")),
        (lens(), "normalization_type", json!("RMS")),
        (lens(), "attention_dir", json!("sideways")),
        (lens(), "n_key_value_heads", json!(1)),
        (lens(), "parallel_attn_mlp", json!(true)),
        (lens(), "attn_scores_soft_cap", json!(30.0)),
        (lens(), "n_ctx", json!(0)),
        (lens(), "d_head", json!(u32::MAX)),
        (lens(), "bos_token_id", json!(23)),
    ] {
        folder.edit_config(|config| {
            config.insert(key.into(), value.clone());
        });
        let error = error(&folder);
        let message = error.to_string();
        assert!(
            matches!(error, Error::Unsupported { .. }),
            "{key} = {value}: {message}"
        );
        assert!(message.contains("config.json: "), "{message}");
        assert!(message.contains(&format!("{key} = {value} ")), "{message}");
    }
}

#[test]
fn configurations_that_lack_something() {
    for (folder, key) in [
        (gpt2(), "n_layer"),
        (gpt2(), "vocab_size"),
        (lens(), "n_ctx"),
        (lens(), "d_head"),
    ] {
        folder.edit_config(|config| {
            config.remove(key).unwrap();
        });
        let message = error(&folder).to_string();
        assert!(
            message.ends_with(&format!("config.json: key `{key}` is missing")),
            "{message}"
        );
    }
    let folder = gpt2();
    folder.edit_config(|config| {
        config.remove("model_type").unwrap();
    });
    let message = error(&folder).to_string();
    assert!(message.contains("neither `model_type`"), "{message}");

    for text in ["", "{", "[]", "null", r#"{"model_type": "gpt2""#] {
        let folder = gpt2();
        folder.write("config.json", text.as_bytes());
        let error = error(&folder);
        assert!(matches!(error, Error::Config { .. }), "{text:?}: {error}");
        assert!(error.to_string().contains("config.json"), "{error}");
    }
}

/// Sizes that the weights contradict are refused before anything of that size is allocated.
#[test]
fn sizes_beyond_the_weights() {
    for (folder, key) in [
        (gpt2(), "n_layer"),
        (gpt2(), "vocab_size"),
        (gpt2(), "n_positions"),
        (gpt2(), "n_inner"),
        (lens(), "n_layers"),
        (lens(), "d_model"),
        (lens(), "n_ctx"),
        (lens(), "d_vocab"),
        (lens(), "d_vocab_out"),
    ] {
        folder.edit_config(|config| {
            config.insert(key.into(), json!(4_000_000_000u32));
        });
        let error = error(&folder);
        // Layers have a bound of their own.
        let refused = match error {
            Error::Weights { .. } => true,
            Error::Unsupported { .. } => key.starts_with("n_layer"),
            _ => false,
        };
        assert!(refused, "{key}: {error}");
        assert!(
            error.to_string().len() < 4000,
            "{key}: {} bytes",
            error.to_string().len()
        );
    }
}

#[test]
fn folders_that_lack_a_file() {
    for file in ["config.json", WEIGHTS] {
        let folder = gpt2();
        folder.remove(file);
        match error(&folder) {
            Error::NotAModel { path, missing, .. } => {
                assert_eq!((path.as_path(), missing.as_str()), (folder.path(), file));
                let said = error(&folder).to_string();
                let expected = format!(
                    "{}: expected a folder with config.json and model.safetensors",
                    path.display()
                );
                assert!(said.starts_with(&expected), "{said}");
                assert!(
                    said.ends_with(&format!(": found no {file} in it")),
                    "{said}"
                );
            }
            other => panic!("{other}"),
        }
    }
    let folder = gpt2();
    let missing = folder.path().join("nowhere");
    let error = try_load(&missing, Processing::Raw).map(drop).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    // The tokenizer may be absent until somebody asks for it.
    let loaded = try_load(folder.path(), Processing::Raw).unwrap();
    assert!(matches!(loaded.tokenizer(), Err(Error::NotAModel { .. })));
    folder.write("tokenizer.json", b"{}");
    let error = try_load(folder.path(), Processing::Raw)
        .map(drop)
        .unwrap_err();
    assert!(matches!(error, Error::TokenizerFile { .. }), "{error}");
}

/// Splits the weights into two shards with an index, which the test may change.
fn sharded(edit: impl FnOnce(&mut Value)) -> ModelFolder {
    let folder = gpt2();
    let tensors = folder.tensors(WEIGHTS);
    let (mut first, mut second) = (Tensors::new(), Tensors::new());
    let mut map = serde_json::Map::new();
    for (name, tensor) in tensors {
        let (file, shard) = if name.contains("h.0.") {
            ("a.safetensors", &mut first)
        } else {
            ("b.safetensors", &mut second)
        };
        map.insert(name.clone(), json!(file));
        shard.insert(name, tensor);
    }
    folder.write_tensors("a.safetensors", &first);
    folder.write_tensors("b.safetensors", &second);
    folder.remove(WEIGHTS);
    let mut index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    edit(&mut index);
    folder.write(
        "model.safetensors.index.json",
        &serde_json::to_vec(&index).unwrap(),
    );
    folder
}

#[test]
fn shards_load_as_one() {
    let whole = try_load(gpt2().path(), Processing::Raw).unwrap();
    let parts = try_load(sharded(|_| ()).path(), Processing::Raw).unwrap();
    let batch = crate::right_padded(&[[1u32, 2, 3]]);
    let logits = |loaded: &circuitscope_model::Loaded<_>| loaded.model.logits(&batch).into_data();
    assert_eq!(logits(&whole), logits(&parts));
    let names: Vec<_> = parts
        .provenance
        .files
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    assert_eq!(names, ["config.json", "a.safetensors", "b.safetensors"]);
}

#[test]
fn indices_of_shards_that_are_wrong() {
    let missing = sharded(|index| index["weight_map"][QKV] = json!("c.safetensors"));
    let error_of_missing = error(&missing);
    assert!(
        matches!(&error_of_missing, Error::File(error) if *error.kind() == FileErrorKind::Read),
        "{error_of_missing}"
    );
    assert!(
        error_of_missing.to_string().contains("c.safetensors"),
        "{error_of_missing}"
    );

    let misplaced = sharded(|index| index["weight_map"][QKV] = json!("b.safetensors"));
    let found = problems(&misplaced);
    let expected = format!("{QKV}: the index places it in b.safetensors, which does not hold it");
    assert_eq!(found, [expected]);

    let twice = sharded(|_| ());
    let mut second = twice.tensors("b.safetensors");
    second.insert(QKV.into(), twice.tensors("a.safetensors")[QKV].clone());
    twice.write_tensors("b.safetensors", &second);
    let found = problems(&twice);
    let expected = format!("{QKV}: in both a.safetensors and b.safetensors");
    assert_eq!(found, [expected]);

    let outside = sharded(|index| index["weight_map"][QKV] = json!("../a.safetensors"));
    let error_of_outside = error(&outside);
    assert!(
        matches!(error_of_outside, Error::Config { .. }),
        "{error_of_outside}"
    );

    let no_map = sharded(|index| *index = json!({}));
    let error_of_no_map = error(&no_map);
    assert!(
        matches!(error_of_no_map, Error::Config { .. }),
        "{error_of_no_map}"
    );
    assert!(
        error_of_no_map.to_string().contains("weight_map"),
        "{error_of_no_map}"
    );
}
