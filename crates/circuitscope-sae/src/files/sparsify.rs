//! sparsify (EleutherAI): `cfg.json` and `sae.safetensors`.

use std::path::Path;

use burn::tensor::backend::Backend;
use serde_json::Value;

use super::keys::Keys;
use super::{CFG_FILE, Format, Found, SaeMetadata, SavedSae, TrainedOn};
use crate::architecture::Settings;
use crate::tensors::{Tensors, bytes_of};
use crate::{Architecture, Normalisation, Result};

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
    let cfg = Keys::read(folder.join(CFG_FILE))?;
    cfg.only(&[&READ, &TRAINING])?;
    cfg.one_of("activation", &["topk"], Some("topk"))?;
    for (key, why) in [
        ("signed", "false: activations below 0 have no code"),
        (
            "skip_connection",
            "false: a transcoder is no dictionary of what it reads",
        ),
        (
            "transcode",
            "false: a transcoder is no dictionary of what it reads",
        ),
    ] {
        if cfg.flag(key, false)? {
            return Err(cfg.wrong(key, Some(&Value::Bool(true)), why));
        }
    }
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

    let path = folder.join(WEIGHTS_FILE);
    let bytes = bytes_of(&path)?;
    let mut tensors = Tensors::of_safetensors(&path, &bytes)?;
    let names = ["encoder.weight", "encoder.bias", "W_dec", "b_dec"];
    tensors.only(&names)?;
    tensors.require(&names)?;
    tensors.transpose("encoder.weight", &[d_sae, d_in], "[num_latents, d_in]")?;
    tensors.floats("encoder.bias", &[d_sae], "[num_latents]")?;
    tensors.rename("encoder.weight", "W_enc");
    tensors.rename("encoder.bias", "b_enc");
    Found {
        format: Format::Sparsify,
        architecture: Architecture::TopK,
        settings: Settings {
            d_in,
            d_sae,
            k,
            by_decoder_norm: false,
            // Whatever `normalize_decoder` says.
            centred: true,
            normalisation: Normalisation::None,
        },
        trained_on: TrainedOn {
            hook_name: hook(folder),
            ..TrainedOn::default()
        },
        metadata: SaeMetadata::default(),
        folder,
        files: vec![cfg.path().to_owned(), path.clone()],
    }
    .read(&tensors, device)
}

/// The site of a module of transformers, after which sparsify names a folder: `layers.5.mlp`, `h.3.attn`. A folder by
/// another name does not say.
fn hook(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mut parts = folder.file_name()?.to_str()?.split('.').peekable();
    // What models of transformers call their body.
    parts.next_if(|part| ["model", "transformer", "gpt_neox", "decoder"].contains(part));
    let stack = parts.next()?;
    if ["embed_tokens", "embed_in", "wte"].contains(&stack) && parts.next().is_none() {
        return Some("hook_embed".to_owned());
    }
    if !["layers", "h"].contains(&stack) {
        return None;
    }
    let layer: usize = parts.next()?.parse().ok()?;
    let site = match (parts.next(), parts.next()) {
        (None, _) => "hook_resid_post",
        (Some("mlp"), None) => "hook_mlp_out",
        (Some("attn" | "self_attn" | "attention"), None) => "hook_attn_out",
        _ => return None,
    };
    Some(format!("blocks.{layer}.{site}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_modules() {
        let root = tempfile::tempdir().unwrap();
        for (name, expected) in [
            ("layers.10", Some("blocks.10.hook_resid_post")),
            ("layers.5.mlp", Some("blocks.5.hook_mlp_out")),
            ("h.3.attn", Some("blocks.3.hook_attn_out")),
            ("model.layers.0.self_attn", Some("blocks.0.hook_attn_out")),
            ("embed_tokens", Some("hook_embed")),
            ("h.3.attn.c_proj", None),
            ("layers.x", None),
            ("sae", None),
        ] {
            let folder = root.path().join(name);
            fs_err::create_dir(&folder).unwrap();
            assert_eq!(hook(&folder).as_deref(), expected, "{name}");
        }
    }
}
