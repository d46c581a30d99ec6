use burn::tensor::backend::Backend;

use circuitscope_core::{Progress, Seed};

use super::of_activations::OfActivations;
use crate::causal::host;
use crate::{Discover, Evidence, Measured, Result};

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
    fn name(&self) -> &'static str {
        "activation-norm"
    }

    fn summary(&self) -> &'static str {
        "mean length of the head's output on positives"
    }

    fn is_control(&self) -> bool {
        true
    }

    /// Every resample copies its examples.
    fn resamples(&self) -> usize {
        50
    }

    fn uses_seed(&self) -> bool {
        false
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        _: Seed,
        _: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        Ok(Box::new(OfActivations {
            evidence,
            nodes: |evidence: &Evidence<B>| {
                let [of_positives, _] = evidence.mean_lengths()?;
                Ok(host(of_positives)?.into_iter().map(f64::from).collect())
            },
        }))
    }
}
