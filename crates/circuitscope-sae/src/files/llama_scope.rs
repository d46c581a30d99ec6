//! Llama Scope (He et al. 2024, arXiv 2410.20526): `hyperparams.json` and `checkpoints/final.safetensors`.

use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use serde_json::Value;

use super::keys::Keys;
use super::{Format, Found, SaeMetadata, SavedSae, TrainedOn};
use crate::architecture::Settings;
use crate::tensors::{Tensors, bytes_of};
use crate::{Architecture, Normalisation, Result};

pub(super) const FILE: &str = "hyperparams.json";
pub(super) const CHECKPOINTS: &str = "checkpoints";
const WEIGHTS: &str = "final.safetensors";

const READ: [&str; 11] = [
    "act_fn",
    "apply_decoder_bias_to_pre_encoder",
    "d_model",
    "d_sae",
    "dataset_average_activation_norm",
    "hook_point_in",
    "hook_point_out",
    "jump_relu_threshold",
    "norm_activation",
    "sparsity_include_decoder_norm",
    "use_glu_encoder",
];
/// How it was trained and stored; whether there is a decoder bias is told by the weights.
const HARMLESS: [&str; 19] = [
    "bias_init_method",
    "ddp_size",
    "decoder_exactly_fixed_norm",
    "device",
    "dtype",
    "expansion_factor",
    "init_decoder_norm",
    "init_encoder_norm",
    "init_encoder_with_decoder_transpose",
    "k_warmup_steps",
    "l1_coefficient",
    "l1_coefficient_warmup_steps",
    "lp",
    "seed",
    "top_k",
    "tp_size",
    "use_batch_norm_mse",
    "use_decoder_bias",
    "use_ghost_grads",
];

/// Weights are those of activations of length `√d_in`: what is read is times `√d_in` over the mean length of the training
/// activations, what is written over it. One threshold holds for all features, of activations as long as the model's and
/// times the norms of atoms, where `sparsity_include_decoder_norm`.
pub(super) fn load<B: Backend>(folder: &Path, device: &B::Device) -> Result<SavedSae<B>> {
    let cfg = Keys::read(folder.join(FILE))?;
    cfg.only(&[&READ, &HARMLESS])?;
    cfg.one_of("act_fn", &["jumprelu"], None)?;
    cfg.one_of("norm_activation", &["dataset-wise"], None)?;
    for key in ["apply_decoder_bias_to_pre_encoder", "use_glu_encoder"] {
        if cfg.flag(key, false)? {
            return Err(cfg.wrong(key, Some(&Value::Bool(true)), "false"));
        }
    }
    let (d_in, d_sae) = (cfg.size("d_model")?, cfg.size("d_sae")?);
    let (input, output) = (
        cfg.needed_text("hook_point_in")?,
        cfg.needed_text("hook_point_out")?,
    );
    let transcodes = input != output;
    let norms = cfg.object("dataset_average_activation_norm")?;
    norms.only(&[&["in", "out"]])?;
    let length = (d_in as f64).sqrt();
    let (scale_in, scale_out) = (
        length / norms.positive("in")?,
        length / norms.positive("out")?,
    );
    if !transcodes && scale_in != scale_out {
        let expected = "that of \"in\", as both are at one hook point";
        return Err(norms.wrong("out", norms.get("out"), expected));
    }
    let threshold = cfg.positive("jump_relu_threshold")? * scale_in;

    let path: PathBuf = folder.join(CHECKPOINTS).join(WEIGHTS);
    let bytes = bytes_of(&path)?;
    let mut tensors = Tensors::of_safetensors(&path, &bytes)?;
    let names = [
        "encoder.weight",
        "encoder.bias",
        "decoder.weight",
        "decoder.bias",
    ];
    tensors.only(&names)?;
    tensors.require(&names)?;
    tensors.transpose("encoder.weight", &[d_sae, d_in], "[d_sae, d_model]")?;
    tensors.transpose("decoder.weight", &[d_in, d_sae], "[d_model, d_sae]")?;
    tensors.floats("encoder.bias", &[d_sae], "[d_sae]")?;
    let b_dec = tensors.floats("decoder.bias", &[d_in], "[d_model]")?;
    let w_dec = tensors.floats("decoder.weight", &[d_sae, d_in], "[d_sae, d_model]")?;
    let by_norm = cfg.flag("sparsity_include_decoder_norm", true)?;
    let thresholds = w_dec.chunks_exact(d_in).map(|atom| {
        let norm = atom
            .iter()
            .map(|value| f64::from(*value).powi(2))
            .sum::<f64>();
        let by = if by_norm { norm.sqrt() } else { 1.0 };
        // What an atom of zeros is not above.
        (threshold / by).min(f64::from(f32::MAX)) as f32
    });
    let thresholds: Vec<f32> = thresholds.collect();
    tensors.insert("threshold", &[d_sae], &thresholds);
    for (from, to) in [
        ("encoder.weight", "W_enc"),
        ("encoder.bias", "b_enc"),
        ("decoder.weight", "W_dec"),
        ("decoder.bias", "b_dec"),
    ] {
        tensors.rename(from, to);
    }
    if transcodes {
        let over = |values: &[f32]| -> Vec<f32> {
            let over = values.iter().map(|value| f64::from(*value) / scale_out);
            over.map(|value| value as f32).collect()
        };
        tensors.insert("W_dec", &[d_sae, d_in], &over(&w_dec));
        tensors.insert("b_dec", &[d_in], &over(&b_dec));
    }
    Found {
        format: Format::LlamaScope,
        architecture: Architecture::JumpRelu,
        settings: Settings {
            centred: false,
            normalisation: Normalisation::Scale(scale_in),
            ..if transcodes {
                Settings::transcoder(d_in, d_sae, d_in)
            } else {
                Settings::autoencoder(d_in, d_sae)
            }
        },
        trained_on: TrainedOn {
            hook_name: Some(input),
            hook_name_out: transcodes.then_some(output),
            ..TrainedOn::default()
        },
        metadata: SaeMetadata::default(),
        folder,
        files: vec![cfg.path().to_owned(), path.clone()],
    }
    .read(&tensors, device)
}
