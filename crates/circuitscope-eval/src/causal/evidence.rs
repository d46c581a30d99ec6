use core::any::Any;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Graph, NoProgress, Polarity, Progress, Seed, draw, names};
use circuitscope_hooks::{Capture, NoTap, NodeOutputs, Site, StreamOutputs, Tap, wide};
use circuitscope_model::{Decoder, PaddingSide, TokenBatch, check_finite};
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use super::{Alignment, Metric, PairBatch};
use crate::{Error, Result, Unaligned};

/// Two prompts, and what is right and wrong after the first.
#[derive(Debug, Clone, PartialEq, Eq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct TokenPair {
    /// Rows of the two prompts among the examples of the evidence: positive, negative.
    pub rows: (usize, usize),
    /// The prompt that shows the behaviour.
    pub clean: Vec<u32>,
    /// The matched prompt that does not.
    pub corrupt: Vec<u32>,
    /// Where the output is read, counted from the first token; `None` is the last position.
    pub position: Option<usize>,
    /// Next tokens that show the behaviour.
    pub right: Vec<u32>,
    /// Next tokens that the behaviour rules out; may be empty.
    pub wrong: Vec<u32>,
}

impl TokenPair {
    /// The tokens of its prompt of class `class`.
    pub(crate) const fn get(&self, class: Polarity) -> &Vec<u32> {
        match class {
            Polarity::Positive => &self.clean,
            Polarity::Negative => &self.corrupt,
        }
    }

    /// Rows of two prompts among the examples of the evidence, and their tokens: first of the one that shows the
    /// behaviour. Read at the last position, with no answers.
    ///
    /// ```
    /// use circuitscope_eval::causal::TokenPair;
    ///
    /// let pair = TokenPair::new((0, 1), vec![5, 6], vec![5, 7]).with_right(vec![8]);
    /// assert!(pair.position.is_none() && pair.wrong.is_empty());
    /// ```
    #[must_use]
    pub const fn new(rows: (usize, usize), clean: Vec<u32>, corrupt: Vec<u32>) -> Self {
        Self {
            rows,
            clean,
            corrupt,
            position: None,
            right: Vec::new(),
            wrong: Vec::new(),
        }
    }
}

/// For each pair another one with another positive prompt of as many tokens.
fn partners(pairs: &[TokenPair], seed: Seed) -> Result<Vec<usize>> {
    let mut rng = seed.stream("resample").rng();
    let partner = |(at, pair): (usize, &TokenPair)| {
        let tokens = pair.clean.len();
        let others = (0..pairs.len()).filter(|&other| {
            let clean = &pairs[other].clean;
            clean.len() == tokens && *clean != pair.clean
        });
        let others: Vec<usize> = others.collect();
        if others.is_empty() {
            return Err(Error::NoPartner { pair: at, tokens });
        }
        Ok(others[draw::index(&mut rng, others.len())])
    };
    pairs.iter().enumerate().map(partner).collect()
}

/// Rows of a pair's prompts among the examples: positive, negative.
type Rows = (usize, usize);

/// Batches of pairs, and what runs of them share.
type Shared = (Vec<Vec<usize>>, Arc<dyn Any + Send + Sync>);

/// What takes the place of an output that is ablated: the reference that its effect is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Ablation {
    /// What the same writer puts out, at the same position, on the matched negative prompt
    /// (counterfactual patching; "random" ablation in ACDC's tables). The default.
    #[default]
    #[serde(alias = "patching")]
    Negative,
    /// The writer's mean output over all real positions of all negative prompts.
    Mean,
    /// The writer's mean output over all negative prompts, position by position, counted from the
    /// first token.
    #[serde(alias = "mean-positional")]
    PositionMean,
    /// Nothing.
    Zero,
    /// What it puts out, at the same position, on the positive prompt of another pair of as many tokens, drawn for
    /// each pair from stream `resample` (resample ablation, Chan et al. 2022, "Causal scrubbing", with one draw).
    Resample,
}

names!(pub Ablation: "reference" {
    Negative => "negative",
    Mean => "mean",
    PositionMean => "position-mean",
    Zero => "zero",
    Resample => "resample",
});

