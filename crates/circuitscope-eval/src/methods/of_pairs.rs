use burn::tensor::backend::{AutodiffBackend, Backend};
use circuitscope_core::{Polarity, Progress, workers};
use circuitscope_measures::Scores;

use crate::causal::{CausalEvidence, Differentiable, Effects, Held, PairEffects, threads};
use crate::{Error, Evidence, Measured, Result};

/// What `work` gives of each of the first `count` pairs, some batches of them side by side, and the rows of these among the
/// examples. `new` makes a model for each of the batches that run at once.
pub(super) fn each_of_pairs<B: AutodiffBackend>(
    causal: &CausalEvidence<B::InnerBackend>,
    (stage, count, held): (&str, usize, Held),
    new: impl Fn() -> Differentiable<B>,
    work: impl Fn(&Differentiable<B>, &[usize]) -> Result<Vec<Vec<f32>>> + Sync,
    progress: &dyn Progress,
) -> Result<Effects> {
    let lanes = threads(causal);
    let batches = causal.differentiated(count, lanes, held);
    let mut found = vec![Vec::new(); batches.len()];
    let stage = progress.stage(stage, count.min(causal.pairs().len()) as u64);
    let outcome = workers::run(
        causal.model().exec(),
        lanes,
        batches.len(),
        new,
        |model, at, _| work(model, &batches[at]),
        |at, effects| {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            progress.advance(effects.len() as u64);
            found[at] = effects;
            Ok(())
        },
    );
    drop(stage);
    let rows = batches.iter().flatten();
    let rows = rows.map(|&pair| causal.pairs()[pair].rows).collect();
    outcome.map(|()| (rows, found.concat()))
}

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
