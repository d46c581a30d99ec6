use core::fmt;
use core::str::FromStr;

use circuitscope_core::{UnknownName, nearest};
use circuitscope_tasks::TaskSpec;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use super::{SaeSettings, ZFeatureSettings};

/// Settings of all methods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct MethodSettings {
    /// Of methods with a dictionary.
    pub sae: SaeSettings,
    /// Of methods that change or differentiate the model.
    pub patching: PatchingSettings,
    /// Of the dictionaries of heads' outputs at tokens.
    #[serde(default)]
    pub z_features: ZFeatureSettings,
}

impl MethodSettings {
    /// The defaults for a task: λ of the dictionary is the task's.
    ///
    /// ```
    /// use circuitscope_eval::methods::MethodSettings;
    /// use circuitscope_tasks::{DOCSTRING, IOI};
    ///
    /// assert_eq!(MethodSettings::for_task(&IOI), MethodSettings::default());
    /// assert_eq!(MethodSettings::for_task(&DOCSTRING).sae.l1_coefficient, 0.05);
    /// ```
    #[must_use]
    pub fn for_task(task: &TaskSpec) -> Self {
        Self {
            sae: SaeSettings {
                l1_coefficient: task.l1_coefficient,
                ..SaeSettings::default()
            },
            ..Self::default()
        }
    }
}

/// Settings of the methods that change or differentiate the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct PatchingSettings {
    /// Pairs of prompts that gradients are averaged over, at most. Default 250.
    pub gradient_pairs: usize,
    /// Pairs of prompts that every single node, edge or set of edges is run on, at most, in methods
    /// that run the model once for each. Default 20.
    pub patch_pairs: usize,
    /// Points between negative and positive prompt that integrated gradients of edges average over. Default 5,
    /// as in arXiv 2403.17806.
    pub ig_steps: usize,
    /// The same of nodes. Default 10: with 5 the order of nodes has not settled (arXiv 2609.25518).
    pub node_ig_steps: usize,
    /// Optimiser steps of the methods that learn masks of hard gates. Default 150.
    pub mask_steps: usize,
    /// Steps of [`Matryoshka`](super::Matryoshka) masks. Default 500, as in arXiv 2609.25518.
    #[serde(default = "matryoshka_steps")]
    pub matryoshka_steps: usize,
    /// Which edges are patched one by one, besides the nodes. Default: none.
    #[serde(default)]
    pub edges: PatchedEdges,
}

/// Which edges activation patching runs one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PatchedEdges {
    /// None: nodes alone.
    #[default]
    None,
    /// Those between so many heads with the largest effects, and from them to the logits.
    Among(usize),
    /// Every one.
    All,
}

impl fmt::Display for PatchedEdges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Among(heads) => heads.fmt(f),
            Self::All => f.pad("all"),
        }
    }
}

impl FromStr for PatchedEdges {
    type Err = UnknownName;

    fn from_str(s: &str) -> Result<Self, UnknownName> {
        let known = [Self::None, Self::All].into_iter();
        let named = known.into_iter().find(|edges| edges.to_string() == s);
        let count = || Some(Self::Among(s.parse().ok().filter(|heads| *heads > 0)?));
        named.or_else(count).ok_or_else(|| UnknownName {
            what: "choice of edges",
            name: s.to_owned(),
            nearest: nearest(s, ["none", "all"]),
            known: "none, all, or a number of heads".to_owned(),
        })
    }
}

/// The default, and what runs had that were kept before it could be set.
const fn matryoshka_steps() -> usize {
    500
}

impl Default for PatchingSettings {
    fn default() -> Self {
        Self {
            gradient_pairs: 250,
            patch_pairs: 20,
            ig_steps: 5,
            node_ig_steps: 10,
            mask_steps: 150,
            matryoshka_steps: matryoshka_steps(),
            edges: PatchedEdges::None,
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
