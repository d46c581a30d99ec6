use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The range that holds a stated share of resampled values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The share, e.g. 0.95.
    pub level: f64,
}

impl Interval {
    /// The percentile interval (Efron & Tibshirani 1993, §13.3): the [`quantile`]s `(1 − level)/2` and
    /// `1 − (1 − level)/2` of values of one number over bootstrap resamples.
    ///
    /// # Errors
    /// [`Error::Value`] for a level outside of (0, 1) or a value that is not finite; [`Error::TooFew`]
    /// without values.
    ///
    /// # Examples
    /// ```
    /// use circuitscope_score::stats::Interval;
    ///
    /// # fn main() -> Result<(), circuitscope_score::Error> {
    /// let values: Vec<f64> = (0..=100).map(f64::from).collect();
    /// let interval = Interval::percentile(&values, 0.9)?;
    /// assert_eq!((interval.low.round(), interval.high.round()), (5.0, 95.0));
    /// assert!(interval.contains(50.0) && !interval.contains(99.0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn percentile(values: &[f64], level: f64) -> Result<Self> {
        require_level(level)?;
        let sorted = sorted(values)?;
        let tail = f64::midpoint(1.0, -level);
        Ok(Self {
            low: at(&sorted, tail),
            high: at(&sorted, 1.0 - tail),
            level,
        })
    }

    /// Whether a value lies in it, ends included.
    pub fn contains(self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// The part of it that numbers from `low` to `high` may have. An estimate between the two stays inside.
    #[must_use]
    pub fn within(self, low: f64, high: f64) -> Self {
        Self {
            low: self.low.clamp(low, high),
            high: self.high.clamp(low, high),
            level: self.level,
        }
    }
}

/// The quantile `p` of values by linear interpolation between order statistics: with the values sorted
/// as x₀ … xₙ₋₁ and h = (n − 1) p, `x⌊h⌋ + (h − ⌊h⌋)(x⌊h⌋₊₁ − x⌊h⌋)`. Definition 7 of Hyndman & Fan
/// (Am. Stat. 50:4, 1996), the default of R and numpy.
///
/// # Errors
/// [`Error::Value`] for `p` outside of [0, 1] or a value that is not finite; [`Error::TooFew`] without
/// values.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// assert_eq!(circuitscope_score::stats::quantile(&[4.0, 1.0, 2.0], 0.75)?, 3.0);
/// # Ok(())
/// # }
/// ```
pub fn quantile(values: &[f64], p: f64) -> Result<f64> {
    if !(0.0..=1.0).contains(&p) {
        return Err(Error::Value {
            what: "quantile",
            found: p,
            expected: "a share from 0 to 1",
        });
    }
    Ok(at(&sorted(values)?, p))
}

fn sorted(values: &[f64]) -> Result<Vec<f64>> {
    if values.is_empty() {
        return Err(Error::TooFew {
            what: "values of a quantile",
            found: 0,
            expected: 1,
        });
    }
    require_finite("value of a quantile", values)?;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Ok(sorted)
}

fn at(sorted: &[f64], p: f64) -> f64 {
    let h = (sorted.len() - 1) as f64 * p;
    let below = h.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (h - h.floor()) * (sorted[above] - sorted[below])
}

pub(crate) fn require_level(level: f64) -> Result<()> {
    if level > 0.0 && level < 1.0 {
        return Ok(());
    }
    Err(Error::Value {
        what: "level of an interval",
        found: level,
        expected: "a share between 0 and 1",
    })
}

pub(crate) fn require_finite(what: &'static str, values: &[f64]) -> Result<()> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(&found) => Err(Error::Value {
            what,
            found,
            expected: "a finite number",
        }),
        None => Ok(()),
    }
}

/// How alike two sets are: `|A ∩ B| / |A ∪ B|`, from 0 for disjoint sets to 1 for equal ones. Two empty
/// sets are equal.
///
/// For circuits, compare their `nodes` or their `edges`.
///
/// # Examples
/// ```
/// use std::collections::BTreeSet;
/// use circuitscope_score::stats::jaccard;
/// assert_eq!(jaccard(&BTreeSet::from([1, 2, 3]), &BTreeSet::from([2, 3, 4])), 0.5);
/// assert_eq!(jaccard::<u8>(&BTreeSet::new(), &BTreeSet::new()), 1.0);
/// ```
#[must_use]
pub fn jaccard<T: Ord>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> f64 {
    let common = a.intersection(b).count();
    let either = a.len() + b.len() - common;
    if either == 0 {
        1.0
    } else {
        common as f64 / either as f64
    }
}

