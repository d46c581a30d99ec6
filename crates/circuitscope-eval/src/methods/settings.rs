use serde::{Deserialize, Serialize};

use super::SaeSettings;

/// Settings of all methods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MethodSettings {
    /// Of methods with a dictionary.
    pub sae: SaeSettings,
    /// Of methods that change or differentiate the model.
    pub patching: PatchingSettings,
}

/// Settings of the methods that change or differentiate the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PatchingSettings {
    /// Pairs of prompts that gradients are averaged over, at most. Default 250.
    pub gradient_pairs: usize,
    /// Pairs of prompts that every single node, edge or set of edges is run on, at most, in methods
    /// that run the model once for each. Default 20.
    pub patch_pairs: usize,
    /// Points between negative and positive prompt that integrated gradients average over. Default 5,
    /// as in arXiv 2403.17806.
    pub ig_steps: usize,
    /// Optimiser steps of the methods that learn masks. Default 150.
    pub mask_steps: usize,
}

impl Default for PatchingSettings {
    fn default() -> Self {
        Self {
            gradient_pairs: 250,
            patch_pairs: 20,
            ig_steps: 5,
            mask_steps: 150,
        }
    }
}

impl PatchingSettings {
    /// How many of `available` pairs are used.
    pub(crate) fn pairs(&self, available: usize, costly: bool) -> usize {
        let limit = if costly {
            self.patch_pairs
        } else {
            self.gradient_pairs
        };
        available.min(limit)
    }
}
