//! Circuits of growing size, and where what they keep stops growing fast.

use burn::tensor::backend::Backend;
use circuitscope_core::{Circuit, HeadId, Progress, Seed, draw};
use circuitscope_measures::{Baseline, Scores};
use circuitscope_score::stats::{Bend, knee};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::ablate::HeadCircuits;
use crate::causal::Metric;

/// The curve that bends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KneeChoice {
    /// What was read from the output.
    pub metric: Metric,
    /// Pairs of prompts run.
    pub pairs: usize,
    /// The metric of the whole model.
    pub full: f64,
    /// What the whole model loses when each of the best heads alone is ablated, best first; below 0 (above,
    /// where ablating all heads raises the metric) for heads that work against the behaviour.
    pub effects: Vec<(HeadId, f64)>,
    /// Heads in the order in which they are kept: by rank, those that work against the behaviour last.
    pub order: Vec<HeadId>,
    /// Number of heads kept, from none to all.
    pub sizes: Vec<usize>,
    /// The metric with so many heads kept, the mean over pairs.
    pub values: Vec<f64>,
    /// The head share of each ([`Baseline`]); empty where ablating all heads changes nothing.
    #[serde(alias = "faithfulness")]
    pub head_shares: Vec<f64>,
    /// The metric of random circuits of the size at the knee, where the scores alone lie within chance.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub random: Vec<f64>,
}

/// See [`KneeChoice::is_weak`].
const WEAK: f64 = 0.05;

impl KneeChoice {
    /// Heads among the best that work against the behaviour, with what the whole model loses without each.
    pub fn against(&self) -> Vec<(HeadId, f64)> {
        let empty = self.values.first().copied().unwrap_or(self.full);
        let effects = self.effects.iter().copied();
        effects
            .filter(|(_, effect)| is_against(*effect, self.full, empty))
            .collect()
    }

    /// Whether ablating all heads changes the metric so little that shares of the change say nothing: by less than
    /// 5 % of what the whole model has.
    pub fn is_weak(&self) -> bool {
        let empty = self.values.first().copied().unwrap_or(self.full);
        (self.full - empty).abs() < WEAK * self.full.abs()
    }

    /// Whether the circuit of `size` heads keeps more than each of the random ones.
    pub(super) fn beats_random(&self, size: Option<usize>) -> bool {
        let at = self.sizes.iter().position(|kept| Some(*kept) == size);
        let Some(value) = at.map(|at| self.values[at]) else {
            return false;
        };
        let sign = if self.full < self.values[0] {
            -1.0
        } else {
            1.0
        };
        let mut random = self.random.iter();
        random.all(|random| sign * random < sign * value)
    }
}

/// Whether a head of this effect works against the behaviour by more than a fiftieth of the whole.
fn is_against(effect: f64, full: f64, empty: f64) -> bool {
    let whole = full - empty;
    effect * whole.signum() < -0.02 * whole.abs()
}

/// Best heads that the knee ablates one by one, to tell which of them work against the behaviour: a
/// ranking by size alone does not say.
const SIGNED: usize = 24;

/// Circuits that the knee runs, at most.
const SIZES: usize = 25;

/// Random circuits that a circuit has to beat where its scores lie within chance: to beat all of them has
/// a probability of 1 in 20 by chance.
const RANDOM: usize = 19;

/// Numbers of heads to keep: every one while they are few, then growing by the least factor that needs no
/// more than [`SIZES`] of them.
fn sizes(heads: usize) -> Vec<usize> {
    let growing = |hundredths: usize| {
        let mut sizes = vec![0];
        while let Some(&last) = sizes.last().filter(|last| **last < heads) {
            sizes.push((last + 1).max(last * hundredths / 100).min(heads));
        }
        sizes
    };
    let mut hundredths = 100;
    loop {
        let sizes = growing(hundredths);
        if sizes.len() <= SIZES {
            return sizes;
        }
        hundredths += 1;
    }
}

