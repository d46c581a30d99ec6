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

#[derive(Debug)]
struct Prepared<B: Backend> {
    batch: PairBatch<B>,
    here: StreamOutputs<B>,
    other: StreamOutputs<B>,
    /// `[prompts, vocabulary]` of the full model.
    clean: Tensor<B, 2>,
}

impl<'a, B: Backend> PatchedRuns<'a, B> {
    /// Runs the first `count` pairs.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn new(evidence: &'a CausalEvidence<B>, count: usize) -> Result<Self> {
        let prepared = evidence.batches::<B>(count, 1.0, evidence.device());
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
            let values = metric.values(part.clean.clone(), &part.batch.targets, Some(&part.clean));
            all.extend(host(values)?.into_iter().map(f64::from));
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
                let batch = PairBatch {
                    clean: repeated(self.evidence, part, copies).clean,
                    ..part.batch.clone()
                };
                let logits = batch.last_logits(self.evidence.model(), stream);
                for group in 0..copies {
                    let logits = logits.clone().narrow(0, group * prompts, prompts);
                    for (metric, values) in metrics.iter().zip(&mut values) {
                        let targets = &part.batch.targets;
                        let found = metric.values(logits.clone(), targets, Some(&part.clean));
                        values[at + group].extend(host(found)?.into_iter().map(f64::from));
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
        let batch = repeated(self.evidence, part, sets.len());
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

/// The prompts of a batch several times over.
fn repeated<B: Backend>(
    evidence: &CausalEvidence<B>,
    part: &Prepared<B>,
    copies: usize,
) -> PairBatch<B> {
    if copies == 1 {
        part.batch.clone()
    } else {
        evidence.batch(part.batch.members.clone(), copies, evidence.device())
    }
}
