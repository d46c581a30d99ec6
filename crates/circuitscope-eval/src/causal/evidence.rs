use core::fmt;
use core::str::FromStr;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_core::{Graph, NoProgress, Progress, nearest, workers};
use circuitscope_hooks::{Capture, NodeOutputs, Site, StreamOutputs};
use circuitscope_model::{Decoder, PaddingSide, Past, TokenBatch, check_finite};
use serde::{Deserialize, Serialize};

use super::{Alignment, Metric, Targets, align};
use crate::{Error, Result};

/// Two prompts, and what is right and wrong after the first.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Bytes of a batch where the host computes.
const HOST_BATCH: u64 = 256 << 20;
/// Bytes of all batches that are differentiated at a time where the host computes.
const HOST_GRADIENTS: u64 = 256 << 20;
/// Tokens of a batch that is differentiated there: more gain nothing.
const HOST_TOKENS: usize = 512;
/// A batch of so few pairs is joined by others whatever padding that takes.
const FEW: usize = 4;

/// What is kept of every prompt of a batch that is differentiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    /// Outputs of all nodes, and gradients there.
    Nodes,
    /// Gradients at what readers read, too.
    Readers,
    /// What all writers add to the stream, too.
    Streams,
}

/// Rows of a pair's prompts among the examples: positive, negative.
type Rows = (usize, usize);

/// What takes the place of an output that is ablated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ablation {
    /// What the same writer puts out, at the same position, on the matched negative prompt
    /// (counterfactual patching; "random" ablation in ACDC's tables). The default.
    #[default]
    Patching,
    /// Nothing.
    Zero,
    /// The writer's mean output over all real positions of all negative prompts.
    Mean,
    /// The writer's mean output over all negative prompts, position by position, counted from the
    /// first token.
    MeanPositional,
}

impl Ablation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Patching, Self::Zero, Self::Mean, Self::MeanPositional];

    /// Its name on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Patching => "patching",
            Self::Zero => "zero",
            Self::Mean => "mean",
            Self::MeanPositional => "mean-positional",
        }
    }
}

