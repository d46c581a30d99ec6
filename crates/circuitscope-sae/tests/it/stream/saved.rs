//! Trained dictionaries in folders.

use circuitscope_core::Seed;
use circuitscope_sae::{
    Architecture, CFG_FILE, SPARSITY_FILE, SaeMetadata, StreamConfig, TrainedDictionary, TrainedOn,
    WEIGHTS_FILE, load_dir, save_trained,
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::{
    BATCHTOPK, D, D_OUT, FEATURES, ROWS, TOPK, autoencoder, gated, jumprelu, standard, start,
    steps, transcoder, x,
};
use crate::{B, device, matrix, values};

fn trained(config: &StreamConfig) -> TrainedDictionary {
    let mut trainer = start(config);
    steps(&mut trainer, 0..4);
    trainer.dictionary().unwrap()
}

fn trained_on() -> TrainedOn {
    let mut on = TrainedOn::default();
    on.model = Some("smollm2-135m".to_owned());
    on.hook_name = Some("blocks.18.mlp.hook_in".to_owned());
    on.prepend_bos = Some(true);
    on
}

#[test]
fn autoencoders_are_read_back_as_they_were() {
    for (objective, architecture) in [
        (TOPK, Architecture::TopK),
        (BATCHTOPK, Architecture::JumpRelu),
        (jumprelu(), Architecture::JumpRelu),
        (standard(), Architecture::Standard),
        (gated(true), Architecture::Gated),
    ] {
        for config in [
            autoencoder(objective),
            autoencoder(objective).with_centred(false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let dictionary = trained(&config);
            let metadata = SaeMetadata::default().with_seed(Seed::new(9));
            save_trained(&dictionary, &metadata, &trained_on(), folder.path()).unwrap();
            let saved = load_dir::<B>(folder.path(), &device()).unwrap();
            assert_eq!(saved.architecture, architecture);
            assert_eq!(saved.trained_on, trained_on());
            assert_eq!(saved.metadata, metadata.with_stream(config));
            let encoder = dictionary.encoder::<B>(&device()).unwrap();
            let rows = matrix(&x(7), ROWS, D);
            let features = values(&saved.encoder.encode(rows.clone()));
            assert_eq!(features, values(&encoder.encode(rows.clone())));
            assert!(features.iter().any(|f| *f > 0.0) && features.contains(&0.0));
            let made = |made: Option<burn::tensor::Tensor<B, 2>>| values(&made.unwrap());
            assert_eq!(
                made(saved.encoder.reconstruct(rows.clone())),
                made(encoder.reconstruct(rows))
            );
        }
    }
}

#[test]
fn firing_rates_are_written_as_logarithms() {
    let folder = tempfile::tempdir().unwrap();
    let dictionary = trained(&autoencoder(TOPK));
    let save = |dictionary| {
        save_trained(
            dictionary,
            &SaeMetadata::default(),
            &trained_on(),
            folder.path(),
        )
    };
    save(&dictionary).unwrap();
    let path = folder.path().join(SPARSITY_FILE);
    let bytes = fs_err::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let sparsity = file.tensor("sparsity").unwrap();
    assert_eq!(sparsity.shape(), [FEATURES]);
    let rates = dictionary.firing_rates.clone().unwrap();
    assert!(rates.iter().any(|rate| *rate > 0.0));
    for (bytes, rate) in sparsity.data().chunks_exact(4).zip(rates) {
        let found = f32::from_le_bytes(bytes.try_into().unwrap());
        assert_eq!(found, (rate + 1e-10).log10() as f32);
    }
    // An untrained one has none, and leaves none of another.
    save(&start(&autoencoder(TOPK)).dictionary().unwrap()).unwrap();
    assert!(!path.exists());
}

#[test]
fn transcoders_have_their_names_and_tensors() {
    for (config, architecture) in [
        (transcoder(BATCHTOPK), "jumprelu_skip_transcoder"),
        (
            transcoder(jumprelu()).with_skip(false),
            "jumprelu_transcoder",
        ),
        (transcoder(standard()), "skip_transcoder"),
        (transcoder(standard()).with_skip(false), "transcoder"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut on = trained_on();
        on.hook_name_out = Some("blocks.18.hook_mlp_out".to_owned());
        let dictionary = trained(&config);
        save_trained(&dictionary, &SaeMetadata::default(), &on, folder.path()).unwrap();
        let text = fs_err::read(folder.path().join(CFG_FILE)).unwrap();
        let cfg: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(cfg["architecture"], architecture);
        assert_eq!((&cfg["d_in"], &cfg["d_out"]), (&json!(D), &json!(D_OUT)));
        assert_eq!(cfg["apply_b_dec_to_input"], false);
        assert_eq!(cfg["metadata"]["hook_name_out"], "blocks.18.hook_mlp_out");
        let bytes = fs_err::read(folder.path().join(WEIGHTS_FILE)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let shape = |name: &str| file.tensor(name).map(|tensor| tensor.shape().to_vec()).ok();
        assert_eq!(shape("W_enc").unwrap(), [D, FEATURES]);
        assert_eq!(shape("W_dec").unwrap(), [FEATURES, D_OUT]);
        let thresholds = architecture.starts_with("jumprelu");
        assert_eq!(shape("threshold"), thresholds.then(|| vec![FEATURES]));
        assert_eq!(shape("W_skip"), config.skip.then(|| vec![D_OUT, D]));
        let saved = load_dir::<B>(folder.path(), &device()).unwrap();
        let encoder = dictionary.encoder::<B>(&device()).unwrap();
        let rows = matrix(&x(7), ROWS, D);
        assert_eq!(
            values(&saved.encoder.reconstruct(rows.clone()).unwrap()),
            values(&encoder.reconstruct(rows).unwrap())
        );
    }
    // In one folder after the other, as sparsify writes them: the files of the one before are gone.
    let folder = tempfile::tempdir().unwrap();
    for config in [
        transcoder(BATCHTOPK),
        transcoder(TOPK).with_d_out(D),
        transcoder(TOPK).with_d_out(D).with_skip(false),
        transcoder(BATCHTOPK),
    ] {
        let dictionary = trained(&config);
        let mut on = trained_on();
        on.hook_name_out = Some("blocks.18.hook_mlp_out".to_owned());
        save_trained(&dictionary, &SaeMetadata::default(), &on, folder.path()).unwrap();
        let saved = load_dir::<B>(folder.path(), &device()).unwrap();
        assert_eq!(saved.transcodes, config.transcoder);
        assert_eq!(saved.trained_on, on);
        assert_eq!(saved.metadata.stream.as_ref(), Some(&config));
        let encoder = dictionary.encoder::<B>(&device()).unwrap();
        let rows = matrix(&x(7), ROWS, D);
        assert_eq!(
            values(&saved.encoder.reconstruct(rows.clone()).unwrap()),
            values(&encoder.reconstruct(rows).unwrap())
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let of_k = trained(&transcoder(TOPK));
    let refused = save_trained(&of_k, &SaeMetadata::default(), &trained_on(), folder.path());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "objective is TopK, of a transcoder from width 12 to 10: expected BatchTopK, JumpRelu or Standard: no format holds such a one of \
         the k largest"
    );
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0);
}
