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
    let path = folder.join(FILE);
    let mut tensors = Tensors::of_npz(&path)?;
    tensors.rename("w_enc", "W_enc");
    tensors.rename("w_dec", "W_dec");
    let mut known = tensor_names(Architecture::JumpRelu, false);
    known.push(SCALING);
    tensors.only(&known)?;
    let [d_in, d_sae] = tensors.matrix("W_enc", "[d_in, d_sae]")?;
    if i32::try_from(d_sae).is_err() {
        return Err(tensors.value_error(
            "W_enc",
            &format!("{d_sae} features"),
            "at most 2147483647",
        ));
    }
    if tensors.has(SCALING) {
        tensors.floats_that((SCALING, &[d_sae], "[d_sae]"), "ones", |value| value == 1.0)?;
    }
    let place = Place::of(folder);
    Found {
        format: Format::GemmaScope,
        architecture: Architecture::JumpRelu,
        settings: Settings {
            centred: false,
            // Trained on embeddings as they are stored, where the model's are √d_in times as long.
            normalisation: if place.embedding {
                Normalisation::Scale(1.0 / (d_in as f64).sqrt())
            } else {
                Normalisation::None
            },
            ..Settings::autoencoder(d_in, d_sae)
        },
        trained_on: TrainedOn {
            hook_name: place.hook,
            ..TrainedOn::default()
        },
        metadata: SaeMetadata::default(),
        folder,
        files: vec![path.clone()],
    }
    .read(&tensors, device)
}

/// What the place of a folder says: `gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71`. An archive elsewhere
/// does not say.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    hook: Option<String>,
    embedding: bool,
}

impl Place {
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
            };
        }
        let layer = parts
            .iter()
            .rev()
            .find_map(|part| part.strip_prefix("layer_")?.parse::<usize>().ok());
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
            embedding: false,
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
        ] {
            assert_eq!(Place::of(Path::new(folder)), expected, "{folder}");
        }
    }
}
