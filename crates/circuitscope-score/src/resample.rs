use circuitscope_core::{Polarity, Seed};
use rand::RngExt as _;

/// Bootstrap resamples of labelled examples, as row indices (Efron and Tibshirani 1993, ch. 6).
///
/// Matched prompts stay together: as many pairs are drawn, with replacement, as there are. Examples
/// without a pair are drawn within their class, so that no resample lacks one.
///
/// # Determinism
/// Resample `i` draws from `seed.nth("bootstrap", i)`: two methods with the same examples and seed see
/// the same resamples.
///
/// # Examples
/// ```
/// use circuitscope_core::{Polarity::{Negative, Positive}, Seed};
/// use circuitscope_score::bootstrap;
///
/// let labels = [Positive, Positive, Negative, Negative];
/// for rows in bootstrap(&labels, &[(0, 2), (1, 3)], 10, Seed::new(0)) {
///     // Two pairs each, positive and negative side by side.
///     assert_eq!(rows.len(), 4);
///     assert!(rows.chunks(2).all(|pair| pair[1] == pair[0] + 2));
/// }
/// ```
#[must_use]
pub fn bootstrap(
    labels: &[Polarity],
    pairs: &[(usize, usize)],
    count: usize,
    seed: Seed,
) -> Vec<Vec<usize>> {
    let mut paired = vec![false; labels.len()];
    for &(positive, negative) in pairs {
        paired[positive] = true;
        paired[negative] = true;
    }
    let alone = |class: Polarity| -> Vec<usize> {
        let rows = (0..labels.len()).filter(|&row| !paired[row]);
        rows.filter(|&row| labels[row] == class).collect()
    };
    let classes = [alone(Polarity::Positive), alone(Polarity::Negative)];
    (0..count)
        .map(|at| {
            let mut rng = seed.nth("bootstrap", at as u64).rng();
            let mut rows = Vec::with_capacity(labels.len());
            for _ in pairs {
                let (positive, negative) = pairs[rng.random_range(0..pairs.len())];
                rows.extend([positive, negative]);
            }
            for class in &classes {
                rows.extend(
                    class
                        .iter()
                        .map(|_| class[rng.random_range(0..class.len())]),
                );
            }
            rows
        })
        .collect()
}

/// The range that holds the middle share `level` of some values: their quantiles at `(1 ∓ level) / 2`,
/// between order statistics by linear interpolation (type 7 of Hyndman and Fan 1996, numpy's default).
///
/// `None` without values.
///
/// ```
/// use circuitscope_score::percentile_interval;
/// let values: Vec<f64> = (0..=40).map(f64::from).collect();
/// assert_eq!(percentile_interval(&values, 0.95), Some((1.0, 39.0)));
/// assert_eq!(percentile_interval(&[2.0, 4.0], 0.5), Some((2.5, 3.5)));
/// ```
#[must_use]
pub fn percentile_interval(values: &[f64], level: f64) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let quantile = |share: f64| {
        let at = share * last as f64;
        let low = at.floor() as usize;
        let high = (low + 1).min(last);
        sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
    };
    let tail = (1.0 - level) / 2.0;
    Some((quantile(tail), quantile(1.0 - tail)))
}

/// How alike some choices are: the mean, over all pairs of them, of the share of entries in both among
/// those in either (Jaccard index); two empty choices are alike. 1 for fewer than two choices.
///
/// ```
/// use circuitscope_score::mean_jaccard;
/// assert_eq!(mean_jaccard(&[vec![true, true, false], vec![true, false, false]]), 0.5);
/// assert_eq!(mean_jaccard(&[vec![true, false]; 3]), 1.0);
/// ```
#[must_use]
pub fn mean_jaccard(choices: &[Vec<bool>]) -> f64 {
    let mut sum = 0.0;
    let mut count = 0.0;
    for (at, a) in choices.iter().enumerate() {
        for b in &choices[at + 1..] {
            let both = a.iter().zip(b).filter(|(a, b)| **a && **b).count();
            let either = a.iter().zip(b).filter(|(a, b)| **a || **b).count();
            sum += if either == 0 {
                1.0
            } else {
                both as f64 / either as f64
            };
            count += 1.0;
        }
    }
    if count == 0.0 { 1.0 } else { sum / count }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Polarity::{Negative, Positive};

    #[test]
    fn classes_keep_their_sizes_and_seeds_decide() {
        let labels = [Positive, Negative, Positive, Negative, Negative];
        let draws = bootstrap(&labels, &[(0, 1)], 50, Seed::new(3));
        for rows in &draws {
            let positives = rows.iter().filter(|&&row| labels[row] == Positive).count();
            assert_eq!((rows.len(), positives), (5, 2));
        }
        assert_eq!(draws, bootstrap(&labels, &[(0, 1)], 50, Seed::new(3)));
        assert_ne!(draws, bootstrap(&labels, &[(0, 1)], 50, Seed::new(4)));
        assert_eq!(
            draws[..7],
            bootstrap(&labels, &[(0, 1)], 7, Seed::new(3))[..]
        );
    }

    /// A pair is missing from a resample of n pairs with probability (1 − 1/n)ⁿ.
    #[test]
    fn pairs_are_drawn_with_replacement() {
        let n = 10;
        let labels = [vec![Positive; n], vec![Negative; n]].concat();
        let pairs: Vec<_> = (0..n).map(|at| (at, n + at)).collect();
        let draws = bootstrap(&labels, &pairs, 4000, Seed::new(0));
        let missing = draws.iter().filter(|rows| !rows.contains(&0)).count();
        let expected = 4000.0 * 0.9f64.powi(10);
        assert!((missing as f64 - expected).abs() < 4.0 * (expected * 0.65).sqrt());
    }
}
