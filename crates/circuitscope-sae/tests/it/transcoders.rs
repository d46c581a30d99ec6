//! Transcoders and sets of them, and formats beside those of `dictionaries.rs`: `golden/transcoders.py` made
//! `golden/transcoders/` with the tools' own code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use circuitscope_sae::{
    Activations, Affine, Architecture, Error, Format, SavedSae, load_dir, load_layer, load_set,
};

use proptest::prelude::*;

use crate::golden_rows::{self, Golden};
use crate::{B, device, matrix, values};

fn folder(name: &str) -> PathBuf {
    golden_rows::folder("transcoders").join(name)
}

fn load(name: &str) -> SavedSae<B> {
    golden_rows::load("transcoders", name).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Activations, reconstructions and codes are those of the tool itself.
#[test]
fn transcoders_of_other_tools_compute_the_same() {
    use Architecture::{BatchTopK, Gated, GroupMax, JumpRelu, Standard, TopK};
    let golden = Golden::read("transcoders");
    let rows = golden.rows();
    assert!(rows.len() >= 38, "{}", rows.len());
    let mut read = BTreeSet::new();
    for row in rows {
        row.assert_close();
        row.assert_codes(golden.x());
        let saved = &row.saved;
        read.insert((saved.format, saved.architecture, saved.transcodes));
    }
    for of in [
        (Format::SaeLens6, Standard, true),
        (Format::SaeLens6, JumpRelu, true),
        (Format::SaeLens5, JumpRelu, true),
        (Format::Sparsify, TopK, true),
        (Format::Sparsify, TopK, false),
        (Format::Sparsify, GroupMax, true),
        (Format::Sparsify, GroupMax, false),
        (Format::CircuitTracer, Standard, true),
        (Format::CircuitTracer, JumpRelu, true),
        (Format::GemmaScope, JumpRelu, true),
        (Format::GemmaScope2, JumpRelu, true),
        (Format::GemmaScope2, JumpRelu, false),
        (Format::LlamaScope, JumpRelu, true),
        (Format::LlamaScope, JumpRelu, false),
        (Format::DictionaryLearning, Standard, false),
        (Format::DictionaryLearning, Gated, false),
        (Format::DictionaryLearning, JumpRelu, false),
        (Format::DictionaryLearning, TopK, false),
        (Format::DictionaryLearning, BatchTopK, false),
    ] {
        assert!(read.contains(&of), "{of:?}");
    }
}

/// What a trait object says of itself is what it computes: activations are of `reads` where they are not 0, and features
/// write their atoms, on top of a constant and of the skip connection.
#[test]
fn what_transcoders_read_and_write_adds_up() {
    let golden = Golden::read("transcoders");
    let x = golden.x();
    let [rows, _] = x.dims();
    for row in golden.rows() {
        let name = &row.name;
        let encoder = load(name).encoder;
        let features = encoder.encode(x.clone());
        let normalised = name.ends_with("-norm");
        assert_eq!(encoder.reads().is_none(), normalised, "{name}");
        if let Some(reads) = encoder.reads() {
            let active = features.clone().greater_elem(0.0);
            let found = reads.apply(x.clone()).mask_fill(active.bool_not(), 0.0);
            golden_rows::assert_close(name, &values(&found), &values(&features), 2e-6);
        }
        // Scaled back after decoding, where it is.
        let (none, whole) = (
            features.zeros_like(),
            encoder.reconstruct(x.clone()).unwrap(),
        );
        let without = encoder.decode(none.clone(), x.clone()).unwrap();
        assert_eq!(whole.dims(), [rows, encoder.d_out()], "{name}");
        let scale = if name.contains("L3R-8x") {
            1.5 / 5.0f32.sqrt()
        } else {
            1.0
        };
        let written = features.matmul(encoder.atoms().unwrap()).mul_scalar(scale);
        golden_rows::assert_close(
            name,
            &values(&(whole - without.clone())),
            &values(&written),
            2e-6,
        );
        let constant = encoder.decode(none, x.zeros_like()).unwrap();
        let skipped = values(&(without - constant));
        match encoder.skip() {
            Some(skip) => {
                assert_eq!(skip.dims(), [encoder.d_out(), encoder.d_in()], "{name}");
                let expected = x.clone().matmul(skip.swap_dims(0, 1));
                golden_rows::assert_close(name, &skipped, &values(&expected), 2e-6);
            }
            None => assert!(skipped.iter().all(|value| *value == 0.0), "{name}"),
        }
    }
}

#[test]
fn sites_that_transcoders_read_and_write() {
    let both = |layer: usize| {
        [
            Some(format!("blocks.{layer}.mlp.hook_in")),
            Some(format!("blocks.{layer}.hook_mlp_out")),
        ]
    };
    let at =
        |input: &str, output: Option<&str>| [Some(input.to_owned()), output.map(str::to_owned)];
    for (name, expected) in [
        ("saelens-transcoder", both(3)),
        (
            "saelens-5-jumprelu_transcoder",
            at(
                "blocks.5.ln2.hook_normalized",
                Some("blocks.5.hook_mlp_out"),
            ),
        ),
        ("sparsify/layers.3.mlp", both(3)),
        ("sparsify/layers.2", at("blocks.2.hook_resid_post", None)),
        ("circuit-tracer-relu#1", both(1)),
        (
            "gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_4",
            both(3),
        ),
        (
            "gemma-scope-2-1b-pt/resid_post_all/layer_3_width_16k_l0_small",
            at("blocks.3.hook_resid_post", None),
        ),
        (
            "gemma-scope-2-1b-pt/attn_out/layer_4_width_16k_l0_small",
            at("blocks.4.attn.hook_z", None),
        ),
        (
            "gemma-scope-2-1b-pt/transcoder_all/layer_5_width_16k_l0_small",
            both(5),
        ),
        (
            "llama-scope/Llama3_1-8B-Base-L3TC-8x",
            at(
                "blocks.3.ln2.hook_normalized",
                Some("blocks.3.hook_mlp_out"),
            ),
        ),
        (
            "dictionary_learning/AutoEncoder",
            at("blocks.3.hook_resid_post", None),
        ),
    ] {
        let saved = load(name);
        let on = &saved.trained_on;
        assert_eq!(
            [on.hook_name.clone(), on.hook_name_out.clone()],
            expected,
            "{name}"
        );
        assert_eq!(saved.transcodes, expected[1].is_some(), "{name}");
    }
    let on = load("saelens-transcoder").trained_on;
    assert_eq!(
        (on.folded, on.first_position, on.prepend_bos),
        (Some(true), Some(1), Some(true))
    );
    assert_eq!(load("circuit-tracer-relu#0").trained_on.folded, Some(false));
    let model = load("circuit-tracer-relu#0").trained_on.model;
    assert_eq!(model.as_deref(), Some("Qwen/Qwen3-0.6B"));
}

#[test]
fn sets_are_sorted_by_layer() {
    let set = load_set::<B>(&folder("saelens-set"), &device()).unwrap();
    assert_eq!(set.layers.keys().copied().collect::<Vec<_>>(), [0, 2, 10]);
    assert_eq!(set.model.as_deref(), Some("gpt2-small"));
    for (layer, saved) in &set.layers {
        assert_eq!(saved.folder, folder(&format!("saelens-set/of-{layer}")));
    }
    let set = load_set::<B>(&folder("circuit-tracer-relu-skip"), &device()).unwrap();
    assert_eq!(set.scan, ["a/set", "b"]);
    let listed = load_set::<B>(&folder("circuit-tracer-listed"), &device()).unwrap();
    assert!(listed.layers[&0].files[1].ends_with("b.safetensors"));
    let one = load_layer::<B>(&folder("saelens-set"), 10, &device()).unwrap();
    assert_eq!(one.trained_on.layer(), Some(10));
    let none = load_layer::<B>(&folder("saelens-set"), 3, &device());
    assert_eq!(
        message(none, &folder("saelens-set")),
        "SET: layer: found 3, expected one of 0, 2, 10"
    );
    // Of another tool, deeper.
    let gemma = load_set::<B>(&folder("gemma-scope-2b-pt-transcoders"), &device()).unwrap();
    assert_eq!(gemma.layers.keys().copied().collect::<Vec<_>>(), [3]);
}

/// A copy of a golden folder that may be damaged.
fn copy(name: &str) -> tempfile::TempDir {
    fn all(from: &Path, to: &Path) {
        for entry in fs_err::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                fs_err::create_dir(&to).unwrap();
                all(&entry.path(), &to);
            } else {
                fs_err::copy(entry.path(), to).unwrap();
            }
        }
    }
    let folder_copied = tempfile::tempdir().unwrap();
    all(&folder(name), folder_copied.path());
    folder_copied
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs_err::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    fs_err::write(path, text.replacen(from, to, 1)).unwrap();
}

