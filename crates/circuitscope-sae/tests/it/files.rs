//! Saved dictionaries: what is in the files, and what is said about damaged ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use circuitscope_core::{NoProgress, Seed};
use circuitscope_sae::{
    Architecture, CFG_FILE, Dictionary, Encoder as _, Error, Format, SaeConfig, SaeMetadata,
    SavedSae, TrainConfig, WEIGHTS_FILE, load_dir, save_dir, train,
};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Map, Value, json};

use crate::{B, device, matrix, uniform, values};

/// A saved dictionary of 3 × 2 in a folder of its own.
struct Saved {
    folder: tempfile::TempDir,
}

impl Saved {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sae = SaeConfig::new(3)
            .with_d_sae(2)
            .init::<B>(Seed::new(0), &device())
            .unwrap();
        save_dir(&sae, &SaeMetadata::default(), folder.path()).unwrap();
        Self { folder }
    }

    fn cfg(&self) -> PathBuf {
        self.folder.path().join(CFG_FILE)
    }

    fn weights(&self) -> PathBuf {
        self.folder.path().join(WEIGHTS_FILE)
    }

    fn edit_cfg(&self, edit: impl FnOnce(&mut Map<String, Value>)) {
        let mut cfg = serde_json::from_slice(&fs_err::read(self.cfg()).unwrap()).unwrap();
        edit(&mut cfg);
        fs_err::write(self.cfg(), serde_json::to_vec(&cfg).unwrap()).unwrap();
    }

    /// Rewrites the weights after `edit` of name → (type, shape, bytes).
    fn edit_weights(&self, edit: impl FnOnce(&mut BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>)) {
        let bytes = fs_err::read(self.weights()).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors = file
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let owned = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
                (name, owned)
            })
            .collect();
        edit(&mut tensors);
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        fs_err::write(self.weights(), serialize(views, None).unwrap()).unwrap();
    }

    fn load(&self) -> Result<SavedSae<B>, Error> {
        load_dir::<B>(self.folder.path(), &device())
    }

    /// The message of the error, with the folder's place cut out.
    #[track_caller]
    fn message(&self) -> String {
        let folder = format!("{}/", self.folder.path().display());
        self.load().unwrap_err().to_string().replace(&folder, "")
    }
}

#[test]
fn files_have_the_names_and_shapes_of_saelens() {
    let saved = Saved::new();
    let cfg: Value = serde_json::from_slice(&fs_err::read(saved.cfg()).unwrap()).unwrap();
    assert_eq!(
        cfg,
        json!({
            "d_in": 3,
            "d_sae": 2,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": true,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "architecture": "standard",
            "metadata": {
                "sae_lens_version": "6.0.0",
                "sae_lens_training_version": null,
                "circuitscope": { "schema": 1 },
            },
        })
    );
    let bytes = fs_err::read(saved.weights()).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut shapes: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec()))
        .collect();
    shapes.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        shapes,
        [
            ("W_dec".to_owned(), Dtype::F32, vec![2, 3]),
            ("W_enc".to_owned(), Dtype::F32, vec![3, 2]),
            ("b_dec".to_owned(), Dtype::F32, vec![3]),
            ("b_enc".to_owned(), Dtype::F32, vec![2]),
        ]
    );
}

