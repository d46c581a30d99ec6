use serde::{Deserialize, Serialize};

use super::interval::require_finite;
use crate::{Error, Result};

/// How often each head is among the top q over many half samples: stability selection (Meinshausen &
/// Bühlmann, J. R. Stat. Soc. B 72:417, 2010, arXiv 0809.2932).
///
/// A head is chosen on a half sample if fewer than q + 1 heads score at least as much. Heads that tie
/// across the cut are all left out: that keeps every choice at q heads or fewer, as the error bound
/// needs, and favours no head for its place in the list. A score with few distinct values may thus choose
/// none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    frequencies: Vec<f64>,
    q: usize,
    mean_chosen: f64,
}

/// Heads that are chosen on most half samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StableHeads {
    /// Indices of the heads, ascending.
    pub selected: Vec<usize>,
    /// The share of half samples that a head must be chosen on.
    pub threshold: f64,
    /// Bound on the expected number of false ones among them, `q² / ((2 π − 1) m)`.
    pub expected_false: f64,
}

impl Stability {
    /// Counts the choices on half samples of the examples ([`half_samples`](super::half_samples)).
    ///
    /// # Shapes
    /// - `scores`: `[half samples][heads]`
    /// - `q`: how many heads are chosen on each, from 1 to the number of heads
    ///
    /// # Errors
    /// [`Error::TooFew`] without half samples or with fewer than q heads; [`Error::Length`];
    /// [`Error::Value`] for q = 0 or a score that is not finite.
    ///
    /// # Examples
    /// ```
    /// use circuitscope_score::stats::Stability;
    ///
    /// # fn main() -> Result<(), circuitscope_score::Error> {
    /// let scores = vec![vec![9.0, 5.0, 1.0, 0.0], vec![9.0, 0.0, 4.0, 1.0]];
    /// let stability = Stability::new(&scores, 2)?;
    /// assert_eq!(stability.frequencies(), [1.0, 0.5, 0.5, 0.0]);
    /// let stable = stability.stable(0.9)?;
    /// assert_eq!(stable.selected, [0]);
    /// assert_eq!(stable.expected_false, 4.0 / (0.8 * 4.0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(scores: &[Vec<f64>], q: usize) -> Result<Self> {
        let Some(first) = scores.first() else {
            return Err(Error::TooFew {
                what: "half samples",
                found: 0,
                expected: 1,
            });
        };
        let heads = first.len();
        if q == 0 {
            return Err(Error::Value {
                what: "number of heads to choose",
                found: 0.0,
                expected: "at least 1",
            });
        }
        if heads < q {
            return Err(Error::TooFew {
                what: "scores of a half sample",
                found: heads,
                expected: q,
            });
        }
        let mut counts = vec![0u32; heads];
        for scores in scores {
            if scores.len() != heads {
                return Err(Error::Length {
                    what: "scores of a half sample",
                    found: scores.len(),
                    expected: heads,
                });
            }
            require_finite("score of a half sample", scores)?;
            let mut sorted = scores.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            // The first score that is not chosen; all are if there is none.
            let cut = sorted.get(q);
            for (count, score) in counts.iter_mut().zip(scores) {
                *count += u32::from(cut.is_none_or(|cut| score > cut));
            }
        }
        let n = scores.len() as f64;
        Ok(Self {
            mean_chosen: f64::from(counts.iter().sum::<u32>()) / n,
            frequencies: counts
                .into_iter()
                .map(|count| f64::from(count) / n)
                .collect(),
            q,
        })
    }

    /// The share of half samples that each head is chosen on, `[heads]`.
    pub fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// How many heads are chosen on a half sample, on average: q, or less where scores tie across the
    /// cut.
    pub const fn mean_chosen(&self) -> f64 {
        self.mean_chosen
    }

    /// The heads chosen on at least the share π of half samples. On average at most
    /// `q² / ((2 π − 1) m)` of them are false (theorem 1 of the paper), m the number of heads, if false
    /// heads are equally likely to be chosen as each other and the choice is not worse than random
    /// guessing. The paper recommends π between 0.6 and 0.9.
    ///
    /// # Errors
    /// [`Error::Value`] for π outside of (½, 1].
    pub fn stable(&self, threshold: f64) -> Result<StableHeads> {
        require_threshold(threshold)?;
        let heads = self.frequencies.len();
        let selected = (0..heads)
            .filter(|&head| self.frequencies[head] >= threshold)
            .collect();
        let q = self.q as f64;
        Ok(StableHeads {
            selected,
            threshold,
            expected_false: q * q / ((2.0 * threshold - 1.0) * heads as f64),
        })
    }

    /// The largest q for which the bound on false heads is at most `expected_false` at the threshold
    /// π: `⌊√(expected_false · (2 π − 1) · m)⌋`, m the number of heads.
    ///
    /// # Errors
    /// [`Error::Value`] for π outside of (½, 1] or a negative number of false heads.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), circuitscope_score::Error> {
    /// use circuitscope_score::stats::Stability;
    /// assert_eq!(Stability::largest_q(144, 0.9, 1.0)?, 10);
    /// # Ok(())
    /// # }
    /// ```
    pub fn largest_q(heads: usize, threshold: f64, expected_false: f64) -> Result<usize> {
        require_threshold(threshold)?;
        if !(expected_false >= 0.0 && expected_false.is_finite()) {
            return Err(Error::Value {
                what: "expected number of false heads",
                found: expected_false,
                expected: "a finite number, at least 0",
            });
        }
        let bound = expected_false * (2.0 * threshold - 1.0) * heads as f64;
        Ok((bound.sqrt() as usize).min(heads))
    }
}