/// A model, matched prompts with answers, and a metric: what methods start from that change the model
/// or differentiate it.
#[derive(Debug, Clone)]
pub struct CausalEvidence<B: Backend> {
    pub(super) model: Decoder<B>,
    pub(super) graph: Graph,
    pub(super) pairs: Vec<TokenPair>,
    metric: Metric,
    pub(super) ablation: Ablation,
    /// For each pair whose prompts do not correspond position by position, how they do.
    pub(super) aligned: Vec<Option<Alignment>>,
    /// For each pair the one whose positive prompt is run in its place; empty unless outputs are resampled.
    partners: Vec<usize>,
    pub(super) memory: u64,
    pub(super) device: B::Device,
    /// `[writers, 1, d_model]` for mean ablation, or `[writers, pos, d_model]` with the position, once a
    /// method asks.
    means: OnceLock<Tensor<B, 3>>,
    /// The same of nodes, once a method asks.
    node_means: OnceLock<NodeOutputs<B>>,
    /// What runs of some batches of the pairs share, whoever asks for them.
    shared: Arc<Mutex<Vec<Shared>>>,
    /// Forward passes that were begun, but for those that go on from a layer.
    #[cfg(test)]
    pub(super) passes: Arc<core::sync::atomic::AtomicUsize>,
}

impl<B: Backend> CausalEvidence<B> {
    /// Checks and joins the parts.
    ///
    /// `memory` is what a batch may take, in bytes; it changes no result.
    ///
    /// # Errors
    /// - what `check_tokens` says of prompts that do not fit the model;
    /// - [`Error::NoPairs`] without pairs, [`Error::Unaligned`] for prompts of unequal length,
    ///   [`Error::Position`] for a position beyond the prompt, [`Error::AnswerToken`] for an answer
    ///   beyond the vocabulary,
    ///   [`Error::NoAnswers`] where `metric` reads answers and a pair has none (wrong ones for
    ///   the differences);
    /// - [`Error::NoPartner`] where outputs are resampled and no other positive prompt is as long.
    pub fn new(
        model: Decoder<B>,
        pairs: Vec<TokenPair>,
        metric: Metric,
        ablation: Ablation,
        memory: u64,
        device: &B::Device,
    ) -> Result<Self> {
        let aligned = vec![None; pairs.len()];
        Self::aligned(model, pairs, aligned, metric, ablation, memory, device)
    }

    /// The same with pairs whose prompts correspond in another way than position by position, and may
    /// differ in length: `aligned` has an entry for each pair. What is patched at a position of the positive
    /// prompt is what the negative run put out at the position aligned with it.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Unaligned`] where an alignment is for prompts of other lengths, too.
    pub fn aligned(
        model: Decoder<B>,
        pairs: Vec<TokenPair>,
        aligned: Vec<Option<Alignment>>,
        metric: Metric,
        ablation: Ablation,
        memory: u64,
        device: &B::Device,
    ) -> Result<Self> {
        let graph = model.config().graph();
        if pairs.is_empty() {
            return Err(Error::NoPairs);
        }
        let wants_wrong = matches!(
            metric,
            Metric::LogitDifference | Metric::ProbabilityDifference
        );
        for (at, pair) in pairs.iter().enumerate() {
            let lengths = (pair.clean.len(), pair.corrupt.len());
            let fits = match aligned.get(at).and_then(Option::as_ref) {
                Some(aligned) => aligned.fits(lengths.0, lengths.1),
                None => lengths.0 == lengths.1,
            };
            if !fits {
                return Err(Error::Unaligned(Unaligned {
                    place: format!("pair {}", at + 1),
                    positive: lengths.0,
                    negative: lengths.1,
                    why: "expected as many, or an alignment of these lengths".to_owned(),
                }));
            }
            let vocabulary = model.config().d_vocab_out;
            let mut answers = pair.right.iter().chain(&pair.wrong);
            if let Some(&token) = answers.find(|token| **token as usize >= vocabulary) {
                return Err(Error::AnswerToken {
                    pair: at,
                    token,
                    vocabulary,
                });
            }
            if let Some(position) = pair.position.filter(|at| *at >= pair.clean.len()) {
                return Err(Error::Position {
                    pair: at,
                    position,
                    tokens: pair.clean.len(),
                });
            }
            let lacks = pair.right.is_empty() || (wants_wrong && pair.wrong.is_empty());
            if lacks && metric.reads_answers() {
                return Err(Error::NoAnswers {
                    pair: at,
                    what: if pair.right.is_empty() {
                        "answers"
                    } else {
                        "wrong answers"
                    },
                    metric,
                });
            }
        }
        let prompts: Vec<&Vec<u32>> = pairs.iter().flat_map(|p| [&p.clean, &p.corrupt]).collect();
        model.config().check_tokens(&prompts)?;
        let partners = match ablation {
            Ablation::Resample => partners(&pairs, Seed::default())?,
            _ => Vec::new(),
        };
        Ok(Self {
            model,
            graph,
            pairs,
            metric,
            ablation,
            aligned,
            partners,
            memory,
            device: device.clone(),
            means: OnceLock::new(),
            node_means: OnceLock::new(),
            shared: Arc::default(),
            #[cfg(test)]
            passes: Arc::default(),
        })
    }

