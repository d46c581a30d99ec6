//! Models written as GPT-2 folders.

use circuitscope_core::{NoProgress, Seed};
use circuitscope_hooks::Site;
use circuitscope_model::{
    Activation, Decoder, DecoderConfig, Direction, Error, Mlp, ModelBytes, Norm, Positions,
    Processing, load_bytes, load_dir, save_gpt2,
};
use circuitscope_testkit::device;
use tempfile::TempDir;

use crate::folder::ModelFolder;
use crate::{B, capture, golden_folder, load, right_padded};

fn config() -> DecoderConfig {
    DecoderConfig::gpt2(2, 2, 8, 6, 11)
        .with_eps(1e-4)
        .with_mlp(Some(Mlp::new(20, Activation::GeluExact)))
        .with_scale_attn_by_inverse_layer_idx(true)
        .with_bos_token(Some(2))
}

/// Everything that a model computes, bit for bit.
fn computed(model: &Decoder<B>) -> impl PartialEq + std::fmt::Debug {
    let batch = right_padded(&[vec![1, 2, 3, 4], vec![5, 6]]);
    capture(model, &batch, [Site::Logits, Site::Z(1), Site::MlpOut(0)])
}

#[test]
fn a_saved_model_loads_as_it_was() {
    // Laid out as those that are compared with it: on one core.
    let folder = golden_folder("gpt2_tiny");
    let trained = load_dir::<B>(&folder, Processing::Raw, &device(), &NoProgress);
    let trained = trained.unwrap().model;
    for model in [config().init::<B>(Seed::new(5), &device()), trained] {
        let parent = TempDir::new().unwrap();
        let folder = parent.path().join("made/by/saving");
        save_gpt2(&model, &folder).unwrap();
        let loaded = load_dir::<B>(&folder, Processing::Raw, &device(), &NoProgress).unwrap();
        assert_eq!(loaded.model.config(), model.config());
        assert_eq!(computed(&loaded.model), computed(&model));

        let read = |file: &str| fs_err::read(folder.join(file)).unwrap();
        let files = ModelBytes {
            name: "embedded",
            config: &read("config.json"),
            weights: &read("model.safetensors"),
            tokenizer: None,
        };
        let embedded = load_bytes::<B>(&files, Processing::Raw, &device()).unwrap();
        assert_eq!(computed(&embedded.model), computed(&model));
        assert_eq!(embedded.provenance.files, loaded.provenance.files);
        assert_eq!(embedded.provenance.name, "embedded");
        assert_eq!(loaded.provenance.name, "saving");
    }
}

/// The tensors that Hugging Face wrote, and no others: same names, shapes and bytes.
#[test]
fn a_saved_model_has_the_tensors_of_hugging_face() {
    let original = ModelFolder::copy_of(&golden_folder("gpt2_options"));
    let saved = ModelFolder::copy_of(&golden_folder("gpt2_tiny"));
    save_gpt2(&load(original.path(), Processing::Raw), saved.path()).unwrap();
    assert_eq!(
        saved.tensors("model.safetensors"),
        original.tensors("model.safetensors")
    );
    let [before, after] = [&original, &saved].map(|folder| load(folder.path(), Processing::Raw));
    assert_eq!(after.config(), before.config());
}

/// SHA-256 of the bytes on disk, as any other tool computes it.
#[test]
fn provenance_names_the_bytes() {
    let loaded = load_dir::<B>(
        &golden_folder("gpt2_options"),
        Processing::Folded,
        &device(),
        &NoProgress,
    )
    .unwrap();
    let provenance = loaded.provenance;
    assert_eq!(provenance.family, "GPT-2");
    assert_eq!(provenance.processing, Processing::Folded);
    let files: Vec<_> = provenance
        .files
        .iter()
        .map(|file| (&*file.name, file.bytes, &*file.sha256))
        .collect();
    assert_eq!(files, EXPECTED);
}

const EXPECTED: [(&str, u64, &str); 2] = [
    (
        "config.json",
        2_076,
        "f0d6faac175afdd54214fe682e92b19c5ee6bbb08891aba8a968d92e31e50037",
    ),
    (
        "model.safetensors",
        11_096,
        "8e52112de595720697d6f95bb56d3a9eeec9b9cf648756a4b92677a688b4bdc3",
    ),
];

#[test]
fn other_architectures_are_refused() {
    let others = [
        config().with_mlp(None),
        config().with_norm(Norm::LayerPre),
        config().with_norm(Norm::None),
        config().with_positions(Positions::Shortformer),
        config().with_positions(Positions::None),
        config().with_direction(Direction::Bidirectional),
        config().with_d_vocab_out(3),
        config().with_d_head(5),
        config().with_attn_scale(3.0),
    ];
    let folded = load(&golden_folder("gpt2_tiny"), Processing::Folded);
    let others = others.map(|config| config.init::<B>(Seed::new(0), &device()));
    for model in others.into_iter().chain([folded]) {
        let folder = TempDir::new().unwrap();
        let error = save_gpt2(&model, folder.path()).unwrap_err();
        let config = model.config();
        assert!(
            matches!(
                error,
                Error::Save {
                    layout: "GPT-2",
                    ..
                }
            ),
            "{config:?}: {error}"
        );
        assert!(
            fs_err::read_dir(folder.path()).unwrap().next().is_none(),
            "{config:?}: half-written"
        );
    }
}