#[track_caller]
fn message<T>(result: Result<T, Error>, within: &Path) -> String {
    let error = result.err().unwrap().to_string();
    let within = within.display().to_string();
    error
        .replace(&format!("{within}/"), "")
        .replace(&within, "SET")
}

#[test]
fn sets_that_cannot_be_read_are_named() {
    let traced = |change: fn(&Path)| {
        let copied = copy("circuit-tracer-relu-skip");
        change(copied.path());
        message(load_set::<B>(copied.path(), &device()), copied.path())
    };
    let config = |from: &'static str, to: &'static str| {
        let copied = copy("circuit-tracer-relu-skip");
        edit(&copied.path().join("config.yaml"), from, to);
        message(load_set::<B>(copied.path(), &device()), copied.path())
    };
    assert_eq!(
        config("transcoder_set", "cross_layer_transcoder"),
        "config.yaml: this is a cross_layer_transcoder, whose features write to all later layers: expected a transcoder_set, \
         whose features write to their own"
    );
    assert_eq!(
        config("transcoder_set", "transcoder-set"),
        "config.yaml: model_kind is \"transcoder-set\": expected \"transcoder_set\" or \"cross_layer_transcoder\" (did you \
         mean `transcoder_set`?)"
    );
    assert_eq!(
        config("feature_input_hook", "feature_in_hook"),
        "config.yaml: unknown field \"feature_in_hook\" (did you mean `feature_input_hook`?)"
    );
    assert_eq!(
        config("feature_input_hook: mlp.hook_in\n", ""),
        "config.yaml: feature_input_hook is missing: expected a text"
    );
    assert_eq!(
        config("mlp.hook_in", "blocks.0.mlp.hook_in"),
        "config.yaml: feature_input_hook is \"blocks.0.mlp.hook_in\": expected a hook without its layer, as mlp.hook_in"
    );
    assert_eq!(
        config("scan:", "transcoders: [\"hf://a/b/c.npz\"]\nscan:"),
        "config.yaml: transcoders is \"hf://a/b/c.npz\": expected files beside it: nothing is fetched"
    );
    let yaml = config("model_kind:", "model_kind: [");
    assert!(yaml.starts_with("config.yaml: "), "{yaml}");
    assert_eq!(
        traced(|set| fs_err::remove_file(set.join("layer_0.safetensors")).unwrap()),
        "SET: layers: found config.yaml, layer_1.safetensors, expected layer_0.safetensors, as a set has all layers from 0 on"
    );
    assert_eq!(
        traced(|set| drop(fs_err::copy(
            folder("saelens-transcoder/sae_weights.safetensors"),
            set.join("layer_1.safetensors")
        ))),
        // W_enc the other way round.
        "layer_1.safetensors: tensor \"W_dec\" has shape [7, 4]: expected [5, 4] ([d_sae, d_out])"
    );
    let one = load_dir::<B>(&folder("circuit-tracer-relu"), &device());
    assert_eq!(
        message(one, &folder("circuit-tracer-relu")),
        "config.yaml: this is a set of transcoders of several layers: expected the folder of one dictionary"
    );

    let folders = |change: fn(&Path)| {
        let copied = copy("saelens-set");
        change(copied.path());
        message(load_set::<B>(copied.path(), &device()), copied.path())
    };
    assert_eq!(
        folders(|set| edit(&set.join("of-2/cfg.json"), "blocks.2.mlp", "blocks.10.mlp")),
        "of-2: layer: found 10, which of-10 has, expected one transcoder for each layer"
    );
    assert_eq!(
        folders(|set| edit(
            &set.join("of-2/cfg.json"),
            "blocks.2.mlp.hook_in",
            "ln_final"
        )),
        "of-2: site: found ln_final, expected one of a layer, as blocks.3.mlp.hook_in"
    );
    assert_eq!(
        folders(|set| edit(&set.join("of-2/cfg.json"), "2.mlp.hook_in", "2.hook_mlp_in")),
        "of-2/sae_weights.safetensors: site: found hook_mlp_in, expected mlp.hook_in, as of-0/sae_weights.safetensors"
    );
    let sparsify = message(
        load_set::<B>(&folder("sparsify"), &device()),
        &folder("sparsify"),
    );
    assert_eq!(
        sparsify,
        "layers.2: kind: found an autoencoder, expected a transcoder"
    );
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        message(load_set::<B>(empty.path(), &device()), empty.path()),
        "SET: set of transcoders: found nothing, expected config.yaml (circuit-tracer), or folders with one transcoder each"
    );
}

