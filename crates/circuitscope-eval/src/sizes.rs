//! What circuits of growing size keep, along one ranking.

use burn::tensor::backend::Backend;
use circuitscope_core::{HeadId, Metric, Progress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ablate::HeadCircuits;
use crate::causal::CausalEvidence;
use crate::quality::{heads_of, indices};
use crate::words::{count, percent};
use crate::{CircuitQuality, Result};

/// The metric with all heads ablated but the best so many of a ranking, the mean over pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct KeptBySize {
    /// What was read from the output.
    #[schemars(with = "String")]
    pub metric: Metric,
    /// Of the whole model.
    pub full: f64,
    /// With all heads ablated.
    pub empty: f64,
    /// Numbers of heads, ascending.
    pub sizes: Vec<usize>,
    /// One value for each.
    pub values: Vec<f64>,
    /// How many heads the circuit has that was chosen.
    pub chosen: usize,
}

impl KeptBySize {
    /// The sizes that are run for a circuit of `chosen` of `heads` heads: up to it one by one where it is small, and some beyond.
    ///
    /// ```
    /// use circuitscope_eval::KeptBySize;
    ///
    /// assert_eq!(KeptBySize::sizes(3, 32), [1, 2, 3, 6, 12]);
    /// assert_eq!(KeptBySize::sizes(40, 270), [1, 20, 40, 80, 160]);
    /// ```
    #[must_use]
    pub fn sizes(chosen: usize, heads: usize) -> Vec<usize> {
        let few = 5;
        let mut sizes: Vec<usize> = if chosen <= few {
            (1..=chosen).collect()
        } else {
            vec![1, chosen / 2, chosen]
        };
        sizes.extend([2 * chosen, 4 * chosen]);
        sizes.retain(|size| (1..heads).contains(size));
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Where fewer heads keep clearly more than those that were chosen, how many and how much: a sentence without a full stop.
    #[must_use]
    pub fn better(&self, quality: &CircuitQuality) -> Option<String> {
        if quality.is_weak() {
            return None;
        }
        let share = |value: f64| (value - self.empty) / (self.full - self.empty);
        let at = self.sizes.iter().position(|size| *size == self.chosen)?;
        let own = share(self.values[at]);
        let fewer = self.sizes.iter().zip(&self.values).take(at);
        let fewer = fewer.map(|(size, value)| (*size, share(*value)));
        let (size, best) = fewer.max_by(|a, b| a.1.total_cmp(&b.1))?;
        (best > own + CLEARLY && best >= 0.5).then(|| {
            format!(
                "the first {} of them alone keep {}",
                count(size, "head"),
                percent(best)
            )
        })
    }
}

/// A difference of shares that is worth a word.
const CLEARLY: f64 = 0.1;

/// Runs the best heads of `ranking` with all others ablated, for each of `sizes`; `chosen` are the circuit's.
///
/// # Errors
/// As [`circuit_quality`](crate::circuit_quality).
///
/// # Panics
/// If a size is above the number of heads ranked.
pub fn kept_by_size<B: Backend>(
    causal: &CausalEvidence<B>,
    ranking: &[HeadId],
    (sizes, chosen): (&[usize], usize),
    pairs: usize,
    progress: &dyn Progress,
) -> Result<KeptBySize> {
    let runs = HeadCircuits::new(causal, pairs, progress)?;
    let grid = runs.grid();
    let order = indices(grid, ranking)?;
    let mut sets = vec![heads_of(grid, |_| false)];
    sets.extend(sizes.iter().map(|&size| {
        let kept = &order[..size];
        heads_of(grid, |head| kept.contains(&head))
    }));
    let stage = progress.stage("circuits of other sizes", sets.len() as u64);
    let values = runs.keeping_each(&sets, progress);
    drop(stage);
    let mut values = causal.located(values)?;
    let empty = values.remove(0);
    Ok(KeptBySize {
        metric: causal.metric(),
        full: runs.full(),
        empty,
        sizes: sizes.to_vec(),
        values,
        chosen,
    })
}
