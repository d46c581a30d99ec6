use circuitscope_core::{Polarity, Seed, draw};

use crate::{Error, Result};

/// A multiset of examples, and which of its entries are matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resample {
    rows: Vec<usize>,
    pairs: Vec<(usize, usize)>,
}

impl Resample {
    /// Indices of the examples, repetitions included: the drawn pairs first, positive before negative,
    /// then the unmatched positives, then the unmatched negatives.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// The matched pairs as positions in [`rows`](Self::rows), `(positive, negative)`. An example
    /// drawn twice is two entries, so no position is in two pairs.
    pub fn pairs(&self) -> &[(usize, usize)] {
        &self.pairs
    }
}

/// What is drawn as one: matched pairs, and the unmatched examples of either class.
#[derive(Debug, Clone)]
pub(crate) struct Units<'a> {
    pub(crate) pairs: &'a [(usize, usize)],
    /// Unmatched positives, unmatched negatives.
    pub(crate) unmatched: [Vec<usize>; 2],
}

impl<'a> Units<'a> {
    pub(crate) fn new(labels: &[Polarity], pairs: &'a [(usize, usize)]) -> Result<Self> {
        let mut matched = vec![false; labels.len()];
        for (at, &(positive, negative)) in pairs.iter().enumerate() {
            let sides = (labels.get(positive), labels.get(negative));
            if sides != (Some(&Polarity::Positive), Some(&Polarity::Negative)) {
                return Err(Error::Pair {
                    at,
                    positive,
                    negative,
                    examples: labels.len(),
                });
            }
            for example in [positive, negative] {
                if std::mem::replace(&mut matched[example], true) {
                    return Err(Error::PairedTwice { at, example });
                }
            }
        }
        let unmatched = |polarity| {
            (0..labels.len())
                .filter(|&example| !matched[example] && labels[example] == polarity)
                .collect()
        };
        let units = Self {
            pairs,
            unmatched: [unmatched(Polarity::Positive), unmatched(Polarity::Negative)],
        };
        for (polarity, unmatched) in units.classes() {
            if pairs.is_empty() && unmatched.is_empty() {
                return Err(Error::EmptyClass { polarity });
            }
        }
        Ok(units)
    }

    fn classes(&self) -> impl Iterator<Item = (Polarity, &Vec<usize>)> {
        [Polarity::Positive, Polarity::Negative]
            .into_iter()
            .zip(&self.unmatched)
    }
}

/// `n` bootstrap resamples of the examples (Efron 1979, Ann. Statist. 7:1), each as large as the data.
///
/// What belongs together is drawn together: as many matched pairs as there are, with replacement, and
/// then within each class as many unmatched examples as there are, with replacement. The size of each
/// class is therefore that of the data. Resample `i` depends on `seed` and `i` alone.
///
/// # Shapes
/// - `labels`: `[examples]`
/// - `pairs`: `(positive, negative)` indices of examples, each example in at most one pair; may be empty
///
/// # Errors
/// [`Error::Pair`], [`Error::PairedTwice`], or [`Error::EmptyClass`].
///
/// # Examples
/// ```
/// use circuitscope_core::{Polarity::{Negative, Positive}, Seed};
/// use circuitscope_score::stats::bootstrap;
///
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// let labels = [Positive, Negative, Positive, Negative, Negative];
/// let resamples = bootstrap(&labels, &[(0, 1), (2, 3)], 100, Seed::new(0))?;
/// for resample in &resamples {
///     assert_eq!(resample.rows().len(), 5);
///     assert_eq!(resample.pairs(), [(0, 1), (2, 3)]);
///     // Whoever is drawn brings the match along; the unmatched example is alone in its class.
///     for &(positive, negative) in resample.pairs() {
///         assert_eq!(resample.rows()[negative], resample.rows()[positive] + 1);
///     }
///     assert_eq!(resample.rows()[4], 4);
/// }
/// assert_eq!(resamples[..10], bootstrap(&labels, &[(0, 1), (2, 3)], 10, Seed::new(0))?);
/// # Ok(())
/// # }
/// ```
pub fn bootstrap(
    labels: &[Polarity],
    pairs: &[(usize, usize)],
    n: usize,
    seed: Seed,
) -> Result<Vec<Resample>> {
    let units = Units::new(labels, pairs)?;
    let resample = |at: usize| {
        let mut rng = seed.nth("bootstrap", at as u64).rng();
        let mut again = |count: usize| -> Vec<usize> {
            (0..count).map(|_| draw::below(&mut rng, count)).collect()
        };
        let pairs = again(pairs.len());
        let [positive, negative] = units.unmatched.each_ref().map(|all| again(all.len()));
        gather(&units, &pairs, [&positive, &negative])
    };
    Ok((0..n).map(resample).collect())
}

/// `n` random halves of the examples, without replacement, for [`Stability`](super::Stability): ⌊k/2⌋
/// of the k matched pairs, and ⌊k/2⌋ of the k unmatched examples of each class (the subsamples of size
/// ⌊n/2⌋ of Meinshausen & Bühlmann 2010, arXiv 0809.2932, §2.1). Half `i` depends on `seed` and `i`
/// alone.
///
/// # Shapes
/// As [`bootstrap`].
///
/// # Errors
/// As [`bootstrap`]; [`Error::TooFewToHalve`] if no example of a class would be left.
pub fn half_samples(
    labels: &[Polarity],
    pairs: &[(usize, usize)],
    n: usize,
    seed: Seed,
) -> Result<Vec<Resample>> {
    let units = Units::new(labels, pairs)?;
    for (polarity, unmatched) in units.classes() {
        if pairs.len() < 2 && unmatched.len() < 2 {
            return Err(Error::TooFewToHalve {
                polarity,
                found: pairs.len() + unmatched.len(),
            });
        }
    }
    let resample = |at: usize| {
        let mut rng = seed.nth("half_samples", at as u64).rng();
        let mut half = |count: usize| -> Vec<usize> {
            let mut all: Vec<usize> = (0..count).collect();
            draw::choose_first(&mut rng, &mut all, count / 2);
            all.truncate(count / 2);
            all
        };
        let pairs = half(pairs.len());
        let [positive, negative] = units.unmatched.each_ref().map(|all| half(all.len()));
        gather(&units, &pairs, [&positive, &negative])
    };
    Ok((0..n).map(resample).collect())
}