#[test]
fn wrong_settings_of_transcoders_are_named() {
    let edited = |name: &str, file: &str, from: &str, to: &str| {
        let copied = copy(name);
        edit(&copied.path().join(file), from, to);
        message(load_dir::<B>(copied.path(), &device()), copied.path())
    };
    let lens = |from: &str, to: &str| edited("saelens-skip_transcoder", "cfg.json", from, to);
    assert_eq!(
        lens(
            "\"apply_b_dec_to_input\": false",
            "\"apply_b_dec_to_input\": true"
        ),
        "cfg.json: apply_b_dec_to_input is true: expected false with architecture skip_transcoder, whose b_dec is of what it \
         writes"
    );
    assert_eq!(
        lens("\"apply_b_dec_to_input\": false,", ""),
        "cfg.json: apply_b_dec_to_input is missing: expected false with architecture skip_transcoder, whose b_dec is of what \
         it writes"
    );
    assert_eq!(
        lens("\"d_out\": 4", "\"d_out\": 5"),
        "sae_weights.safetensors: tensor \"W_dec\" has shape [7, 4]: expected [7, 5] ([d_sae, d_out])"
    );
    assert_eq!(
        lens("\"d_out\": 4,", ""),
        "cfg.json: d_out is missing: expected an integer of at least 1"
    );
    assert_eq!(
        lens("\"skip_transcoder\"", "\"transcoder\""),
        "sae_weights.safetensors: unexpected tensor \"W_skip\""
    );
    assert_eq!(
        lens("\"skip_transcoder\"", "\"jumprelu_skip_transcoder\""),
        "sae_weights.safetensors: no tensor \"threshold\"; the file holds W_dec, W_enc, W_skip, b_dec, b_enc"
    );
    assert_eq!(
        lens("\"skip_transcoder\"", "\"standard\""),
        "cfg.json: unknown field \"d_out\""
    );
    assert_eq!(
        lens("\"fold_ln\": false", "\"fold_ln\": 0"),
        "cfg.json: metadata.model_from_pretrained_kwargs.fold_ln is 0: expected true or false"
    );
    let sparsify = |from: &str, to: &str| edited("sparsify/layers.4.mlp", "cfg.json", from, to);
    assert_eq!(
        sparsify("\"skip_connection\": true", "\"skip_connection\": false"),
        "sae.safetensors: unexpected tensor \"W_skip\""
    );
    assert_eq!(
        sparsify("\"topk\"", "\"groupmax\""),
        "cfg.json: k is 3: expected a divisor of 7, the number of features, with groupmax"
    );
    let llama = |from: &str, to: &str| {
        edited(
            "llama-scope/Llama3_1-8B-Base-L3R-8x",
            "hyperparams.json",
            from,
            to,
        )
    };
    assert_eq!(
        llama("\"out\": 1.5", "\"out\": 2.5"),
        "hyperparams.json: dataset_average_activation_norm.out is 2.5: expected that of \"in\", as both are at one hook point"
    );
    assert_eq!(
        llama(
            "\"jump_relu_threshold\": 0.25",
            "\"jump_relu_threshold\": -0.25"
        ),
        "hyperparams.json: jump_relu_threshold is -0.25: expected a number above 0"
    );
    let gemma = |from: &str, to: &str| {
        let name = "gemma-scope-2-1b-pt/resid_post_all/layer_3_width_16k_l0_small";
        edited(name, "config.json", from, to)
    };
    assert_eq!(
        gemma(
            "\"affine_connection\": false",
            "\"affine_connection\": true"
        ),
        "config.json: affine_connection is true: expected false, as params.safetensors has no affine_skip_connection"
    );
    assert!(gemma("model.layers.3.output", "model.norm").starts_with(
        "config.json: hf_hook_point_in is \"model.norm\": expected a module of a layer"
    ));
    let learning = |from: &str, to: &str| {
        edited(
            "dictionary_learning/AutoEncoderTopK",
            "config.json",
            from,
            to,
        )
    };
    assert_eq!(
        learning("\"k\": 3", "\"k\": 8"),
        "config.json: trainer.k is 8: expected at most 7, the number of features"
    );
    assert!(
        learning("\"AutoEncoderTopK\"", "\"AutoEncoderTopk\"")
            .ends_with("(did you mean `AutoEncoderTopK`?)")
    );
    let copied = copy("dictionary_learning/AutoEncoder");
    // A pickle that would call something.
    fs_err::write(copied.path().join("ae.pt"), b"cos\nsystem\n(S'true'\ntR.").unwrap();
    let found = message(load_dir::<B>(copied.path(), &device()), copied.path());
    assert!(found.starts_with("ae.pt: not a state dict: "), "{found}");
}

