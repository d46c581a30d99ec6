//! Runs in which whole writers are ablated, heads above all.
//!
//! A writer that is ablated for all of its readers is replaced where it writes: nothing is split by
//! reader. What lies before a change is not run again, neither earlier blocks nor, in causal models,
//! the positions at which both prompts of a pair are still the same; of the last block only the
//! position that is read is computed, and of the logits only those that the metric reads. Several
//! changes run side by side in one batch.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Graph, Node, Progress, workers};
use circuitscope_hooks::{Capture, Error as HookError, NoTap, NodeOutputs, Site, Tap, wide};
use circuitscope_model::{Decoder, Past, Resume, TokenBatch};

use super::gradients::host;
use super::{Ablation, CausalEvidence, Metric, Targets, compared, contrast};
use crate::{Error, Result};

/// Largest batch of one of several threads, in tokens: more gain nothing.
const THREAD_TOKENS: usize = 1024;

/// Some pairs whose prompts are alike in length, run as they are and ablated.
#[derive(Debug)]
pub(crate) struct WholeWriters<B: Backend> {
    graph: Graph,
    /// Number of pairs.
    prompts: usize,
    /// The positive prompts from the first position on where anything may change.
    tail: TokenBatch<B>,
    past: Past<B>,
    /// For each layer `[prompts, pos, d_model]`: the stream that its attention reads.
    streams: Vec<Tensor<B, 3>>,
    /// For each layer `[prompts, pos, heads, d_head]`, of the last one at the position that is read
    /// alone: what takes the place of `z`.
    other: Vec<Tensor<B, 4>>,
    /// `[prompts, d_model]`: the stream that the logits are read from, as it is and with everything
    /// ablated, where that is the run on the negative prompts.
    last: Tensor<B, 2>,
    empty: Option<Tensor<B, 2>>,
    outputs: Outputs<B>,
}

/// How the output of some prompts is read.
#[derive(Debug)]
struct Outputs<B: Backend> {
    targets: Targets,
    /// The columns of the unembedding for the answers, and the answers among them.
    answers: Option<(Unembedding<B>, Targets)>,
    /// `[prompts, vocabulary]`, of the full model.
    clean: Tensor<B, 2>,
    /// What logits are weighted with, where the metric is the contrast.
    contrast: Option<Tensor<B, 2>>,
}

type Unembedding<B> = (Tensor<B, 2>, Option<Tensor<B, 1>>);

/// Answers that are more tokens than this are read from all logits.
const MANY_ANSWERS: usize = 2048;

impl<B: Backend> Outputs<B> {
    /// For each metric its values at the last stream, `[copies * prompts, d_model]`.
    fn values(
        &self,
        model: &Decoder<B>,
        stream: &Tensor<B, 2>,
        metrics: &[Metric],
    ) -> Result<Vec<Vec<f64>>> {
        let copies = stream.dims()[0] / self.clean.dims()[0];
        let mut all = None;
        let values = metrics.iter().map(|metric| {
            let values = match &self.answers {
                Some((columns, targets)) if metric.reads_answers_only() => {
                    let logits = model.unembed_some(stream.clone(), columns);
                    targets.repeated(copies).values(*metric, logits, None)
                }
                _ => {
                    let logits = all.get_or_insert_with(|| logits(model, stream.clone()));
                    let reference = compared(*metric, &self.clean, self.contrast.as_ref());
                    let reference = reference.map(|x| x.clone().repeat_dim(0, copies));
                    let targets = self.targets.repeated(copies);
                    targets.values(*metric, logits.clone(), reference.as_ref())
                }
            };
            Ok(host(values)?.into_iter().map(f64::from).collect())
        });
        values.collect()
    }
}

fn logits<B: Backend>(model: &Decoder<B>, stream: Tensor<B, 2>) -> Tensor<B, 2> {
    model.unembed(stream.unsqueeze_dim(1)).squeeze_dim(1)
}

/// What was captured at `site`.
fn taken<B: Backend, const D: usize>(capture: &mut Capture<B>, site: Site) -> Result<Tensor<B, D>> {
    let value = capture.take(site).and_then(|value| value.get::<D>());
    Ok(value.ok_or(HookError::NeverFired { site })?)
}

impl<B: Backend> WholeWriters<B> {
    /// Whether a head may be replaced before `W_O`: not where a norm of the whole layer's output
    /// follows.
    pub(crate) const fn applies(model: &Decoder<B>) -> bool {
        !model.config().norm_after
    }

