//! Weights in other storage than plain safetensors: quantised, and pickled.

use burn::tensor::TensorData;
use circuitscope_model::{Error, Processing};
use serde_json::{Map, Value, json};

use crate::folder::{ModelFolder, Stored};
use crate::{golden_folder, right_padded, try_load};

/// Name, and what its note says.
const QUANTISED: [(&str, &str); 10] = [
    ("int8", "7 of bitsandbytes int8"),
    ("nf4", "7 of bitsandbytes NF4"),
    ("nf4_nested", "7 of bitsandbytes NF4"),
    ("fp4", "7 of bitsandbytes FP4"),
    ("gptq4", "7 of GPTQ in 4 bits"),
    ("gptq8", "7 of GPTQ in 8 bits"),
    ("awq", "7 of AWQ"),
    ("fp8_blocks", "7 of FP8"),
    ("fp8_rows", "7 of FP8"),
    ("fp8_tensor", "7 of FP8"),
];

/// A folder with the golden files of this name, or with its values in f32.
fn quantised(name: &str, expected: bool) -> ModelFolder {
    let golden = |file: &str| {
        let path = golden_folder("quantised").join(format!("{name}.{file}"));
        fs_err::read(path).unwrap()
    };
    let folder = ModelFolder::empty();
    folder.write("config.json", &golden("config.json"));
    if expected {
        folder.edit_config(|config| {
            config.remove("quantization_config").unwrap();
        });
        folder.write("model.safetensors", &golden("expected.safetensors"));
    } else {
        folder.write("model.safetensors", &golden("safetensors"));
    }
    folder
}

fn logits(folder: &ModelFolder) -> TensorData {
    let loaded = try_load(folder.path(), Processing::Raw).unwrap();
    loaded
        .model
        .logits(&right_padded(&[[3u32, 1, 4, 1, 5, 9, 2, 6]]))
        .into_data()
}

fn error(folder: &ModelFolder) -> String {
    let error = try_load(folder.path(), Processing::Raw)
        .map(drop)
        .unwrap_err();
    error.to_string()
}

/// Bit for bit: the same numbers went into the model.
#[test]
fn quantised_weights_have_the_values_that_their_format_defines() {
    for (name, note) in QUANTISED {
        let folder = quantised(name, false);
        assert_eq!(logits(&folder), logits(&quantised(name, true)), "{name}");
        let notes = try_load(folder.path(), Processing::Raw)
            .unwrap()
            .provenance
            .notes;
        assert_eq!(notes, [format!("tensors dequantised: {note}")]);
    }
}

fn with_settings(name: &str, edit: impl FnOnce(&mut Map<String, Value>)) -> String {
    let folder = quantised(name, false);
    folder.edit_config(|config| edit(config["quantization_config"].as_object_mut().unwrap()));
    error(&folder)
}

#[test]
fn quantisations_that_are_not_read_are_refused_by_name() {
    let set = |name: &str, key: &str, value: Value| {
        with_settings(name, |settings| {
            settings.insert(key.to_owned(), value);
        })
    };
    for method in ["mxfp4", "compressed-tensors", "hqq", "aqlm", "eetq"] {
        let message = set("int8", "quant_method", json!(method));
        let expected = format!("quantization_config.quant_method = \"{method}\" is not supported");
        assert!(message.contains(&expected), "{message}");
        assert!(message.contains("\"bitsandbytes\", \"gptq\""), "{message}");
    }
    for (name, key, value) in [
        ("gptq4", "bits", json!(3)),
        ("gptq4", "checkpoint_format", json!("gptq_v2")),
        ("gptq4", "group_size", json!(0)),
        ("awq", "version", json!("gemv")),
        ("awq", "bits", json!(8)),
        ("awq", "zero_point", json!(false)),
        ("fp8_blocks", "weight_block_size", json!([0, 8])),
        ("fp8_blocks", "weight_block_size", json!("big")),
        ("int8", "quant_method", json!(3)),
    ] {
        let message = set(name, key, value.clone());
        let expected = format!("config.json: quantization_config.{key} = {value} is not supported");
        assert!(message.contains(&expected), "{message}");
    }
    let folder = quantised("int8", true);
    folder.edit_config(|config| {
        config.insert(
            "quantization_config".into(),
            json!({"quant_method": "awq", "group_size": 8}),
        );
    });
    assert!(
        error(&folder).contains("no tensor is quantised"),
        "{}",
        error(&folder)
    );
}

