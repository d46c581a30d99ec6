use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The q-value of each p-value by the step-up rule of Benjamini & Hochberg (J. R. Stat. Soc. B 57:289,
/// 1995): the smallest false discovery rate at which it is selected,
/// `q_(i) = min over j ≥ i of min(1, m p_(j) / j)`, with the m p-values sorted.
///
/// Selecting `q ≤ α` keeps the expected share of false ones among the selected at most `α m₀ / m ≤ α`,
/// m₀ of the m null hypotheses being true, if the p-values are independent or positively dependent
/// (Benjamini & Yekutieli, Ann. Stat. 29:1165, 2001). Equal p-values have equal q-values.
///
/// # Errors
/// [`Error::Value`] for a p-value outside of [0, 1].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// use circuitscope_score::stats::benjamini_hochberg;
/// assert_eq!(benjamini_hochberg(&[0.5, 0.01, 0.02, 1.0])?, [2.0 / 3.0, 0.04, 0.04, 1.0]);
/// # Ok(())
/// # }
/// ```
pub fn benjamini_hochberg(p: &[f64]) -> Result<Vec<f64>> {
    if let Some(&found) = p.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(Error::Value {
            what: "p-value",
            found,
            expected: "a number from 0 to 1",
        });
    }
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut q = vec![1.0; p.len()];
    let mut least = 1.0f64;
    for (rank, &at) in order.iter().enumerate().rev() {
        // The last ratio is exactly 1, so that no q-value is below its p-value.
        least = least.min(p[at] * (p.len() as f64 / (rank + 1) as f64));
        q[at] = least;
    }
    Ok(q)
}

/// A choice of heads that states its false discovery rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Discoveries {
    /// Indices of the selected heads, ascending.
    pub selected: Vec<usize>,
    /// The bound α of the expected share of false ones among them.
    pub rate: f64,
    /// The q-value of each head.
    pub q_values: Vec<f64>,
    /// The largest selected p-value; `None` if nothing is selected.
    pub cut: Option<f64>,
}

impl Discoveries {
    /// Selects by [`benjamini_hochberg`] at the rate α.
    ///
    /// # Errors
    /// [`Error::Value`] for a p-value or a rate outside of [0, 1].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> Result<(), circuitscope_score::Error> {
    /// use circuitscope_score::stats::Discoveries;
    /// let chosen = Discoveries::at_rate(&[0.5, 0.01, 0.02, 1.0], 0.05)?;
    /// assert_eq!((chosen.selected, chosen.cut), (vec![1, 2], Some(0.02)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn at_rate(p: &[f64], rate: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&rate) {
            return Err(Error::Value {
                what: "false discovery rate",
                found: rate,
                expected: "a share from 0 to 1",
            });
        }
        let q_values = benjamini_hochberg(p)?;
        let selected: Vec<usize> = (0..p.len()).filter(|&at| q_values[at] <= rate).collect();
        let cut = selected.iter().map(|&at| p[at]).reduce(f64::max);
        Ok(Self {
            selected,
            rate,
            q_values,
            cut,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_core::{Seed, draw};
    use proptest::prelude::*;

    /// The fifteen p-values of Benjamini & Hochberg 1995, §3.2: four are selected at 0.05.
    #[test]
    fn example_of_the_paper() {
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.0000,
        ];
        let chosen = Discoveries::at_rate(&p, 0.05).unwrap();
        assert_eq!(chosen.selected, [0, 1, 2, 3]);
        assert_eq!(chosen.cut, Some(0.0095));
        assert!((chosen.q_values[3] - 15.0 * 0.0095 / 4.0).abs() < 1e-15);
        // Ranks 5 and 6 have ratios 0.0603 and 0.0695: rank 6 takes that of rank 7, 0.0639.
        assert!((chosen.q_values[4] - 15.0 * 0.0201 / 5.0).abs() < 1e-15);
        assert!((chosen.q_values[5] - 15.0 * 0.0298 / 7.0).abs() < 1e-15);
    }

    #[test]
    fn refuses_what_is_no_share() {
        for p in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(
                benjamini_hochberg(&[0.5, p]),
                Err(Error::Value { .. })
            ));
            assert!(matches!(
                Discoveries::at_rate(&[0.5], p),
                Err(Error::Value { .. })
            ));
        }
        assert!(benjamini_hochberg(&[]).unwrap().is_empty());
        assert_eq!(Discoveries::at_rate(&[0.5], 0.1).unwrap().cut, None);
    }

    proptest! {
        /// With ties, since p-values of permutations tie often.
        #[test]
        fn follows_its_definition(p in prop::collection::vec((0u8..=20).prop_map(|n| f64::from(n) / 20.0), 1..30)) {
            let q = benjamini_hochberg(&p).unwrap();
            let m = p.len() as f64;
            for at in 0..p.len() {
                // The rank of a value is the number of values at most as large.
                let ratio = |value: f64| value * (m / p.iter().filter(|p| **p <= value).count() as f64);
                let from = p[at];
                let expected =
                    p.iter().filter(|p| **p >= from).map(|&p| ratio(p)).fold(1.0, f64::min);
                prop_assert!((q[at] - expected).abs() < 1e-14);
                prop_assert!(q[at] >= p[at]);
                for other in 0..p.len() {
                    prop_assert!(p[at] > p[other] || q[at] <= q[other]);
                }
            }
        }

        #[test]
        fn a_laxer_rate_selects_more(p in prop::collection::vec(0.0f64..=1.0, 1..30), a in 0.0f64..=1.0, b in 0.0f64..=1.0) {
            let chosen = |rate| Discoveries::at_rate(&p, rate).unwrap().selected;
            let (strict, lax) = (chosen(a.min(b)), chosen(a.max(b)));
            prop_assert!(strict.iter().all(|at| lax.contains(at)));
        }
    }

    /// Independent uniform p-values of true nulls, with and without 5 strong effects among 20: the mean
    /// share of false ones is α m₀/m (Benjamini & Hochberg 1995, theorem 1; exact for independent
    /// continuous p-values), within four standard errors of 3000 experiments.
    #[test]
    fn realised_rate_is_that_of_the_theorem() {
        let (experiments, m, alpha) = (3000, 20, 0.1);
        for effects in [0, 5] {
            let mut shares = Vec::new();
            for at in 0..experiments {
                let mut rng = Seed::new(1).nth("experiment", at).rng();
                let p: Vec<f64> = (0..m)
                    .map(|head| draw::unit(&mut rng) * if head < effects { 1e-6 } else { 1.0 })
                    .collect();
                let selected = Discoveries::at_rate(&p, alpha).unwrap().selected;
                let wrong = selected.iter().filter(|&&head| head >= effects).count();
                shares.push(wrong as f64 / selected.len().max(1) as f64);
            }
            let n = experiments as f64;
            let mean = shares.iter().sum::<f64>() / n;
            let variance = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n;
            let expected = alpha * (m - effects) as f64 / m as f64;
            let error = (variance / n).sqrt();
            assert!(
                (mean - expected).abs() < 4.0 * error,
                "{mean} against {expected} ± {error}"
            );
        }
    }
}
