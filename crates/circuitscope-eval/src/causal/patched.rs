use core::cell::OnceCell;
use core::fmt;
use core::ops::Range;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Graph, NoProgress, Progress};
use circuitscope_hooks::{Capture, EdgePatch, Site, StreamOutputs, Tap};
use circuitscope_model::Decoder;

use super::gradients::host;
use super::writers::{WholeWriters, as_heads, pieces, side_by_side};
use super::{CausalEvidence, Metric, PairBatch, last_logits};
use crate::{Error, Result};

/// Some pairs, ready to be run with any set of edges, as they are where those are on and ablated where
/// they are off.
///
/// What such runs share is computed once, when the first of them asks for it: all outputs of all
/// writers, or much less where only whole heads are ablated.
pub struct PatchedRuns<'a, B: Backend> {
    evidence: &'a CausalEvidence<B>,
    batches: Vec<Vec<usize>>,
    progress: &'a dyn Progress,
    prepared: OnceCell<Vec<Prepared<B>>>,
    whole: OnceCell<Vec<WholeWriters<B>>>,
}

impl<B: Backend> fmt::Debug for PatchedRuns<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatchedRuns")
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
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
        let clean = metric.needs_clean();
        let clean = clean.then(|| self.clean.clone().repeat_dim(0, copies));
        let values = host(targets.values(metric, logits, clean.as_ref()))?;
        Ok(values.into_iter().map(f64::from).collect())
    }
}

impl<'a, B: Backend> PatchedRuns<'a, B> {
    /// Of the first `count` pairs. Nothing is run yet.
    ///
    /// # Errors
    /// None: what runs says what failed.
    pub fn new(evidence: &'a CausalEvidence<B>, count: usize) -> Result<Self> {
        Self::in_batches(evidence, count, usize::MAX)
    }