#[test]
fn a_trained_dictionary_comes_back_whole() {
    let config = SaeConfig::new(12)
        .with_d_sae(20)
        .with_dictionary(Dictionary::UnitNormAtoms)
        .with_l1_coefficient(0.05);
    let steps = TrainConfig::new().with_steps(5);
    let x = matrix(&uniform(1, 30, 12), 30, 12);
    let trained = train(&config, &steps, x.clone(), Seed::new(9), &NoProgress).unwrap();
    let metadata = SaeMetadata::default()
        .with_dictionary(config.dictionary)
        .with_l1_coefficient(config.l1_coefficient)
        .with_training(steps)
        .with_seed(Seed::new(9))
        .with_provenance(Map::from_iter([("backend".to_owned(), json!("flex"))]));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("made/on/the/way");
    save_dir(&trained.sae, &metadata, &folder).unwrap();
    let saved = load_dir::<B>(&folder, &device()).unwrap();
    assert_eq!(saved.metadata, metadata);
    assert_eq!(saved.architecture, Architecture::Standard);
    assert_eq!(saved.format, Format::SaeLens6);
    assert_eq!(
        saved.files,
        [folder.join(CFG_FILE), folder.join(WEIGHTS_FILE)]
    );
    let bytes = fs_err::read(folder.join(WEIGHTS_FILE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, expected) in [
        ("W_enc", values(&trained.sae.w_enc)),
        ("W_dec", values(&trained.sae.w_dec)),
        ("b_enc", values(&trained.sae.b_enc)),
        ("b_dec", values(&trained.sae.b_dec)),
    ] {
        let bytes: Vec<u8> = expected.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(file.tensor(name).unwrap().data(), bytes, "{name}");
    }
    // Bit for bit what the trained one computes.
    let pair = |found: Tensor<B, 2>, expected| assert_eq!(values(&found), values(&expected));
    pair(
        saved.encoder.encode(x.clone()),
        trained.sae.encode(x.clone()),
    );
    pair(
        saved.encoder.reconstruct(x.clone()).unwrap(),
        trained.sae.reconstruct(x.clone()).unwrap(),
    );
    pair(saved.encoder.atoms().unwrap(), trained.sae.w_dec.clone());
    assert_eq!(
        saved.encoder.codes(x.clone()).unwrap(),
        trained.sae.codes(x).unwrap()
    );
    // Saving again replaces, and leaves nothing else behind.
    save_dir(&trained.sae, &metadata, &folder).unwrap();
    assert_eq!(fs_err::read_dir(&folder).unwrap().count(), 2);
}

#[test]
fn half_precision_weights_are_widened() {
    let saved = Saved::new();
    let exact = [0.5f32, -1.25];
    saved.edit_weights(|tensors| {
        let bytes = exact
            .iter()
            .flat_map(|v| half::f16::from_f32(*v).to_le_bytes());
        tensors.insert("b_enc".to_owned(), (Dtype::F16, vec![2], bytes.collect()));
        let bytes = [1.0f32, 2.0, -3.0]
            .iter()
            .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes());
        tensors.insert("b_dec".to_owned(), (Dtype::BF16, vec![3], bytes.collect()));
    });
    let encoder = saved.load().unwrap().encoder;
    // Of b_dec itself nothing is left but b_enc.
    let x = matrix(&[1.0, 2.0, -3.0], 1, 3);
    assert_eq!(values(&encoder.strengths(x.clone())), exact);
    let atom = values(&encoder.atoms().unwrap().slice_dim(0, 0..1));
    let sums: Vec<f32> = values(&x)
        .iter()
        .zip(&atom)
        .map(|(b, w)| 0.5 * w + b)
        .collect();
    assert_eq!(values(&encoder.reconstruct(x).unwrap()), sums);
}

