use burn::tensor::backend::Backend;
use circuitscope_core::Polarity;
use circuitscope_measures::Scores;

use crate::{Evidence, Measured, Result};

/// Scores made of the activations themselves: a resample or other labels are other evidence.
pub(super) struct OfActivations<'a, B: Backend, F> {
    pub(super) evidence: &'a Evidence<B>,
    /// One score for each head.
    pub(super) nodes: F,
}

impl<B, F> Measured for OfActivations<'_, B, F>
where
    B: Backend,
    F: Fn(&Evidence<B>) -> Result<Vec<f64>>,
{
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        let evidence = self.evidence.sampled(rows)?;
        let nodes = (self.nodes)(&evidence)?;
        Ok(Scores::of_nodes(evidence.grid(), nodes).with_products())
    }

    fn relabelled(&self, labels: Vec<Polarity>) -> Option<Result<Vec<f64>>> {
        let evidence = self.evidence.relabelled(labels)?;
        Some(evidence.and_then(|evidence| (self.nodes)(&evidence)))
    }
}
