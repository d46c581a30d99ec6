use core::ops::Range;
use std::collections::BTreeMap;

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use circuitscope_core::{Graph, Port, Progress, Seed, draw, workers};
use circuitscope_hooks::{AnyTensor, Capture, NodeOutputs, Site, StreamOutputs, wide};
use circuitscope_measures::{ContrastScores, GraphScores, Scores, Selection};
use circuitscope_model::TokenBatch;

use super::attribution::{between_each, in_stream};
use super::of_pairs::weights;
use super::{PatchedEdges, PatchingSettings, ensemble};
use crate::causal::{
    CausalEvidence, Differentiable, Held, PairBatch, ReaderGradients, WholeWriters, contrast, host,
    last_logits, threads,
};
use crate::{About, Choice, Discover, Error, Evidence, Gradient, Measured, Needs, Passes, Result};

/// What is known of it. Otsu's split took no false head in any of 76 runs with planted circuits.
pub(super) static ABOUT: About = About::new(
    NAME,
    "what each head carries of the difference between the predictions after the two prompts of a pair, \
     by one gradient on the way between them; reads no answers",
)
.quick()
.choice(Choice::Rule(Selection::Otsu))
.without_null()
.needs(Needs::gradient(Gradient::Own), Passes::EachPair(6))
.without_model(&ensemble::ACTIVATIONS);

const NAME: &str = "recommended";

/// Bytes of outputs that are kept between the two passes where the host computes; what is beyond is made
/// again.
const HOST_KEPT: usize = 64 << 20;

/// How much each head carries of what the model's predictions after the two prompts of a pair are apart.
///
/// No answers are read. With `p+`, `p−` the predictions after the prompts of pair `b`, the metric is
/// `m_b(logits) = Σ_v (p+_v − p−_v) logits_v`, weights held fixed: what it differs by between the two
/// prompts is the Jeffreys divergence of the predictions. Its gradient `g` is taken once, at a point
/// between the embedded negative and positive prompt that is drawn for each pair (Expected Gradients,
/// Erion et al. 2021, arXiv 1906.10670, of one draw). With `z+` what a writer puts out on the positive
/// prompt, and `r` what takes its place, its effect on a pair is `e_b = Σ_pos (z+ − r) · g`, where `r` is
///
/// - what it puts out on the negative prompt (*differs*: what tells the prompts apart), or
/// - its mean at that position over both prompts of all pairs of as many tokens (*used*: what is needed
///   on either prompt, too; the first misses it).
///
/// The score is `√(D² + U²)` of the two means of `|e_b|` over pairs, in nats; its sign is that of the mean of
/// `e_b` with the negative prompt: above 0, the head moves the prediction from the negative one's to the
/// positive one's. Edges, where [`PatchingSettings::edges`] asks for any, are the same with `g` at what a reader reads, a pair of heads by the largest `D` and
/// the largest `U` of its ports.
///
/// Exchanging the prompts of a pair leaves scores as they are to first order, so that there is no null of
/// labels; what takes its place is whether predictions differ at all.
///
/// # Complexity
/// Two forward passes for each pair, two more and a backward one for the gradient; the first two again where all outputs take
/// more memory than there is. Two products of `[writers, pos · d_model] × [pos · d_model, readers]` for edges.
#[derive(Debug, Clone)]
pub struct Contrast<B: AutodiffBackend> {
    settings: PatchingSettings,
    device: B::Device,
    watches: bool,
}

/// Tokens of the longest prompts whose attention is kept: that of longer ones is made again when it is read, layer by layer.
const WATCHED: usize = 64;

/// Activations of some sites.
pub(crate) type Watched<B> = BTreeMap<Site, AnyTensor<B>>;

/// What all writers put out in one run.
#[derive(Debug, Clone)]
pub(crate) struct Outputs<B: Backend> {
    pub(crate) nodes: NodeOutputs<B>,
    /// What they add to the stream, `[prompts, writers, pos * d_model]`, where that is not told from the
    /// nodes: a norm follows.
    written: Option<Tensor<B, 3>>,
}

