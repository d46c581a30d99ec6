use burn::tensor::backend::Backend;
use circuitscope_core::{Polarity, Progress, Seed};

use crate::{Discover, Error, Evidence, Measured, Result, Scores};

/// Control: the length of the difference between a head's mean output on positives and on negatives,
/// `‖mean₊ − mean₋‖₂`, in units of the residual stream.
///
/// A pair scores the product of its heads' scores, which knows nothing of how they interact.
#[derive(Debug, Clone, Copy, Default)]
pub struct MeanDifference;

impl<B: Backend> Discover<B> for MeanDifference {
    fn name(&self) -> &'static str {
        "mean-difference"
    }

    fn summary(&self) -> &'static str {
        "norm of the difference of the class means; a pair scores the product of its heads"
    }

    fn is_control(&self) -> bool {
        true
    }

    fn uses_seed(&self) -> bool {
        false
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
        Ok(Box::new(|rows: Option<&[usize]>| {
            let evidence = evidence.sampled(rows)?;
            let difference =
                evidence.class_mean(Polarity::Positive) - evidence.class_mean(Polarity::Negative);
            let norms = difference.powi_scalar(2).sum_dim(1).sqrt();
            let nodes: Vec<f64> = norms.into_data().iter::<f64>().collect();
            let ends = nodes.clone();
            Ok(Scores::of_nodes(evidence.grid(), nodes)
                .with_edges(|source, destination| ends[source] * ends[destination]))
        }))
    }
}
