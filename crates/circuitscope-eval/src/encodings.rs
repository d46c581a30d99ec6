//! Codes that dictionaries made of evidence, kept for whoever asks for them again.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::backend::Backend;
use circuitscope_core::Seed;
use circuitscope_sae::{Dictionary, Encoder, History};
use circuitscope_score::CodeTable;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Settings of the dictionary, shared by every method that has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaeSettings {
    /// Number of features, default 200.
    pub n_codes: usize,
    /// λ of the ℓ1 term, default 0.02 (the authors use 0.05 for docstring).
    pub l1_coefficient: f64,
    /// Examples that the dictionary is trained on, drawn at random from both classes, default 10.
    pub train_examples: usize,
    /// Full-batch Adam steps, default 500.
    pub steps: usize,
}

impl Default for SaeSettings {
    fn default() -> Self {
        Self {
            n_codes: 200,
            l1_coefficient: 0.02,
            train_examples: 10,
            steps: 500,
        }
    }
}

/// Whether a dictionary is trained before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Training {
    /// Trained on a few examples.
    Trained,
    /// As initialised: the control that tells what training adds.
    Untrained,
}

/// All that codes of given evidence depend on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recipe {
    pub(crate) settings: SaeSettings,
    pub(crate) dictionary: Dictionary,
    pub(crate) training: Training,
    pub(crate) seed: Seed,
}

/// A dictionary and what it makes of the evidence.
#[derive(Debug, Clone)]
pub struct Encoded<B: Backend> {
    /// The dictionary.
    pub encoder: Arc<dyn Encoder<B>>,
    /// Its training; `None` for a dictionary that was not trained.
    pub history: Option<History>,
    /// One code for each example and head.
    pub table: CodeTable,
}

/// Codes by what made them. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Encodings<B: Backend>(Arc<Mutex<Vec<Kept<B>>>>);

/// Codes, and what made them.
type Kept<B> = (Recipe, Arc<Encoded<B>>);

impl<B: Backend> Default for Encodings<B> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<B: Backend> Encodings<B> {
    /// The codes of each of `recipes`: those kept, and else those that `make` returns for all that are
    /// missing, which are kept then.
    pub(crate) fn of(
        &self,
        recipes: &[Recipe],
        make: impl FnOnce(&[Recipe]) -> Result<Vec<Encoded<B>>>,
    ) -> Result<Vec<Arc<Encoded<B>>>> {
        // Nothing is changed halfway, so that a panic elsewhere leaves them as good as they were.
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<Recipe> = {
            let kept = lock();
            let is_kept = |recipe: &Recipe| kept.iter().any(|(made_by, _)| made_by == recipe);
            let missing = recipes.iter().filter(|recipe| !is_kept(recipe));
            missing.cloned().collect()
        };
        let made = make(&missing)?.into_iter().map(Arc::new);
        let mut kept = lock();
        kept.extend(missing.into_iter().zip(made));
        let find = |recipe: &Recipe| {
            let mut kept = kept.iter();
            let found = kept.find(|(made_by, _)| made_by == recipe);
            found.map(|(_, encoded)| Arc::clone(encoded))
        };
        let found = recipes.iter().filter_map(find).collect();
        Ok(found)
    }
}