impl<B: Backend> Outputs<B> {
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let written = self.written.clone().zip(other.written.clone());
        Self {
            nodes: self.nodes.minus(&other.nodes),
            written: written.map(|(a, b)| a - b),
        }
    }

    fn plus(&self, other: &Self) -> Self {
        let written = self.written.clone().zip(other.written.clone());
        Self {
            nodes: self.nodes.plus(&other.nodes),
            written: written.map(|(a, b)| a + b),
        }
    }

    /// Summed over prompts.
    fn sum(&self) -> Self {
        Self {
            nodes: self.nodes.map(|x| x.sum_dim(0)),
            written: self.written.clone().map(|x| x.sum_dim(0)),
        }
    }

    fn scaled(&self, factor: f64) -> Self {
        Self {
            nodes: self.nodes.map(|x| x.mul_scalar(factor)),
            written: self.written.clone().map(|x| x.mul_scalar(factor)),
        }
    }

    pub(crate) fn prompts(&self, prompts: Range<usize>) -> Self {
        let written = self.written.clone();
        Self {
            nodes: self.nodes.prompts(prompts.clone()),
            written: written.map(|x| x.slice_dim(0, prompts)),
        }
    }

    pub(crate) fn in_stream(&self, causal: &CausalEvidence<B>) -> Tensor<B, 3> {
        match &self.written {
            Some(written) => written.clone(),
            None => in_stream(causal, &self.nodes),
        }
    }

    fn bytes(&self) -> usize {
        let places = self
            .nodes
            .places
            .iter()
            .map(|(_, x)| x.shape().num_elements());
        let written = self
            .written
            .as_ref()
            .map_or(0, |x| x.shape().num_elements());
        4 * (places.sum::<usize>() + written)
    }
}

/// The runs of a batch on both prompts.
pub(crate) struct Runs<B: Backend> {
    pub(crate) positive: Outputs<B>,
    /// At the positions that correspond to those of the positive prompt.
    pub(crate) negative: Outputs<B>,
    /// What logits are weighted with, `[prompts, vocabulary]`.
    pub(crate) contrast: Tensor<B, 2>,
    /// `[prompts, d_model]`: the stream that the logits of the positive prompts are read from.
    pub(crate) last: Tensor<B, 2>,
    /// Values and attention of every layer on both prompts, where they were watched.
    pub(crate) attention: Option<[Watched<B>; 2]>,
    /// What the weighted logits differ by.
    pub(crate) total: Vec<f32>,
}

/// What some pairs are made into: by a model that can be differentiated, from their runs and the mean of all runs of as many
/// tokens.
pub(crate) type Work<'a, B, T> = dyn Fn(
        &Differentiable<B>,
        &[usize],
        &Runs<<B as AutodiffBackend>::InnerBackend>,
        &Outputs<<B as AutodiffBackend>::InnerBackend>,
    ) -> Result<Vec<T>>
    + Sync
    + 'a;

/// What one pair gives.
#[derive(Debug, Clone, Default)]
struct Effects {
    total: f32,
    /// For each writer, differs and used.
    nodes: [Vec<f32>; 2],
    /// `[writers * readers]`; empty where edges are not scored.
    edges: [Vec<f32>; 2],
}

impl<B: AutodiffBackend> Contrast<B> {
    /// On the pairs that `settings` name; differentiated on `device`.
    pub const fn new(settings: PatchingSettings, device: B::Device) -> Self {
        Self {
            settings,
            device,
            watches: false,
        }
    }

    /// The same; what [`each_pair`](Self::each_pair) hands over has the attention of short prompts, too.
    pub(crate) const fn watching(mut self) -> Self {
        self.watches = true;
        self
    }

    /// Edges take most of the time of a large model, so that they are scored when asked for.
    fn scores_edges(&self) -> bool {
        self.settings.edges != PatchedEdges::None
    }

