use circuitscope_core::{Polarity, Seed, draw};

use crate::{Error, Result};

/// Some of the examples, none twice, and which of them are matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resample {
    rows: Vec<usize>,
    pairs: Vec<(usize, usize)>,
    drawn: usize,
    units: usize,
}

impl Resample {
    /// Indices of the examples: the drawn pairs first, positive before negative, then the unmatched
    /// positives, then the unmatched negatives.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// The matched pairs as positions in [`rows`](Self::rows), `(positive, negative)`.
    pub fn pairs(&self) -> &[(usize, usize)] {
        &self.pairs
    }

    /// `√(m / (n − m))`, m the pairs and unmatched examples drawn of n: what a deviation of a number over such
    /// samples is multiplied by to be one over samples as large as the data
    /// ([`Deviations`](super::Deviations)). 1 for halves of an even number.
    pub fn scale(&self) -> f64 {
        (self.drawn as f64 / (self.units - self.drawn) as f64).sqrt()
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

/// `n` random halves of the examples, without replacement, for [`Stability`](super::Stability) and
/// [`Deviations`](super::Deviations): ⌊k/2⌋ of the k matched pairs, and ⌊k/2⌋ of the k unmatched examples of
/// each class (the subsamples of size ⌊n/2⌋ of Meinshausen & Bühlmann 2010, arXiv 0809.2932, §2.1). What belongs
/// together is drawn together. Half `i` depends on `seed` and `i` alone.
///
/// # Shapes
/// - `labels`: `[examples]`
/// - `pairs`: `(positive, negative)` indices of examples, each example in at most one pair; may be empty
///
/// # Errors
/// [`Error::Pair`], [`Error::PairedTwice`], [`Error::EmptyClass`]; [`Error::TooFewToHalve`] if no example of a
/// class would be left.
///
/// # Examples
/// ```
/// use circuitscope_core::{Polarity::{Negative, Positive}, Seed};
/// use circuitscope_score::stats::half_samples;
///
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// let labels = [Positive, Negative, Positive, Negative, Negative];
/// let halves = half_samples(&labels, &[(0, 1), (2, 3)], 100, Seed::new(0))?;
/// for half in &halves {
///     // One of the two pairs, whose prompts stay together, and none of the one unmatched example.
///     assert!([[0, 1], [2, 3]].contains(&[half.rows()[0], half.rows()[1]]));
///     assert_eq!((half.rows().len(), half.pairs()), (2, &[(0, 1)][..]));
///     assert_eq!(half.scale(), (1.0f64 / 2.0).sqrt());
/// }
/// assert_eq!(halves[..10], half_samples(&labels, &[(0, 1), (2, 3)], 10, Seed::new(0))?);
/// # Ok(())
/// # }
/// ```
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
    let all = units.pairs.len() + units.unmatched.iter().map(Vec::len).sum::<usize>();
    Resample {
        rows,
        drawn: pairs.len() + unmatched.iter().map(|chosen| chosen.len()).sum::<usize>(),
        units: all,
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
                for &(a, b) in half.pairs() {
                    prop_assert!(pairs.contains(&(half.rows()[a], half.rows()[b])));
                }
                // Matched examples never stand alone.
                prop_assert!(half.rows()[2 * (k / 2)..].iter().all(|&row| row >= 2 * k));
                let class = |polarity| half.rows().iter().filter(|&&row| labels[row] == polarity).count();
                prop_assert_eq!((class(Positive), class(Negative)), (k / 2 + p / 2, k / 2 + n / 2));
                let (drawn, all) = ((k / 2 + p / 2 + n / 2) as f64, (k + p + n) as f64);
                prop_assert!((half.scale().powi(2) - drawn / (all - drawn)).abs() < 1e-12);
            }
        }
    }

    /// Each of 6 pairs is in a half with probability ½: five standard deviations.
    #[test]
    fn pairs_are_drawn_evenly() {
        let (labels, pairs) = data(6, 0, 0);
        let n = 2000;
        let mut counts = [0usize; 6];
        for half in half_samples(&labels, &pairs, n, Seed::new(9)).unwrap() {
            for row in half.rows().iter().step_by(2) {
                counts[row / 2] += 1;
            }
        }
        for count in counts {
            let off = (count as f64 - n as f64 / 2.0).abs();
            assert!(off < 5.0 * (n as f64 / 4.0).sqrt(), "{counts:?}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_draw() {
        let (labels, _) = data(2, 0, 0);
        let draw = |pairs: &[(usize, usize)]| half_samples(&labels, pairs, 1, Seed::new(0));
        assert!(matches!(draw(&[(1, 0)]), Err(Error::Pair { at: 0, .. })));
        assert!(matches!(draw(&[(0, 4)]), Err(Error::Pair { at: 0, .. })));
        let twice = draw(&[(0, 1), (2, 1)]).unwrap_err();
        assert_eq!(
            twice.to_string(),
            "pair 2: example 1 is in an earlier pair: expected each example in one pair"
        );
        let one_class = half_samples(&[Positive], &[], 1, Seed::new(0));
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
