use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{HeadGrid, Progress};
use circuitscope_hooks::{Capture, Intervene, Intervention, Op, Site};
use circuitscope_model::TokenBatch;

use crate::causal::{
    Ablation, CausalEvidence, Metric, PairBatch, Targets, host, last_logits, mean,
};
use crate::{Error, Result};

/// A model some of whose heads are ablated for everyone that reads them, on some pairs of prompts.
///
/// A circuit of whole heads needs no edges: every reader sees the same output of a head, so that one
/// ordinary forward pass with the `z` of ablated heads replaced gives what
/// [`PatchedRuns`](crate::causal::PatchedRuns) gives with all edges of those heads off. MLPs, the input
/// and the heads that are kept run as they do in the model.
///
/// # Complexity
/// [`new`](Self::new) two forward passes (one more over all negative prompts for means), every circuit
/// one. Holds `[pairs, pos, d_head]` for each head.
#[derive(Debug)]
pub struct HeadCircuits<'a, B: Backend> {
    evidence: &'a CausalEvidence<B>,
    parts: Vec<Part<B>>,
}

/// A batch of pairs, and what takes the place of ablated heads.
#[derive(Debug)]
struct Part<B: Backend> {
    batch: PairBatch<B>,
    /// For each layer `[prompts or 1, pos, heads, d_head]`; `None` for nothing.
    other: Option<Vec<Tensor<B, 4>>>,
    /// `[prompts, vocabulary]`: the unchanged model.
    clean: Tensor<B, 2>,
}

impl<'a, B: Backend> HeadCircuits<'a, B> {
    /// Prepares the first `pairs` pairs.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn new(
        evidence: &'a CausalEvidence<B>,
        pairs: usize,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let means = match evidence.ablation() {
            Ablation::Mean => Some(mean_z(evidence, false, progress)?),
            Ablation::MeanPositional => Some(mean_z(evidence, true, progress)?),
            Ablation::Patching | Ablation::Zero => None,
        };
        let mut parts = Vec::new();
        for batch in evidence.batches::<B>(pairs, 1.0, evidence.device()) {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let pos = batch.clean.pos();
            let other = match (evidence.ablation(), &means) {
                (Ablation::Zero, _) => None,
                (_, Some(means)) => Some(means.iter().map(|mean| shown(mean, pos)).collect()),
                _ => {
                    let z = z_of(evidence, &batch.corrupt).into_iter();
                    Some(z.map(|z| batch.at_positive(z)).collect())
                }
            };
            parts.push(Part {
                clean: answer_logits(evidence, &batch.clean),
                other,
                batch,
            });
        }
        Ok(Self { evidence, parts })
    }

    /// Shape of the model.
    pub fn grid(&self) -> HeadGrid {
        self.evidence.graph().grid()
    }

    /// Pairs that are run.
    pub fn pairs(&self) -> usize {
        self.parts.iter().map(|part| part.batch.members.len()).sum()
    }

    /// The mean of the evidence's metric on the unchanged model.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn full(&self) -> Result<f64> {
        let mut values = Vec::new();
        for part in &self.parts {
            let clean = part.clean.clone();
            values.extend(part.values(self.evidence.metric(), clean)?);
        }
        Ok(mean(&values))
    }

    /// The mean of the evidence's metric with all heads ablated but those of `kept`, `[heads]`.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn keeping(&self, kept: &[bool], progress: &dyn Progress) -> Result<f64> {
        let values = self.run(kept, &[self.evidence.metric()], progress)?;
        Ok(mean(&values[0]))
    }

    /// Metrics with all heads ablated but those of `kept`: `[metric][pair]`.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    ///
    /// # Panics
    /// Unless `kept` has an entry for each head.
    pub fn run(
        &self,
        kept: &[bool],
        metrics: &[Metric],
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<f64>>> {
        let grid = self.grid();
        assert_eq!(kept.len(), grid.len(), "one entry for each head");
        let mut found = vec![Vec::new(); metrics.len()];
        for part in &self.parts {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let layers = kept.chunks(grid.n_heads).enumerate();
            let changes = layers.filter_map(|(layer, kept)| part.change(layer, kept));
            let logits = logits_under(self.evidence, &part.batch.clean, changes);
            for (metric, found) in metrics.iter().zip(&mut found) {
                found.extend(part.values(*metric, logits.clone())?);
            }
        }
        Ok(found)
    }
}