/// Parts that are missing, of another size or type: errors that name the tensor.
#[test]
fn quantised_weights_that_are_broken() {
    const Q: &str = "model.layers.0.self_attn.q_proj";
    for (name, part, expected) in [
        ("nf4", "weight.absmax", "weight.absmax is missing"),
        ("nf4", "weight.quant_map", "weight.quant_map is missing"),
        (
            "nf4_nested",
            "weight.nested_quant_map",
            "nested_quant_map is missing",
        ),
        ("gptq4", "qzeros", "qzeros is missing"),
        ("awq", "scales", "scales is missing"),
        (
            "fp8_blocks",
            "weight_scale_inv",
            "weight_scale_inv is missing",
        ),
    ] {
        let folder = quantised(name, false);
        folder.edit_tensors(|tensors| {
            tensors.remove(&format!("{Q}.{part}")).unwrap();
        });
        let message = error(&folder);
        assert!(
            message.contains(expected) && message.contains("q_proj"),
            "{name}: {message}"
        );
    }
    for (name, part) in [
        ("int8", "SCB"),
        ("nf4", "weight.absmax"),
        ("nf4", "weight.quant_map"),
        ("nf4_nested", "weight.nested_absmax"),
        ("gptq4", "qzeros"),
        ("gptq4", "scales"),
        ("awq", "qzeros"),
        ("fp8_blocks", "weight_scale_inv"),
    ] {
        let folder = quantised(name, false);
        folder.edit_tensors(|tensors| {
            let stored = tensors.get_mut(&format!("{Q}.{part}")).unwrap();
            let size = stored.data.len() / stored.shape.iter().product::<usize>();
            stored.data.extend(vec![0; 3 * size]);
            stored.shape = vec![stored.data.len() / size];
        });
        let message = error(&folder);
        assert!(
            message.contains("q_proj.weight: "),
            "{name} {part}: {message}"
        );
    }
    let folder = quantised("nf4", false);
    folder.edit_tensors(|tensors| {
        let state = format!("{Q}.weight.quant_state.bitsandbytes__nf4");
        let text = br#"{"blocksize": 64, "shape": [4000000000, 4000000000]}"#;
        let stored = Stored {
            dtype: safetensors::Dtype::U8,
            shape: vec![text.len()],
            data: text.to_vec(),
        };
        tensors.insert(state, stored);
    });
    assert!(error(&folder).contains("quant_state: shape [4000000000, 4000000000]"));
}

/// A folder of `of` whose weights are these golden pickles.
fn pickled(of: &str, files: &[(&str, &str)]) -> ModelFolder {
    let folder = ModelFolder::copy_of(&golden_folder(of));
    folder.remove("model.safetensors");
    for (golden, name) in files {
        let bytes = fs_err::read(golden_folder("pickle").join(golden)).unwrap();
        folder.write(name, &bytes);
    }
    folder
}

fn same_model(of: &str, files: &[(&str, &str)]) -> Vec<String> {
    let folder = pickled(of, files);
    let whole = ModelFolder::copy_of(&golden_folder(of));
    assert_eq!(logits(&folder), logits(&whole), "{files:?}");
    let loaded = try_load(folder.path(), Processing::Raw).unwrap();
    let files = loaded.provenance.files.into_iter();
    files.map(|file| file.name).collect()
}

