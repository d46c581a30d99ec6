use circuitscope_core::Graph;
use circuitscope_measures::GraphScores;

/// Rows of pairs among the examples, and for each pair effects.
pub(crate) type Effects = (Vec<(usize, usize)>, Vec<Vec<f32>>);

/// Effects of nodes and edges on single pairs of prompts, whose means are the scores of a method.
///
/// Because a score is a mean over pairs, any resample of the prompts is scored without running the
/// model again.
#[derive(Debug, Clone)]
#[non_exhaustive]
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

    /// Whether no effect has a sign: sizes, which exchanging the prompts of a pair says nothing of.
    pub(crate) fn are_sizes(&self) -> bool {
        let all = self.nodes.iter().chain(&self.edges).flatten().flatten();
        let mut all = all.copied();
        all.all(|effect| effect >= 0.0)
    }
}
