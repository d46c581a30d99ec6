//! Attention-output dictionaries of Kissane, Krzyzanowski and others (2024, arXiv 2406.17759): `NAME.pt`, a state dict as PyTorch
//! pickles it, and `NAME_cfg.json`.

use std::path::Path;

use burn::tensor::backend::Backend;
use serde_json::Value;

use super::keys::Keys;
use super::{Format, Found, SaeMetadata, SavedSae, TrainedOn};
use crate::architecture::Settings;
use crate::tensors::Tensors;
use crate::{Architecture, Result};

/// How names of files end.
const CFG: &str = "_cfg.json";
const WEIGHTS: &str = ".pt";

/// The name of the only pair of files among these.
pub(super) fn name(found: &[String]) -> Option<&str> {
    let mut names = found.iter().filter_map(|file| file.strip_suffix(CFG));
    let name = names
        .next()
        .filter(|name| found.iter().any(|file| *file == format!("{name}{WEIGHTS}")));
    name.filter(|_| names.next().is_none())
}

/// Of the many keys, which differ from version to version, these say what the tensors are; the others how they were trained.
pub(super) fn load<B: Backend>(
    folder: &Path,
    name: &str,
    device: &B::Device,
) -> Result<SavedSae<B>> {
    let cfg = Keys::read(folder.join(format!("{name}{CFG}")))?;
    let (d_in, d_sae) = (cfg.size("act_size")?, cfg.size("dict_size")?);
    let path = folder.join(format!("{name}{WEIGHTS}"));
    let tensors = Tensors::of_pickle(&path)?;
    let names = ["W_enc", "W_dec", "b_enc", "b_dec"];
    tensors.only(&names)?;
    tensors.require(&names)?;
    let side_by_side = cfg.flag("concat_heads", false)?;
    let head = cfg.get("head").filter(|_| !side_by_side);
    Found {
        format: Format::AttentionOutput,
        architecture: Architecture::Standard,
        settings: Settings::autoencoder(d_in, d_sae),
        trained_on: TrainedOn {
            model: cfg.text("model_name")?,
            hook_name: cfg.text("act_name")?,
            hook_head_index: head.and_then(Value::as_u64),
            // Of the training code: TransformerLens' default rewriting, and every row begins with it.
            folded: Some(true),
            prepend_bos: Some(true),
            ..TrainedOn::default()
        },
        metadata: SaeMetadata::default(),
        folder,
        files: vec![cfg.path().to_owned(), path.clone()],
    }
    .read(&tensors, device)
}
