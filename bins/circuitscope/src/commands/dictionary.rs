//! `--sae`: a dictionary that is there already.

use std::path::Path;

use anyhow::{Result, anyhow};
use circuitscope::sae::{SavedSae, load_dir};
use circuitscope::{Error, GivenDictionary, encodes_heads};

pub(crate) use circuitscope::DictionaryOrigin as Origin;

use crate::args::DiscoverArgs;
use crate::device::{B, Device};
use crate::output::note;
use crate::provenance::Provenance;

/// Reads the folder of a dictionary. Its files are inputs.
pub(crate) fn load(
    folder: &Path,
    device: &Device,
    provenance: &mut Provenance,
) -> Result<SavedSae<B>> {
    let saved = load_dir::<B>(folder, device.plain())?;
    provenance.input_all(&saved.files)?;
    Ok(saved)
}

/// Fails unless it encodes outputs of heads, of this width; with `--other-site` unless it has their width.
pub(crate) fn check(saved: &SavedSae<B>, other_site: bool, width: usize) -> Result<()> {
    if let Some(said) = encodes_heads(saved, other_site, width, "--other-site")? {
        note(&format!("note: {said}"));
    }
    Ok(())
}

/// The dictionary of `discover --sae`, before anything runs: a wrong folder should not cost that time.
pub(crate) fn given(
    args: &DiscoverArgs,
    device: &Device,
    provenance: &mut Provenance,
) -> Result<Option<GivenDictionary<B>>> {
    let Some(folder) = &args.sae_dir else {
        return Ok(None);
    };
    let given = GivenDictionary::load(folder, &args.method.name, device.plain());
    let given = given.map_err(|error| match error {
        Error::TakesNoDictionary { .. } => anyhow!("--sae {error}"),
        error => error.into(),
    })?;
    provenance.input_all(&given.saved.files)?;
    Ok(Some(given))
}
