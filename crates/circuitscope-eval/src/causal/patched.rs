use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::Graph;
use circuitscope_hooks::{Capture, EdgePatch, Site, StreamOutputs, Tap};
use circuitscope_model::Decoder;

use super::gradients::host;
use super::{CausalEvidence, Metric, PairBatch, last_logits};
use crate::Result;

/// Some pairs, run as they are and ablated, ready to be run with any set of edges.
#[derive(Debug)]
pub struct PatchedRuns<'a, B: Backend> {
    evidence: &'a CausalEvidence<B>,
    prepared: Vec<Prepared<B>>,
}

/// A batch of pairs, run as they are and ablated.
#[derive(Debug, Clone)]
pub struct Prepared<B: Backend> {
    /// The pairs.
    pub batch: PairBatch<B>,
    /// What all writers put out on the positive prompts.
    pub here: StreamOutputs<B>,
    /// What takes the place of it when ablated.
    pub other: StreamOutputs<B>,
    /// `[prompts, vocabulary]`: logits of the full model on the positive prompts.
    pub clean: Tensor<B, 2>,
}

impl<B: Backend> Prepared<B> {
    /// Runs the positive prompts, `copies` times over, from block `layer` on under `tap`.
    ///
    /// # Shapes
    /// - result: `[copies * prompts, vocabulary]`, logits at the last real position
    pub fn logits<T: Tap<B>>(
        &self,
        model: &Decoder<B>,
        copies: usize,
        layer: usize,
        tap: T,
    ) -> Tensor<B, 2> {
        let last = Site::ResidPost(model.config().n_layers - 1);
        let mut run = (tap, Capture::new([last]));
        let batch = self.batch.clean.repeated(copies);
        let stream = self.here.attn_in[layer].clone().repeat_dim(0, copies);
        model.forward_from(&batch, layer, stream, &mut run);
        let stream = run.1.take(last).and_then(|stream| stream.get::<3>());
        let stream = stream.unwrap_or_else(|| unreachable!("the pass ends at the last stream"));
        last_logits(model, &batch, stream)
    }

    /// A metric of some copies' logits, copy by copy.
    ///
    /// # Shapes
    /// - `logits`: `[copies * prompts, vocabulary]`
    ///
    /// # Errors
    /// None but those of the device.
    pub fn values(&self, metric: Metric, logits: Tensor<B, 2>) -> Result<Vec<f64>> {
        let prompts = self.batch.members.len();
        let copies = logits.dims()[0] / prompts;
        let targets = self.batch.targets.repeated(copies);
        let clean = self.clean.clone().repeat_dim(0, copies);
        let values = host(metric.values(logits, &targets, Some(&clean)))?;
        Ok(values.into_iter().map(f64::from).collect())
    }
}

