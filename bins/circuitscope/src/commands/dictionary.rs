//! `--sae`: a dictionary that is there already.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use circuitscope::eval::methods::{FixedDictionary, Inactive};
use circuitscope::sae::{SavedSae, load_dir};

pub(crate) use circuitscope::DictionaryOrigin as Origin;

use crate::args::DiscoverArgs;
use crate::device::{B, Device};
use crate::output::note;
use crate::provenance::Provenance;

/// The site of what this program encodes: the outputs of heads.
const HEADS: &str = "attn.hook_result";

/// Reads the folder of a dictionary. Its files are inputs.
pub(crate) fn load(
    folder: &Path,
    device: &Device,
    provenance: &mut Provenance,
) -> Result<SavedSae<B>> {
    let saved = load_dir::<B>(folder, device.plain())?;
    for file in &saved.files {
        provenance.input(file)?;
    }
    Ok(saved)
}

/// Fails unless it encodes outputs of heads, of this width; with `--other-site` unless it has their width.
pub(crate) fn check(saved: &SavedSae<B>, other_site: bool, width: usize) -> Result<()> {
    let site = (!other_site).then_some(HEADS);
    if let Err(error) = saved.fits(site, width) {
        // Of the right width it is another site that does not fit.
        if saved.fits(None, width).is_ok() {
            return Err(anyhow!("{error} (--other-site takes it all the same)"));
        }
        return Err(error.into());
    }
    let on = &saved.trained_on;
    if let Some(hook) = &on.hook_name {
        let head = on.hook_head_index;
        let head = head.map_or_else(String::new, |head| format!(", head {head}"));
        let site = on.site() == Some(HEADS);
        note(&format!(
            "note: {} was trained on {hook}{head}; here it encodes {}",
            saved.folder.display(),
            if site {
                "the outputs of all heads"
            } else {
                "the outputs of heads, which it has never seen"
            }
        ));
    }
    Ok(())
}

/// `discover --sae`.
pub(crate) struct Given {
    pub(crate) saved: SavedSae<B>,
    inactive: Inactive,
}

impl Given {
    /// Before anything runs: a wrong folder should not cost that time.
    pub(crate) fn load(
        args: &DiscoverArgs,
        device: &Device,
        provenance: &mut Provenance,
    ) -> Result<Option<Self>> {
        let Some(folder) = &args.sae_dir else {
            return Ok(None);
        };
        let inactive = match args.method.name.as_ref() {
            "sae" => Inactive::IsFeatureZero,
            "sae-corrected" => Inactive::IsACode,
            other => bail!(
                "--sae {}: found --method {other}, expected sae or sae-corrected, which take a dictionary",
                folder.display()
            ),
        };
        let saved = load(folder, device, provenance)?;
        Ok(Some(Self { saved, inactive }))
    }

    pub(crate) fn method(self) -> FixedDictionary<B> {
        FixedDictionary::new(self.saved.encoder, self.inactive)
    }
}