    /// Runs some pairs.
    pub(crate) fn new(evidence: &CausalEvidence<B>, members: &[usize]) -> Result<Self> {
        Ok(Self::capturing(evidence, members, &mut Capture::new([]))?.0)
    }

    /// The same, with further sites of the run on the positive prompts; and what takes the place of all
    /// nodes when they are ablated.
    fn capturing(
        evidence: &CausalEvidence<B>,
        members: &[usize],
        here: &mut Capture<B>,
    ) -> Result<(Self, NodeOutputs<B>)> {
        let (model, graph) = (evidence.model(), evidence.graph());
        let config = model.config();
        let layers = graph.n_layers;
        #[cfg(test)]
        evidence
            .passes
            .fetch_add(2, core::sync::atomic::Ordering::Relaxed);
        let batch = evidence.batch::<B>(members.to_vec(), evidence.device());
        let start = evidence.first_change(members);
        let end = Site::ResidPost(layers - 1);
        let mut run = Capture::new((0..layers).map(Site::ResidPre).chain([end]));
        let past = if start == 0 {
            model.forward(&batch.clean, &mut (&mut run, here));
            Past::take(config, &mut Capture::new([]), 0)?
        } else {
            let mut past = Capture::new(Past::<B>::sites(config));
            model.forward(&batch.clean, &mut (&mut run, &mut past, here));
            Past::take(config, &mut past, start)?
        };
        let streams = (0..layers).map(|layer| {
            let stream = taken::<B, 3>(&mut run, Site::ResidPre(layer))?;
            let [_, pos, _] = stream.dims();
            Ok(stream.slice_dim(1, start..pos))
        });
        let streams = streams.collect::<Result<_>>()?;
        let last = batch.clean.last(taken::<B, 3>(&mut run, end)?);
        let mut corrupt = Capture::new(NodeOutputs::<B>::sites(&graph));
        let mut end_of_corrupt = Capture::new([end]);
        model.forward(&batch.corrupt, &mut (&mut corrupt, &mut end_of_corrupt));
        let other = evidence.in_place_of(&batch, || Ok(NodeOutputs::take(&graph, corrupt)?))?;
        let z = (0..layers).map(|layer| {
            let site = Site::Z(layer);
            let z = other.at(site).ok_or(HookError::NeverFired { site })?;
            Ok(z_at(&batch.clean, z.clone(), start, layer + 1 == layers))
        });
        let z = z.collect::<Result<_>>()?;
        let empty = batch.corrupt.last(taken::<B, 3>(&mut end_of_corrupt, end)?);
        let clean = logits(model, last.clone());
        let weighs = evidence.metric() == Metric::Contrast;
        let weights = weighs.then(|| contrast(clean.clone(), logits(model, empty.clone())));
        let (tokens, targets) = batch.targets.apart();
        let few = (1..=MANY_ANSWERS).contains(&tokens.len());
        let runs = Self {
            graph,
            prompts: members.len(),
            tail: batch.clean.tail(start),
            past,
            streams,
            other: z,
            empty: (evidence.ablation() == Ablation::Negative).then_some(empty),
            outputs: Outputs {
                answers: few.then(|| (model.unembedding_of(&tokens), targets)),
                targets: batch.targets,
                clean,
                contrast: weights,
            },
            last,
        };
        Ok((runs, other))
    }

    /// Tokens that one set of changes is run on.
    fn tokens(&self) -> usize {
        self.prompts * self.tail.pos()
    }

    /// Each metric of the full model, prompt by prompt.
    pub(crate) fn clean(&self, model: &Decoder<B>, metrics: &[Metric]) -> Result<Vec<Vec<f64>>> {
        self.outputs.values(model, &self.last, metrics)
    }

    /// The same with everything ablated, where that needs no run.
    pub(crate) fn empty(
        &self,
        model: &Decoder<B>,
        metrics: &[Metric],
    ) -> Option<Result<Vec<Vec<f64>>>> {
        let stream = self.empty.as_ref()?;
        Some(self.outputs.values(model, stream, metrics))
    }

    /// Each metric with the heads ablated that some sets do not hold: `[metric][set * prompts]`.
    pub(crate) fn with_heads(
        &self,
        model: &Decoder<B>,
        sets: &[&[bool]],
        metrics: &[Metric],
    ) -> Result<Vec<Vec<f64>>> {
        let layers = self.graph.n_layers;
        let changed = sets
            .iter()
            .filter_map(|set| set.iter().position(|kept| !kept));
        let first = changed
            .min()
            .map_or(layers, |head| head / self.graph.n_heads);
        let stream = match self.streams.get(first) {
            None => self.last.clone().repeat_dim(0, sets.len()),
            Some(stream) => {
                let start = Resume::Block(first, stream.clone().repeat_dim(0, sets.len()));
                let mut tap = Without { runs: self, sets };
                self.resume(model, sets.len(), start, &mut tap)
            }
        };
        self.outputs.values(model, &stream, metrics)
    }