#[test]
fn weights_that_are_not_finite_are_not_saved() {
    let mut sae = SaeConfig::new(3)
        .with_d_sae(2)
        .init::<B>(Seed::new(0), &device())
        .unwrap();
    sae.w_dec = matrix(&[0.0, 0.0, 0.0, 0.0, f32::INFINITY, 0.0], 2, 3);
    let folder = tempfile::tempdir().unwrap();
    let error = save_dir(&sae, &SaeMetadata::default(), folder.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("tensor \"W_dec\" holds inf at [1, 1]"),
        "{error}"
    );
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn unclear_folders_are_named() {
    let expected = "expected one dictionary: cfg.json and sae_weights.safetensors (circuitscope, SAELens), cfg.json and \
                    sae.safetensors (sparsify), params.npz (Gemma Scope), params.safetensors (Gemma Scope 2), \
                    hyperparams.json and checkpoints/ (Llama Scope), config.json and ae.pt (dictionary_learning), or NAME.pt and NAME_cfg.json (attention-output-saes)";
    let found = |edit: fn(&Saved), found: &str| {
        let saved = Saved::new();
        edit(&saved);
        let path = saved.folder.path().display().to_string();
        let message = saved.load().unwrap_err().to_string();
        assert_eq!(message, format!("{path}: found {found}, {expected}"));
    };
    found(
        |saved| fs_err::remove_file(saved.weights()).unwrap(),
        "cfg.json",
    );
    found(
        |saved| {
            fs_err::remove_file(saved.weights()).unwrap();
            fs_err::remove_file(saved.cfg()).unwrap();
        },
        "nothing",
    );
    found(
        |saved| {
            fs_err::create_dir(saved.folder.path().join("layers.3")).unwrap();
            fs_err::write(saved.folder.path().join("params.npz"), "").unwrap();
        },
        "cfg.json, layers.3/, params.npz, sae_weights.safetensors",
    );
    let nowhere = load_dir::<B>(Path::new("no/such/folder"), &device()).unwrap_err();
    assert!(nowhere.to_string().contains("no/such/folder"), "{nowhere}");
}

/// SAELens 3 to 5 keep everything in one object; what computes the same is the same dictionary.
#[test]
fn dictionaries_of_older_saelens() {
    let old = |edit: fn(&mut Map<String, Value>)| {
        let saved = Saved::new();
        saved.edit_cfg(|cfg| {
            cfg.remove("metadata");
            cfg.remove("reshape_activations");
            for (field, value) in [
                ("activation_fn_str", json!("relu")),
                ("activation_fn_kwargs", json!({})),
                ("finetuning_scaling_factor", json!(false)),
                ("hook_layer", json!(0)),
                ("hook_name", json!("blocks.0.attn.hook_result")),
                ("prepend_bos", json!(true)),
                ("sae_lens_training_version", json!("5.3.0")),
                ("seqpos_slice", json!([null])),
            ] {
                cfg.insert(field.into(), value);
            }
            edit(cfg);
        });
        saved
    };
    let new = Saved::new().load().unwrap();
    let x = matrix(&uniform(2, 9, 3), 9, 3);
    for edit in [
        (|_| {}) as fn(&mut Map<String, Value>),
        |cfg| drop(cfg.remove("architecture")),
        |cfg| drop(cfg.insert("finetuning_scaling_factor".into(), Value::Null)),
    ] {
        let read = old(edit).load().unwrap();
        let [found, expected] = [&read, &new].map(|saved| values(&saved.encoder.encode(x.clone())));
        assert_eq!(found, expected);
        assert_eq!(read.metadata, SaeMetadata::default());
        assert_eq!(read.format, Format::SaeLens5);
        let hook = read.trained_on.hook_name.as_deref();
        assert_eq!(hook, Some("blocks.0.attn.hook_result"));
        assert_eq!(read.trained_on.site(), Some("attn.hook_result"));
    }
    let message = |edit| old(edit).message();
    let is = "cfg.json: this is a dictionary of SAELens 5.3.0 with ";
    for (found, expected) in [
        (
            message(|cfg| drop(cfg.insert("activation_fn_str".into(), json!("tanh-relu")))),
            "activation_fn_str \"tanh-relu\", where \"relu\" and \"topk\" are read",
        ),
        (
            message(|cfg| drop(cfg.insert("finetuning_scaling_factor".into(), json!(true)))),
            "finetuning_scaling_factor true, where false is read",
        ),
    ] {
        assert_eq!(found, format!("{is}{expected}"));
    }
    assert_eq!(
        message(|cfg| drop(cfg.insert("activation_fn_str".into(), json!("topk")))),
        "cfg.json: activation_fn_kwargs.k is missing: expected an integer of at least 1"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("hook_layers".into(), json!(1)))),
        "cfg.json: unknown field \"hook_layers\" (did you mean `hook_layer`?)"
    );
}