impl<'a, B: Backend> PatchedRuns<'a, B> {
    /// Runs the first `count` pairs.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn new(evidence: &'a CausalEvidence<B>, count: usize) -> Result<Self> {
        Self::in_batches(evidence, count, usize::MAX)
    }

    /// The same in batches of at most `largest` pairs.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn in_batches(
        evidence: &'a CausalEvidence<B>,
        count: usize,
        largest: usize,
    ) -> Result<Self> {
        let prepared = evidence.batches::<B>(count, 1.0, evidence.device());
        let prepared = prepared.flat_map(|batch| {
            let members: Vec<Vec<usize>> = batch
                .members
                .chunks(largest.min(batch.members.len()))
                .map(<[_]>::to_vec)
                .collect();
            members
                .into_iter()
                .map(|members| evidence.batch::<B>(members, evidence.device()))
        });
        let prepared = prepared.map(|batch| {
            let here = evidence.outputs(evidence.model(), &batch.clean)?;
            let clean = last_logits(evidence.model(), &batch.clean, here.last.clone());
            Ok(Prepared {
                other: evidence.ablated(&batch)?,
                batch,
                here,
                clean,
            })
        });
        Ok(Self {
            evidence,
            prepared: prepared.collect::<Result<_>>()?,
        })
    }

    /// The batches.
    pub fn parts(&self) -> &[Prepared<B>] {
        &self.prepared
    }

    /// Rows of the pairs among the examples, in the order of all results.
    pub fn rows(&self) -> Vec<(usize, usize)> {
        let members = self.prepared.iter().flat_map(|part| &part.batch.members);
        members
            .map(|&pair| self.evidence.pairs()[pair].rows)
            .collect()
    }

    /// The graph whose edges are switched.
    pub const fn graph(&self) -> Graph {
        self.evidence.graph()
    }

    /// The metric of the evidence on the unchanged model, pair by pair.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn clean(&self, metric: Metric) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for part in &self.prepared {
            let values = part.values(metric, part.clean.clone());
            all.extend(self.evidence.located(values)?);
        }
        Ok(all)
    }

    /// The mean of a metric over all pairs, on the full model and with every edge ablated.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn full_and_empty(&self, metric: Metric) -> Result<(f64, f64)> {
        let graph = self.graph();
        let empty = vec![0.0; graph.readers() * graph.writers()];
        Ok((mean(&self.clean(metric)?), self.mean_of(&empty, 0, metric)?))
    }

    /// The mean over all pairs with one set of edges; see [`run`](Self::run).
    ///
    /// # Errors
    /// None but those of the device.
    pub fn mean_of(&self, set: &[f32], from_layer: usize, metric: Metric) -> Result<f64> {
        let values = self.run(&[set], from_layer, &[metric])?;
        Ok(mean(&values[0][0]))
    }

    /// The model with some sets of edges: `[metric][set][pair]`; see [`FromLayer::run`].
    ///
    /// # Errors
    /// None but those of the device.
    ///
    /// # Panics
    /// If a set has another size.
    pub fn run(
        &self,
        sets: &[&[f32]],
        from_layer: usize,
        metrics: &[Metric],
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        self.from_layer(from_layer).run(sets, metrics)
    }

    /// Ready to run from block `layer` on, many times over.
    pub fn from_layer(&self, layer: usize) -> FromLayer<'_, B> {
        let graph = self.graph();
        let all = [1, graph.readers(), graph.writers()];
        let patch = |part: &Prepared<B>| {
            let mask = Tensor::ones(all, self.evidence.device());
            EdgePatch::new(graph, part.other.clone(), mask).from_layer(layer, &part.here)
        };
        FromLayer {
            runs: self,
            layer,
            patches: self.prepared.iter().map(patch).collect(),
        }
    }
}

/// [`PatchedRuns`] that begin at one layer. What the writers before it put out is laid out once.
#[derive(Debug)]
pub struct FromLayer<'a, B: Backend> {
    runs: &'a PatchedRuns<'a, B>,
    layer: usize,
    /// One for each batch, its mask to be replaced.
    patches: Vec<EdgePatch<B>>,
}

impl<B: Backend> FromLayer<'_, B> {
    /// The first layer that is run.
    pub const fn layer(&self) -> usize {
        self.layer
    }

    /// The model with some sets of edges: `[metric][set][pair]`.
    ///
    /// Each set is `[readers * writers]`: 1 where the reader reads this run's output of the writer, 0
    /// where it reads the ablated one. All edges into layers before the first one must be on; those
    /// layers are not run again.
    ///
    /// # Errors
    /// None but those of the device.
    ///
    /// # Panics
    /// If a set has another size.
    pub fn run(&self, sets: &[&[f32]], metrics: &[Metric]) -> Result<Vec<Vec<Vec<f64>>>> {
        let PatchedRuns { evidence, prepared } = self.runs;
        let graph = evidence.graph();
        let mut values = vec![vec![Vec::new(); sets.len()]; metrics.len()];
        for (part, patch) in prepared.iter().zip(&self.patches) {
            let prompts = part.batch.members.len();
            let pos = part.here.input.dims()[1];
            let groups = (evidence.rows_per_batch(pos) / prompts).max(1);
            let mut at = 0;
            for sets in sets.chunks(groups) {
                let shape = [sets.len(), graph.readers(), graph.writers()];
                let mask = TensorData::new(sets.concat(), shape);
                let mask = Tensor::from_data(mask, evidence.device());
                let patch = patch.clone().with_mask(mask);
                let logits = part.logits(evidence.model(), sets.len(), self.layer, patch);
                for (metric, values) in metrics.iter().zip(&mut values) {
                    let found = evidence.located(part.values(*metric, logits.clone()))?;
                    for (group, found) in found.chunks(prompts).enumerate() {
                        values[at + group].extend(found);
                    }
                }
                at += sets.len();
            }
        }
        Ok(values)
    }
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