    /// The rest of a pass over so many copies of the prompts.
    fn resume<T: Tap<B>>(
        &self,
        model: &Decoder<B>,
        copies: usize,
        start: Resume<B>,
        tap: &mut T,
    ) -> Tensor<B, 2> {
        let (batch, past) = (self.tail.repeated(copies), self.past.repeated(copies));
        model.resume(&batch, &past, start, tap)
    }
}

/// `z` from position `start` on or, in the last layer, where the output is read.
fn z_at<B: Backend>(
    batch: &TokenBatch<B>,
    z: Tensor<B, 4>,
    start: usize,
    is_last: bool,
) -> Tensor<B, 4> {
    let [prompts, pos, heads, d_head] = z.dims();
    if is_last {
        batch.last(z).reshape([prompts, 1, heads, d_head])
    } else {
        z.slice_dim(1, start..pos)
    }
}

/// Ablates the heads that sets do not hold; the batch holds all prompts once for each set.
struct Without<'a, B: Backend> {
    runs: &'a WholeWriters<B>,
    sets: &'a [&'a [bool]],
}

impl<B: Backend> Without<'_, B> {
    /// For each set whether it holds each head of a layer.
    fn of_layer(&self, layer: usize) -> impl Iterator<Item = &[bool]> {
        let heads = self.runs.graph.n_heads;
        (self.sets.iter()).map(move |set| &set[layer * heads..(layer + 1) * heads])
    }

    fn changes(&self, layer: usize) -> bool {
        self.of_layer(layer).flatten().any(|kept| !kept)
    }
}

impl<B: Backend> Tap<B> for Without<'_, B> {
    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::Z(layer) if self.changes(layer))
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        let Site::Z(layer) = site else { return x };
        let (copies, prompts, dims) = (self.sets.len(), self.runs.prompts, x.dims());
        let (pos, d_head) = (dims[1], dims[3]);
        let kept: Vec<f32> = (self.of_layer(layer))
            .flat_map(|set| core::iter::repeat_n(set, prompts * pos))
            .flatten()
            .map(|kept| if *kept { 1.0 } else { 0.0 })
            .collect();
        let rows = kept.len();
        let x = wide(x);
        let kept = TensorData::new(kept, [rows, 1]);
        let kept = Tensor::<B, 2>::from_data(kept, (&x.device(), x.dtype()));
        let other = wide(self.runs.other[layer].clone()).repeat_dim(0, copies);
        let here = x.reshape([rows, d_head]) * kept.clone();
        let other = other.reshape([rows, d_head]) * (kept.neg() + 1.0);
        (here + other).reshape(dims)
    }
}

/// Work of so many pieces on the model of `evidence`, side by side where that is faster; results are
/// taken as they come.
pub(crate) fn side_by_side<B: Backend, R: Send>(
    evidence: &CausalEvidence<B>,
    pieces: usize,
    progress: &dyn Progress,
    work: impl Fn(&Decoder<B>, usize) -> Result<R> + Sync,
    mut take: impl FnMut(usize, R),
) -> Result<()> {
    workers::run(
        evidence.model().exec(),
        threads(evidence),
        pieces,
        || evidence.model().clone(),
        |model, at, _| work(model, at),
        |at, found| {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            take(at, found);
            Ok(())
        },
    )
}

/// How many pieces of work are done side by side on the device of `evidence`.
pub(crate) fn threads<B: Backend>(evidence: &CausalEvidence<B>) -> usize {
    evidence.model().exec().lanes(8)
}

/// `count` changes of `runs` in pieces that are run as one batch each.
pub(crate) fn pieces<B: Backend>(
    evidence: &CausalEvidence<B>,
    runs: &WholeWriters<B>,
    count: usize,
) -> Vec<core::ops::Range<usize>> {
    let threads = threads(evidence);
    let pos = runs.tail.pos();
    let most = evidence
        .model()
        .config()
        .max_batch_tokens(pos, &[], evidence.memory());
    let most = if threads > 1 {
        most.min(THREAD_TOKENS)
    } else {
        most
    };
    let largest = (most / runs.tokens()).clamp(1, count.max(1));
    // Pieces of one size, and as many as keep all threads busy to the end.
    let pieces = count.div_ceil(largest);
    let pieces = if pieces > 1 {
        pieces.next_multiple_of(threads).min(count)
    } else {
        pieces
    };
    (0..pieces)
        .map(|at| at * count / pieces..(at + 1) * count / pieces)
        .collect()
}

