use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, Polarity};
use circuitscope_measures::{GraphScores, Scores};

use crate::{Evidence, Measured, Result};

/// Rows of pairs among the examples, and for each pair effects.
pub(crate) type Effects = (Vec<(usize, usize)>, Vec<Vec<f32>>);

/// Effects of nodes and edges on single pairs of prompts, whose means are the scores of a method.
///
/// Because a score is a mean over pairs, any resample of the prompts is scored without running the
/// model again.
#[derive(Debug, Clone)]
pub struct PairEffects {
    /// The graph.
    pub graph: Graph,
    /// For each pair, the rows of its prompts among the examples of the evidence.
    pub rows: Vec<(usize, usize)>,
    /// For each pair, one effect for each writer.
    pub nodes: Option<Vec<Vec<f32>>>,
    /// For each pair `[writers * readers]`.
    pub edges: Option<Vec<Vec<f32>>>,
}

impl PairEffects {
    /// Mean effects, pair `i` counting `weights[i]` times, or as often with the other sign.
    #[must_use]
    pub fn mean(&self, weights: &[f64]) -> GraphScores {
        let total: f64 = weights.iter().map(|weight| weight.abs()).sum();
        let mean = |pairs: &Vec<Vec<f32>>| {
            let mut sum = vec![0.0; pairs.first().map_or(0, Vec::len)];
            for (pair, &weight) in pairs
                .iter()
                .zip(weights)
                .filter(|(_, weight)| **weight != 0.0)
            {
                for (sum, &effect) in sum.iter_mut().zip(pair) {
                    *sum += weight * f64::from(effect) / total;
                }
            }
            sum
        };
        GraphScores {
            graph: self.graph,
            nodes: self.nodes.as_ref().map(mean),
            edges: self.edges.as_ref().map(mean),
        }
    }

    /// Ready to be scored; `evidence` says which pairs a resample holds.
    pub(crate) fn measured<B: Backend>(self, evidence: &Evidence<B>) -> Box<dyn Measured + '_> {
        Box::new(OfPairs {
            effects: self,
            evidence,
        })
    }

    /// Whether no effect has a sign: sizes, which exchanging the prompts of a pair says nothing of.
    fn are_sizes(&self) -> bool {
        let all = self.nodes.iter().chain(&self.edges).flatten().flatten();
        let mut all = all.copied();
        all.all(|effect| effect >= 0.0)
    }
}

/// How often each of `pairs` is in the resample `rows` of the examples; once each where it is `None`, or
/// misses all of the few pairs that a costly method has measured.
pub(crate) fn weights<B: Backend>(
    evidence: &Evidence<B>,
    pairs: &[(usize, usize)],
    rows: Option<&[usize]>,
) -> Vec<f64> {
    let once = || vec![1.0; pairs.len()];
    let Some(rows) = rows else {
        return once();
    };
    let drawn = evidence.sampled_pairs(rows);
    let copies = |pair| drawn.iter().filter(|drawn| *drawn == pair).count() as f64;
    let weights: Vec<f64> = pairs.iter().map(copies).collect();
    if weights.iter().all(|weight| *weight == 0.0) {
        once()
    } else {
        weights
    }
}

struct OfPairs<'a, B: Backend> {
    effects: PairEffects,
    evidence: &'a Evidence<B>,
}

impl<B: Backend> Measured for OfPairs<'_, B> {
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        let weights = weights(self.evidence, &self.effects.rows, rows);
        Ok(Scores::of_graph(self.effects.mean(&weights)))
    }

    /// A pair whose labels are exchanged counts with the other sign: what a head does from the negative
    /// prompt to the positive one is, to first order, the opposite of what it does the other way.
    fn relabelled(&self, labellings: &[Vec<Polarity>]) -> Option<Result<Vec<Vec<f64>>>> {
        if self.effects.are_sizes() {
            return None;
        }
        let under = |labels: &Vec<Polarity>| {
            let sign = |&(positive, _): &(usize, usize)| match labels[positive] {
                Polarity::Positive => 1.0,
                Polarity::Negative => -1.0,
            };
            let signs: Vec<f64> = self.effects.rows.iter().map(sign).collect();
            Scores::of_graph(self.effects.mean(&signs)).nodes
        };
        Some(Ok(labellings.iter().map(under).collect()))
    }
}
