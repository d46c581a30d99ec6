use serde::{Deserialize, Serialize};

use super::{Deviations, Interval};
use crate::Result;

/// A method against a control over the same samples of the examples.
///
/// Both numbers of a sample come from the same examples, so what makes examples easy or hard cancels
/// in their difference, which is what is compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PairedComparison {
    /// Method − control on all examples.
    pub mean: f64,
    /// Interval of method − control ([`Deviations::interval`]).
    pub interval: Interval,
    /// Two-sided p-value of "no difference" ([`Deviations::p_value`]).
    pub p_value: f64,
    /// Number of samples.
    pub resamples: usize,
}

impl PairedComparison {
    /// Judges the difference of method and control, sample by sample.
    ///
    /// The smallest possible p is 1/(k + 1) of k samples, so 0.05 needs at least 19.
    ///
    /// # Errors
    /// [`Error::Value`](crate::Error::Value) for a level outside of (0, 1).
    ///
    /// # Examples
    /// ```
    /// use circuitscope_score::stats::{Deviations, PairedComparison};
    ///
    /// # fn main() -> Result<(), circuitscope_score::Error> {
    /// // Always 0.5 ahead, though either varies more than that.
    /// let control: Vec<f64> = (0..99).map(|i| f64::from(i % 10)).collect();
    /// let method: Vec<f64> = control.iter().map(|value| value + 0.5).collect();
    /// let ahead: Vec<f64> = method.iter().zip(&control).map(|(a, b)| a - b).collect();
    /// let comparison = PairedComparison::new(&Deviations::new(0.5, &ahead, 1.0)?, 0.95)?;
    /// assert!(comparison.is_ahead());
    /// assert_eq!(comparison.p_value, 0.01);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(difference: &Deviations, level: f64) -> Result<Self> {
        Ok(Self {
            mean: difference.estimate(),
            interval: difference.interval(level)?,
            p_value: difference.p_value(),
            resamples: difference.samples(),
        })
    }

    /// Whether the method is ahead: the whole interval of the difference lies above 0.
    pub fn is_ahead(self) -> bool {
        self.interval.low > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_difference_at_all_is_no_evidence() {
        let none = Deviations::new(0.0, &[0.0; 200], 1.0).unwrap();
        let comparison = PairedComparison::new(&none, 0.95).unwrap();
        assert_eq!(comparison.p_value, 1.0);
        assert!(!comparison.is_ahead());
    }

    proptest! {
        #[test]
        fn swapping_sides_changes_the_sign_alone(
            values in prop::collection::vec(-3i32..4, 1..60), estimate in -3i32..4,
        ) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let swapped: Vec<f64> = values.iter().map(|value| -value).collect();
            let of = |estimate: i32, values: &[f64]| {
                let difference = Deviations::new(f64::from(estimate), values, 1.0).unwrap();
                PairedComparison::new(&difference, 0.9).unwrap()
            };
            let (one, other) = (of(estimate, &values), of(-estimate, &swapped));
            prop_assert_eq!(one.p_value, other.p_value);
            prop_assert_eq!(one.mean, -other.mean);
            prop_assert!((one.interval.low + other.interval.high).abs() < 1e-12);
        }
    }
}