impl<B: Backend> Part<B> {
    /// What ablates the heads of a layer that are not kept.
    fn change(&self, layer: usize, kept: &[bool]) -> Option<Intervention<B>> {
        let ablated: Vec<usize> = (0..kept.len()).filter(|&head| !kept[head]).collect();
        if ablated.is_empty() {
            return None;
        }
        let op = match &self.other {
            Some(other) => Op::Replace(other[layer].clone().into()),
            None => Op::Zero,
        };
        let change = Intervention::new(Site::Z(layer), op);
        Some(if ablated.len() == kept.len() {
            change
        } else {
            change.with_heads(ablated)
        })
    }

    fn values(&self, metric: Metric, logits: Tensor<B, 2>) -> Result<Vec<f64>> {
        let targets: &Targets<B> = &self.batch.targets;
        let values = host(metric.values(logits, targets, Some(&self.clean)))?;
        Ok(values.into_iter().map(f64::from).collect())
    }
}

/// Logits where the answer is read, `[prompts, vocabulary]`.
pub(crate) fn answer_logits<B: Backend>(
    evidence: &CausalEvidence<B>,
    batch: &TokenBatch<B>,
) -> Tensor<B, 2> {
    logits_under(evidence, batch, core::iter::empty())
}

fn logits_under<B: Backend>(
    evidence: &CausalEvidence<B>,
    batch: &TokenBatch<B>,
    changes: impl Iterator<Item = Intervention<B>>,
) -> Tensor<B, 2> {
    let last = Site::ResidPost(evidence.graph().n_layers - 1);
    let mut run = (Intervene::new(changes), Capture::new([last]));
    evidence.model().forward(batch, &mut run);
    let stream = run.1.take(last).and_then(|stream| stream.get::<3>());
    let stream = stream.unwrap_or_else(|| unreachable!("the pass ends at the last stream"));
    last_logits(evidence.model(), batch, stream)
}

/// `z` of every layer, `[prompts, pos, heads, d_head]`.
fn z_of<B: Backend>(evidence: &CausalEvidence<B>, batch: &TokenBatch<B>) -> Vec<Tensor<B, 4>> {
    let layers = 0..evidence.graph().n_layers;
    let mut capture = Capture::new(layers.clone().map(Site::Z));
    evidence.model().forward(batch, &mut capture);
    let z = layers.map(|layer| {
        let z = capture.take(Site::Z(layer)).and_then(|z| z.get::<4>());
        z.unwrap_or_else(|| unreachable!("every layer has a z"))
    });
    z.collect()
}

/// Mean `z` of every layer over the real positions of all negative prompts, `[1, 1, heads, d_head]`, or
/// position by position, `[1, longest, heads, d_head]`.
fn mean_z<B: Backend>(
    evidence: &CausalEvidence<B>,
    positional: bool,
    progress: &dyn Progress,
) -> Result<Vec<Tensor<B, 4>>> {
    let device = evidence.device();
    let longest = evidence.pairs().iter().map(|pair| pair.corrupt.len()).max();
    let places = if positional { longest.unwrap_or(1) } else { 1 };
    let mut sums: Vec<Tensor<B, 4>> = Vec::new();
    let mut counts = vec![0.0f32; places];
    for batch in evidence.batches::<B>(evidence.pairs().len(), 1.0, device) {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let real = batch.corrupt.positions();
        let [rows, pos] = real.mask.dims();
        let mask = real.mask.clone().reshape([rows, pos, 1, 1]);
        for (layer, z) in z_of(evidence, &batch.corrupt).into_iter().enumerate() {
            let [.., heads, d_head] = z.dims();
            let part = (z * mask.clone()).sum_dim(0);
            let part = if positional { part } else { part.sum_dim(1) };
            if sums.len() == layer {
                sums.push(Tensor::zeros([1, places, heads, d_head], device));
            }
            let ranges = [0..1, 0..part.dims()[1], 0..heads, 0..d_head];
            let so_far = sums[layer].clone().slice(ranges.clone());
            sums[layer] = sums[layer].clone().slice_assign(ranges, so_far + part);
        }
        for &length in &real.lengths {
            if positional {
                counts[..length].iter_mut().for_each(|count| *count += 1.0);
            } else {
                counts[0] += length as f32;
            }
        }
    }
    let counts = TensorData::new(counts, [1, places, 1, 1]);
    let counts = Tensor::<B, 4>::from_data(counts, device);
    Ok(sums.into_iter().map(|sum| sum / counts.clone()).collect())
}

/// A mean as `pos` positions see it: the same at all, or the first of them.
fn shown<B: Backend>(mean: &Tensor<B, 4>, pos: usize) -> Tensor<B, 4> {
    match mean.dims()[1] {
        1 => mean.clone(),
        places => mean.clone().narrow(1, 0, pos.min(places)),
    }
}