    /// What `work` makes of each pair, told as `stage`: it gets some of them, their runs, and the mean of all runs of as many tokens.
    ///
    /// # Errors
    /// Those of `work`; [`Error::Cancelled`].
    pub(crate) fn each_pair<T: Send>(
        &self,
        causal: &CausalEvidence<B::InnerBackend>,
        (stage, count, held): (&'static str, usize, Held),
        progress: &dyn Progress,
        work: &Work<'_, B, T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        found.resize_with(count, || None);
        let stage = progress.stage(stage, count as u64);
        let groups = causal.of_one_length(count, threads(causal), held);
        let outcome = groups
            .iter()
            .try_for_each(|group| self.group(causal, group, progress, work, &mut found));
        drop(stage);
        causal.located(outcome)?;
        Ok(found.into_iter().flatten().collect())
    }

    /// All pairs of one length.
    fn group<T: Send>(
        &self,
        causal: &CausalEvidence<B::InnerBackend>,
        batches: &[Vec<usize>],
        progress: &dyn Progress,
        work: &Work<'_, B, T>,
        found: &mut [Option<T>],
    ) -> Result<()> {
        let lanes = threads(causal);
        let exec = causal.model().exec();
        let room = if exec.in_host_memory {
            HOST_KEPT.min(causal.memory() as usize / 4)
        } else {
            causal.memory() as usize / 4
        };
        let (mut kept, mut bytes) = (Vec::new(), 0);
        kept.resize_with(batches.len(), || None);
        let mut sums = vec![None; batches.len()];
        workers::run(
            exec,
            lanes,
            batches.len(),
            || causal.clone(),
            |causal, at, _| Runs::new(causal, &batches[at], self.watches),
            |at, runs| {
                stop(progress)?;
                sums[at] = Some(runs.positive.plus(&runs.negative).sum());
                bytes += runs.positive.bytes() + runs.negative.bytes();
                kept[at] = (bytes <= room).then_some(runs);
                Ok(())
            },
        )?;
        let sum = sums.into_iter().flatten().reduce(|a, b| a.plus(&b));
        let Some(sum) = sum else { return Ok(()) };
        let prompts = 2 * batches.iter().map(Vec::len).sum::<usize>();
        let mean = sum.scaled(1.0 / prompts as f64);
        workers::run(
            exec,
            lanes,
            batches.len(),
            || Differentiable::<B>::new(causal, &self.device),
            |model, at, _| {
                let made;
                let runs = if let Some(runs) = &kept[at] {
                    runs
                } else {
                    made = Runs::new(model.evidence(), &batches[at], self.watches)?;
                    &made
                };
                work(model, &batches[at], runs, &mean)
            },
            |at, made: Vec<T>| {
                stop(progress)?;
                progress.advance(made.len() as u64);
                for (&pair, made) in batches[at].iter().zip(made) {
                    found[pair] = Some(made);
                }
                Ok(())
            },
        )
    }

    /// The gradients of the contrast at a point between the prompts of each of some pairs, at what every node puts out and, with
    /// `edges`, at what every reader reads. `shares`: of the way, for every pair.
    #[expect(clippy::type_complexity, reason = "two kinds of gradients of one pass")]
    pub(crate) fn gradients(
        model: &Differentiable<B>,
        members: &[usize],
        runs: &Runs<B::InnerBackend>,
        shares: &[f64],
        edges: bool,
    ) -> Result<(
        NodeOutputs<B::InnerBackend>,
        Option<ReaderGradients<B::InnerBackend>>,
    )> {
        let causal = model.evidence();
        let batch = causal.batch(members.to_vec(), causal.device());
        let [from, to] = [&runs.negative, &runs.positive]
            .map(|run| run.nodes.places[0].1.clone().squeeze_dim::<3>(2));
        let shares: Vec<f64> = members.iter().map(|&pair| shares[pair]).collect();
        let input = between_each(&from, &to, &shares);
        let replaced = [(Site::ResidPre(0), AnyTensor::from(input))];
        model.everywhere(&batch, &replaced, &runs.contrast, edges)
    }

    /// Where gradients are taken on the way from the negative prompt to the positive one, for each of `count` pairs.
    pub(crate) fn shares(count: usize, seed: Seed) -> Vec<f64> {
        let mut rng = seed.stream("recommended/path").rng();
        (0..count).map(|_| draw::unit(&mut rng)).collect()
    }

    fn effects(
        &self,
        model: &Differentiable<B>,
        members: &[usize],
        runs: &Runs<B::InnerBackend>,
        mean: &Outputs<B::InnerBackend>,
        shares: &[f64],
    ) -> Result<Vec<Effects>> {
        let causal = model.evidence();
        let edges = self.scores_edges();
        let (nodes, readers) = Self::gradients(model, members, runs, shares, edges)?;
        let mut found: Vec<Effects> = runs
            .total
            .iter()
            .map(|&total| Effects {
                total,
                ..Effects::default()
            })
            .collect();
        let writers = causal.graph().writers();
        let both = [
            runs.positive.minus(&runs.negative),
            runs.positive.minus(mean),
        ];
        for (kind, difference) in both.iter().enumerate() {
            let effects = host(nodes.dot(&difference.nodes))?;
            for (found, effects) in found.iter_mut().zip(effects.chunks(writers)) {
                found.nodes[kind] = effects.to_vec();
            }
        }
        let Some(readers) = readers else {
            return Ok(found);
        };
        let written = |prompts: Range<usize>| {
            both.each_ref()
                .map(|difference| difference.prompts(prompts.clone()).in_stream(causal))
        };
        let edges = readers.dots(causal.model(), 0..writers, written)?;
        for (kind, edges) in edges.into_iter().enumerate() {
            for (found, edges) in found.iter_mut().zip(edges) {
                found.edges[kind] = edges;
            }
        }
        Ok(found)
    }
}

fn stop(progress: &dyn Progress) -> Result<()> {
    if progress.cancelled() {
        Err(Error::Cancelled)
    } else {
        Ok(())
    }
}

impl<B: Backend> Runs<B> {
    /// With `watches`, attention and values of short prompts are kept.
    fn new(causal: &CausalEvidence<B>, members: &[usize], watches: bool) -> Result<Self> {
        let batch: PairBatch<B> = causal.batch(members.to_vec(), causal.device());
        let watches = watches && batch.clean.pos().max(batch.corrupt.pos()) <= WATCHED;
        let (nodes, streams, (here, last), attention) = run(causal, &batch.clean, watches)?;
        let positive = Outputs {
            nodes,
            written: streams.map(|streams| streams.writers()),
        };
        let (nodes, streams, (there, _), other) = run(causal, &batch.corrupt, watches)?;
        let negative = Outputs {
            nodes: nodes.map(|x| batch.at_positive(x)),
            written: streams.map(|streams| batch.outputs_at_positive(streams).writers()),
        };
        let contrast = contrast(here.clone(), there.clone());
        let total = (contrast.clone() * (here - there)).sum_dim(1);
        Ok(Self {
            positive,
            negative,
            contrast,
            last,
            attention: attention.zip(other).map(|(here, there)| [here, there]),
            total: host(total)?,
        })
    }
}

/// What all nodes put out, what they add to the stream where a norm follows, and logits in f32 with the stream that
/// they are read from.
#[expect(clippy::type_complexity, reason = "three results of one run")]
fn run<B: Backend>(
    causal: &CausalEvidence<B>,
    batch: &TokenBatch<B>,
    watches: bool,
) -> Result<(
    NodeOutputs<B>,
    Option<StreamOutputs<B>>,
    (Tensor<B, 2>, Tensor<B, 2>),
    Option<Watched<B>>,
)> {
    let (graph, model) = (causal.graph(), causal.model());
    let last = Site::ResidPost(graph.n_layers - 1);
    let mut sites = NodeOutputs::<B>::sites(&graph);
    sites.push(last);
    let whole = WholeWriters::applies(model);
    if !whole {
        sites.extend(StreamOutputs::<B>::sites(&graph));
    }
    let watched = (0..graph.n_layers).filter(|_| watches);
    let watched = watched.flat_map(|layer| [Site::V(layer), Site::Pattern(layer)]);
    let watched: Vec<Site> = watched.collect();
    sites.extend(&watched);
    let mut capture = Capture::new(sites);
    model.forward(batch, &mut capture);
    let watched = watched.into_iter().map(|site| {
        let value = capture.take(site);
        let value = value.ok_or(circuitscope_hooks::Error::NeverFired { site })?;
        Ok::<_, Error>((site, value))
    });
    let watched: Watched<B> = watched.collect::<Result<_>>()?;
    let streams = (!whole).then(|| StreamOutputs::take(&graph, capture.clone()));
    let stream = capture.take(last).and_then(|stream| stream.get::<3>());
    let stream = stream.ok_or(circuitscope_hooks::Error::NeverFired { site: last })?;
    let last = wide(batch.last(stream.clone()));
    let logits = wide(last_logits(model, batch, stream));
    let nodes = NodeOutputs::take(&graph, capture)?;
    let watched = watches.then_some(watched);
    Ok((nodes, streams.transpose()?, (logits, last), watched))
}

/// What all pairs gave, ready to be scored on a resample of them.
struct OfPairs<'a, B: Backend> {
    graph: Graph,
    rows: Vec<(usize, usize)>,
    effects: Vec<Effects>,
    evidence: &'a Evidence<B>,
}

