use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Polarity, Progress, Seed};

use super::of_activations::{OfActivations, OfMeans, each_row};
use crate::causal::host;
use crate::evidence::lengths;
use crate::means::Samples;
use crate::{About, Discover, Error, Evidence, Measured, Result};

/// What is known of all three.
const fn about(name: &'static str, summary: &'static str) -> About {
    About::new(name, summary).control().quick().without_seed()
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
}

/// Squares of what the class means differ by, `[samples, heads, d]`; 0 for heads whose means are the same but for
/// rounding.
fn squares<B: Backend>(positive: Tensor<B, 3>, negative: Tensor<B, 3>) -> Tensor<B, 3> {
    let squares = (positive.clone() - negative.clone()).powi_scalar(2);
    // Means of the same vectors in another order differ by rounding.
    let size = positive.powi_scalar(2) + negative.powi_scalar(2);
    let rounding = size.sum_dim(2).mul_scalar(ROUNDING * ROUNDING);
    let differs = squares.clone().sum_dim(2).greater(rounding).float();
    squares * differs
}

/// The mean of squares in units of the variance within classes, `[samples, heads, 1]`.
fn in_spreads<B: Backend>(squares: Tensor<B, 3>, within: Tensor<B, 3>) -> Tensor<B, 3> {
    // Rounding leaves a little variance where there is none.
    let size = within.clone().mean_dim(2).mul_scalar(1e-6);
    let varies = within.clone().greater(size.expand(within.dims())).float();
    let ratios = squares / within.clamp_min(f32::MIN_POSITIVE) * varies.clone();
    let count = varies.sum_dim(2).clamp_min(1.0);
    (ratios.sum_dim(2) / count).sqrt()
}

/// Distances in units of lengths, `[samples, heads, 1]`.
fn in_lengths<B: Backend>(squares: Tensor<B, 3>, lengths: Tensor<B, 3>) -> Tensor<B, 3> {
    squares.sum_dim(2).sqrt() / lengths.clamp_min(f32::MIN_POSITIVE)
}

/// Fails unless every class has two examples.
fn require_two(found: usize) -> Result<()> {
    if found < 2 {
        return Err(Error::TooFew {
            what: "examples of each class, for the spread within it",
            found,
            expected: 2,
        });
    }
    Ok(())
}

impl<B: Backend> OfMeans<B> for MeanDifference {
    fn nodes(&self, evidence: &Evidence<B>) -> Result<Vec<f64>> {
        let positive = evidence.class_mean(Polarity::Positive)?;
        let negative = evidence.class_mean(Polarity::Negative)?;
        let squares = squares(
            positive.clone().unsqueeze_dim(0),
            negative.clone().unsqueeze_dim(0),
        );
        let of_heads = match self.0 {
            Unit::Residual => squares.sum_dim(2).sqrt(),
            Unit::Length => {
                let [positive_share, negative_share] = evidence.class_shares();
                let [of_positives, of_negatives] = evidence.mean_lengths()?;
                let lengths = of_positives.mul_scalar(positive_share)
                    + of_negatives.mul_scalar(negative_share);
                in_lengths(squares, lengths.reshape([1, evidence.grid().len(), 1]))
            }
            Unit::Spread => {
                require_two(evidence.class_counts().into_iter().min().unwrap_or(0))?;
                let within = evidence.within_classes(&[positive, negative])?;
                in_spreads(squares, within.unsqueeze_dim(0))
            }
        };
        Ok(host(of_heads)?.into_iter().map(f64::from).collect())
    }

    fn nodes_of(&self, evidence: &Evidence<B>, samples: &Samples) -> Result<Vec<Vec<f64>>> {
        let d = evidence.d();
        let shares = samples.shares().map(|shares| {
            let shape = [samples.len(), 1, 1];
            Tensor::<B, 3>::from_data(TensorData::new(shares, shape), &evidence.device())
        });
        let both = |[positive, negative]: [Tensor<B, 3>; 2]| {
            positive * shares[0].clone() + negative * shares[1].clone()
        };
        let of_heads = match self.0 {
            Unit::Residual => {
                let [positive, negative] = evidence.means_of(samples, |_, x| x)?;
                squares(positive, negative).sum_dim(2).sqrt()
            }
            Unit::Length => {
                // The vectors and, beside them, their lengths.
                let means = evidence.means_of(samples, |_, x| {
                    let lengths = lengths(x.clone());
                    Tensor::cat(vec![x, lengths], 2)
                })?;
                let [positive, negative] = means.clone().map(|mean| mean.slice_dim(2, 0..d));
                let lengths = both(means.map(|mean| mean.slice_dim(2, d..=d)));
                in_lengths(squares(positive, negative), lengths)
            }
            Unit::Spread => {
                require_two(samples.fewest())?;
                // Variance is the mean square less the square of the mean, about a point so near to either that
                // little cancels: the mean of the class or, where examples change classes, of all.
                let mut about = [
                    evidence.class_mean(Polarity::Positive)?,
                    evidence.class_mean(Polarity::Negative)?,
                ];
                if !samples.keep_labels {
                    let [positives, negatives] = evidence.class_shares();
                    let [positive, negative] = about;
                    let all = positive.mul_scalar(positives) + negative.mul_scalar(negatives);
                    about = [all.clone(), all];
                }
                let means = evidence.means_of(samples, |examples, x| {
                    let x = evidence.less(examples, x, &about);
                    Tensor::cat(vec![x.clone(), x.powi_scalar(2)], 2)
                })?;
                let of = means.clone().map(|mean| mean.slice_dim(2, 0..d));
                let of_squares = means.map(|mean| mean.slice_dim(2, d..2 * d));
                let [first, second] = of.clone();
                let within = [first.powi_scalar(2), second.powi_scalar(2)];
                let [first, second] = of_squares;
                let [of_first, of_second] = within;
                let within = both([first - of_first, second - of_second]).clamp_min(0.0);
                let [positive, negative] = of;
                let [about_positive, about_negative] = about.map(|mean| mean.unsqueeze_dim::<3>(0));
                let squares = squares(positive + about_positive, negative + about_negative);
                in_spreads(squares, within)
            }
        };
        each_row(of_heads.squeeze_dim(2))
    }

    fn width(&self, d: usize) -> usize {
        match self.0 {
            Unit::Residual => d,
            Unit::Length => d + 1,
            Unit::Spread => 2 * d,
        }
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
            method: *self,
        }))
    }
}
