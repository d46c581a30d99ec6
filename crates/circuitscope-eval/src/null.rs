use burn::tensor::backend::Backend;
use circuitscope_core::{Polarity, Progress, Seed};
use circuitscope_score::stats::relabellings;
use serde::{Deserialize, Serialize};

use crate::method::under_labels;
use crate::words::{count, figure};
use crate::{Evidence, Measured, Result};

/// Whether the largest scores of a method say more than labels that mean nothing would.
///
/// The labels of the two prompts of a pair are swapped at random (those of unmatched prompts are
/// shuffled), and all heads scored anew from what the method has measured. Each head's score is taken in
/// units of its own spread over all labellings, the true one among them, so that a head that is loud
/// whatever the labels does not hide a quiet one. The sum of squares of what lies above each head's mean is
/// compared, which the largest scores make up: one test for the whole model, valid whatever the heads have
/// in common. (The largest alone, max T of Westfall & Young 1993, is weak for counts that are 0 under most
/// labellings: each head's rare other value is as far out as can be.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Null {
    /// Random relabellings drawn.
    pub relabellings: usize,
    /// The statistic under the true labels.
    pub observed: f64,
    /// The same of each relabelling, in the order drawn.
    pub by_chance: Vec<f64>,
    /// Share of labellings, the true one counted, with as large a score.
    pub p_value: f64,
    /// Whether there are too few prompts for any answer: fewer than
    /// [`ENOUGH`](Self::ENOUGH) labellings that differ.
    pub too_few: bool,
}

impl Null {
    /// Relabellings that are drawn.
    pub const RELABELLINGS: usize = 49;
    /// Up to this p-value a score is more than chance.
    pub const LEVEL: f64 = 0.05;
    /// Labellings that differ, up to exchanging the classes, below which nothing can be told: seven pairs
    /// have as many.
    pub const ENOUGH: f64 = 64.0;

    /// Compares the scores of heads, one for each, under the true labels and under others.
    ///
    /// # Panics
    /// Without relabellings.
    #[must_use]
    pub fn new(observed: &[f64], shuffled: &[Vec<f64>]) -> Self {
        assert!(!shuffled.is_empty(), "no relabellings");
        let all = || core::iter::once(observed).chain(shuffled.iter().map(Vec::as_slice));
        let n = (shuffled.len() + 1) as f64;
        let mut sums = vec![0.0; shuffled.len() + 1];
        for head in 0..observed.len() {
            let mean = all().map(|scores| scores[head]).sum::<f64>() / n;
            let squares = all().map(|scores| (scores[head] - mean).powi(2));
            let spread = (squares.sum::<f64>() / n).sqrt();
            let size = all().map(|scores| scores[head].abs()).fold(0.0, f64::max);
            // What varies by rounding does not vary.
            let varies = spread > ROUNDING * size;
            if !varies {
                continue;
            }
            for (sum, scores) in sums.iter_mut().zip(all()) {
                *sum += ((scores[head] - mean) / spread).max(0.0).powi(2);
            }
        }
        let by_chance = sums.split_off(1);
        let observed_sum = sums[0] * (1.0 - ROUNDING);
        let as_large = by_chance.iter().filter(|chance| **chance >= observed_sum);
        Self {
            relabellings: shuffled.len(),
            p_value: (as_large.count() + 1) as f64 / n,
            observed: sums[0],
            by_chance,
            too_few: false,
        }
    }

    /// Whether the scores are no more than what shuffled labels give.
    pub fn within_chance(&self) -> bool {
        !self.too_few && self.p_value > Self::LEVEL
    }

    /// The result in a sentence, without a full stop.
    pub fn sentence(&self) -> String {
        if self.too_few {
            return "warning: so few prompts that no score could be told from what shuffled labels give: \
                    take at least 7 pairs, better 20"
                .to_owned();
        }
        let p = figure(self.p_value);
        if self.within_chance() {
            format!(
                "the largest scores lie within what shuffled labels give (p = {p}, {}): no circuit shown",
                count(self.relabellings, "relabelling")
            )
        } else {
            format!(
                "the largest scores are above what shuffled labels give (p = {p}, {}); that says that heads \
                 tell the prompts apart, not that they take part",
                count(self.relabellings, "relabelling")
            )
        }
    }
}

