//! sparsify (EleutherAI): `cfg.json` and `sae.safetensors`.

use std::path::Path;

use burn::tensor::backend::Backend;
use serde::Deserialize;
use serde_json::Value;

use super::keys::Keys;
use super::sae_lens::own_metadata;
use super::{CFG_FILE, Format, Found, SaeMetadata, SavedSae, TrainedOn};
use crate::architecture::Settings;
use crate::tensors::{Tensors, bytes_of};
use crate::{Architecture, Result};

pub(super) const WEIGHTS_FILE: &str = "sae.safetensors";

/// Keys that are read.
const READ: [&str; 8] = [
    "activation",
    "d_in",
    "expansion_factor",
    "k",
    "num_latents",
    "signed",
    "skip_connection",
    "transcode",
];
/// Keys that say how it was trained.
const TRAINING: [&str; 2] = ["multi_topk", "normalize_decoder"];

pub(super) fn load<B: Backend>(folder: &Path, device: &B::Device) -> Result<SavedSae<B>> {
    let mut cfg = Keys::read(folder.join(CFG_FILE))?;
    let (own, metadata) = made(&mut cfg)?;
    cfg.only(&[&READ, &TRAINING])?;
    let architecture = match cfg.one_of("activation", &["topk", "groupmax"], Some("topk"))? {
        "topk" => Architecture::TopK,
        _ => Architecture::GroupMax,
    };
    if cfg.flag("signed", false)? {
        let why = "false: activations below 0 have no code";
        return Err(cfg.wrong("signed", Some(&Value::Bool(true)), why));
    }
    let transcodes = cfg.flag("transcode", false)?;
    let skip = cfg.flag("skip_connection", false)?;
    let d_in = cfg.size("d_in")?;
    let d_sae = match cfg.get("num_latents") {
        Some(found) if found.as_u64() != Some(0) => cfg.size("num_latents")?,
        _ => {
            let product = d_in.checked_mul(cfg.size("expansion_factor")?);
            let fits = product.filter(|product| i32::try_from(*product).is_ok());
            let found = cfg.get("expansion_factor");
            let most = "at most 2147483647 features, d_in times as many";
            fits.ok_or_else(|| cfg.wrong("expansion_factor", found, most))?
        }
    };
    let k = cfg.k("k", cfg.get("k"), d_sae)?;
    if architecture == Architecture::GroupMax && !d_sae.is_multiple_of(k) {
        let expected = format!("a divisor of {d_sae}, the number of features, with groupmax");
        return Err(cfg.wrong("k", cfg.get("k"), &expected));
    }

    let path = folder.join(WEIGHTS_FILE);
    let bytes = bytes_of(&path)?;
    let mut tensors = Tensors::of_safetensors(&path, &bytes)?;
    let names = ["encoder.weight", "encoder.bias", "W_dec", "b_dec", "W_skip"];
    let names = if skip { &names } else { &names[..4] };
    tensors.only(names)?;
    tensors.require(names)?;
    tensors.transpose("encoder.weight", &[d_sae, d_in], "[num_latents, d_in]")?;
    tensors.floats("encoder.bias", &[d_sae], "[num_latents]")?;
    tensors.rename("encoder.weight", "W_enc");
    tensors.rename("encoder.bias", "b_enc");
    Found {
        format: Format::Sparsify,
        architecture,
        settings: Settings {
            k,
            // Whatever `normalize_decoder` says.
            ..if transcodes {
                Settings::transcoder(d_in, d_sae, d_in)
            } else {
                Settings::autoencoder(d_in, d_sae)
            }
        },
        trained_on: own.unwrap_or_else(|| trained_on(folder, transcodes)),
        metadata,
        folder,
        files: vec![cfg.path().to_owned(), path.clone()],
    }
    .read(&tensors, device)
}

/// What this crate wrote beside sparsify's keys, which sparsify passes over.
fn made(cfg: &mut Keys) -> Result<(Option<TrainedOn>, SaeMetadata)> {
    const FIELD: &str = "circuitscope";
    let mut own = cfg.take(FIELD);
    let trained_on = own.as_mut().and_then(Value::as_object_mut);
    let trained_on = trained_on.and_then(|own| own.remove("trained_on"));
    let trained_on = trained_on.map(|found| {
        let read = TrainedOn::deserialize(&found);
        read.map_err(|error| {
            let field = format!("{FIELD}.trained_on");
            cfg.wrong(&field, Some(&found), &error.to_string())
        })
    });
    Ok((trained_on.transpose()?, own_metadata(cfg, FIELD, own)?))
}