    /// The same with what is drawn at random, the partners of [`Ablation::Resample`], drawn from this seed instead of
    /// seed 0.
    #[must_use]
    pub fn with_seed(mut self, seed: Seed) -> Self {
        // Whether each pair has one depends on no seed.
        if let (Ablation::Resample, Ok(partners)) = (self.ablation, partners(&self.pairs, seed)) {
            self.partners = partners;
            // What clones share was run with other partners.
            self.shared = Arc::default();
        }
        self
    }

    /// The same model on some of the pairs, with another metric and reference.
    ///
    /// # Errors
    /// As [`aligned`](Self::aligned).
    pub(crate) fn on(
        &self,
        members: &[usize],
        metric: Metric,
        ablation: Ablation,
        seed: Seed,
    ) -> Result<Self> {
        let pairs = members.iter().map(|&pair| self.pairs[pair].clone());
        let aligned = members.iter().map(|&pair| self.aligned[pair].clone());
        let found = Self::aligned(
            self.model.clone(),
            pairs.collect(),
            aligned.collect(),
            metric,
            ablation,
            self.memory,
            &self.device,
        )?;
        Ok(found.with_seed(seed))
    }

    /// The positive prompts that are run in the place of those of some pairs where outputs are resampled.
    pub(super) fn resampled(&self, batch: &PairBatch<B>) -> TokenBatch<B> {
        let prompts = batch.members.iter();
        let prompts = prompts.map(|&pair| &self.pairs[self.partners[pair]].clean);
        let prompts = prompts.collect::<Vec<_>>();
        TokenBatch::new(&prompts, PaddingSide::Right, &self.device).unwrap_or_else(|_| {
            unreachable!("prompts were checked to be no shorter than one token")
        })
    }

    /// The model.
    pub const fn model(&self) -> &Decoder<B> {
        &self.model
    }

    /// Its computation graph.
    pub const fn graph(&self) -> Graph {
        self.graph
    }

    /// The pairs.
    pub fn pairs(&self) -> &[TokenPair] {
        &self.pairs
    }

    /// What is read from the output.
    pub const fn metric(&self) -> Metric {
        self.metric
    }

    /// What takes the place of an output that is ablated.
    pub const fn ablation(&self) -> Ablation {
        self.ablation
    }

