use core::cell::OnceCell;
use core::fmt;
use core::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Graph, NoProgress, Progress};
use circuitscope_hooks::{Capture, EdgePatch, Site, StreamOutputs, Tap};
use circuitscope_measures::Baseline;
use circuitscope_model::Decoder;

use super::gradients::host;
use super::writers::{WholeWriters, as_heads, pieces, side_by_side};
use super::{CausalEvidence, Metric, PairBatch, compared, contrast, last_logits};
use crate::{Error, Result};

/// Some pairs, ready to be run with any set of edges, as they are where those are on and ablated where
/// they are off.
///
/// What such runs share is computed once, when the first of them asks for it: all outputs of all
/// writers, or much less where only whole heads are ablated.
///
/// Runs of the same pairs share it: what whole heads need is kept as long as the evidence, all outputs of all writers,
/// which take much more memory, as long as somebody runs them.
pub struct PatchedRuns<'a, B: Backend> {
    evidence: &'a CausalEvidence<B>,
    batches: Vec<Vec<usize>>,
    progress: &'a dyn Progress,
    prepared: OnceCell<Arc<Vec<Prepared<B>>>>,
    shared: Arc<Shared<B>>,
}

/// What runs of the same pairs in the same batches share.
struct Shared<B: Backend> {
    prepared: Mutex<Weak<Vec<Prepared<B>>>>,
    whole: OnceLock<Vec<WholeWriters<B>>>,
}

impl<B: Backend> Default for Shared<B> {
    fn default() -> Self {
        Self {
            prepared: Mutex::default(),
            whole: OnceLock::new(),
        }
    }
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
    /// `[prompts, vocabulary]`: what logits are weighted with, where the metric is [`Metric::Contrast`].
    pub contrast: Option<Tensor<B, 2>>,
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