/// Runs with one writer ablated at a time.
#[derive(Debug)]
pub(crate) struct SingleWriters<B: Backend> {
    runs: WholeWriters<B>,
    /// For each layer `[prompts, pos, heads, d_head]`, in the last one at the position that is read: what
    /// `z` gains where it is ablated.
    heads: Vec<Tensor<B, 4>>,
    /// For each layer `[prompts, pos, d_model]`, in the last one at the position that is read: the
    /// stream between attention and MLP, where the MLP reads it.
    mids: Vec<Tensor<B, 3>>,
    /// For each layer `[prompts, pos, d_model]`: what the stream gains where its MLP is ablated.
    mlps: Vec<Tensor<B, 3>>,
    /// The same of the input.
    input: Tensor<B, 3>,
}

/// Writers that are ablated in one batch, each in a copy of the prompts of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Input,
    Heads(usize, core::ops::Range<usize>),
    Mlp(usize),
}

impl Piece {
    /// The writers, in the order of copies.
    pub(crate) fn writers(&self, graph: &Graph) -> core::ops::Range<usize> {
        match self {
            Self::Input => 0..1,
            Self::Heads(layer, heads) => {
                let first = graph.head_writers(*layer).start;
                first + heads.start..first + heads.end
            }
            Self::Mlp(layer) => {
                let writer = graph.mlp_writer(*layer);
                writer..writer + 1
            }
        }
    }
}

impl<B: Backend> SingleWriters<B> {
    /// Runs some pairs.
    pub(crate) fn new(evidence: &CausalEvidence<B>, members: &[usize]) -> Result<Self> {
        let graph = evidence.graph();
        let layers = 0..graph.n_layers;
        let mids = layers.clone().filter(|_| graph.mlps && !graph.parallel);
        let sites = NodeOutputs::<B>::sites(&graph).into_iter();
        let mut here = Capture::new(sites.chain(mids.clone().map(Site::ResidMid)));
        let (runs, other) = WholeWriters::capturing(evidence, members, &mut here)?;
        let batch = evidence.batch::<B>(members.to_vec(), evidence.device());
        let start = evidence.first_change(members);
        let end = batch.clean.pos();
        let is_last = |layer: usize| layer + 1 == graph.n_layers;
        let mids = mids.map(|layer| {
            let mid = taken::<B, 3>(&mut here, Site::ResidMid(layer))?;
            Ok(if is_last(layer) {
                batch.clean.last(mid).unsqueeze_dim(1)
            } else {
                mid.slice_dim(1, start..end)
            })
        });
        let mids = mids.collect::<Result<_>>()?;
        let here = NodeOutputs::take(&graph, here)?;
        let gain = |site: Site| {
            let (Some(other), Some(here)) = (other.at(site), here.at(site)) else {
                return Err(HookError::NeverFired { site }.into());
            };
            Ok::<_, Error>(wide(other.clone()) - wide(here.clone()))
        };
        let of_stream =
            |site: Site| Ok::<_, Error>(gain(site)?.squeeze_dim::<3>(2).slice_dim(1, start..end));
        let heads = layers.clone().map(|layer| {
            let gain = gain(Site::Z(layer))?;
            Ok(z_at(&batch.clean, gain, start, is_last(layer)))
        });
        let mlps = layers.clone().filter(|_| graph.mlps);
        Ok(Self {
            runs,
            heads: heads.collect::<Result<_>>()?,
            mids,
            mlps: mlps
                .map(|layer| of_stream(Site::MlpOut(layer)))
                .collect::<Result<_>>()?,
            input: of_stream(Site::ResidPre(0))?,
        })
    }

    /// All writers, in batches.
    pub(crate) fn pieces(&self, evidence: &CausalEvidence<B>) -> Vec<Piece> {
        let graph = evidence.graph();
        let mut all = vec![Piece::Input];
        for layer in 0..graph.n_layers {
            let heads = pieces(evidence, &self.runs, graph.n_heads).into_iter();
            all.extend(heads.map(|heads| Piece::Heads(layer, heads)));
            all.extend(graph.mlps.then_some(Piece::Mlp(layer)));
        }
        all
    }