/// What circuits of growing size keep.
pub(super) fn curve<B: Backend>(
    runs: &HeadCircuits<'_, B>,
    metric: Metric,
    scores: &Scores,
    progress: &dyn Progress,
) -> Result<KneeChoice> {
    let ranking: Vec<HeadId> = scores.ranking().into_iter().map(|(head, _)| head).collect();
    let (full, grid) = (runs.full(), scores.grid);
    let kept = |heads: &[HeadId]| Circuit::from_heads(grid, heads.iter().copied()).head_mask();
    let best = &ranking[..ranking.len().min(SIGNED)];
    let stage = progress.stage("ablating the best heads", best.len() as u64);
    let without = best.iter().map(|&head| {
        let others: Vec<HeadId> = grid.heads().filter(|other| *other != head).collect();
        kept(&others)
    });
    let values = runs.keeping_each(&without.collect::<Vec<_>>(), progress);
    drop(stage);
    let effects = best.iter().zip(values?);
    let effects: Vec<(HeadId, f64)> = effects.map(|(head, value)| (*head, full - value)).collect();
    let sizes = sizes(ranking.len());
    let stage = progress.stage("circuits of growing size", sizes.len() as u64);
    let measure = || {
        let empty = runs.keeping(&kept(&[]))?;
        progress.advance(1);
        let against = |head: &HeadId| {
            let effect = effects.iter().find(|(measured, _)| measured == head);
            effect.is_some_and(|(_, effect)| is_against(*effect, full, empty))
        };
        let (last, mut order): (Vec<HeadId>, Vec<HeadId>) =
            ranking.iter().partition(|head| against(head));
        order.extend(last);
        let larger = sizes[1..].iter().map(|&size| kept(&order[..size]));
        let larger: Vec<Vec<bool>> = larger.collect();
        let mut values = vec![empty];
        values.extend(runs.keeping_each(&larger, progress)?);
        Ok((values, order))
    };
    let measured: Result<_> = measure();
    drop(stage);
    let (values, order) = measured?;
    let empty = values[0];
    let shares = values
        .iter()
        .map(|&value| Baseline { full, empty }.share(value));
    Ok(KneeChoice {
        metric,
        pairs: runs.pairs(),
        full,
        effects,
        order,
        head_shares: shares.collect::<Result<_, _>>().unwrap_or_default(),
        sizes,
        values,
        random: Vec::new(),
    })
}

/// What random circuits of one size keep, drawn from `seed.nth("knee/random", i)`.
pub(super) fn random<B: Backend>(
    runs: &HeadCircuits<'_, B>,
    size: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<f64>> {
    let stage = progress.stage("random circuits", RANDOM as u64);
    let drawn = (0..RANDOM).map(|at| {
        let mut rng = seed.nth("knee/random", at as u64).rng();
        let mut kept = vec![false; runs.grid().len()];
        kept[..size].fill(true);
        draw::shuffle(&mut rng, &mut kept);
        kept
    });
    let values = runs.keeping_each(&drawn.collect::<Vec<_>>(), progress);
    drop(stage);
    values
}

/// The number of heads at the knee; `None` where the curve has none.
pub(super) fn bend(curve: &KneeChoice) -> Result<Option<usize>> {
    if curve.head_shares.len() < 3 {
        return Ok(None);
    }
    let x: Vec<f64> = curve.sizes.iter().map(|&size| size as f64).collect();
    // To keep more than the whole model has is not to keep more of it.
    let kept: Vec<f64> = (curve.head_shares.iter())
        .map(|kept| kept.min(1.0))
        .collect();
    let found = knee(&x, &kept, Bend::Above)?;
    Ok(found.map(|knee| curve.sizes[knee.at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_from_none_to_all() {
        assert_eq!(sizes(3), [0, 1, 2, 3]);
        assert_eq!(sizes(24), (0..=24).collect::<Vec<_>>());
        for heads in [25, 32, 144, 270, 1024, 4096] {
            let many = sizes(heads);
            assert!(many.windows(2).all(|step| step[0] < step[1]));
            assert_eq!(many[..4], [0, 1, 2, 3]);
            assert_eq!(many.last(), Some(&heads));
            assert!((15..=SIZES).contains(&many.len()), "{heads}: {many:?}");
        }
    }
}