/// What the name of the folder says: an autoencoder is of the output of the module, a transcoder takes its input to its
/// output. The models are those of transformers, which nothing folds.
fn trained_on(folder: &Path, transcodes: bool) -> TrainedOn {
    let (read, written) = module(folder).map_or((None, None), |(layer, module)| {
        let at = |site: &str| match layer {
            Some(layer) => format!("blocks.{layer}.{site}"),
            None => site.to_owned(),
        };
        let (input, output) = module.sites();
        if transcodes {
            (input.map(at), Some(at(output)))
        } else {
            (Some(at(output)), None)
        }
    });
    TrainedOn {
        hook_name: read,
        hook_name_out: written,
        folded: Some(false),
        ..TrainedOn::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    Embedding,
    Layer,
    Mlp,
    Attention,
}

impl Module {
    /// What it takes, where that has a name, and what it gives.
    const fn sites(self) -> (Option<&'static str>, &'static str) {
        match self {
            // Tokens.
            Self::Embedding => (None, "hook_embed"),
            Self::Layer => (Some("hook_resid_pre"), "hook_resid_post"),
            // After the norm and its gain.
            Self::Mlp => (Some("mlp.hook_in"), "hook_mlp_out"),
            // After the norm and its gain, which TransformerLens has no name for.
            Self::Attention => (None, "hook_attn_out"),
        }
    }
}

/// The layer and the module of transformers after which sparsify names a folder: `layers.5.mlp`, `h.3.attn`. A folder by
/// another name does not say.
fn module(folder: &Path) -> Option<(Option<usize>, Module)> {
    let folder = folder.canonicalize().ok()?;
    let mut parts = folder.file_name()?.to_str()?.split('.').peekable();
    // What models of transformers call their body.
    parts.next_if(|part| ["model", "transformer", "gpt_neox", "decoder"].contains(part));
    let stack = parts.next()?;
    if ["embed_tokens", "embed_in", "wte"].contains(&stack) && parts.next().is_none() {
        return Some((None, Module::Embedding));
    }
    if !["layers", "h"].contains(&stack) {
        return None;
    }
    let layer: usize = parts.next()?.parse().ok()?;
    let module = match (parts.next(), parts.next()) {
        (None, _) => Module::Layer,
        (Some("mlp"), None) => Module::Mlp,
        (Some("attn" | "self_attn" | "attention"), None) => Module::Attention,
        _ => return None,
    };
    Some((Some(layer), module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_modules() {
        let root = tempfile::tempdir().unwrap();
        for (name, read, transcoded) in [
            (
                "layers.10",
                Some("blocks.10.hook_resid_post"),
                [
                    Some("blocks.10.hook_resid_pre"),
                    Some("blocks.10.hook_resid_post"),
                ],
            ),
            (
                "layers.5.mlp",
                Some("blocks.5.hook_mlp_out"),
                [Some("blocks.5.mlp.hook_in"), Some("blocks.5.hook_mlp_out")],
            ),
            (
                "h.3.attn",
                Some("blocks.3.hook_attn_out"),
                [None, Some("blocks.3.hook_attn_out")],
            ),
            (
                "model.layers.0.self_attn",
                Some("blocks.0.hook_attn_out"),
                [None, Some("blocks.0.hook_attn_out")],
            ),
            (
                "embed_tokens",
                Some("hook_embed"),
                [None, Some("hook_embed")],
            ),
            ("h.3.attn.c_proj", None, [None, None]),
            ("layers.x", None, [None, None]),
            ("sae", None, [None, None]),
        ] {
            let folder = root.path().join(name);
            fs_err::create_dir(&folder).unwrap();
            let sites = |transcodes| {
                let on = trained_on(&folder, transcodes);
                [on.hook_name, on.hook_name_out]
            };
            let named = |site: Option<&str>| site.map(str::to_owned);
            assert_eq!(sites(false), [named(read), None], "{name}");
            assert_eq!(sites(true), transcoded.map(named), "{name}");
        }
    }
}