fn require_threshold(threshold: f64) -> Result<()> {
    if threshold > 0.5 && threshold <= 1.0 {
        return Ok(());
    }
    Err(Error::Value {
        what: "threshold of stability selection",
        found: threshold,
        expected: "a share above 0.5, at most 1",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_core::{Seed, draw};
    use proptest::prelude::*;

    #[test]
    fn ties_across_the_cut_are_left_out() {
        let frequencies = |scores: &[f64], q| {
            let stability = Stability::new(&[scores.to_vec()], q).unwrap();
            (stability.frequencies().to_vec(), stability.mean_chosen())
        };
        let tied = [3.0, 2.0, 2.0, 1.0];
        assert_eq!(frequencies(&tied, 1), (vec![1.0, 0.0, 0.0, 0.0], 1.0));
        assert_eq!(frequencies(&tied, 2), (vec![1.0, 0.0, 0.0, 0.0], 1.0));
        assert_eq!(frequencies(&tied, 3), (vec![1.0, 1.0, 1.0, 0.0], 3.0));
        assert_eq!(frequencies(&tied, 4), (vec![1.0; 4], 4.0));
    }

    #[test]
    fn refuses_what_it_cannot_choose_from() {
        let error = |scores: &[&[f64]], q| {
            let scores: Vec<Vec<f64>> = scores.iter().map(|scores| scores.to_vec()).collect();
            Stability::new(&scores, q).unwrap_err()
        };
        assert!(matches!(error(&[], 1), Error::TooFew { .. }));
        assert!(matches!(error(&[&[1.0]], 0), Error::Value { .. }));
        assert!(matches!(error(&[&[1.0]], 2), Error::TooFew { .. }));
        assert!(matches!(
            error(&[&[1.0], &[1.0, 2.0]], 1),
            Error::Length { .. }
        ));
        assert!(matches!(error(&[&[f64::NAN]], 1), Error::Value { .. }));
        let stability = Stability::new(&[vec![1.0]], 1).unwrap();
        for threshold in [0.5, 1.1, f64::NAN] {
            assert!(stability.stable(threshold).is_err(), "{threshold}");
        }
    }

    /// Pure noise is chosen on half of its samples now and then; the mean number of heads above the
    /// threshold stays below the bound. Scores of one experiment share a part, so that choices of its
    /// half samples are alike, as those of overlapping samples are.
    #[test]
    fn noise_stays_below_the_bound() {
        let (experiments, halves, heads, q, threshold) = (200, 50, 20, 4, 0.6);
        let mut found = 0;
        let mut bound = 0.0;
        for at in 0..experiments {
            let mut rng = Seed::new(2).nth("experiment", at).rng();
            let mut normals =
                || -> Vec<f64> { (0..heads).map(|_| draw::normal_pair(&mut rng)[0]).collect() };
            let shared = normals();
            let scores: Vec<Vec<f64>> = (0..halves)
                .map(|_| {
                    normals()
                        .iter()
                        .zip(&shared)
                        .map(|(own, shared)| own + shared)
                        .collect()
                })
                .collect();
            let stable = Stability::new(&scores, q)
                .unwrap()
                .stable(threshold)
                .unwrap();
            found += stable.selected.len();
            bound = stable.expected_false;
        }
        assert!((bound - 16.0 / (0.2 * 20.0)).abs() < 1e-12);
        let mean = found as f64 / experiments as f64;
        assert!(mean > 0.0 && mean <= bound, "{mean} against {bound}");
    }

    proptest! {
        #[test]
        fn never_more_than_q(
            scores in prop::collection::vec(prop::collection::vec((-3i32..4).prop_map(f64::from), 8), 1..10),
            q in 1usize..9,
        ) {
            let stability = Stability::new(&scores, q).unwrap();
            prop_assert!(stability.mean_chosen() <= q as f64);
            let sum: f64 = stability.frequencies().iter().sum();
            prop_assert!((sum - stability.mean_chosen()).abs() < 1e-12);
        }

        #[test]
        fn largest_q_keeps_the_bound(heads in 1usize..500, threshold in 0.55f64..=1.0, bound in 0.1f64..9.0) {
            let q = Stability::largest_q(heads, threshold, bound).unwrap();
            let at = |q: usize| (q * q) as f64 / ((2.0 * threshold - 1.0) * heads as f64);
            prop_assert!(at(q) <= bound + 1e-9);
            prop_assert!(q == heads || at(q + 1) > bound - 1e-9);
        }
    }
}
