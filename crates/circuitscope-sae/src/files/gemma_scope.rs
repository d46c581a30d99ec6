//! Gemma Scope (Lieberum et al. 2024, arXiv 2408.05147): `params.npz`.

use std::path::Path;

use burn::tensor::backend::Backend;

use super::{Format, Found, SaeMetadata, SavedSae, TrainedOn, tensor_names};
use crate::architecture::Settings;
use crate::tensors::Tensors;
use crate::{Architecture, Normalisation, Result};

pub(super) const FILE: &str = "params.npz";

/// In some archives; what is read is one of ones, as SAELens reads it.
const SCALING: &str = "scaling_factor";

pub(super) fn load<B: Backend>(folder: &Path, device: &B::Device) -> Result<SavedSae<B>> {
    read(folder, &folder.join(FILE), Place::of(folder), device)
}

/// The transcoder of a layer, from a file that may lie elsewhere.
pub(super) fn load_transcoder<B: Backend>(
    folder: &Path,
    file: &Path,
    layer: usize,
    device: &B::Device,
) -> Result<SavedSae<B>> {
    read(folder, file, Place::transcoder(Some(layer)), device)
}

fn read<B: Backend>(
    folder: &Path,
    path: &Path,
    place: Place,
    device: &B::Device,
) -> Result<SavedSae<B>> {
    let mut tensors = Tensors::of_npz(path)?;
    tensors.rename("w_enc", "W_enc");
    tensors.rename("w_dec", "W_dec");
    let mut known = tensor_names(Architecture::JumpRelu, false);
    known.push(SCALING);
    tensors.only(&known)?;
    let [d_in, d_sae, d_out] = tensors.sizes()?;
    if tensors.has(SCALING) {
        tensors.floats_that((SCALING, &[d_sae], "[d_sae]"), "ones", |value| value == 1.0)?;
    }
    let settings = if place.transcodes {
        Settings::transcoder(d_in, d_sae, d_out)
    } else {
        Settings {
            centred: false,
            // Trained on embeddings as they are stored, where the model's are √d_in times as long.
            normalisation: if place.embedding {
                Normalisation::Scale(1.0 / (d_in as f64).sqrt())
            } else {
                Normalisation::None
            },
            ..Settings::autoencoder(d_in, d_sae)
        }
    };
    Found {
        format: Format::GemmaScope,
        architecture: Architecture::JumpRelu,
        settings,
        trained_on: TrainedOn {
            hook_name: place.hook,
            hook_name_out: place.hook_out,
            // The models are never run without.
            prepend_bos: Some(true),
            folded: Some(false),
            ..TrainedOn::default()
        },
        metadata: SaeMetadata::default(),
        folder,
        files: vec![path.to_owned()],
    }
    .read(&tensors, device)
}

/// What the place of a folder says: `gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71`. An archive elsewhere
/// does not say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    hook: Option<String>,
    hook_out: Option<String>,
    embedding: bool,
    transcodes: bool,
}

impl Place {
    /// From what the MLP of a layer multiplies, after the norm and its gain, to what it adds.
    fn transcoder(layer: Option<usize>) -> Self {
        Self {
            hook: layer.map(|layer| format!("blocks.{layer}.mlp.hook_in")),
            hook_out: layer.map(|layer| format!("blocks.{layer}.hook_mlp_out")),
            embedding: false,
            transcodes: true,
        }
    }

    fn of(folder: &Path) -> Self {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let parts: Vec<&str> = folder.iter().filter_map(|part| part.to_str()).collect();
        // Of the hub's cache, too: `models--google--gemma-scope-2b-pt-res`.
        let sites = parts.iter().rev().find_map(|part| {
            let (_, kind) = part.split_once("gemma-scope-")?;
            kind.rsplit('-').next()
        });
        if parts.contains(&"embedding") && sites.is_some() {
            return Self {
                hook: Some("hook_embed".to_owned()),
                embedding: true,
                ..Self::default()
            };
        }
        let layer = parts
            .iter()
            .rev()
            .find_map(|part| part.strip_prefix("layer_")?.parse::<usize>().ok());
        if sites == Some("transcoders") {
            return Self::transcoder(layer);
        }
        let site = match sites {
            Some("res") => Some("hook_resid_post"),
            Some("mlp") => Some("hook_mlp_out"),
            Some("att") => Some("attn.hook_z"),
            _ => None,
        };
        let hook = layer
            .zip(site)
            .map(|(layer, site)| format!("blocks.{layer}.{site}"));
        Self {
            hook,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_archives() {
        let place = |hook: Option<&str>, embedding| Place {
            hook: hook.map(str::to_owned),
            embedding,
            ..Place::default()
        };
        for (folder, expected) in [
            (
                "/x/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
                place(Some("blocks.20.hook_resid_post"), false),
            ),
            (
                "/x/models--google--gemma-scope-9b-it-att/snapshots/0/layer_3/width_16k/average_l0_9",
                place(Some("blocks.3.attn.hook_z"), false),
            ),
            (
                "/x/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_111",
                place(Some("hook_embed"), true),
            ),
            ("/x/embedding/layer_2", place(None, false)),
            (
                "/x/gemma-scope-2b-pt-transcoders/layer_3/width_16k/average_l0_9",
                Place::transcoder(Some(3)),
            ),
        ] {
            assert_eq!(Place::of(Path::new(folder)), expected, "{folder}");
        }
    }
}