/// Means over pairs of the sizes of effects, differs and used, and of the first with its sign.
struct Means {
    sizes: [Vec<f64>; 2],
    signed: Vec<f64>,
}

impl Means {
    fn of(effects: &[Effects], weights: &[f64], values: fn(&Effects) -> &[Vec<f32>; 2]) -> Self {
        let count = effects.first().map_or(0, |first| values(first)[0].len());
        let mut means = Self {
            sizes: [vec![0.0; count], vec![0.0; count]],
            signed: vec![0.0; count],
        };
        let total: f64 = weights.iter().sum();
        for (effects, weight) in effects.iter().zip(weights) {
            let weight = weight / total;
            let [differs, used] = values(effects);
            for (at, (&differs, &used)) in differs.iter().zip(used).enumerate() {
                means.sizes[0][at] += weight * f64::from(differs.abs());
                means.sizes[1][at] += weight * f64::from(used.abs());
                means.signed[at] += weight * f64::from(differs);
            }
        }
        means
    }

    /// `√(D² + U²)`, with the sign of the mean.
    fn scores(&self) -> Vec<f64> {
        let [differs, used] = &self.sizes;
        let sizes = differs.iter().zip(used).map(|(d, u)| d.hypot(*u));
        let signed = sizes.zip(&self.signed);
        signed
            .map(|(size, sign)| if *sign < 0.0 { -size } else { size })
            .collect()
    }
}