#[test]
fn dictionaries_of_sparsify() {
    let saved = Saved::new();
    saved.edit_cfg(|cfg| {
        cfg.clear();
        cfg.extend([
            ("d_in".to_owned(), json!(3)),
            ("expansion_factor".to_owned(), json!(32)),
            ("k".to_owned(), json!(4)),
            ("num_latents".to_owned(), json!(0)),
        ]);
    });
    let message = saved.message();
    assert!(
        message.starts_with("cfg.json: this is a dictionary of sparsify, which lies in "),
        "{message}"
    );
}

#[test]
fn wrong_settings_are_named() {
    let transcoders = ["", "skip_", "jumprelu_", "jumprelu_skip_"];
    let transcoders = transcoders.map(|kind| format!("\"{kind}transcoder\""));
    let names = Architecture::ALL.map(|architecture| format!("{:?}", architecture.name()));
    // The last is of sparsify.
    let names = [&names[..5], &transcoders[..]].concat();
    let (last, most) = names.split_last().unwrap();
    let all = format!("{} or {last}", most.join(", "));
    let message = |edit: fn(&mut Map<String, Value>)| {
        let saved = Saved::new();
        saved.edit_cfg(edit);
        saved.message()
    };
    assert_eq!(
        message(|cfg| drop(cfg.insert("architecture".into(), json!("standrd")))),
        format!("cfg.json: architecture is \"standrd\": expected {all} (did you mean `standard`?)")
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("architecture".into(), json!("temporal")))),
        format!("cfg.json: architecture is \"temporal\": expected {all}")
    );
    assert_eq!(
        message(|cfg| drop(cfg.remove("architecture"))),
        format!("cfg.json: architecture is missing: expected {all}")
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("d_sea".into(), json!(2)))),
        "cfg.json: unknown field \"d_sea\" (did you mean `d_sae`?)"
    );
    assert_eq!(
        message(|cfg| drop(cfg.remove("d_in"))),
        "cfg.json: d_in is missing: expected an integer of at least 1"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("d_in".into(), json!(-3)))),
        "cfg.json: d_in is -3: expected an integer of at least 1"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("apply_b_dec_to_input".into(), json!("no")))),
        "cfg.json: apply_b_dec_to_input is \"no\": expected true or false"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert(
            "normalize_activations".into(),
            json!("covariance_whitening")
        ))),
        "cfg.json: normalize_activations is \"covariance_whitening\": expected \"none\", \
         \"expected_average_only_in\", \"constant_norm_rescale\" or \"layer_norm\""
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert(
            "normalize_activations".into(),
            json!("expected_average_only_in")
        ))),
        "cfg.json: normalize_activations is \"expected_average_only_in\": expected \"none\", or the factor of the input \
         as \"scaling_factor\" in activation_scaler.json beside it: expected_average_only_in is relative to activations \
         that are not in the folder"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("reshape_activations".into(), json!("hook_q")))),
        "cfg.json: reshape_activations is \"hook_q\": expected \"none\" or \"hook_z\" (did you mean `hook_z`?)"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("rescale_acts_by_decoder_norm".into(), json!(true)))),
        "cfg.json: rescale_acts_by_decoder_norm is true: expected false with architecture standard"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("metadata".into(), json!({"hook_name": 3})))),
        "cfg.json: metadata.hook_name is 3: expected a text"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("metadata".into(), json!({"hook_head_index": -1})))),
        "cfg.json: metadata.hook_head_index is -1: expected a number of a head, from 0"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("k".into(), json!(2)))),
        "cfg.json: unknown field \"k\""
    );
    assert_eq!(
        message(|cfg| cfg.extend([
            ("architecture".into(), json!("topk")),
            ("k".into(), json!(3)),
        ])),
        "cfg.json: k is 3: expected at most 2, the number of features"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("metadata".into(), json!([])))),
        "cfg.json: metadata is []: expected an object"
    );
    assert_eq!(
        message(|cfg| drop(cfg.insert("metadata".into(), json!({"circuitscope": {"schema": 2}})))),
        "cfg.json: metadata.circuitscope.schema is 2: expected 1"
    );
    assert!(
        message(|cfg| {
            let own = json!({"circuitscope": {"schema": 1, "sead": 3}});
            cfg.insert("metadata".into(), own);
        })
        .contains("unknown field `sead`")
    );
}

