//! What dictionaries are made with, and the codes that they make of evidence.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::Seed;
use circuitscope_sae::{Dictionary, Encoder, History};
use circuitscope_score::CodeTable;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

/// Settings of the dictionary, shared by every method that has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
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
#[non_exhaustive]
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
