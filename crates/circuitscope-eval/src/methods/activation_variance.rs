use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Polarity, Progress, Seed};

use super::of_activations::{OfActivations, OfMeans, each_row};
use crate::means::Samples;
use crate::{About, Discover, Error, Evidence, Measured, Result};

/// What is known of `activation-variance`.
pub(super) static ON_POSITIVES: About = About::new(
    "activation-variance",
    "how much the head's output varies from one positive to the next",
)
.control()
.quick()
.without_seed();
/// Of `activation-variance-all`.
pub(super) static ON_ALL: About = About::new(
    "activation-variance-all",
    "how much the head's output varies from one prompt to the next, of both classes",
)
.control()
.quick()
.without_seed();

/// A variance below this share of the squared mean is rounding.
const ROUNDING: f64 = 1e-10;

/// Controls: the variance of a head's output over prompts, summed over the dimensions of the residual stream.
///
/// `activation-variance` takes positives alone, `activation-variance-all` both classes as one. Neither compares the classes: a
/// head is ahead here for saying different things on different prompts, whatever it is that it says. A method that is not ahead of
/// these has not found that a head has to do with the behaviour.
///
/// A pair scores the product of its heads' scores.
///
/// # Complexity
/// `O(examples · heads · d)`.
#[derive(Debug, Clone, Copy)]
pub struct ActivationVariance {
    about: &'static About,
    all: bool,
}

impl ActivationVariance {
    /// Over the positives.
    #[must_use]
    pub const fn on_positives() -> Self {
        Self {
            about: &ON_POSITIVES,
            all: false,
        }
    }

    /// Over all prompts.
    #[must_use]
    pub const fn on_all() -> Self {
        Self {
            about: &ON_ALL,
            all: true,
        }
    }
}

impl<B: Backend> Discover<B> for ActivationVariance {
    fn about(&self) -> &About {
        self.about
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        _: Seed,
        _: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        Ok(Box::new(OfActivations {
            evidence,
            method: *self,
        }))
    }
}

impl<B: Backend> OfMeans<B> for ActivationVariance {
    fn nodes(&self, evidence: &Evidence<B>) -> Result<Vec<f64>> {
        let labels = evidence.labels();
        let all: Vec<usize> = (0..labels.len()).collect();
        let samples = Samples::of_rows(labels, &[&all])?;
        Ok(self.nodes_of(evidence, &samples)?.swap_remove(0))
    }

    fn nodes_of(&self, evidence: &Evidence<B>, samples: &Samples) -> Result<Vec<Vec<f64>>> {
        let d = evidence.d();
        if samples.fewest() < 2 {
            return Err(Error::TooFew {
                what: "examples of each class, for the spread within it",
                found: samples.fewest(),
                expected: 2,
            });
        }
        // Variance is the mean square less the square of the mean, about a point so near to it that little cancels.
        let [positive, negative] = [
            evidence.class_mean(Polarity::Positive)?,
            evidence.class_mean(Polarity::Negative)?,
        ];
        let about = if self.all || !samples.keep_labels {
            let [positives, negatives] = evidence.class_shares();
            let all = positive.mul_scalar(positives) + negative.mul_scalar(negatives);
            [all.clone(), all]
        } else {
            [positive, negative]
        };
        let means = evidence.means_of(samples, |examples, x| {
            let x = evidence.less(examples, x, &about);
            let square = x.clone().powi_scalar(2).sum_dim(2);
            Tensor::cat(vec![x, square], 2)
        })?;
        let means = if self.all {
            let [positives, negatives] = samples.shares().map(|shares| {
                let shape = [samples.len(), 1, 1];
                Tensor::<B, 3>::from_data(TensorData::new(shares, shape), &evidence.device())
            });
            let [positive, negative] = means;
            positive * positives + negative * negatives
        } else {
            let [positive, _] = means;
            positive
        };
        let mean = means.clone().slice_dim(2, 0..d);
        let variance = means.slice_dim(2, d..=d) - mean.clone().powi_scalar(2).sum_dim(2);
        let [about, _] = about;
        let size = (mean + about.unsqueeze_dim(0)).powi_scalar(2).sum_dim(2);
        let varies = variance.clone().greater(size.mul_scalar(ROUNDING)).float();
        each_row((variance * varies).squeeze_dim(2))
    }

    fn width(&self, d: usize) -> usize {
        d + 1
    }
}