    /// What `metric` compares logits with, if with anything.
    pub(crate) fn reference(&self, metric: Metric) -> Option<&Tensor<B, 2>> {
        compared(metric, &self.clean, self.contrast.as_ref())
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
        let reference = self.reference(metric);
        let reference = reference.map(|x| x.clone().repeat_dim(0, copies));
        let values = host(targets.values(metric, logits, reference.as_ref()))?;
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
        let batches = evidence.alike(count, largest);
        Ok(Self {
            evidence,
            shared: evidence.shared(&batches),
            batches,
            progress: &NoProgress,
            prepared: OnceCell::new(),
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
        let shared = self.shared.prepared.lock();
        let mut shared = shared.unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = shared.upgrade() {
            return Ok(self.prepared.get_or_init(|| prepared));
        }
        let evidence = self.evidence;
        evidence.average(true, self.progress)?;
        let prepared = self.batches.iter().map(|members| {
            self.go_on()?;
            let batch = evidence.batch::<B>(members.clone(), evidence.device());
            let here = evidence.outputs(evidence.model(), &batch.clean)?;
            let clean = last_logits(evidence.model(), &batch.clean, here.last.clone());
            let there = evidence.outputs(evidence.model(), &batch.corrupt)?;
            let negative = || last_logits(evidence.model(), &batch.corrupt, there.last.clone());
            let weighs = evidence.metric() == Metric::Contrast;
            Ok(Prepared {
                contrast: weighs.then(|| contrast(clean.clone(), negative())),
                other: evidence.made_of(&batch, || Ok(there))?,
                batch,
                here,
                clean,
            })
        });
        let prepared = Arc::new(prepared.collect::<Result<_>>()?);
        *shared = Arc::downgrade(&prepared);
        Ok(self.prepared.get_or_init(|| prepared))
    }

    /// The same for runs in which whole heads are ablated.
    fn whole(&self) -> Result<&[WholeWriters<B>]> {
        if let Some(whole) = self.shared.whole.get() {
            return Ok(whole);
        }
        self.evidence.average(false, self.progress)?;
        let whole = self.batches.iter().map(|members| {
            self.go_on()?;
            WholeWriters::new(self.evidence, members)
        });
        let whole = whole.collect::<Result<_>>()?;
        Ok(self.shared.whole.get_or_init(|| whole))
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
    pub fn baseline(&self, metric: Metric) -> Result<Baseline> {
        let full = mean(&self.clean(metric)?);
        let mut all = Vec::new();
        for part in self.whole()? {
            let Some(empty) = part.empty(self.evidence.model(), &[metric]) else {
                let graph = self.graph();
                let empty = vec![0.0; graph.readers() * graph.writers()];
                let empty = self.mean_of(&empty, 0, metric)?;
                return Ok(Baseline { full, empty });
            };
            all.extend(self.evidence.located(empty)?.swap_remove(0));
        }
        Ok(Baseline {
            full,
            empty: mean(&all),
        })
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

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering;

    use burn_flex::{Flex, FlexDevice};
    use circuitscope_core::Seed;
    use circuitscope_measures::Scores;
    use circuitscope_model::DecoderConfig;

    use super::*;
    use crate::causal::{Ablation, TokenPair};
    use crate::{HeadCircuits, QualitySettings, circuit_quality, measure_faithfulness};

    /// Choice, quality, curves and edges of the same pairs begin with one run of the positive prompts and one of the
    /// negative ones, and give what each would give alone.
    #[test]
    fn runs_of_the_same_pairs_share_two_passes() {
        let evidence = || {
            let config = DecoderConfig::gpt2(2, 2, 8, 8, 11);
            let pair = |at: u32| {
                TokenPair::new((0, 1), vec![1, 2, at], vec![4, 2, at])
                    .with_right(vec![5])
                    .with_wrong(vec![6])
            };
            let model = config.init::<Flex>(Seed::new(0), &FlexDevice);
            let pairs = (0..6).map(pair).collect();
            let (metric, ablation) = (Metric::LogitDifference, Ablation::Negative);
            CausalEvidence::new(model, pairs, metric, ablation, 1 << 30, &FlexDevice).unwrap()
        };
        let grid = evidence().graph().grid();
        let scores = Scores::of_nodes(grid, vec![1.0, 4.0, 3.0, 2.0]);
        let heads = [grid.head(1), grid.head(2)];
        let quality = |causal: &CausalEvidence<Flex>| {
            let settings = QualitySettings {
                pairs: 4,
                ..QualitySettings::default()
            };
            circuit_quality(causal, &heads, settings, Seed::new(0), &NoProgress).unwrap()
        };
        let curves = |causal: &CausalEvidence<Flex>| {
            measure_faithfulness(causal, &scores, 4, &NoProgress).unwrap()
        };
        let kept = |causal: &CausalEvidence<Flex>| {
            let runs = HeadCircuits::new(causal, 4, &NoProgress).unwrap();
            runs.keeping(&[true, false, true, false]).unwrap()
        };
        let passes = |causal: &CausalEvidence<Flex>| causal.passes.load(Ordering::Relaxed);
        let shared = evidence();
        let found = (kept(&shared), quality(&shared), curves(&shared));
        assert_eq!(passes(&shared), 2, "three users of four pairs");
        let alone = (kept(&evidence()), quality(&evidence()), curves(&evidence()));
        assert_eq!(found, alone);
        // Other pairs are other runs.
        HeadCircuits::new(&shared, 6, &NoProgress).unwrap();
        assert_eq!(passes(&shared), 4);
        // All outputs of all writers: shared while somebody has them.
        let edges = [0, 1].map(|_| PatchedRuns::new(&shared, 4).unwrap());
        for runs in &edges {
            runs.parts().unwrap();
        }
        assert_eq!(passes(&shared), 6);
        drop(edges);
        PatchedRuns::new(&shared, 4).unwrap().parts().unwrap();
        assert_eq!(passes(&shared), 8);
    }
}