#[test]
fn damaged_weights_of_transcoders_are_named() {
    for (tensor, value, expected) in [
        ("W_skip", f32::NAN, "tensor \"W_skip\" holds NaN at [0, 0]"),
        ("b_dec", f32::INFINITY, "tensor \"b_dec\" holds inf at [0]"),
        (
            "activation_function.threshold",
            -0.5,
            "tensor \"threshold\" has -0.5 at [0]: expected numbers of at least 0",
        ),
    ] {
        let copied = copy("circuit-tracer-jumprelu-skip");
        let path = copied.path().join("layer_1.safetensors");
        golden_rows::overwrite(&path, tensor, value);
        let found = message(load_set::<B>(copied.path(), &device()), copied.path());
        assert_eq!(found, format!("layer_1.safetensors: {expected}"));
        // Of the other layer nothing is wrong.
        load_layer::<B>(copied.path(), 0, &device()).unwrap();
    }
}

#[test]
fn other_activations_do_not_suit() {
    let saved = load("saelens-transcoder");
    let here = Activations::new(5)
        .with_hook_name("blocks.3.mlp.hook_in")
        .with_width_out(4)
        .with_hook_name_out("blocks.3.hook_mlp_out")
        .with_n_layers(4)
        .with_folded(true)
        .with_prepend_bos(true)
        .with_first_position(1);
    saved.suits(&here).unwrap();
    saved.suits(&here.clone().with_first_position(2)).unwrap();
    saved.suits(&Activations::new(5)).unwrap();
    let found = |here: Activations| {
        let error = saved.suits(&here).unwrap_err();
        assert!(matches!(error, Error::Unsuited { .. }));
        error
            .to_string()
            .replace(&format!("{}: ", saved.folder.display()), "")
    };
    let mut wide = here.clone();
    wide.width = 768;
    for (here, expected) in [
        (wide, "width: found 768, expected 5, the dictionary's d_in"),
        (
            here.clone().with_n_layers(3),
            "layer: found 3 (blocks.3.mlp.hook_in), expected one below 3, the number of the model's layers",
        ),
        (
            here.clone().with_hook_name("blocks.2.mlp.hook_in"),
            "site: found blocks.2.mlp.hook_in, expected blocks.3.mlp.hook_in, as it was trained on",
        ),
        (
            here.clone().with_width_out(5),
            "width of what it writes: found 5, expected 4, the dictionary's d_out",
        ),
        (
            here.clone().with_hook_name_out("blocks.3.hook_attn_out"),
            "site of what it writes: found blocks.3.hook_attn_out, expected blocks.3.hook_mlp_out, as it was trained on",
        ),
        (
            here.clone().with_folded(false),
            "processing of the model: found raw, expected folded, as it was trained on",
        ),
        (
            here.clone().with_prepend_bos(false),
            "beginning-of-text token: found prompts without one, expected prompts with one, as it was trained on",
        ),
        (
            here.clone().with_first_position(0),
            "first position: found 0, expected 1 or later, as it was trained on",
        ),
    ] {
        assert_eq!(found(here), expected);
    }
}

