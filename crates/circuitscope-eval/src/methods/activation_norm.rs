use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Polarity, Progress, Seed};

use crate::causal::host;
use crate::{Discover, Evidence, Measured, Result, Scores};

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
        Ok(Box::new(|rows: Option<&[usize]>| {
            let evidence = evidence.sampled(rows)?;
            let positive = |label: &Polarity| f32::from(u8::from(*label == Polarity::Positive));
            let labels: Vec<f32> = evidence.labels().iter().map(positive).collect();
            let count = labels.iter().sum::<f32>();
            let lengths = evidence.lengths();
            let labels = TensorData::new(labels, [lengths.dims()[0], 1]);
            let labels = Tensor::<B, 2>::from_data(labels, &lengths.device());
            let sums = (lengths * labels).sum_dim(0);
            let means = host(sums.div_scalar(count))?;
            let nodes: Vec<f64> = means.into_iter().map(f64::from).collect();
            Ok(Scores::of_nodes(evidence.grid(), nodes).with_products())
        }))
    }
}
