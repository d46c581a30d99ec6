use burn::tensor::backend::Backend;
use circuitscope_core::{HeadId, Polarity, Progress, Seed};
use circuitscope_measures::{Baseline, KeptShare};
use circuitscope_score::stats::{Deviations, half_samples};

use crate::Result;
use crate::ablate::HeadCircuits;
use crate::causal::{CausalEvidence, mean};
use crate::quality::{LITTLE, heads_of, indices};

/// Half samples of the pairs for each interval.
const SAMPLES: usize = 100;

/// The head share that each of some circuits keeps on the first `pairs` pairs, all other heads ablated: one row of a
/// [`CrossTask`](circuitscope_measures::CrossTask). Nothing where ablating all heads lowers the metric by less than a
/// fifth, or raises it: shares of that would say little.
///
/// Half samples of the pairs are drawn from stream `cross-task`.
///
/// # Errors
/// [`Error::NoSuchNode`](crate::Error::NoSuchNode) for a head that the model does not have;
/// [`Error::Cancelled`](crate::Error::Cancelled).
pub fn kept_shares<B: Backend>(
    causal: &CausalEvidence<B>,
    circuits: &[Vec<HeadId>],
    pairs: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<Option<KeptShare>>> {
    let runs = HeadCircuits::new(causal, pairs, progress)?;
    let grid = runs.grid();
    let mut sets = vec![heads_of(grid, |_| false)];
    for circuit in circuits {
        let members = indices(grid, circuit)?;
        sets.push(heads_of(grid, |at| members.contains(&at)));
    }
    let stage = progress.stage("running circuits", sets.len() as u64);
    let values = runs.of_pairs(&sets, progress);
    drop(stage);
    let values = causal.located(values)?;
    let (empty, full) = (&values[0], runs.full_of_pairs());

    let count = full.len();
    let labels = [Polarity::Positive, Polarity::Negative];
    let labels = labels.map(|label| vec![label; count]).concat();
    let matched: Vec<(usize, usize)> = (0..count).map(|at| (at, count + at)).collect();
    let seed = seed.stream("cross-task");
    // A single pair says nothing of how much pairs vary.
    let halves = half_samples(&labels, &matched, SAMPLES, seed).unwrap_or_default();
    let all: Vec<usize> = (0..count).collect();
    let of_halves: Vec<Vec<usize>> = halves
        .iter()
        .map(|half| {
            half.pairs()
                .iter()
                .map(|pair| half.rows()[pair.0])
                .collect()
        })
        .collect();
    let kept = values[1..].iter().map(|kept| {
        let share = |rows: &Vec<usize>| {
            let of =
                |values: &[f64]| mean(&rows.iter().map(|&row| values[row]).collect::<Vec<f64>>());
            let (full, empty) = (of(full), of(empty));
            Baseline { full, empty }.share(of(kept)).ok()
        };
        if mean(full) - mean(empty) < LITTLE * mean(full).abs() {
            return None;
        }
        let estimate = share(&all)?;
        let samples: Option<Vec<f64>> = of_halves.iter().map(share).collect();
        let interval = samples.zip(halves.first()).and_then(|(samples, half)| {
            let deviations = Deviations::new(estimate, &samples, half.scale()).ok()?;
            deviations.interval(0.95).ok()
        });
        Some(KeptShare {
            share: estimate,
            interval,
        })
    });
    Ok(kept.collect())
}
