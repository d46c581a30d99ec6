use burn::tensor::backend::Backend;
use circuitscope_core::Polarity;
use circuitscope_measures::Scores;

use crate::causal::PairEffects;
use crate::{Evidence, Measured, Result};

/// Ready to be scored; `evidence` says which pairs a resample holds.
pub(super) fn of_pairs<B: Backend>(
    effects: PairEffects,
    evidence: &Evidence<B>,
) -> Box<dyn Measured + '_> {
    Box::new(OfPairs { effects, evidence })
}

/// How often each of `pairs` is in the resample `rows` of the examples; once each where it is `None`, or
/// misses all of the few pairs that a costly method has measured.
pub(super) fn weights<B: Backend>(
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