impl fmt::Display for Ablation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Ablation {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|ablation| ablation.name() == s);
        found.ok_or_else(|| Error::UnknownName {
            what: "ablation",
            name: s.to_owned(),
            nearest: nearest(s, Self::ALL.map(Self::name)),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// A model, matched prompts with answers, and a metric: what methods start from that change the model
/// or differentiate it.
#[derive(Debug, Clone)]
pub struct CausalEvidence<B: Backend> {
    model: Decoder<B>,
    graph: Graph,
    pairs: Vec<TokenPair>,
    metric: Metric,
    ablation: Ablation,
    /// For each pair whose prompts do not correspond position by position, how they do.
    aligned: Vec<Option<Alignment>>,
    memory: u64,
    device: B::Device,
    /// `[writers, 1, d_model]` for mean ablation, or `[writers, pos, d_model]` with the position, once a
    /// method asks.
    means: OnceLock<Tensor<B, 3>>,
    /// The same of nodes, once a method asks.
    node_means: OnceLock<NodeOutputs<B>>,
}

impl<B: Backend> CausalEvidence<B> {
    /// Checks and joins the parts.
    ///
    /// `memory` is what a batch may take, in bytes; it changes no result.
    ///
    /// # Errors
    /// - what `check_tokens` says of prompts that do not fit the model;
    /// - [`Error::NoPairs`] without pairs, [`Error::PairLength`] for prompts of unequal length,
    ///   [`Error::Position`] for a position beyond the prompt, [`Error::AnswerToken`] for an answer
    ///   beyond the vocabulary,
    ///   [`Error::NoAnswers`] where `metric` reads answers and a pair has none (wrong ones for
    ///   the differences).
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
    /// As [`new`](Self::new); [`Error::PairLength`] where an alignment is for prompts of other lengths, too.
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
                return Err(Error::PairLength {
                    pair: at,
                    positive: pair.clean.len(),
                    negative: pair.corrupt.len(),
                });
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
            if lacks && !metric.needs_clean() {
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
        Ok(Self {
            model,
            graph,
            pairs,
            metric,
            ablation,
            aligned,
            memory,
            device: device.clone(),
            means: OnceLock::new(),
            node_means: OnceLock::new(),
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

    /// Bytes that a batch may take.
    pub(crate) const fn memory(&self) -> u64 {
        self.memory
    }

    /// Whether a mean over the negative prompts takes the place of what is ablated.
    const fn takes_means(&self) -> bool {
        matches!(self.ablation, Ablation::Mean | Ablation::MeanPositional)
    }

    /// What ablated nodes put out under mean ablation: all negative prompts are run, once.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) fn node_means(&self, progress: &dyn Progress) -> Result<&NodeOutputs<B>> {
        if let Some(means) = self.node_means.get() {
            return Ok(means);
        }
        progress.begin("averaging outputs", self.pairs.len() as u64);
        let means = self.mean_node_outputs(progress);
        progress.end();
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
        progress.begin("averaging outputs", self.pairs.len() as u64);
        let positional = self.ablation == Ablation::MeanPositional;
        let means = self.mean_outputs(positional, progress);
        progress.end();
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
    pub(crate) fn require_answers(&self, method: &'static str) -> Result<()> {
        match self.pairs.iter().position(|pair| pair.right.is_empty()) {
            None => Ok(()),
            Some(pair) => Err(Error::MethodNeedsAnswers { method, pair }),
        }
    }

    /// How many copies of a pair's prompt fit one batch of passes that read every input separately, or
    /// that keep the outputs of all writers apart.
    pub(crate) fn rows_per_batch(&self, tokens: usize) -> usize {
        let config = self.model.config();
        let heads = config.n_heads + 2 * config.n_key_value_heads;
        // Inputs of all ports, their norm and its intermediates, and the outputs of all writers: as they
        // are, ablated, and their difference.
        let floats = 6 * heads * config.d_model + 3 * self.graph.writers() * config.d_model;
        let bytes = (floats * 4 * tokens) as u64;
        // More gain nothing where the host computes.
        let most = if workers::on_host(&B::name(&self.device)) {
            self.memory.min(4 * HOST_BATCH)
        } else {
            self.memory
        };
        ((most / 4 / bytes.max(1)) as usize).clamp(1, 4096 / tokens.max(1) + 1)
    }

    /// Pairs `0..count` in batches of prompts of like length that are differentiated, `lanes` of them at
    /// a time.
    pub(crate) fn differentiated(&self, count: usize, lanes: usize, held: Held) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..count.min(self.pairs.len())).collect();
        order.sort_by_key(|&pair| self.pairs[pair].clean.len());
        self.in_lanes(&order, lanes, held)
    }

    /// The pairs of each length of their positive prompts, in such batches.
    pub(crate) fn of_one_length(
        &self,
        count: usize,
        lanes: usize,
        held: Held,
    ) -> Vec<Vec<Vec<usize>>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for pair in 0..count.min(self.pairs.len()) {
            let tokens = self.pairs[pair].clean.len();
            groups.entry(tokens).or_default().push(pair);
        }
        let groups = groups.into_values();
        groups
            .map(|group| self.in_lanes(&group, lanes, held))
            .collect()
    }

    /// Pairs, the longest last, in batches that are differentiated, `lanes` of them at a time.
    fn in_lanes(&self, order: &[usize], lanes: usize, held: Held) -> Vec<Vec<usize>> {
        let tokens = order.last().map_or(1, |&pair| self.pairs[pair].clean.len());
        let config = self.model.config();
        let mlp = config.mlp.map_or(0, |mlp| 5 * mlp.d_mlp);
        let qkv = (config.n_heads + 2 * config.n_key_value_heads) * config.d_head;
        // Floats of a token: the graph of one block; of every layer the stream, and up to four runs' outputs
        // and gradients of its nodes.
        let block = 12 * config.d_model + 3 * qkv + 4 * config.n_heads * tokens + mlp;
        let nodes = config.n_heads * config.d_head + config.d_model;
        let readers = if held == Held::Nodes {
            0
        } else {
            qkv + config.d_model
        };
        let layers = config.n_layers * (config.d_model + 4 * nodes + readers);
        let writers = if held == Held::Streams {
            4 * self.graph.writers() * config.d_model
        } else {
            0
        };
        let bytes = (4 * tokens * (block + layers + writers)) as u64;
        let (most, longest) = if workers::on_host(&B::name(&self.device)) {
            let most = (self.memory / 8).min(HOST_GRADIENTS) / lanes as u64;
            (most, (HOST_TOKENS / tokens.max(1)).max(1))
        } else {
            (self.memory / 8, usize::MAX)
        };
        let largest = longest.min(order.len().max(1)) as u64;
        let rows = (most / bytes.max(1)).clamp(1, largest) as usize;
        // As many as keep all lanes busy.
        let batches = order.len().div_ceil(rows).next_multiple_of(lanes);
        let rows = order.len().div_ceil(batches.max(1)).max(1);
        order.chunks(rows).map(<[_]>::to_vec).collect()
    }

    /// Pairs `0..count` in batches of prompts of like length of which little is padding, and in which
    /// anything changes from about the same position on; none of more than `largest` pairs.
    pub(crate) fn alike(&self, count: usize, largest: usize) -> Vec<Vec<usize>> {
        let key = |pair: usize| {
            (
                self.first_change(&[pair]),
                self.pairs[pair].clean.len(),
                pair,
            )
        };
        let mut order: Vec<_> = (0..count.min(self.pairs.len())).map(key).collect();
        order.sort_unstable();
        let mut batches: Vec<Vec<usize>> = Vec::new();
        // First position and longest prompt of the last batch, and its tokens without any padding.
        let (mut first, mut longest, mut own) = (0, 0, 0);
        for (start, length, pair) in order {
            let joined = batches.last_mut().filter(|batch| {
                let rows = batch.len() + 1;
                let padded = rows * (longest.max(length) - first);
                let most = largest.min(self.rows_per_batch(longest.max(length)));
                rows <= most && (rows <= FEW || 4 * padded <= 5 * (own + length - start))
            });
            if let Some(batch) = joined {
                batch.push(pair);
                (longest, own) = (longest.max(length), own + length - start);
            } else {
                batches.push(vec![pair]);
                (first, longest, own) = (start, length, length - start);
            }
        }
        batches
    }

    /// The first position at which some pairs' runs may differ from those on their positive prompts;
    /// no later than any of them is read.
    pub(crate) fn first_change(&self, members: &[usize]) -> usize {
        if self.ablation != Ablation::Patching || !Past::<B>::applies(self.model.config()) {
            return 0;
        }
        let first = members.iter().map(|&pair| {
            let TokenPair {
                clean,
                corrupt,
                position,
                ..
            } = &self.pairs[pair];
            let same = clean.iter().zip(corrupt).take_while(|(a, b)| a == b);
            let places = self.aligned[pair].as_ref().map(Alignment::places);
            let moved = places.and_then(|places| (0..places.len()).find(|&at| places[at] != at));
            let read = position.unwrap_or(clean.len() - 1);
            same.count().min(moved.unwrap_or(read)).min(read)
        });
        first.min().unwrap_or(0)
    }

    /// Pairs `0..count` in batches of prompts of like length, on the device of `C`.
    ///
    /// `share` is the part of a batch that one pass may fill: gradients keep every layer's
    /// intermediates, so they ask for less.
    pub fn batches<'a, C: Backend>(
        &'a self,
        count: usize,
        share: f64,
        device: &'a C::Device,
    ) -> impl Iterator<Item = PairBatch<C>> + 'a {
        let mut order: Vec<usize> = (0..count.min(self.pairs.len())).collect();
        order.sort_by_key(|&pair| self.pairs[pair].clean.len());
        let longest = order.last().map_or(1, |&pair| self.pairs[pair].clean.len());
        let rows = (self.rows_per_batch(longest) as f64 * share).max(1.0) as usize;
        let chunks: Vec<Vec<usize>> = order.chunks(rows).map(<[_]>::to_vec).collect();
        chunks
            .into_iter()
            .map(move |members| self.batch::<C>(members, device))
    }

    /// Where the two prompts of a pair are read: the position of its answer, and what corresponds to it.
    pub(crate) fn read_at(&self, pair: usize) -> [usize; 2] {
        let TokenPair {
            position, clean, ..
        } = &self.pairs[pair];
        let at = position.unwrap_or(clean.len() - 1);
        let aligned = self.aligned.get(pair).and_then(Option::as_ref);
        [at, aligned.map_or(at, |aligned| aligned.places()[at])]
    }

    /// Some pairs as one batch.
    pub fn batch<C: Backend>(&self, members: Vec<usize>, device: &C::Device) -> PairBatch<C> {
        let side = |prompt: fn(&TokenPair) -> &Vec<u32>| {
            let prompts = members.iter().map(|&pair| prompt(&self.pairs[pair]));
            TokenBatch::new(&prompts.collect::<Vec<_>>(), PaddingSide::Right, device)
        };
        let (Ok(clean), Ok(corrupt)) = (side(|pair| &pair.clean), side(|pair| &pair.corrupt))
        else {
            unreachable!("prompts were checked to be no shorter than one token")
        };
        let [positions, counterparts] = [0, 1].map(|side| {
            members
                .iter()
                .map(|&pair| self.read_at(pair)[side])
                .collect()
        });
        let answers = members.iter().map(|&pair| {
            let TokenPair { right, wrong, .. } = &self.pairs[pair];
            (right.as_slice(), wrong.as_slice())
        });
        let vocabulary = self.model.config().d_vocab_out;
        let aligned = members.iter().map(|&pair| self.aligned.get(pair)?.as_ref());
        let aligned: Vec<Option<&Alignment>> = aligned.collect();
        let (pos, of_corrupt) = (clean.pos(), corrupt.pos());
        PairBatch {
            targets: Targets::new(answers, vocabulary),
            corrupt: corrupt.read_at(counterparts),
            places: align::places(&aligned, pos, of_corrupt, device),
            members,
            clean: clean.read_at(positions),
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
        progress.begin(method, count as u64);
        for batch in self.batches::<B>(count, share, &self.device) {
            if progress.cancelled() {
                progress.end();
                return Err(Error::Cancelled);
            }
            let found = effects(&batch).inspect_err(|_| progress.end())?;
            all.extend(found);
            rows.extend(batch.members.iter().map(|&pair| self.pairs[pair].rows));
            progress.advance(batch.members.len() as u64);
        }
        progress.end();
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
        let mut capture = Capture::new(StreamOutputs::<C>::sites(&self.graph));
        model.forward(batch, &mut capture);
        Ok(StreamOutputs::take(&self.graph, capture)?)
    }

    /// Logits of the full model on the positive prompts, `[prompts, vocabulary]`.
    pub(crate) fn clean_logits(&self, batch: &PairBatch<B>) -> Result<Tensor<B, 2>> {
        let site = Site::ResidPost(self.graph.n_layers - 1);
        let mut capture = Capture::new([site]);
        self.model.forward(&batch.clean, &mut capture);
        let stream = capture.take(site).and_then(|stream| stream.get::<3>());
        let stream = stream.ok_or(circuitscope_hooks::Error::NeverFired { site })?;
        Ok(last_logits(&self.model, &batch.clean, stream))
    }

    /// What takes the place of what is ablated: the run on the negative prompts, or one made of it.
    ///
    /// # Errors
    /// None but those of the device.
    pub fn ablated(&self, batch: &PairBatch<B>) -> Result<StreamOutputs<B>> {
        let corrupt = self.outputs(&self.model, &batch.corrupt)?;
        let other = match self.ablation {
            Ablation::Patching => corrupt,
            Ablation::Zero => corrupt.zeroed(&self.graph),
            Ablation::Mean | Ablation::MeanPositional => {
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

/// Some pairs as two batches of tokens, and their answers.
#[derive(Debug, Clone)]
pub struct PairBatch<B: Backend> {
    /// Which pairs.
    pub members: Vec<usize>,
    /// The positive prompts.
    pub clean: TokenBatch<B>,
    /// The negative prompts.
    pub corrupt: TokenBatch<B>,
    /// Answers of the positive prompts.
    pub targets: Targets,
    /// Where pairs are aligned: for each position of the positives, the position of the negatives, rows
    /// laid end to end.
    pub(super) places: Option<Tensor<B, 1, Int>>,
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
    let last = batch.last(stream).unsqueeze_dim::<3>(1);
    model.unembed(last).squeeze_dim(1)
}