fn maps() -> Affine<B> {
    Affine::transcoder(
        Tensor::zeros([2, 3], &device()),
        Tensor::zeros([3, 2], &device()),
        Tensor::zeros([3], &device()),
        Tensor::zeros([2], &device()),
    )
}

#[test]
#[should_panic(expected = "a transcoder does not centre its input by b_dec")]
fn a_transcoder_is_not_centred() {
    drop(maps().with_centring(false).with_centring(true));
}

#[test]
#[should_panic(expected = "w_skip [d_out, d_in]")]
fn a_skip_connection_has_the_shape_of_both_sites() {
    drop(maps().with_skip(matrix(&[0.0; 6], 3, 2)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is cut off or flipped in whichever file: an error or a dictionary, never a panic.
    #[test]
    fn damaged_files_of_other_tools_never_panic(
        which in 0usize..6,
        at in 0usize..8192,
        bit in 0u8..8,
        cut: bool,
    ) {
        let name = [
            "circuit-tracer-jumprelu-skip/config.yaml",
            "circuit-tracer-jumprelu-skip/layer_0.safetensors",
            "gemma-scope-2-1b-pt/transcoder_all/layer_6_width_16k_l0_small_affine/params.safetensors",
            "llama-scope/Llama3_1-8B-Base-L3TC-8x/hyperparams.json",
            "dictionary_learning/MatryoshkaBatchTopKSAE/config.json",
            "dictionary_learning/MatryoshkaBatchTopKSAE/ae.pt",
        ][which];
        let (of, file) = name.rsplit_once('/').unwrap();
        let copied = copy(of);
        let path = copied.path().join(file);
        let mut bytes = fs_err::read(&path).unwrap();
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        fs_err::write(&path, bytes).unwrap();
        let read = if of.starts_with("circuit") {
            load_layer::<B>(copied.path(), 0, &device())
        } else {
            load_dir::<B>(copied.path(), &device())
        };
        if let Ok(saved) = read {
            prop_assert!(saved.encoder.n_codes() > 0);
        }
    }
}