/// The mean [`jaccard`] of all pairs of sets: how well the circuits chosen on different resamples or
/// with different seeds agree. `None` for fewer than two sets.
///
/// # Examples
/// ```
/// use std::collections::BTreeSet;
/// use circuitscope_score::stats::mean_pairwise_jaccard;
/// let sets = [BTreeSet::from([1, 2]), BTreeSet::from([1, 2]), BTreeSet::from([3])];
/// assert_eq!(mean_pairwise_jaccard(&sets), Some(1.0 / 3.0));
/// assert_eq!(mean_pairwise_jaccard(&sets[..1]), None);
/// ```
#[must_use]
pub fn mean_pairwise_jaccard<T: Ord>(sets: &[BTreeSet<T>]) -> Option<f64> {
    let pairs = sets.len() * sets.len().saturating_sub(1) / 2;
    let sum: f64 = (1..sets.len())
        .flat_map(|b| (0..b).map(move |a| (a, b)))
        .map(|(a, b)| jaccard(&sets[a], &sets[b]))
        .sum();
    (pairs > 0).then(|| sum / pairs as f64)
}

/// The [`jaccard`] index that two sets of `a` and `b` members drawn at random from `among` have on average: how many they have in
/// common is hypergeometric.
///
/// An agreement says something as far as it is above this. 1 for two empty sets.
///
/// # Panics
/// If a set has more than `among` members.
///
/// # Examples
/// ```
/// use circuitscope_score::stats::chance_jaccard;
/// // Of three: the same one with probability 1/3, else two different ones.
/// assert!((chance_jaccard(1, 1, 3) - 1.0 / 3.0).abs() < 1e-12);
/// assert_eq!(chance_jaccard(4, 4, 4), 1.0);
/// assert_eq!(chance_jaccard(0, 2, 9), 0.0);
/// ```
#[must_use]
pub fn chance_jaccard(a: usize, b: usize, among: usize) -> f64 {
    assert!(a.max(b) <= among, "sets of {a} and {b} among {among}");
    let (small, large) = (a.min(b), a.max(b));
    if large == 0 {
        return 1.0;
    }
    // ln of a binomial coefficient.
    let ln_choose = |n: usize, k: usize| -> f64 {
        let terms = (0..k.min(n - k)).map(|i| ((n - i) as f64 / (i + 1) as f64).ln());
        terms.sum()
    };
    let all = ln_choose(among, small);
    let least = (small + large).saturating_sub(among);
    let terms = (least..=small).map(|common| {
        let ways = ln_choose(large, common) + ln_choose(among - large, small - common);
        (ways - all).exp() * common as f64 / (small + large - common) as f64
    });
    terms.fold(0.0, |sum, term| sum + term)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against all sets of that size, one by one.
        #[test]
        fn chance_is_the_mean_over_all_sets(among in 1usize..9, a in 0usize..9, b in 0usize..9) {
            let (a, b) = (a.min(among), b.min(among));
            let first: BTreeSet<usize> = (0..a).collect();
            let sets = (0..1u32 << among).filter(|bits| bits.count_ones() as usize == b);
            let each: Vec<f64> = sets
                .map(|bits| {
                    let set = (0..among).filter(|at| bits >> at & 1 == 1).collect();
                    jaccard(&first, &set)
                })
                .collect();
            let mean = each.iter().sum::<f64>() / each.len() as f64;
            prop_assert!((chance_jaccard(a, b, among) - mean).abs() < 1e-9);
        }
    }

    /// `numpy.quantile([3, 1, 4, 1, 5, 9, 2, 6], p)`.
    #[test]
    fn quantiles_equal_numpy() {
        let values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0];
        for (p, expected) in [(0.0, 1.0), (0.25, 1.75), (0.5, 3.5), (0.9, 6.9), (1.0, 9.0)] {
            let found = quantile(&values, p).unwrap();
            assert!((found - expected).abs() < 1e-14, "{p}: {found}");
        }
        assert_eq!(quantile(&[7.0], 0.3).unwrap(), 7.0);
    }

    #[test]
    fn refuses_what_has_no_quantile() {
        assert!(matches!(quantile(&[], 0.5), Err(Error::TooFew { .. })));
        assert!(matches!(
            quantile(&[1.0, f64::NAN], 0.5),
            Err(Error::Value { .. })
        ));
        for p in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(quantile(&[1.0], p), Err(Error::Value { .. })));
        }
        for level in [0.0, 1.0, 95.0, f64::NAN] {
            assert!(Interval::percentile(&[1.0], level).is_err(), "{level}");
        }
    }

    proptest! {
        #[test]
        fn intervals_grow_with_their_level(values in prop::collection::vec(-9.0f64..9.0, 1..40)) {
            let [half, most] = [0.5, 0.95].map(|level| Interval::percentile(&values, level).unwrap());
            prop_assert!(most.low <= half.low && half.low <= half.high && half.high <= most.high);
        }
    }

    #[test]
    fn what_is_a_share_ends_at_nothing_and_all() {
        let interval = Interval {
            low: -0.2,
            high: 1.4,
            level: 0.95,
        };
        let within = interval.within(0.0, 1.0);
        assert_eq!((within.low, within.high, within.level), (0.0, 1.0, 0.95));
    }
}