    /// What runs of these batches of pairs share, of one kind: empty at first, and kept as long as the evidence or a clone.
    pub(super) fn shared<V: Default + Send + Sync + 'static>(
        &self,
        batches: &[Vec<usize>],
    ) -> Arc<V> {
        let mut kept = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let of_these = kept.iter().filter(|(of, _)| of == batches);
        let mut found = of_these.filter_map(|(_, made)| Arc::clone(made).downcast().ok());
        if let Some(found) = found.next() {
            return found;
        }
        let made = Arc::new(V::default());
        kept.push((batches.to_vec(), Arc::clone(&made) as _));
        made
    }

    /// Bytes that a batch may take.
    pub(crate) const fn memory(&self) -> u64 {
        self.memory
    }

    /// Whether a mean over the negative prompts takes the place of what is ablated.
    const fn takes_means(&self) -> bool {
        matches!(self.ablation, Ablation::Mean | Ablation::PositionMean)
    }

    /// What ablated nodes put out under mean ablation: all negative prompts are run, once.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) fn node_means(&self, progress: &dyn Progress) -> Result<&NodeOutputs<B>> {
        if let Some(means) = self.node_means.get() {
            return Ok(means);
        }
        let stage = progress.stage("averaging outputs", self.pairs.len() as u64);
        let means = self.mean_node_outputs(progress);
        drop(stage);
        let means = means?;
        Ok(self.node_means.get_or_init(|| means))
    }

    /// The same of what writers add to the stream.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    fn means(&self, progress: &dyn Progress) -> Result<&Tensor<B, 3>> {
        if let Some(means) = self.means.get() {
            return Ok(means);
        }
        let stage = progress.stage("averaging outputs", self.pairs.len() as u64);
        let positional = self.ablation == Ablation::PositionMean;
        let means = self.mean_outputs(positional, progress);
        drop(stage);
        let means = means?;
        Ok(self.means.get_or_init(|| means))
    }

    /// Takes the means that whole nodes, and with `writers` parts of the stream, are ablated to, if they
    /// are: what is long enough to be told of, and stopped.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) fn average(&self, writers: bool, progress: &dyn Progress) -> Result<()> {
        if self.takes_means() {
            if writers {
                self.means(progress)?;
            } else {
                self.node_means(progress)?;
            }
        }
        Ok(())
    }

    /// Where the model lives.
    pub const fn device(&self) -> &B::Device {
        &self.device
    }

    /// The same outcome; where a value was not finite, the error names the first site of the unchanged
    /// prompts that is not.
    pub(crate) fn located<T>(&self, outcome: Result<T>) -> Result<T> {
        if !matches!(outcome, Err(Error::NotFinite { .. })) {
            return outcome;
        }
        let prompts = self
            .pairs
            .iter()
            .flat_map(|pair| [&pair.clean, &pair.corrupt]);
        check_finite(&self.model, &prompts.collect::<Vec<_>>(), &self.device)?;
        Err(Error::NotFinite {
            precision: Some(self.model.precision()),
        })
    }

    /// Fails unless the first pairs have answers, which method `method` reads whatever the metric.
    pub(crate) fn require_answers(&self, method: &str) -> Result<()> {
        match self.pairs.iter().position(|pair| pair.right.is_empty()) {
            None => Ok(()),
            Some(pair) => Err(Error::MethodNeedsAnswers {
                method: method.to_owned(),
                pair,
            }),
        }
    }

    /// What `effects` finds on the first `count` pairs, batch by batch, pair by pair: the rows of the
    /// pairs among the examples, and what was found. `share`: see [`batches`](Self::batches).
    ///
    /// # Errors
    /// Those of `effects`; [`Error::Cancelled`].
    pub(crate) fn each_pair(
        &self,
        method: &'static str,
        count: usize,
        share: f64,
        progress: &dyn Progress,
        mut effects: impl FnMut(&PairBatch<B>) -> Result<Vec<Vec<f32>>>,
    ) -> Result<(Vec<Rows>, Vec<Vec<f32>>)> {
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        let stage = progress.stage(method, count as u64);
        for batch in self.batches::<B>(count, share, &self.device) {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let found = effects(&batch)?;
            all.extend(found);
            rows.extend(batch.members.iter().map(|&pair| self.pairs[pair].rows));
            progress.advance(batch.members.len() as u64);
        }
        drop(stage);
        Ok((rows, all))
    }

    /// What all writers put out on a batch of prompts.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn outputs<C: Backend>(
        &self,
        model: &Decoder<C>,
        batch: &TokenBatch<C>,
    ) -> Result<StreamOutputs<C>> {
        #[cfg(test)]
        self.passes
            .fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        let mut capture = Capture::new(StreamOutputs::<C>::sites(&self.graph));
        model.forward(batch, &mut capture);
        Ok(StreamOutputs::take(&self.graph, capture)?)
    }

    /// What `metric` compares logits with ([`Targets::values`](super::Targets::values)), if with anything.
    pub(crate) fn reference(
        &self,
        metric: Metric,
        batch: &PairBatch<B>,
    ) -> Result<Option<Tensor<B, 2>>> {
        let clean = || self.logits(&batch.clean);
        Ok(match metric {
            Metric::Kl => Some(clean()?),
            Metric::Contrast => Some(contrast(clean()?, self.logits(&batch.corrupt)?)),
            _ => None,
        })
    }

    /// Logits of the full model where each prompt is read, `[prompts, vocabulary]`.
    pub(crate) fn logits(&self, batch: &TokenBatch<B>) -> Result<Tensor<B, 2>> {
        let site = Site::ResidPost(self.graph.n_layers - 1);
        let mut capture = Capture::new([site]);
        self.model.forward(batch, &mut capture);
        let stream = capture.take(site).and_then(|stream| stream.get::<3>());
        let stream = stream.ok_or(circuitscope_hooks::Error::NeverFired { site })?;
        Ok(last_logits(&self.model, batch, stream))
    }

    /// What takes the place of what is ablated: the run on the negative prompts, or one made of it.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn ablated(&self, batch: &PairBatch<B>) -> Result<StreamOutputs<B>> {
        self.made_of(batch, || self.outputs(&self.model, &batch.corrupt))
    }

    /// The same, from the run on the negative prompts, which is not made where another one takes its place.
    pub(super) fn made_of(
        &self,
        batch: &PairBatch<B>,
        corrupt: impl FnOnce() -> Result<StreamOutputs<B>>,
    ) -> Result<StreamOutputs<B>> {
        if self.ablation == Ablation::Resample {
            // As long as the positive prompts as it is.
            return self.outputs(&self.model, &self.resampled(batch));
        }
        let corrupt = corrupt()?;
        let other = match self.ablation {
            Ablation::Resample | Ablation::Negative => corrupt,
            Ablation::Zero => corrupt.zeroed(&self.graph),
            Ablation::Mean | Ablation::PositionMean => {
                let means = self.means(&NoProgress)?;
                corrupt.map_writers(&self.graph, |writer, x| {
                    let dims = x.dims();
                    let mean = means.clone().narrow(0, writer, 1);
                    let shown = mean.dims()[1].min(dims[1]);
                    mean.narrow(1, 0, shown).expand(dims)
                })
            }
        };
        Ok(batch.outputs_at_positive(other))
    }

    /// Mean output of every writer over all negative prompts: over real positions, `[writers, 1,
    /// d_model]`, or for each position, `[writers, longest, d_model]`.
    fn mean_outputs(&self, positional: bool, progress: &dyn Progress) -> Result<Tensor<B, 3>> {
        let d_model = self.model.config().d_model;
        let writers = self.graph.writers();
        let longest = self.pairs.iter().map(|pair| pair.corrupt.len()).max();
        let places = if positional { longest.unwrap_or(1) } else { 1 };
        let mut sum = Tensor::<B, 3>::zeros([writers, places, d_model], &self.device);
        let mut counts = vec![0.0f32; places];
        for batch in self.batches::<B>(self.pairs.len(), 1.0, &self.device) {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let run = self.outputs(&self.model, &batch.corrupt)?;
            let real = batch.corrupt.positions();
            let [rows, pos] = real.mask.dims();
            let part = run.writers().reshape([rows, writers, pos, d_model])
                * real.mask.clone().reshape([rows, 1, pos, 1]);
            let part = part.sum_dim(0).squeeze_dim::<3>(0);
            if positional {
                let ranges = [0..writers, 0..pos, 0..d_model];
                let so_far = sum.clone().slice(ranges.clone());
                sum = sum.slice_assign(ranges, so_far + part);
                for &length in &real.lengths {
                    counts[..length].iter_mut().for_each(|count| *count += 1.0);
                }
            } else {
                sum = sum + part.sum_dim(1);
                counts[0] += real.lengths.iter().sum::<usize>() as f32;
            }
            progress.advance(batch.members.len() as u64);
        }
        let counts = TensorData::new(counts, [1, places, 1]);
        Ok(sum / Tensor::from_data(counts, &self.device))
    }
}

