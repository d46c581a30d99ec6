use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{NoProgress, Progress};
use circuitscope_hooks::{Capture, NodeOutputs};
use circuitscope_model::TokenBatch;

use super::{Ablation, CausalEvidence, PairBatch};
use crate::{Error, Result};

impl<B: Backend> CausalEvidence<B> {
    /// What all nodes put out on a batch of prompts.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn node_outputs(&self, batch: &TokenBatch<B>) -> Result<NodeOutputs<B>> {
        let graph = self.graph();
        let mut capture = Capture::new(NodeOutputs::<B>::sites(&graph));
        self.model().forward(batch, &mut capture);
        Ok(NodeOutputs::take(&graph, capture)?)
    }

    /// What takes its place when a node is ablated.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn ablated_nodes(&self, batch: &PairBatch<B>) -> Result<NodeOutputs<B>> {
        self.in_place_of(batch, || self.node_outputs(&batch.corrupt))
    }

    /// The same, from the run on the negative prompts of `batch`, which is not made where another one takes its place.
    pub(super) fn in_place_of(
        &self,
        batch: &PairBatch<B>,
        corrupt: impl FnOnce() -> Result<NodeOutputs<B>>,
    ) -> Result<NodeOutputs<B>> {
        if self.ablation() == Ablation::Resample {
            // As long as the positive prompts as it is.
            return self.node_outputs(&self.resampled(batch));
        }
        let corrupt = corrupt()?;
        let other = match self.ablation() {
            Ablation::Resample | Ablation::Negative => corrupt,
            Ablation::Zero => corrupt.map(|x| x.zeros_like()),
            Ablation::Mean | Ablation::PositionMean => {
                let means = self.node_means(&NoProgress)?;
                let mut means = means.places.iter();
                corrupt.map(|x| {
                    let Some((_, mean)) = means.next() else {
                        unreachable!("as many means as places")
                    };
                    let dims = x.dims();
                    let shown = mean.dims()[1].min(dims[1]);
                    mean.clone().narrow(1, 0, shown).expand(dims)
                })
            }
        };
        Ok(other.map(|x| batch.at_positive(x)))
    }

    /// Mean output of every node over all negative prompts: over real positions, `[1, 1, nodes, d]`, or
    /// for each position, `[1, longest, nodes, d]`.
    pub(super) fn mean_node_outputs(&self, progress: &dyn Progress) -> Result<NodeOutputs<B>> {
        let positional = self.ablation() == Ablation::PositionMean;
        let longest = self.pairs().iter().map(|pair| pair.corrupt.len()).max();
        let places = if positional { longest.unwrap_or(1) } else { 1 };
        let mut counts = vec![0.0f32; places];
        let mut sums: Option<NodeOutputs<B>> = None;
        for batch in self.batches::<B>(self.pairs().len(), 1.0, self.device()) {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let run = self.node_outputs(&batch.corrupt)?;
            let real = batch.corrupt.positions();
            let [rows, pos] = real.mask.dims();
            let run = run.map(|x| {
                let [_, _, nodes, width] = x.dims();
                let sum = (x * real.mask.clone().reshape([rows, pos, 1, 1])).sum_dim(0);
                if positional {
                    let rest = [1, places - pos, nodes, width];
                    Tensor::cat(vec![sum, Tensor::zeros(rest, self.device())], 1)
                } else {
                    sum.sum_dim(1)
                }
            });
            if positional {
                for &length in &real.lengths {
                    counts[..length].iter_mut().for_each(|count| *count += 1.0);
                }
            } else {
                counts[0] += real.lengths.iter().sum::<usize>() as f32;
            }
            sums = Some(match sums {
                None => run,
                Some(sums) => run.plus(&sums),
            });
            progress.advance(batch.members.len() as u64);
        }
        let Some(sums) = sums else {
            unreachable!("there is at least one pair")
        };
        let counts = TensorData::new(counts, [1, places, 1, 1]);
        let counts = Tensor::<B, 4>::from_data(counts, self.device());
        Ok(sums.map(|sum| sum / counts.clone()))
    }
}