impl<B: Backend> Measured for OfPairs<'_, B> {
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        let weights = weights(self.evidence, &self.rows, rows);
        let graph = self.graph;
        let nodes = Means::of(&self.effects, &weights, |effects| &effects.nodes);
        let edges = Means::of(&self.effects, &weights, |effects| &effects.edges);
        let has_edges = !edges.signed.is_empty();
        let scores = GraphScores {
            graph,
            nodes: Some(nodes.scores()),
            edges: has_edges.then(|| edges.scores()),
        };
        let grid = graph.grid();
        let largest = |sizes: &[f64], source: usize, destination: usize| {
            let writer = graph.head_writer(grid.head(source));
            let ports = Port::ALL.into_iter();
            let readers = ports.map(|port| graph.port_reader(grid.head(destination), port));
            let sizes = readers.map(|reader| sizes[writer * graph.readers() + reader]);
            sizes.fold(0.0, f64::max)
        };
        let mut scores = Scores::of_graph(scores);
        if has_edges {
            let [differs, used] = &edges.sizes;
            scores = scores.with_edges(|source, destination| {
                largest(differs, source, destination).hypot(largest(used, source, destination))
            });
        }
        let pairs = self.effects.iter().zip(&weights);
        let total: f64 = pairs
            .map(|(pair, weight)| weight * f64::from(pair.total))
            .sum();
        let [differs, used] = nodes.sizes.map(|sizes| {
            let heads = grid.heads().map(|head| sizes[graph.head_writer(head)]);
            heads.collect()
        });
        scores.contrast = Some(ContrastScores {
            total: total / weights.iter().sum::<f64>(),
            differs,
            used,
        });
        Ok(scores)
    }
}

impl<B: AutodiffBackend> Discover<B::InnerBackend> for Contrast<B> {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B::InnerBackend>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let causal = evidence.causal_for(&ABOUT)?;
        let count = self.settings.pairs(causal.pairs().len(), false);
        let shares = Self::shares(count, seed);
        let held = match (self.scores_edges(), WholeWriters::applies(causal.model())) {
            (_, false) => Held::Streams,
            (true, true) => Held::Readers,
            (false, true) => Held::Nodes,
        };
        let work: &Work<'_, B, Effects> =
            &|model, members, runs, mean| self.effects(model, members, runs, mean, &shares);
        let effects = self.each_pair(causal, (NAME, count, held), progress, work)?;
        let rows = causal.pairs()[..count].iter().map(|pair| pair.rows);
        Ok(Box::new(OfPairs {
            graph: causal.graph(),
            rows: rows.collect(),
            effects,
            evidence,
        }))
    }
}
