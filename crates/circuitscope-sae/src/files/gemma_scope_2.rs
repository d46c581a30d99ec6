//! Gemma Scope 2: `params.safetensors`, and `config.json` where it came along.

use std::path::Path;

use burn::tensor::backend::Backend;
use serde_json::Value;

use super::keys::Keys;
use super::{Format, Found, SaeMetadata, SavedSae, TrainedOn, tensor_names};
use crate::architecture::Settings;
use crate::tensors::{Tensors, bytes_of};
use crate::{Architecture, Error, Result};

pub(super) const FILE: &str = "params.safetensors";
const CONFIG: &str = "config.json";

const READ: [&str; 5] = [
    "affine_connection",
    "architecture",
    "hf_hook_point_in",
    "hf_hook_point_out",
    "model_name",
];
/// How wide and how sparse it is, and what it is called.
const HARMLESS: [&str; 3] = ["l0", "type", "width"];

/// A skip connection, stored as `[d_in, d_out]`.
const SKIP: &str = "affine_skip_connection";

pub(super) fn load<B: Backend>(folder: &Path, device: &B::Device) -> Result<SavedSae<B>> {
    let path = folder.join(FILE);
    let config = folder.join(CONFIG);
    let mut files = Vec::new();
    let mut place = Place::of(folder);
    let mut model = None;
    let mut affine = None;
    if config.exists() {
        let cfg = Keys::read(config)?;
        cfg.only(&[&READ, &HARMLESS])?;
        cfg.one_of("architecture", &["jump_relu"], None)?;
        model = cfg.text("model_name")?;
        affine = cfg
            .has("affine_connection")
            .then(|| cfg.flag("affine_connection", false));
        place = Place::of_config(&cfg)?;
        files.push(cfg.path().to_owned());
    }
    let affine = affine.transpose()?;

    let bytes = bytes_of(&path)?;
    let mut tensors = Tensors::of_safetensors(&path, &bytes)?;
    tensors.rename("w_enc", "W_enc");
    tensors.rename("w_dec", "W_dec");
    tensors.rename(SKIP, "W_skip");
    let skip = tensors.has("W_skip");
    if let Some(affine) = affine
        && affine != skip
    {
        return Err(Error::Field {
            path: folder.join(CONFIG),
            field: "affine_connection".to_owned(),
            found: affine.to_string(),
            expected: format!(
                "{skip}, as {FILE} {} {SKIP}",
                if skip { "has" } else { "has no" }
            ),
            nearest: None,
        });
    }
    tensors.only(&tensor_names(Architecture::JumpRelu, skip))?;
    let [d_in, d_sae, d_out] = tensors.sizes()?;
    if skip {
        tensors.transpose("W_skip", &[d_in, d_out], "[d_in, d_out]")?;
    }
    let transcodes = skip || place.output.is_some();
    files.push(path.clone());
    Found {
        format: Format::GemmaScope2,
        architecture: Architecture::JumpRelu,
        settings: if transcodes {
            Settings::transcoder(d_in, d_sae, d_out)
        } else {
            Settings {
                centred: false,
                ..Settings::autoencoder(d_in, d_sae)
            }
        },
        trained_on: TrainedOn {
            model,
            hook_name: place.input,
            hook_name_out: place.output,
            // The models are never run without.
            prepend_bos: Some(true),
            folded: Some(false),
            ..TrainedOn::default()
        },
        metadata: SaeMetadata::default(),
        folder,
        files,
    }
    .read(&tensors, device)
}

/// The sites of a dictionary; only a transcoder has an output.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    input: Option<String>,
    output: Option<String>,
}

impl Place {
    /// Of a folder: `gemma-scope-2-1b-pt/resid_post_all/layer_5_width_16k_l0_small`. One elsewhere does not say.
    fn of(folder: &Path) -> Self {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let mut parts = folder.iter().rev().filter_map(|part| part.to_str());
        let layer = parts.next().and_then(|name| {
            let digits = name.strip_prefix("layer_")?.split('_').next()?;
            digits.parse::<usize>().ok()
        });
        let (Some(layer), Some(kind)) = (layer, parts.next()) else {
            return Self::default();
        };
        let starts = |start: &str| kind == start || kind.starts_with(&format!("{start}_"));
        let site = |site: &str| Some(format!("blocks.{layer}.{site}"));
        let (input, output) = if starts("transcoder") {
            (site("mlp.hook_in"), site("hook_mlp_out"))
        } else if starts("resid_post") {
            (site("hook_resid_post"), None)
        } else if starts("attn_out") {
            (site("attn.hook_z"), None)
        } else if starts("mlp_out") {
            (site("hook_mlp_out"), None)
        } else {
            (None, None)
        };
        Self { input, output }
    }

    /// Of the modules of transformers that a config names.
    fn of_config(cfg: &Keys) -> Result<Self> {
        let site = |key: &'static str| match cfg.text(key)? {
            None => Ok(None),
            Some(hook) => match site_of(&hook) {
                Some(site) => Ok(Some(site)),
                None => Err(cfg.wrong(
                    key,
                    Some(&Value::String(hook)),
                    "a module of a layer: model.layers.0. and output, self_attn.o_proj.input, \
                     pre_feedforward_layernorm.output or post_feedforward_layernorm.output",
                )),
            },
        };
        let (input, output) = (site("hf_hook_point_in")?, site("hf_hook_point_out")?);
        let output = output.filter(|output| Some(output) != input.as_ref());
        Ok(Self { input, output })
    }
}

/// TransformerLens' name of `model.layers.5.output`.
fn site_of(hook: &str) -> Option<String> {
    let (_, rest) = hook.split_once("layers.")?;
    let (layer, module) = rest.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let site = match module {
        "output" => "hook_resid_post",
        "self_attn.o_proj.input" => "attn.hook_z",
        // After its gain.
        "pre_feedforward_layernorm.output" => "mlp.hook_in",
        "post_feedforward_layernorm.output" => "hook_mlp_out",
        _ => return None,
    };
    Some(format!("blocks.{layer}.{site}"))
}
