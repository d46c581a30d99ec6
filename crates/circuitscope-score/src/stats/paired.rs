use serde::{Deserialize, Serialize};

use super::Interval;
use super::interval::require_finite;
use crate::{Error, Result};

/// A method against a control over the same resamples of the examples.
///
/// Both numbers of a resample come from the same examples, so what makes examples easy or hard cancels
/// in their difference, which is what is compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedComparison {
    /// Mean over resamples of method − control.
    pub mean: f64,
    /// Percentile interval of method − control.
    pub interval: Interval,
    /// Two-sided bootstrap p-value of "no difference".
    pub p_value: f64,
    /// Number of resamples.
    pub resamples: usize,
}

impl PairedComparison {
    /// Compares values of one measure, `method[i]` and `control[i]` from resample `i`.
    ///
    /// With dᵢ = methodᵢ − controlᵢ over n resamples,
    /// `p = min(1, 2 · (1 + min(#{d ≤ 0}, #{d ≥ 0})) / (n + 1))`: the achieved significance level of
    /// the percentile interval (Efron & Tibshirani 1993, §15.4 and 16.3), where adding 1 above and below
    /// keeps p above 0 (Davison & Hinkley 1997, eq. 4.11; Phipson & Smyth 2010). A difference of 0
    /// counts on both sides. The smallest possible p is 2/(n + 1), so 0.05 needs at least 39
    /// resamples.
    ///
    /// # Errors
    /// [`Error::Length`] unless both have the same number of values; [`Error::TooFew`] without values;
    /// [`Error::Value`] for a value that is not finite or a level outside of (0, 1).
    ///
    /// # Examples
    /// ```
    /// use circuitscope_score::stats::PairedComparison;
    ///
    /// # fn main() -> Result<(), circuitscope_score::Error> {
    /// // Always 0.1 ahead, though either varies more than that.
    /// let control: Vec<f64> = (0..99).map(|i| f64::from(i % 10) / 10.0).collect();
    /// let method: Vec<f64> = control.iter().map(|value| value + 0.1).collect();
    /// let comparison = PairedComparison::new(&method, &control, 0.95)?;
    /// assert!(comparison.is_ahead());
    /// assert_eq!(comparison.p_value, 0.02);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(method: &[f64], control: &[f64], level: f64) -> Result<Self> {
        if method.len() != control.len() {
            return Err(Error::Length {
                what: "values of the control",
                found: control.len(),
                expected: method.len(),
            });
        }
        require_finite("value of the method", method)?;
        require_finite("value of the control", control)?;
        let differences: Vec<f64> = method.iter().zip(control).map(|(a, b)| a - b).collect();
        let interval = Interval::percentile(&differences, level)?;
        let resamples = differences.len();
        let not_ahead = differences.iter().filter(|&&d| d <= 0.0).count();
        let not_behind = differences.iter().filter(|&&d| d >= 0.0).count();
        let tail = (1 + not_ahead.min(not_behind)) as f64 / (resamples + 1) as f64;
        Ok(Self {
            mean: differences.iter().sum::<f64>() / resamples as f64,
            interval,
            p_value: (2.0 * tail).min(1.0),
            resamples,
        })
    }

    /// Whether the method is ahead: the whole interval of the difference lies above 0. Weaker than
    /// disjoint intervals of the two, which take no notice of the pairing.
    pub fn is_ahead(self) -> bool {
        self.interval.low > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_core::{Seed, draw};
    use proptest::prelude::*;

    #[test]
    fn closed_form() {
        // Differences −1, 0, 1 … 17: two are not ahead, of 19.
        let method: Vec<f64> = (-1..18).map(f64::from).collect();
        let comparison = PairedComparison::new(&method, &[0.0; 19], 0.9).unwrap();
        assert_eq!(comparison.p_value, 2.0 * 3.0 / 20.0);
        assert_eq!(comparison.mean, 8.0);
        assert!((comparison.interval.low + 0.1).abs() < 1e-12);
        assert!((comparison.interval.high - 16.1).abs() < 1e-12);
        assert!(!comparison.is_ahead());
    }

    #[test]
    fn no_difference_at_all_is_no_evidence() {
        let comparison = PairedComparison::new(&[0.5; 200], &[0.5; 200], 0.95).unwrap();
        assert_eq!(comparison.p_value, 1.0);
        assert!(!comparison.is_ahead());
    }

    #[test]
    fn refuses_what_is_not_paired() {
        let error = |a: &[f64], b: &[f64]| PairedComparison::new(a, b, 0.95).unwrap_err();
        assert!(matches!(error(&[1.0], &[]), Error::Length { .. }));
        assert!(matches!(error(&[], &[]), Error::TooFew { .. }));
        assert!(matches!(error(&[f64::NAN], &[0.0]), Error::Value { .. }));
    }

    /// Bootstrap of a mean of 40 normal numbers without effect: p ≤ 0.05 in about one of twenty
    /// experiments. The percentile interval is a little narrow at this size (nominal errors of a
    /// normal mean with divisor n: about 0.056), so the bound is 0.06 plus four standard errors.
    #[test]
    fn false_alarms_are_rare() {
        let (experiments, n, resamples) = (400, 40, 199);
        let mut alarms = 0;
        for experiment in 0..experiments {
            let mut rng = Seed::new(11).nth("experiment", experiment).rng();
            let data: Vec<f64> = (0..n).map(|_| draw::normal_pair(&mut rng)[0]).collect();
            let means: Vec<f64> = (0..resamples)
                .map(|_| (0..n).map(|_| data[draw::below(&mut rng, n)]).sum::<f64>() / n as f64)
                .collect();
            let comparison = PairedComparison::new(&means, &vec![0.0; resamples], 0.95).unwrap();
            alarms += usize::from(comparison.p_value <= 0.05);
        }
        let rate = alarms as f64 / experiments as f64;
        let error = (0.06f64 * 0.94 / experiments as f64).sqrt();
        assert!(rate <= 0.06 + 4.0 * error, "{rate}");
        assert!(rate > 0.0, "a test that never rejects");
    }

    proptest! {
        #[test]
        fn swapping_sides_changes_the_sign_alone(
            values in prop::collection::vec((-3i32..4, -3i32..4), 1..60),
        ) {
            let (a, b): (Vec<f64>, Vec<f64>) =
                values.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
            let one = PairedComparison::new(&a, &b, 0.9).unwrap();
            let other = PairedComparison::new(&b, &a, 0.9).unwrap();
            prop_assert_eq!(one.p_value, other.p_value);
            prop_assert_eq!(one.mean, -other.mean);
            prop_assert!((one.interval.low + other.interval.high).abs() < 1e-12);
            prop_assert!(one.p_value >= 2.0 / (values.len() + 1) as f64 || one.p_value == 1.0);
        }
    }
}
