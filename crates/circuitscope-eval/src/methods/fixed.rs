use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed};
use circuitscope_sae::Encoder;

use super::coded::{Inactive, Made, encoded, of_dictionary};
use super::sae;
use crate::{About, Discover, Evidence, Measured, Result};

/// Codes of a dictionary that is there already, whoever trained it: the paper's scores with any [`Encoder`].
///
/// # Complexity
/// That of encoding all examples once.
///
/// # Examples
/// `crates/circuitscope/tests/it/doors.rs` brings an encoder of its own.
#[derive(Debug, Clone)]
pub struct FixedDictionary<B: Backend> {
    about: About,
    encoder: Arc<dyn Encoder<B>>,
    inactive: Inactive,
}

impl<B: Backend> FixedDictionary<B> {
    /// Method `sae`, or with [`Inactive::IsACode`] `sae-corrected`, with this dictionary instead of one that is trained
    /// on a few of the examples.
    pub fn new(encoder: Arc<dyn Encoder<B>>, inactive: Inactive) -> Self {
        let about = match inactive {
            Inactive::IsFeatureZero => &sae::PAPER,
            Inactive::IsACode => &sae::CORRECTED,
        };
        Self {
            about: about.clone().without_seed(),
            encoder,
            inactive,
        }
    }

    /// Under a name of one's own.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.about = self.about.named(name);
        self
    }
}

impl<B: Backend> Discover<B> for FixedDictionary<B> {
    fn about(&self) -> &About {
        &self.about
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        _: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let made = vec![Made::of(Arc::clone(&self.encoder), None)];
        let encoded = encoded(evidence, made, self.inactive, progress)?;
        Ok(of_dictionary(&encoded[0]))
    }
}