/// The rows of chosen pairs and of chosen unmatched examples of either class.
fn gather(units: &Units<'_>, pairs: &[usize], unmatched: [&[usize]; 2]) -> Resample {
    let mut rows = Vec::new();
    for &pair in pairs {
        let (positive, negative) = units.pairs[pair];
        rows.extend([positive, negative]);
    }
    for (all, chosen) in units.unmatched.iter().zip(unmatched) {
        rows.extend(chosen.iter().map(|&at| all[at]));
    }
    Resample {
        rows,
        pairs: (0..pairs.len()).map(|at| (2 * at, 2 * at + 1)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Polarity::{Negative, Positive};
    use proptest::prelude::*;

    /// `k` matched pairs, then unmatched positives and negatives.
    fn data(k: usize, positives: usize, negatives: usize) -> (Vec<Polarity>, Vec<(usize, usize)>) {
        let mut labels = [Positive, Negative].repeat(k);
        labels.extend(vec![Positive; positives]);
        labels.extend(vec![Negative; negatives]);
        (labels, (0..k).map(|at| (2 * at, 2 * at + 1)).collect())
    }

    proptest! {
        #[test]
        fn draws_keep_classes_and_matches(
            k in 0usize..5, p in 1usize..5, n in 1usize..5, seed in any::<u64>(),
        ) {
            let (labels, pairs) = data(k, p, n);
            let class = |rows: &[usize], polarity| {
                rows.iter().filter(|&&row| labels[row] == polarity).count()
            };
            for resample in bootstrap(&labels, &pairs, 5, Seed::new(seed)).unwrap() {
                prop_assert_eq!(class(resample.rows(), Positive), k + p);
                prop_assert_eq!(class(resample.rows(), Negative), k + n);
                prop_assert_eq!(resample.pairs().len(), k);
                for &(a, b) in resample.pairs() {
                    prop_assert!(pairs.contains(&(resample.rows()[a], resample.rows()[b])));
                }
                // Matched examples never stand alone.
                prop_assert!(resample.rows()[2 * k..].iter().all(|&row| row >= 2 * k));
            }
        }

        #[test]
        fn halves_hold_nothing_twice(
            k in 0usize..9, p in 2usize..7, n in 2usize..7, seed in any::<u64>(),
        ) {
            let (labels, pairs) = data(k, p, n);
            for half in half_samples(&labels, &pairs, 5, Seed::new(seed)).unwrap() {
                let mut rows = half.rows().to_vec();
                rows.sort_unstable();
                rows.dedup();
                prop_assert_eq!(rows.len(), half.rows().len());
                prop_assert_eq!(rows.len(), 2 * (k / 2) + p / 2 + n / 2);
                prop_assert_eq!(half.pairs().len(), k / 2);
            }
        }
    }

    /// How often each of 6 pairs is drawn is binomial(6 n, 1/6): bounds are five standard deviations.
    /// The share of pairs not drawn at all is (5/6)^6 on average.
    #[test]
    fn pairs_are_drawn_evenly() {
        let (labels, pairs) = data(6, 0, 0);
        let n = 2000;
        let mut counts = [0usize; 6];
        let mut missing = 0usize;
        for resample in bootstrap(&labels, &pairs, n, Seed::new(9)).unwrap() {
            let mut seen = [false; 6];
            for row in resample.rows().iter().step_by(2) {
                counts[row / 2] += 1;
                seen[row / 2] = true;
            }
            missing += seen.iter().filter(|seen| !**seen).count();
        }
        let draws = 6.0 * n as f64;
        for count in counts {
            let off = (count as f64 - draws / 6.0).abs();
            assert!(off < 5.0 * (draws * 5.0 / 36.0).sqrt(), "{counts:?}");
        }
        let share = missing as f64 / draws;
        assert!((share - (5.0f64 / 6.0).powi(6)).abs() < 0.02, "{share}");
    }

    #[test]
    fn refuses_what_it_cannot_draw() {
        let (labels, _) = data(2, 0, 0);
        let draw = |pairs: &[(usize, usize)]| bootstrap(&labels, pairs, 1, Seed::new(0));
        assert!(matches!(draw(&[(1, 0)]), Err(Error::Pair { at: 0, .. })));
        assert!(matches!(draw(&[(0, 4)]), Err(Error::Pair { at: 0, .. })));
        let twice = draw(&[(0, 1), (2, 1)]).unwrap_err();
        assert_eq!(
            twice.to_string(),
            "pair 1: example 1 is in an earlier pair: expected each example in one pair"
        );
        let one_class = bootstrap(&[Positive], &[], 1, Seed::new(0));
        assert!(matches!(
            one_class,
            Err(Error::EmptyClass { polarity: Negative })
        ));
        let one = half_samples(&[Positive, Negative, Negative], &[], 1, Seed::new(0));
        assert!(matches!(
            one,
            Err(Error::TooFewToHalve {
                polarity: Positive,
                found: 1
            })
        ));
    }
}