/// What differs by less than this share is alike.
const ROUNDING: f64 = 1e-9;

/// Scores the heads under random relabellings of the examples (`seed.stream("null")`).
///
/// `None` for methods whose scores cannot be made under other labels without starting anew.
///
/// # Errors
/// Those of the method; [`Error::Cancelled`](crate::Error::Cancelled).
pub fn null<B: Backend>(
    measured: &dyn Measured,
    evidence: &Evidence<B>,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Option<Null>> {
    let labels = evidence.labels();
    let count = Null::RELABELLINGS;
    let drawn = relabellings(labels, evidence.pairs(), count, seed.stream("null"))?;
    progress.begin("shuffling labels", count as u64 + 1);
    let scores = under_labels(measured, labels, drawn, progress);
    progress.end();
    let Some(scores) = scores else {
        return Ok(None);
    };
    let (observed, shuffled) = scores?;
    let mut null = Null::new(&observed, &shuffled);
    null.too_few = labellings(labels, evidence.pairs()) < Null::ENOUGH;
    Ok(Some(null))
}

/// Labellings that differ, up to exchanging the classes.
fn labellings(labels: &[Polarity], pairs: &[(usize, usize)]) -> f64 {
    let of = |class: Polarity| labels.iter().filter(|label| **label == class).count() - pairs.len();
    let (positive, negative) = (of(Polarity::Positive), of(Polarity::Negative));
    let choices = (1..=positive.min(negative))
        .map(|at| (positive.max(negative) + at) as f64 / at as f64)
        .product::<f64>();
    choices * 2f64.powi(pairs.len() as i32) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_core::draw;

    fn normals(seed: u64, heads: usize) -> Vec<f64> {
        let mut rng = Seed::new(seed).rng();
        (0..heads).map(|_| draw::normal_pair(&mut rng)[0]).collect()
    }

    /// One loud head that varies for no reason, one quiet head that follows the labels.
    #[test]
    fn a_loud_head_does_not_hide_a_quiet_one() {
        let shuffled: Vec<Vec<f64>> = (1..50)
            .map(|seed| {
                let x = normals(seed, 2);
                vec![1000.0 * x[0], 0.01 * x[1]]
            })
            .collect();
        let null = Null::new(&[100.0, 0.2], &shuffled);
        assert!(null.p_value < 0.05, "{null:?}");
        let null = Null::new(&[100.0, 0.005], &shuffled);
        assert!(null.within_chance(), "{null:?}");
    }

    /// Under the null the p-value is at most alpha with probability alpha.
    #[test]
    fn p_values_of_noise_are_uniform() {
        let (mut below, experiments) = (0, 400);
        for at in 0..experiments {
            let draws: Vec<Vec<f64>> = (0..20).map(|i| normals(1000 * at + i, 30)).collect();
            let null = Null::new(&draws[0], &draws[1..]);
            below += u32::from(null.p_value <= 0.1);
        }
        let share = f64::from(below) / experiments as f64;
        // Two standard deviations of a binomial share are .03.
        assert!((0.06..=0.14).contains(&share), "{share}");
    }

    #[test]
    fn scores_that_never_vary_are_chance() {
        let null = Null::new(&[3.0, 3.0], &vec![vec![3.0, 3.0]; 19]);
        assert_eq!(null.p_value, 1.0);
        assert!(null.within_chance());
        assert!(null.sentence().ends_with("no circuit shown"));
    }

    #[test]
    fn few_prompts_have_few_labellings() {
        let labels = |n: usize, m: usize| {
            [vec![Polarity::Positive; n], vec![Polarity::Negative; m]].concat()
        };
        let pairs = |n: usize| (0..n).map(|at| (at, n + at)).collect::<Vec<_>>();
        assert_eq!(labellings(&labels(7, 7), &pairs(7)), 64.0);
        assert_eq!(labellings(&labels(1, 1), &pairs(1)), 1.0);
        // 4 of 8 examples.
        assert_eq!(labellings(&labels(4, 4), &[]), 35.0);
        assert_eq!(labellings(&labels(2, 6), &[]), 14.0);
    }
}
