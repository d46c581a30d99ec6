//! circuit-tracer: `config.yaml` and one file of weights for each layer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use serde_json::Value;

use super::keys::Keys;
use super::{Format, Found, SaeMetadata, SavedSae, TrainedOn, gemma_scope, names, tensor_names};
use crate::architecture::Settings;
use crate::tensors::{Tensors, bytes_of};
use crate::{Architecture, Error, Result};

pub(super) const FILE: &str = "config.yaml";

/// The last three are what the tool adds to where a set came from.
const KEYS: [&str; 9] = [
    "model_kind",
    "model_name",
    "feature_input_hook",
    "feature_output_hook",
    "scan",
    "transcoders",
    "repo_id",
    "revision",
    "subfolder",
];
const SET: &str = "transcoder_set";
const CROSS_LAYER: &str = "cross_layer_transcoder";

/// Whether a folder has the settings of a set, of either kind.
pub(super) fn is_set(found: &[String]) -> bool {
    found.iter().any(|found| found == FILE)
}

/// A set, of which no weights are read yet.
pub(super) struct Set {
    config: PathBuf,
    pub(super) model: Option<String>,
    pub(super) scan: Vec<String>,
    input: String,
    output: String,
    /// The files of the layers.
    pub(super) layers: BTreeMap<usize, PathBuf>,
}

impl Set {
    /// # Errors
    /// [`Error::OtherFormat`] for cross-layer transcoders, [`Error::Field`], [`Error::UnknownField`], [`Error::Unsuited`] for
    /// a layer that is not there.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let cfg = Keys::read_yaml(folder.join(FILE))?;
        cfg.only(&[&KEYS])?;
        if cfg.one_of("model_kind", &[SET, CROSS_LAYER], None)? == CROSS_LAYER {
            return Err(Error::OtherFormat {
                path: cfg.path().to_owned(),
                found: format!(
                    "a {CROSS_LAYER}, whose features write to all later layers: expected a {SET}, whose features write to \
                     their own"
                ),
            });
        }
        let hook = |key: &str| match cfg.needed_text(key)? {
            hook if hook.starts_with("blocks.") => {
                let expected = "a hook without its layer, as mlp.hook_in";
                Err(cfg.wrong(key, cfg.get(key), expected))
            }
            hook => Ok(hook),
        };
        let scan = match cfg.get("scan") {
            None => Vec::new(),
            Some(Value::String(scan)) => vec![scan.clone()],
            found => texts(&cfg, "scan", found)?,
        };
        Ok(Self {
            config: cfg.path().to_owned(),
            model: cfg.text("model_name")?,
            scan,
            input: hook("feature_input_hook")?,
            output: hook("feature_output_hook")?,
            layers: match cfg.get("transcoders") {
                None => numbered(folder)?,
                found => listed(&cfg, folder, found)?,
            },
        })
    }

    /// Reads the transcoder of a layer.
    pub(super) fn load<B: Backend>(
        &self,
        folder: &Path,
        layer: usize,
        path: &Path,
        device: &B::Device,
    ) -> Result<SavedSae<B>> {
        let at = |site: &str| Some(format!("blocks.{layer}.{site}"));
        let trained_on = TrainedOn {
            model: self.model.clone(),
            hook_name: at(&self.input),
            hook_name_out: at(&self.output),
            // Its models are loaded without processing.
            folded: Some(false),
            ..TrainedOn::default()
        };
        if path.extension().is_some_and(|extension| extension == "npz") {
            let mut saved = gemma_scope::load_transcoder(folder, path, layer, device)?;
            saved.trained_on = TrainedOn {
                prepend_bos: saved.trained_on.prepend_bos,
                ..trained_on
            };
            saved.files.insert(0, self.config.clone());
            return Ok(saved);
        }
        let bytes = bytes_of(path)?;
        let mut tensors = Tensors::of_safetensors(path, &bytes)?;
        tensors.rename("activation_function.threshold", "threshold");
        let (jumps, skip) = (tensors.has("threshold"), tensors.has("W_skip"));
        let architecture = if jumps {
            Architecture::JumpRelu
        } else {
            Architecture::Standard
        };
        tensors.only(&tensor_names(architecture, skip))?;
        let [d_sae, d_in] = tensors.matrix("W_enc", "[d_sae, d_in]")?;
        tensors.transpose("W_enc", &[d_sae, d_in], "[d_sae, d_in]")?;
        let [d_in, d_sae, d_out] = tensors.sizes()?;
        Found {
            format: Format::CircuitTracer,
            architecture,
            settings: Settings::transcoder(d_in, d_sae, d_out),
            trained_on,
            metadata: SaeMetadata::default(),
            folder,
            files: vec![self.config.clone(), path.to_owned()],
        }
        .read(&tensors, device)
    }
}

/// Files by the names of layers, from 0 on.
fn numbered(folder: &Path) -> Result<BTreeMap<usize, PathBuf>> {
    let number = |name: &String| {
        let number = name.strip_prefix("layer_")?.strip_suffix(".safetensors")?;
        let layer: usize = number.parse().ok()?;
        // One name for each layer.
        (layer.to_string() == number).then(|| (layer, folder.join(name)))
    };
    let found = names(folder)?;
    let layers: BTreeMap<usize, PathBuf> = found.iter().filter_map(number).collect();
    let missing = (0..=layers.len()).find(|layer| !layers.contains_key(layer));
    let missing = missing.unwrap_or(layers.len());
    if missing < layers.len() || layers.is_empty() {
        return Err(Error::Unsuited {
            path: folder.to_owned(),
            what: "layers",
            found: if found.is_empty() {
                "nothing".to_owned()
            } else {
                found.join(", ")
            },
            expected: format!("layer_{missing}.safetensors, as a set has all layers from 0 on"),
        });
    }
    Ok(layers)
}

/// Files that the config lists, from layer 0 on.
fn listed(cfg: &Keys, folder: &Path, found: Option<&Value>) -> Result<BTreeMap<usize, PathBuf>> {
    const KEY: &str = "transcoders";
    let files = texts(cfg, KEY, found)?;
    if files.is_empty() {
        return Err(cfg.wrong(KEY, found, "at least one file"));
    }
    let mut layers = BTreeMap::new();
    for (layer, file) in files.into_iter().enumerate() {
        if file.contains("://") {
            let expected = "files beside it: nothing is fetched";
            return Err(cfg.wrong(KEY, Some(&Value::String(file)), expected));
        }
        layers.insert(layer, folder.join(file));
    }
    Ok(layers)
}

fn texts(cfg: &Keys, key: &str, found: Option<&Value>) -> Result<Vec<String>> {
    let texts = found.and_then(Value::as_array).and_then(|list| {
        let texts = list.iter().map(|text| text.as_str().map(str::to_owned));
        texts.collect()
    });
    texts.ok_or_else(|| cfg.wrong(key, found, "a list of texts"))
}
