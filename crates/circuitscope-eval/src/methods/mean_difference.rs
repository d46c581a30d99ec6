use burn::tensor::backend::Backend;
use circuitscope_core::{Polarity, Progress, Seed};

use super::of_activations::OfActivations;
use crate::causal::host;
use crate::{About, Discover, Error, Evidence, Measured, Result};

/// What is known of all three. Every resample copies its examples.
const fn about(name: &'static str, summary: &'static str) -> About {
    About::new(name, summary)
        .control()
        .quick()
        .without_seed()
        .resamples(50)
}

/// `mean-difference`.
pub(super) static RESIDUAL: About = about(
    "mean-difference",
    "norm of the difference of the class means; a pair scores the product of its heads",
);
/// `standardised-difference`.
pub(super) static STANDARDISED: About = about(
    "standardised-difference",
    "difference of the class means in units of the spread within classes",
);
/// `relative-difference`.
pub(super) static RELATIVE: About = about(
    "relative-difference",
    "norm of the difference of the class means over the mean length",
);

/// What the difference of the means is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Unit {
    #[default]
    Residual,
    Spread,
    Length,
}

/// A difference of less than this share of the means is none.
const ROUNDING: f64 = 1e-5;

/// Controls: how far a head's mean output on positives lies from its mean output on negatives.
///
/// - `mean-difference`: `‖mean₊ − mean₋‖₂`, in units of the residual stream;
/// - `standardised-difference`: `√(mean_d (mean₊ − mean₋)²_d / s²_d)`, `s²_d` the variance within
///   classes of dimension `d`; dimensions that never vary are left out;
/// - `relative-difference`: `‖mean₊ − mean₋‖₂` divided by the mean length of the head's outputs.
///
/// Means that differ by no more than rounding score 0. A pair scores the product of its heads' scores, which knows nothing of how they interact.
///
/// # Complexity
/// `O(examples · heads · d)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct MeanDifference(Unit);

impl MeanDifference {
    /// In units of the spread within classes.
    #[must_use]
    pub const fn standardised() -> Self {
        Self(Unit::Spread)
    }

    /// In units of the length of the head's outputs.
    #[must_use]
    pub const fn relative() -> Self {
        Self(Unit::Length)
    }

    fn nodes<B: Backend>(self, evidence: &Evidence<B>) -> Result<Vec<f64>> {
        let positive = evidence.class_mean(Polarity::Positive)?;
        let negative = evidence.class_mean(Polarity::Negative)?;
        let [positive_share, negative_share] = evidence.class_shares();
        let squares = (positive.clone() - negative.clone()).powi_scalar(2);
        // Means of the same vectors in another order differ by rounding.
        let size = positive.clone().powi_scalar(2) + negative.clone().powi_scalar(2);
        let rounding = size.sum_dim(1).mul_scalar(ROUNDING * ROUNDING);
        let differs = squares.clone().sum_dim(1).greater(rounding).float();
        let squares = squares * differs;
        let of_heads = match self.0 {
            Unit::Residual => squares.sum_dim(1).sqrt(),
            Unit::Length => {
                // [heads, 1]
                let [of_positives, of_negatives] = evidence.mean_lengths()?;
                let lengths = of_positives.mul_scalar(positive_share)
                    + of_negatives.mul_scalar(negative_share);
                let lengths = lengths.unsqueeze_dim::<2>(1);
                squares.sum_dim(1).sqrt() / lengths.clamp_min(f32::MIN_POSITIVE)
            }
            Unit::Spread => {
                let [positives, negatives] = evidence.class_counts();
                let found = positives.min(negatives);
                if found < 2 {
                    return Err(Error::Shape {
                        what: "examples of each class, for the spread within it",
                        found,
                        expected: 2,
                    });
                }
                let within = evidence.within_classes(&[positive, negative])?;
                // Rounding leaves a little variance where there is none.
                let size = within.clone().mean_dim(1).mul_scalar(1e-6);
                let varies = within.clone().greater(size.expand(within.dims())).float();
                let ratios = squares / within.clamp_min(f32::MIN_POSITIVE) * varies.clone();
                let count = varies.sum_dim(1).clamp_min(1.0);
                (ratios.sum_dim(1) / count).sqrt()
            }
        };
        Ok(host(of_heads)?.into_iter().map(f64::from).collect())
    }
}

impl<B: Backend> Discover<B> for MeanDifference {
    fn about(&self) -> &About {
        match self.0 {
            Unit::Residual => &RESIDUAL,
            Unit::Spread => &STANDARDISED,
            Unit::Length => &RELATIVE,
        }
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        _: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(Box::new(OfActivations {
            evidence,
            nodes: |evidence: &Evidence<B>| self.nodes(evidence),
        }))
    }
}
