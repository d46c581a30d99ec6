use burn::tensor::backend::Backend;

use circuitscope_core::{Progress, Seed};

use super::of_activations::{OfActivations, OfMeans, each_row};
use crate::causal::host;
use crate::evidence::lengths;
use crate::means::Samples;
use crate::{About, Discover, Evidence, Measured, Result};

/// What is known of it.
pub(super) static ABOUT: About = About::new(
    "activation-norm",
    "mean length of the head's output on positives",
)
.control()
.quick()
.without_seed();

/// Control: the mean length of a head's output on positives ("activation magnitude"). It does not look
/// at negatives, so that it tells how far size alone goes.
///
/// A pair scores the product of its heads' scores.
///
/// # Complexity
/// `O(examples · heads · d)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ActivationNorm;

impl<B: Backend> Discover<B> for ActivationNorm {
    fn about(&self) -> &About {
        &ABOUT
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

impl<B: Backend> OfMeans<B> for ActivationNorm {
    fn nodes(&self, evidence: &Evidence<B>) -> Result<Vec<f64>> {
        let [of_positives, _] = evidence.mean_lengths()?;
        Ok(host(of_positives)?.into_iter().map(f64::from).collect())
    }

    fn nodes_of(&self, evidence: &Evidence<B>, samples: &Samples) -> Result<Vec<Vec<f64>>> {
        let [of_positives, _] = evidence.means_of(samples, |_, x| lengths(x))?;
        each_row(of_positives.squeeze_dim(2))
    }

    fn width(&self, _: usize) -> usize {
        1
    }
}
