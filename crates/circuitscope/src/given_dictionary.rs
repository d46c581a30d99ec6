//! A dictionary that is there already, in place of one that a method trains.

use std::path::Path;

use burn::tensor::backend::Backend;
use circuitscope_eval::methods::{FixedDictionary, Inactive};
use circuitscope_sae::{SavedSae, TrainedOn, load_dir};
use serde::Serialize;

use crate::{Error, Result};

/// The site of what heads put out.
const HEADS: &str = "attn.hook_result";

/// What results say of a dictionary that was there already.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct DictionaryOrigin {
    /// Its folder.
    pub folder: String,
    /// Whose files they are.
    pub format: String,
    /// What it computes.
    pub architecture: String,
    /// What it was trained on.
    pub trained_on: TrainedOn,
}

impl DictionaryOrigin {
    /// Of a dictionary that was read.
    #[must_use]
    pub fn of<B: Backend>(saved: &SavedSae<B>) -> Self {
        Self {
            folder: saved.folder.display().to_string(),
            format: saved.format.to_string(),
            architecture: saved.architecture.to_string(),
            trained_on: saved.trained_on.clone(),
        }
    }
}

/// A dictionary for `sae` or `sae-corrected`, which train none then.
#[derive(Debug)]
pub struct GivenDictionary<B: Backend> {
    /// What was read.
    pub saved: SavedSae<B>,
    inactive: Inactive,
}

impl<B: Backend> GivenDictionary<B> {
    /// Reads a folder ([`load_dir`]) for the method of this name.
    ///
    /// # Errors
    /// [`Error::TakesNoDictionary`]; as [`load_dir`].
    pub fn load(folder: &Path, method: &str, device: &B::Device) -> Result<Self> {
        let inactive = match method {
            "sae" => Inactive::IsFeatureZero,
            "sae-corrected" => Inactive::IsACode,
            other => {
                return Err(Error::TakesNoDictionary {
                    folder: folder.to_owned(),
                    method: other.to_owned(),
                });
            }
        };
        let saved = load_dir::<B>(folder, device)?;
        Ok(Self { saved, inactive })
    }

    /// The method that uses it.
    #[must_use]
    pub fn method(self) -> FixedDictionary<B> {
        FixedDictionary::new(self.saved.encoder, self.inactive)
    }
}

/// Fails unless a dictionary encodes outputs of heads of this width; of `any_site`, unless it has their width. Else what it
/// was trained on, in a sentence, where that is known.
///
/// # Errors
/// As [`SavedSae::fits`]; followed by `(takes_it takes it all the same)` where the site alone does not fit.
pub fn encodes_heads<B: Backend>(
    saved: &SavedSae<B>,
    any_site: bool,
    width: usize,
    takes_it: &str,
) -> Result<Option<String>> {
    let site = (!any_site).then_some(HEADS);
    if let Err(error) = saved.fits(site, width) {
        if saved.fits(None, width).is_ok() {
            return Err(Error::OtherSite {
                unfit: error,
                takes_it: takes_it.to_owned(),
            });
        }
        return Err(error.into());
    }
    let on = &saved.trained_on;
    Ok(on.hook_name.as_ref().map(|hook| {
        let head = on.hook_head_index;
        let head = head.map_or_else(String::new, |head| format!(", head {head}"));
        format!(
            "{} was trained on {hook}{head}; here it encodes {}",
            saved.folder.display(),
            if on.site() == Some(HEADS) {
                "the outputs of all heads"
            } else {
                "the outputs of heads, which it has never seen"
            }
        )
    }))
}