#[test]
fn pickled_state_dicts_are_read() {
    let single = "pytorch_model.bin";
    assert_eq!(
        same_model("gpt2_tiny", &[(single, single)]),
        ["config.json", single]
    );
    let parts = [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ];
    let index = "pytorch_model.bin.index.json";
    let files = [(parts[0], parts[0]), (parts[1], parts[1]), (index, index)];
    let names = same_model("gpt2_tiny", &files);
    assert_eq!(names, ["config.json", parts[0], parts[1]]);
    for name in ["model.pth", "state_dict.pt"] {
        let names = same_model("attn_only_shortformer", &[("lens.pth", name)]);
        assert_eq!(names, ["config.json", name]);
    }
    // What trainers leave beside the weights is not taken for them.
    let files = [
        (single, single),
        ("class.pth", "optimizer.pt"),
        ("code.pth", "training_args.bin"),
    ];
    same_model("gpt2_tiny", &files);
    // Safetensors come first.
    let both = ModelFolder::copy_of(&golden_folder("gpt2_tiny"));
    both.write("pytorch_model.bin", b"broken");
    try_load(both.path(), Processing::Raw).unwrap();
}

#[test]
fn pickles_of_classes_are_refused_and_run_nothing() {
    let lens = |golden: &str| pickled("attn_only_shortformer", &[(golden, "model.pth")]);
    for (golden, expected) in [
        ("class.pth", "types.SimpleNamespace"),
        ("code.pth", "posix.system"),
        ("nested.pth", "no tensor lies at its top level"),
        ("legacy.pth", "1.6"),
    ] {
        let folder = lens(golden);
        let refused = try_load(folder.path(), Processing::Raw)
            .map(drop)
            .unwrap_err();
        assert!(matches!(refused, Error::Pickle { .. }), "{refused}");
        let message = refused.to_string();
        assert!(
            message.contains(expected) && message.contains("model.pth"),
            "{message}"
        );
        assert!(!folder.path().join("it_ran").exists());
    }
    let two = [("lens.pth", "a.pth"), ("lens.pth", "b.pth")];
    let message = error(&pickled("attn_only_shortformer", &two));
    assert!(message.contains("a.pth: b.pth lies beside it"), "{message}");

    let whole = lens("lens.pth").read("model.pth");
    for length in (0..whole.len()).step_by(509) {
        let folder = lens("lens.pth");
        folder.write("model.pth", &whole[..length]);
        let message = error(&folder);
        assert!(message.contains("model.pth"), "{length}: {message}");
    }
    for at in (0..whole.len()).step_by(173) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        let folder = lens("lens.pth");
        folder.write("model.pth", &bytes);
        if let Err(error) = try_load(folder.path(), Processing::Raw) {
            assert!(error.to_string().contains("model.pth"), "{at}: {error}");
        }
    }
}

#[test]
fn parts_of_pickles_that_do_not_fit_their_index() {
    let parts = [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ];
    let index = "pytorch_model.bin.index.json";
    let files = [(parts[0], parts[0]), (parts[1], parts[1]), (index, index)];
    let missing = pickled("gpt2_tiny", &files);
    missing.remove(parts[1]);
    assert!(error(&missing).contains(parts[1]), "{}", error(&missing));

    let edited = |edit: &dyn Fn(&mut Value)| {
        let folder = pickled("gpt2_tiny", &files);
        let mut json: Value = serde_json::from_slice(&folder.read(index)).unwrap();
        edit(&mut json["weight_map"]);
        folder.write(index, &serde_json::to_vec(&json).unwrap());
        error(&folder)
    };
    let name = "transformer.wte.weight";
    let message = edited(&|map| map[name] = json!(parts[1]));
    assert!(message.contains(&format!("{name}: in ")), "{message}");
    let message = edited(&|map| map["extra"] = json!(parts[1]));
    assert!(
        message.contains("extra: the index places it in"),
        "{message}"
    );
    let message = edited(&|map| map[name] = json!("../elsewhere.bin"));
    assert!(
        message.contains("is not a file of this folder"),
        "{message}"
    );
}
