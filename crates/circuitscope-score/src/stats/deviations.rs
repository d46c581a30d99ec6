use super::Interval;
use super::interval::require_finite;
use crate::{Error, Result};

/// A number on all examples, and how far it may be from what it is on average over data as large.
///
/// Deviations come from samples without replacement ([`half_samples`](super::half_samples)), each the sample's
/// value less the mean over samples, times [`Resample::scale`](super::Resample::scale): for m of n units,
/// `√(m/(n−m))` turns the spread over such samples into that over data of size n (the delete-d jackknife with
/// d = n − m, Shao & Wu, Ann. Statist. 17:1176, 1989; subsampling, Politis, Romano & Wolf 1999, with the
/// finite-population correction that samples need which are no small part of the data).
///
/// Why not the bootstrap: samples with replacement hold copies. A count of distinct things (codes seen on
/// positives only) is smaller on them, mutual information larger, and the values lie beside the estimate
/// rather than about it. Half samples hold nothing twice; what a statistic loses with half of the data is the
/// same on all of them, on average, and is taken away with their mean. What remains is about 0 by construction,
/// so that an interval always holds its estimate.
///
/// ```
/// use circuitscope_score::stats::Deviations;
///
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// // On halves of the data the number is lower by 2, whatever else it is.
/// let halves: Vec<f64> = (0..39).map(|at| 8.0 + f64::from(at % 3 - 1)).collect();
/// let deviations = Deviations::new(10.0, &halves, 1.0)?;
/// let interval = deviations.interval(0.95)?;
/// assert_eq!((interval.low, interval.high), (9.0, 11.0));
/// assert_eq!(deviations.p_value(), 1.0 / 40.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Deviations {
    estimate: f64,
    deviations: Vec<f64>,
}