    /// The same in batches of at most `largest` pairs.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_batches(
        evidence: &'a CausalEvidence<B>,
        count: usize,
        largest: usize,
    ) -> Result<Self> {
        Ok(Self {
            evidence,
            batches: evidence.alike(count, largest),
            progress: &NoProgress,
            prepared: OnceCell::new(),
            whole: OnceCell::new(),
        })
    }

    /// Asks `progress` between batches whether to stop, and tells it of stages of its own.
    #[must_use]
    pub fn with_progress(mut self, progress: &'a dyn Progress) -> Self {
        self.progress = progress;
        self
    }

    fn go_on(&self) -> Result<()> {
        if self.progress.cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// The batches.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn parts(&self) -> Result<&[Prepared<B>]> {
        if let Some(prepared) = self.prepared.get() {
            return Ok(prepared);
        }
        let evidence = self.evidence;
        evidence.average(true, self.progress)?;
        let prepared = self.batches.iter().map(|members| {
            self.go_on()?;
            let batch = evidence.batch::<B>(members.clone(), evidence.device());
            let here = evidence.outputs(evidence.model(), &batch.clean)?;
            let clean = last_logits(evidence.model(), &batch.clean, here.last.clone());
            Ok(Prepared {
                other: evidence.ablated(&batch)?,
                batch,
                here,
                clean,
            })
        });
        let prepared = prepared.collect::<Result<_>>()?;
        Ok(self.prepared.get_or_init(|| prepared))
    }

    /// The same for runs in which whole heads are ablated.
    fn whole(&self) -> Result<&[WholeWriters<B>]> {
        if let Some(whole) = self.whole.get() {
            return Ok(whole);
        }
        self.evidence.average(false, self.progress)?;
        let whole = self.batches.iter().map(|members| {
            self.go_on()?;
            WholeWriters::new(self.evidence, members)
        });
        let whole = whole.collect::<Result<_>>()?;
        Ok(self.whole.get_or_init(|| whole))
    }

    /// Rows of the pairs among the examples, in the order of all results.
    pub fn rows(&self) -> Vec<(usize, usize)> {
        let members = self.batches.iter().flatten();
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
        for part in self.whole()? {
            let values = part.clean(self.evidence.model(), &[metric]);
            all.extend(self.evidence.located(values)?.swap_remove(0));
        }
        Ok(all)
    }

    /// The mean of a metric over all pairs, on the full model and with every edge ablated.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn full_and_empty(&self, metric: Metric) -> Result<(f64, f64)> {
        let full = mean(&self.clean(metric)?);
        let mut all = Vec::new();
        for part in self.whole()? {
            let Some(empty) = part.empty(self.evidence.model(), &[metric]) else {
                let graph = self.graph();
                let empty = vec![0.0; graph.readers() * graph.writers()];
                return Ok((full, self.mean_of(&empty, 0, metric)?));
            };
            all.extend(self.evidence.located(empty)?.swap_remove(0));
        }
        Ok((full, mean(&all)))
    }

    /// The mean over all pairs with one set of edges; see [`run`](Self::run).
    ///
    /// # Errors
    /// None but those of the device.
    pub fn mean_of(&self, set: &[f32], from_layer: usize, metric: Metric) -> Result<f64> {
        let values = self.run(&[set], from_layer, &[metric])?;
        Ok(mean(&values[0][0]))
    }

    /// The model with some sets of edges: `[metric][set][pair]`; see [`FromLayer::run`]. Sets that ablate
    /// whole heads and nothing else are run as [`with_heads`](Self::with_heads) does.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    ///
    /// # Panics
    /// If a set has another size.
    pub fn run(
        &self,
        sets: &[&[f32]],
        from_layer: usize,
        metrics: &[Metric],
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        let graph = self.graph();
        let heads = sets.iter().map(|set| as_heads(&graph, set));
        if WholeWriters::applies(self.evidence.model())
            && let Some(heads) = heads.collect::<Option<Vec<_>>>()
        {
            let heads: Vec<&[bool]> = heads.iter().map(Vec::as_slice).collect();
            return self.with_heads(&heads, metrics);
        }
        self.from_layer(from_layer)?.run(sets, metrics)
    }

    /// The model with all heads ablated that some sets do not hold, everything else kept:
    /// `[metric][set][pair]`. A head's `z` is replaced, and everything after it computed anew. Several sets
    /// are run in one batch.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    ///
    /// # Panics
    /// If a set has not one entry for each head.
    pub fn with_heads(&self, sets: &[&[bool]], metrics: &[Metric]) -> Result<Vec<Vec<Vec<f64>>>> {
        let graph = self.graph();
        assert!(
            sets.iter().all(|set| set.len() == graph.grid().len()),
            "one entry for each head"
        );
        let whole = self.whole()?;
        let work: Vec<(usize, Range<usize>)> = (whole.iter().enumerate())
            .flat_map(|(part, runs)| {
                let pieces = pieces(self.evidence, runs, sets.len()).into_iter();
                pieces.map(move |sets| (part, sets))
            })
            .collect();
        let mut found: Vec<Vec<Vec<f64>>> = vec![Vec::new(); work.len()];
        let outcome = side_by_side(
            self.evidence,
            work.len(),
            self.progress,
            |model, at| {
                let (part, range) = &work[at];
                whole[*part].with_heads(model, &sets[range.clone()], metrics)
            },
            |at, values| found[at] = values,
        );
        self.evidence.located(outcome)?;
        let mut values = vec![vec![Vec::new(); sets.len()]; metrics.len()];
        for ((_, range), found) in work.into_iter().zip(found) {
            for (values, found) in values.iter_mut().zip(found) {
                let prompts = found.len() / range.len();
                for (set, found) in range.clone().zip(found.chunks(prompts)) {
                    values[set].extend(found);
                }
            }
        }
        Ok(values)
    }

    /// Ready to run from block `layer` on, many times over.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn from_layer(&self, layer: usize) -> Result<FromLayer<'_, B>> {
        let graph = self.graph();
        let all = [1, graph.readers(), graph.writers()];
        let patch = |part: &Prepared<B>| {
            let mask = Tensor::ones(all, self.evidence.device());
            EdgePatch::new(graph, part.other.clone(), mask).from_layer(layer, &part.here)
        };
        let parts = self.parts()?;
        Ok(FromLayer {
            evidence: self.evidence,
            progress: self.progress,
            parts,
            layer,
            patches: parts.iter().map(patch).collect(),
        })
    }
}

/// [`PatchedRuns`] that begin at one layer. What the writers before it put out is laid out once.
pub struct FromLayer<'a, B: Backend> {
    evidence: &'a CausalEvidence<B>,
    progress: &'a dyn Progress,
    parts: &'a [Prepared<B>],
    layer: usize,
    /// One for each batch, its mask to be replaced.
    patches: Vec<EdgePatch<B>>,
}

impl<B: Backend> fmt::Debug for FromLayer<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromLayer")
            .field("layer", &self.layer)
            .finish_non_exhaustive()
    }
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
        let Self {
            evidence, parts, ..
        } = self;
        let graph = evidence.graph();
        let mut values = vec![vec![Vec::new(); sets.len()]; metrics.len()];
        for (part, patch) in parts.iter().zip(&self.patches) {
            let prompts = part.batch.members.len();
            let pos = part.here.input.dims()[1];
            let groups = (evidence.rows_per_batch(pos) / prompts).max(1);
            let mut at = 0;
            for sets in sets.chunks(groups) {
                if self.progress.cancelled() {
                    return Err(Error::Cancelled);
                }
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