    /// The metric of the full model, prompt by prompt.
    pub(crate) fn clean(&self, model: &Decoder<B>, metric: Metric) -> Result<Vec<f64>> {
        Ok(self.runs.clean(model, &[metric])?.swap_remove(0))
    }

    /// The metric without each of the writers of a piece: `[writer * prompts]`.
    pub(crate) fn without(
        &self,
        model: &Decoder<B>,
        piece: &Piece,
        metric: Metric,
    ) -> Result<Vec<f64>> {
        let runs = &self.runs;
        let (copies, start) = match piece {
            Piece::Input => (1, self.after(0, 1, self.input.clone())),
            Piece::Mlp(layer) => (1, self.after(layer + 1, 1, self.mlps[*layer].clone())),
            Piece::Heads(layer, heads) if !WholeWriters::applies(model) => {
                // The norm that follows is computed anew, from the block on.
                let all = runs.graph.grid().len();
                let first = layer * runs.graph.n_heads;
                let sets = heads.clone().map(|head| {
                    let mut set = vec![true; all];
                    set[first + head] = false;
                    set
                });
                let sets: Vec<Vec<bool>> = sets.collect();
                let sets: Vec<&[bool]> = sets.iter().map(Vec::as_slice).collect();
                return Ok(runs.with_heads(model, &sets, &[metric])?.swap_remove(0));
            }
            Piece::Heads(layer, heads) => {
                let gain = self.gain_of(model, *layer, heads.clone());
                let start = match self.mids.get(*layer) {
                    Some(mid) => {
                        let mid = mid.clone().repeat_dim(0, heads.len());
                        Resume::Mid(*layer, moved(mid, gain))
                    }
                    None => self.after(layer + 1, heads.len(), gain),
                };
                (heads.len(), start)
            }
        };
        let stream = runs.resume(model, copies, start, &mut NoTap);
        let values = runs.outputs.values(model, &stream, &[metric])?;
        Ok(values.into_iter().flatten().collect())
    }

    /// The stream that block `next` reads, or that the logits are read from, with what it gains.
    fn after(&self, next: usize, copies: usize, gain: Tensor<B, 3>) -> Resume<B> {
        let runs = &self.runs;
        let stream = match runs.streams.get(next) {
            Some(stream) => stream.clone(),
            None => runs.last.clone().unsqueeze_dim(1),
        };
        // What the last block adds is wanted where it is read.
        let [rows, pos, d_model] = gain.dims();
        let gain = if next == runs.graph.n_layers && pos > 1 {
            let gain = runs.tail.repeated(copies).last(gain);
            gain.reshape([rows, 1, d_model])
        } else {
            gain
        };
        Resume::Block(next, moved(stream.repeat_dim(0, copies), gain))
    }

    /// What the stream gains where each of some heads is ablated: `[heads * prompts, pos, d_model]`.
    fn gain_of(
        &self,
        model: &Decoder<B>,
        layer: usize,
        heads: core::ops::Range<usize>,
    ) -> Tensor<B, 3> {
        let count = heads.len();
        let [prompts, pos, _, d_head] = self.heads[layer].dims();
        let w_o = wide(model.w_o(layer)).slice_dim(0, heads.clone());
        let [_, _, d_model] = w_o.dims();
        let z = self.heads[layer].clone().slice_dim(2, heads);
        let z = z.reshape([prompts * pos, count, d_head]).swap_dims(0, 1);
        z.matmul(w_o).reshape([count * prompts, pos, d_model])
    }
}

/// A stream with what it gains, in its own precision.
fn moved<B: Backend>(stream: Tensor<B, 3>, gain: Tensor<B, 3>) -> Tensor<B, 3> {
    let dtype = stream.dtype();
    (gain + wide(stream)).cast(dtype)
}

/// The heads that a set of edges keeps, if all it does is to ablate whole heads.
pub(crate) fn as_heads(graph: &Graph, set: &[f32]) -> Option<Vec<bool>> {
    let (readers, writers) = (graph.readers(), graph.writers());
    let mut kept = vec![true; graph.grid().len()];
    for writer in 0..writers {
        let first = (0..readers).find(|reader| writer < graph.visible(*reader))?;
        let value = set[first * writers + writer];
        let same = (first..readers)
            .filter(|reader| writer < graph.visible(*reader))
            .all(|reader| set[reader * writers + writer] == value);
        match (graph.writer(writer), value) {
            _ if !same => return None,
            (_, 1.0) => {}
            (Node::Head(head), 0.0) => kept[graph.grid().index(head)?] = false,
            _ => return None,
        }
    }
    Some(kept)
}
