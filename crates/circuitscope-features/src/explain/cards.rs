//! What is known of features and of heads by them.

use circuitscope_core::HeadId;
use serde::{Deserialize, Serialize};

use super::ablate::FeatureAblation;
use crate::{PathStep, PathTree, Source};

/// A feature, as far as contexts tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FeatureCard {
    /// Its number.
    pub feature: usize,
    /// Share of positions on which it is active.
    pub density: f64,
    /// Share of each head in what it writes, by weight.
    pub weight_shares: Vec<f64>,
    /// Tokens that it raises most, with what an activation of 1 adds to their logits directly where it is strongest.
    pub raises: Vec<(u32, f64)>,
    /// Tokens that it lowers most.
    pub lowers: Vec<(u32, f64)>,
    /// Where it is strongest, the strongest first.
    pub contexts: Vec<FeatureContext>,
    /// What its pre-activation is made of in the end, in the first of these places: the largest parts first.
    pub made_of: Vec<MadeOf>,
    /// What the model says without it; none where that was not asked for, or it was active nowhere.
    pub ablation: Option<FeatureAblation>,
}

/// A part of what a feature is made of, along its path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MadeOf {
    /// From what the feature reads to where the path ends.
    pub path: Vec<PathStep>,
    /// What comes along it.
    pub value: f64,
    /// The same as a share of the sizes of all ends.
    pub share: f64,
}

impl FeatureCard {
    /// The head that has the largest share in what it writes, and that share; the first on ties.
    #[must_use]
    pub fn largest_share(&self) -> (usize, f64) {
        let mut best = (0, 0.0);
        for (head, share) in self.weight_shares.iter().enumerate() {
            if *share > best.1 {
                best = (head, *share);
            }
        }
        best
    }
}

impl MadeOf {
    /// The ends of the largest size, the first on ties.
    pub(super) fn largest(tree: &PathTree, count: usize) -> Vec<Self> {
        let nodes = tree.nodes.iter().enumerate();
        let mut ends: Vec<(usize, f64)> = nodes
            .filter(|(_, node)| !node.followed)
            .map(|(at, node)| (at, node.value))
            .collect();
        let sizes: f64 = ends.iter().map(|(_, value)| value.abs()).sum();
        ends.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
        let ends = ends.into_iter().take(count).map(|(at, value)| Self {
            path: tree.path(at),
            value,
            share: value.abs() / sizes.max(f64::MIN_POSITIVE),
        });
        ends.collect()
    }
}

/// A position at which a feature is strong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FeatureContext {
    /// Which context.
    pub context: usize,
    /// The position in it.
    pub position: usize,
    /// Its activation there.
    pub activation: f64,
    /// What each head adds to its pre-activation.
    pub by_head: Vec<f64>,
    /// What is added beside heads.
    pub bias: f64,
    /// What one head adds by source: that which was asked about, or the one that adds most.
    pub head: HeadId,
    /// One value for each position up to this one.
    pub by_source: Vec<f64>,
}

impl FeatureContext {
    /// The source that adds most, the first on ties.
    #[must_use]
    pub fn source(&self) -> usize {
        let mut best = 0;
        for (at, value) in self.by_source.iter().enumerate() {
            if *value > self.by_source[best] {
                best = at;
            }
        }
        best
    }

    /// Share of a head in what heads add: positive parts over their sum, 0 where none is.
    pub(super) fn share(&self, head: usize) -> f64 {
        let all: f64 = self.by_head.iter().map(|x| x.max(0.0)).sum();
        if all > 0.0 {
            self.by_head[head].max(0.0) / all
        } else {
            0.0
        }
    }
}

/// Shares of contexts by where their strongest source stands.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SourceShares {
    /// After an earlier token that is the same.
    pub induction: f64,
    /// At an earlier token that is the same.
    pub duplicate: f64,
    /// At the token before.
    pub previous: f64,
    /// At the first token.
    pub first: f64,
    /// At the token itself.
    pub current: f64,
    /// Anywhere else.
    pub other: f64,
}

impl SourceShares {
    pub(super) fn of(sources: &[Source]) -> Self {
        let share = |of: Source| {
            let found = sources.iter().filter(|source| **source == of).count();
            found as f64 / sources.len().max(1) as f64
        };
        Self {
            induction: share(Source::Induction),
            duplicate: share(Source::Duplicate),
            previous: share(Source::Previous),
            first: share(Source::First),
            current: share(Source::Current),
            other: share(Source::Other),
        }
    }
}

/// What a dictionary says of a head, in figures that any dictionary has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HeadControl {
    /// Which dictionary: the one that is explained, or a control.
    pub dictionary: String,
    /// Its features.
    pub features: usize,
    /// Those that are looked at: the head's own by weight.
    pub looked_at: usize,
    /// Mean share of the head in what they write. Chance is one over the number of heads.
    pub weight_share: f64,
    /// Mean share of the head in what makes them, where they are strongest.
    pub attribution_share: f64,
    /// Where the head's strongest source stands there.
    pub sources: SourceShares,
}

/// Features, and what controls say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Explained {
    /// The layer whose `z` the dictionary reads.
    pub layer: usize,
    /// The head that was asked about, if one was.
    pub head: Option<HeadId>,
    /// Positions that were encoded.
    pub positions: usize,
    /// The features.
    pub features: Vec<FeatureCard>,
    /// The head by the dictionary and by controls: a dictionary before training, the coordinates of `z`, these turned at
    /// random inside each head. Empty where no head was asked about.
    pub controls: Vec<HeadControl>,
    /// Mean share of the head in the length of `z`, over all positions; 0 where no head was asked about.
    pub norm_share: f64,
}