#[test]
fn wrong_weights_are_named() {
    type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;
    let message = |edit: fn(&mut Tensors)| {
        let saved = Saved::new();
        saved.edit_weights(edit);
        saved.message()
    };
    let file = "sae_weights.safetensors";
    assert_eq!(
        message(|tensors| drop(tensors.remove("b_enc"))),
        format!("{file}: no tensor \"b_enc\"; the file holds W_dec, W_enc, b_dec")
    );
    assert_eq!(
        message(|tensors| {
            let moved = tensors.remove("W_enc").unwrap();
            tensors.insert("W_enk".to_owned(), moved);
        }),
        format!("{file}: unexpected tensor \"W_enk\" (did you mean `W_enc`?)")
    );
    assert_eq!(
        message(|tensors| {
            let (_, shape, _) = tensors.get_mut("W_enc").unwrap();
            shape.reverse();
        }),
        format!("{file}: tensor \"W_enc\" has shape [2, 3]: expected [3, 2] ([d_in, d_sae])")
    );
    assert_eq!(
        message(|tensors| {
            tensors.insert("b_enc".to_owned(), (Dtype::F64, vec![2], vec![0; 16]));
        }),
        format!("{file}: tensor \"b_enc\" has type F64: expected F32, F16 or BF16")
    );
    assert_eq!(
        message(|tensors| {
            let (_, _, data) = tensors.get_mut("W_dec").unwrap();
            data[16..20].copy_from_slice(&f32::NAN.to_le_bytes());
        }),
        format!("{file}: tensor \"W_dec\" holds NaN at [1, 1]")
    );
}

#[test]
fn damaged_files_are_errors() {
    for (damage, expected) in [
        (Vec::new(), "not a safetensors file"),
        (u64::MAX.to_le_bytes().to_vec(), "not a safetensors file"),
        (b"{\"W_enc\": 1}".to_vec(), "not a safetensors file"),
    ] {
        let saved = Saved::new();
        fs_err::write(saved.weights(), damage).unwrap();
        let message = saved.message();
        assert!(
            message.starts_with("sae_weights.safetensors: "),
            "{message}"
        );
        assert!(message.contains(expected), "{message}");
    }
    for damage in ["", "{", "[1, 2]", "{\"d_in\": }"] {
        let saved = Saved::new();
        fs_err::write(saved.cfg(), damage).unwrap();
        let message = saved.message();
        assert!(message.starts_with("cfg.json: "), "{message}");
    }
}

#[test]
fn an_unwritable_place_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    fs_err::write(&taken, "a file").unwrap();
    let sae = SaeConfig::new(3)
        .with_d_sae(2)
        .init::<B>(Seed::new(0), &device())
        .unwrap();
    let error = save_dir(&sae, &SaeMetadata::default(), &taken).unwrap_err();
    assert!(matches!(error, Error::Io(_)), "{error}");
    assert!(error.to_string().contains("taken"), "{error}");
}

fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = fs_err::read(path).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 1 << (bit % 8);
    fs_err::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is cut off or flipped: an error or a dictionary of the right size, never a panic.
    #[test]
    fn truncated_and_flipped_files_never_panic(at in 0usize..4096, bit in 0u8..8, which in 0u8..4) {
        let saved = Saved::new();
        let path = if which % 2 == 0 { saved.weights() } else { saved.cfg() };
        if which < 2 {
            flip(&path, at, bit);
            if let Ok(saved) = saved.load() {
                prop_assert_eq!((saved.encoder.d_in(), saved.encoder.n_codes()), (3, 2));
            }
        } else {
            let bytes = fs_err::read(&path).unwrap();
            let mut length = at % bytes.len();
            // The closing newline of the JSON file is not missed.
            if which == 3 {
                length = length.min(bytes.len() - 2);
            }
            fs_err::write(&path, &bytes[..length]).unwrap();
            prop_assert!(saved.load().is_err());
        }
    }
}
