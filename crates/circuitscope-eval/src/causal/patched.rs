use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::Graph;
use circuitscope_hooks::{Capture, EdgePatch, Site, StreamOutputs};

use super::gradients::host;
use super::{CausalEvidence, Metric, PairBatch};
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
    /// The same prompts `copies` times over.
    pub fn copies(&self, evidence: &CausalEvidence<B>, copies: usize) -> PairBatch<B> {
        if copies == 1 {
            self.batch.clone()
        } else {
            evidence.batch(self.batch.members.clone(), copies, evidence.device())
        }
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
                .map(|members| evidence.batch::<B>(members, 1, evidence.device()))
        });
        let prepared = prepared.map(|batch| {
            let here = evidence.outputs(evidence.model(), &batch.clean)?;
            let clean = batch.last_logits(evidence.model(), here.last.clone());
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
            all.extend(part.values(metric, part.clean.clone())?);
        }
        Ok(all)
    }

    /// The model with some sets of edges: `[metric][set][pair]`.
    ///
    /// Each set is `[readers * writers]`: 1 where the reader reads this run's output of the writer, 0
    /// where it reads the ablated one. All edges into layers before `from_layer` must be on; those
    /// layers are not run again.
    ///
    /// # Errors
    /// None but those of the device.
    ///
    /// # Panics
    /// If a set has another size.
    pub fn run(
        &self,
        sets: &[Vec<f32>],
        from_layer: usize,
        metrics: &[Metric],
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        let graph = self.graph();
        let mut values = vec![vec![Vec::new(); sets.len()]; metrics.len()];
        for part in &self.prepared {
            let prompts = part.batch.members.len();
            let pos = part.here.input.dims()[1];
            let groups = (self.evidence.rows_per_batch(pos) / prompts).max(1);
            let mut at = 0;
            for sets in sets.chunks(groups) {
                let stream = self.stream(part, sets, from_layer);
                let copies = sets.len();
                let batch = part.copies(self.evidence, copies);
                let logits = batch.last_logits(self.evidence.model(), stream);
                for (metric, values) in metrics.iter().zip(&mut values) {
                    let found = part.values(*metric, logits.clone())?;
                    for (group, found) in found.chunks(prompts).enumerate() {
                        values[at + group].extend(found);
                    }
                }
                at += copies;
            }
        }
        debug_assert!(
            sets.iter()
                .all(|set| set.len() == graph.readers() * graph.writers())
        );
        Ok(values)
    }

    /// The stream that the logits are read from: `[sets * prompts, pos, d_model]`.
    fn stream(&self, part: &Prepared<B>, sets: &[Vec<f32>], from_layer: usize) -> Tensor<B, 3> {
        let graph = self.graph();
        let shape = [sets.len(), graph.readers(), graph.writers()];
        let mask = TensorData::new(sets.concat(), shape);
        let mask = Tensor::from_data(mask, self.evidence.device());
        let patch = EdgePatch::new(graph, part.other.clone(), mask);
        let last = Site::ResidPost(graph.n_layers - 1);
        let mut run = (
            patch.from_layer(from_layer, &part.here),
            Capture::new([last]),
        );
        let batch = part.copies(self.evidence, sets.len());
        let model = self.evidence.model();
        if from_layer == 0 {
            model.forward(&batch.clean, &mut run);
        } else {
            let stream = part.here.attn_in[from_layer].clone();
            let stream = stream.repeat_dim(0, sets.len());
            model.forward_from(&batch.clean, from_layer, stream, &mut run);
        }
        let stream = run.1.take(last).and_then(|stream| stream.get::<3>());
        stream.unwrap_or_else(|| unreachable!("the pass ends at the last stream"))
    }
}