impl Deviations {
    /// Of a number: on all examples, on samples of them, and the scale of those.
    ///
    /// # Errors
    /// [`Error::TooFew`] without samples; [`Error::Value`] for a number that is not finite.
    pub fn new(estimate: f64, samples: &[f64], scale: f64) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::TooFew {
                what: "samples of the examples",
                found: 0,
                expected: 1,
            });
        }
        require_finite("number on all examples", &[estimate])?;
        require_finite("number on a sample of the examples", samples)?;
        require_finite("scale of samples", &[scale])?;
        // Equal values have themselves as their mean, whatever rounding says.
        let alike = samples.iter().all(|value| *value == samples[0]);
        let mean = if alike {
            samples[0]
        } else {
            samples.iter().sum::<f64>() / samples.len() as f64
        };
        Ok(Self {
            estimate,
            deviations: samples.iter().map(|value| scale * (value - mean)).collect(),
        })
    }

    /// Of several runs of one method, such as its seeds: the mean of their numbers, and what one run may be off
    /// by, the spread between runs included. `None` without runs.
    #[must_use]
    pub fn pooled(runs: &[Self]) -> Option<Self> {
        if runs.is_empty() {
            return None;
        }
        let estimate = runs.iter().map(|run| run.estimate).sum::<f64>() / runs.len() as f64;
        let of_run = |run: &Self| {
            let between = run.estimate - estimate;
            let within = run.deviations.iter();
            within
                .map(|deviation| between + deviation)
                .collect::<Vec<_>>()
        };
        Some(Self {
            estimate,
            deviations: runs.iter().flat_map(of_run).collect(),
        })
    }

    /// The number on all examples; of several runs the mean.
    pub const fn estimate(&self) -> f64 {
        self.estimate
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.deviations.len()
    }

    /// The symmetric interval `estimate ± |deviation|₍ᵣ₎`, r = ⌈level · (k + 1)⌉ of k samples, at most k: the
    /// smallest width that so many deviations, one more counted as larger, do not exceed (symmetric
    /// subsampling intervals: Politis, Romano & Wolf 1999; the k + 1: Davison & Hinkley 1997). It holds the
    /// estimate. 95 % needs at least 19 samples to mean 95 %; fewer give what the largest deviation is.
    ///
    /// # Errors
    /// [`Error::Value`] for a level outside of (0, 1).
    pub fn interval(&self, level: f64) -> Result<Interval> {
        super::interval::require_level(level)?;
        let mut sizes: Vec<f64> = self.deviations.iter().map(|size| size.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        // 0.95 · 20 is a little more than 19 in binary for some levels.
        let rank = (level * (sizes.len() + 1) as f64 - 1e-9).ceil() as usize;
        let width = sizes[rank.clamp(1, sizes.len()) - 1];
        Ok(Interval {
            low: self.estimate - width,
            high: self.estimate + width,
            level,
        })
    }

    /// Two-sided p-value of "the number is 0": `(1 + #{i : |deviationᵢ| ≥ |estimate|}) / (1 + k)`, at most the
    /// level that [`interval`](Self::interval) leaves where 0 is outside of it.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        let size = self.estimate.abs();
        let as_large = self.deviations.iter().filter(|off| off.abs() >= size);
        (1 + as_large.count()) as f64 / (1 + self.deviations.len()) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_core::{Seed, draw};
    use proptest::prelude::*;

    #[test]
    fn what_does_not_vary_has_no_width() {
        let same = Deviations::new(0.7, &[0.1 + 0.2; 30], 1.0).unwrap();
        let interval = same.interval(0.95).unwrap();
        assert_eq!((interval.low, interval.high), (0.7, 0.7));
        assert_eq!(same.p_value(), 1.0 / 31.0);
        let none = Deviations::new(0.0, &[0.5; 30], 1.0).unwrap();
        assert_eq!(none.p_value(), 1.0);
    }

    #[test]
    fn runs_vary_among_themselves() {
        let run = |estimate| Deviations::new(estimate, &[1.0, 1.0], 1.0).unwrap();
        let pooled = Deviations::pooled(&[run(0.2), run(0.6)]).unwrap();
        let interval = pooled.interval(0.95).unwrap();
        assert!((pooled.estimate() - 0.4).abs() < 1e-12 && pooled.samples() == 4);
        assert!((interval.low - 0.2).abs() < 1e-12 && (interval.high - 0.6).abs() < 1e-12);
        assert_eq!(Deviations::pooled(&[]), None);
    }

    #[test]
    fn refuses_what_is_no_number() {
        let error =
            |estimate, samples: &[f64]| Deviations::new(estimate, samples, 1.0).unwrap_err();
        assert!(matches!(error(0.0, &[]), Error::TooFew { .. }));
        assert!(matches!(error(f64::NAN, &[0.0]), Error::Value { .. }));
        assert!(matches!(error(0.0, &[f64::INFINITY]), Error::Value { .. }));
        let some = Deviations::new(0.0, &[0.0], 1.0).unwrap();
        for level in [0.0, 1.0, 95.0, f64::NAN] {
            assert!(some.interval(level).is_err(), "{level}");
        }
    }

    proptest! {
        #[test]
        fn intervals_hold_their_estimate_and_grow_with_their_level(
            estimate in -9.0f64..9.0, values in prop::collection::vec(-9.0f64..9.0, 1..40),
        ) {
            let deviations = Deviations::new(estimate, &values, 1.0).unwrap();
            let [half, most] = [0.5, 0.95].map(|level| deviations.interval(level).unwrap());
            prop_assert!(half.contains(estimate));
            prop_assert!(most.low <= half.low && half.high <= most.high);
            // Whether 0 is outside is what the p-value says.
            if values.len() >= 19 && most.low > 0.0 {
                prop_assert!(deviations.p_value() <= 0.05 + 1e-12);
            }
        }
    }

    /// Means of 40 numbers: the interval holds the mean that they were drawn about in about 95 of 100 experiments,
    /// and `p ≤ 0.05` is as rare as it says. Bounds: four standard errors about 0.06 for the second.
    #[test]
    fn means_are_covered_and_false_alarms_are_rare() {
        let (experiments, n, samples) = (400, 40, 199);
        let (mut alarms, mut held) = (0, 0);
        for experiment in 0..experiments {
            let mut rng = Seed::new(11).nth("experiment", experiment).rng();
            let data: Vec<f64> = (0..n).map(|_| draw::normal_pair(&mut rng)[0]).collect();
            let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
            let halves: Vec<f64> = (0..samples)
                .map(|_| {
                    let mut data = data.clone();
                    draw::choose_first(&mut rng, &mut data, n / 2);
                    mean(&data[..n / 2])
                })
                .collect();
            let deviations = Deviations::new(mean(&data), &halves, 1.0).unwrap();
            alarms += usize::from(deviations.p_value() <= 0.05);
            held += usize::from(deviations.interval(0.95).unwrap().contains(0.0));
        }
        let rate = alarms as f64 / experiments as f64;
        let error = (0.06f64 * 0.94 / experiments as f64).sqrt();
        assert!(rate > 0.0 && rate <= 0.06 + 4.0 * error, "{rate}");
        let held = held as f64 / experiments as f64;
        assert!((0.9..=0.98).contains(&held), "{held}");
    }
}