/// What logits are weighted with for [`Metric::Contrast`], from those of the full model after the prompts of each pair,
/// `[prompts, vocabulary]` all three.
pub(crate) fn contrast<B: Backend>(positive: Tensor<B, 2>, negative: Tensor<B, 2>) -> Tensor<B, 2> {
    softmax(wide(positive), 1) - softmax(wide(negative), 1)
}

/// What `metric` compares logits with, if with anything: those of the full model, or what they are weighted with.
pub(crate) fn compared<'a, B: Backend>(
    metric: Metric,
    clean: &'a Tensor<B, 2>,
    contrast: Option<&'a Tensor<B, 2>>,
) -> Option<&'a Tensor<B, 2>> {
    match metric {
        Metric::Kl => Some(clean),
        Metric::Contrast => contrast,
        _ => None,
    }
}

/// Logits at the last real position of each prompt, from the stream after the last block.
///
/// # Shapes
/// - `stream`: `[prompts, pos, d_model]`
/// - result: `[prompts, vocabulary]`
pub fn last_logits<B: Backend>(
    model: &Decoder<B>,
    batch: &TokenBatch<B>,
    stream: Tensor<B, 3>,
) -> Tensor<B, 2> {
    last_logits_tapped(model, batch, stream, &mut NoTap)
}

/// The same with a tap on the final norm.
pub(crate) fn last_logits_tapped<B: Backend, T: Tap<B>>(
    model: &Decoder<B>,
    batch: &TokenBatch<B>,
    stream: Tensor<B, 3>,
    tap: &mut T,
) -> Tensor<B, 2> {
    let last = batch.last(stream).unsqueeze_dim::<3>(1);
    model.unembed_tapped(last, tap).squeeze_dim(1)
}
