use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Element, Tensor, TensorData};
use circuitscope_core::{Graph, Port};
use circuitscope_hooks::{
    AnyTensor, Capture, Gradients, Intervene, Intervention, NodeOutputs, Op, Site, StreamOutputs,
    wide,
};
use circuitscope_model::Decoder;

use super::{CausalEvidence, PairBatch, Rules, last_logits_tapped};
use crate::{Error, Result};

/// A model that can be differentiated, and how a batch of prompts is run through it.
///
/// Block by block: a forward pass without gradients keeps the stream before each block; then, from the logits
/// down, each block is run once more from its stream, and what comes down from the block above is carried
/// through it (gradient checkpointing, Chen et al. 2016, arXiv 1604.06174, with one segment a block). The
/// gradients are those of one backward pass; of what lies between, one block's is there at a time, so that many
/// more prompts fit a batch, which is what products are fast on.
#[derive(Debug)]
pub(crate) struct Differentiable<B: AutodiffBackend> {
    evidence: CausalEvidence<B::InnerBackend>,
    model: Decoder<B>,
    device: B::Device,
    rules: Rules,
}

impl<B: AutodiffBackend> Differentiable<B> {
    /// The model of `evidence`, without gradients of its weights, on `device`.
    pub(crate) fn new(evidence: &CausalEvidence<B::InnerBackend>, device: &B::Device) -> Self {
        Self {
            evidence: evidence.clone(),
            model: Decoder::<B>::from_inner(evidence.model().clone()).no_grad(),
            device: device.clone(),
            rules: Rules::NONE,
        }
    }

    /// The same with other rules for the backward pass.
    pub(crate) const fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// What it was made of.
    pub(crate) const fn evidence(&self) -> &CausalEvidence<B::InnerBackend> {
        &self.evidence
    }

    /// Runs the positive prompts with some activations replaced, and differentiates `goal`, summed over
    /// prompts, with respect to activations of the blocks: the gradients at `sites`, and what was at
    /// `watched`.
    fn run(
        &self,
        batch: &PairBatch<B::InnerBackend>,
        replaced: &[(Site, AnyTensor<B::InnerBackend>)],
        sites: &[Site],
        watched: &[Site],
        goal: &Goal<'_, B::InnerBackend>,
    ) -> Result<[Found<B::InnerBackend>; 2]> {
        let n_layers = self.evidence.graph().n_layers;
        let last = Site::ResidPost(n_layers - 1);
        let of_layer = |layer: usize| Site::ResidPre(layer)..=Site::ResidPost(layer);
        let first =
            (0..n_layers).find(|&layer| sites.iter().any(|at| of_layer(layer).contains(at)));
        let first = first.unwrap_or(n_layers);

        let streams = (first..n_layers).map(Site::ResidPre).chain([last]);
        let changes = replaced.iter();
        let changes =
            changes.map(|(site, value)| Intervention::new(*site, Op::Replace(value.clone())));
        let mut run = (
            Intervene::new(changes),
            Capture::new(streams.chain(watched.iter().copied())),
        );
        self.evidence.model().forward(&batch.clean, &mut run);
        let seen = run.1.finish()?;
        let stream = |site: Site| {
            let stream = seen.get(&site).and_then(AnyTensor::get::<3>);
            stream.ok_or(circuitscope_hooks::Error::NeverFired { site })
        };

        let tracked = self
            .evidence
            .batch::<B>(batch.members.clone(), &self.device);
        let leaf = tracked_leaf::<B>(stream(last)?);
        let mut rewrites = self.rules.tap::<B>(self.model.config());
        let logits = last_logits_tapped(&self.model, &tracked.clean, leaf.clone(), &mut rewrites);
        let total = match goal {
            Goal::Metric(clean) => {
                let clean = clean.map(|logits| Tensor::from_inner(logits.clone()));
                let metric = self.evidence.metric();
                tracked.targets.values(metric, logits, clean.as_ref()).sum()
            }
            Goal::Logits(weights) => {
                (wide(logits) * Tensor::from_inner(Tensor::clone(weights))).sum()
            }
        };
        let mut from_above = leaf.grad_remove(&mut total.backward());
        let mut found = BTreeMap::new();
        for layer in (first..n_layers).rev() {
            // Nothing below has a part in what was replaced further up.
            let Some(above) = from_above.take() else {
                break;
            };
            let wanted = sites.iter().copied();
            let wanted = wanted.filter(|site| of_layer(layer).contains(site));
            let (cut, wanted): (Vec<Site>, Vec<Site>) =
                wanted.partition(|site| self.rules.cuts(*site));
            found.extend(
                cut.into_iter()
                    .map(|site| (site, self.nothing(&tracked, site))),
            );
            let changes = replaced.iter();
            let changes = changes.filter(|(site, _)| of_layer(layer).contains(site));
            let changes = changes.map(|(site, value)| {
                let value = match value {
                    AnyTensor::D2(x) => AnyTensor::D2(Tensor::from_inner(x.clone())),
                    AnyTensor::D3(x) => AnyTensor::D3(Tensor::from_inner(x.clone())),
                    AnyTensor::D4(x) => AnyTensor::D4(Tensor::from_inner(x.clone())),
                };
                Intervention::new(*site, Op::Replace(value))
            });
            let post = Site::ResidPost(layer);
            let mut run = (
                Intervene::new(changes),
                Gradients::<B>::new(wanted),
                self.rules.tap::<B>(self.model.config()),
                Capture::new([post]),
            );
            let leaf = tracked_leaf::<B>(stream(Site::ResidPre(layer))?);
            self.model
                .forward_from(&tracked.clean, layer, leaf.clone(), &mut run);
            let (_, gradients, _, mut capture) = run;
            let out = capture.take(post).and_then(|out| out.get::<3>());
            let out = out.ok_or(circuitscope_hooks::Error::NeverFired { site: post })?;
            let mut backward = (wide(out) * Tensor::from_inner(above)).sum().backward();
            found.extend(gradients.finish(&mut backward)?);
            from_above = leaf.grad_remove(&mut backward);
        }
        if let Some(&site) = sites.iter().find(|site| !found.contains_key(site)) {
            return Err(circuitscope_hooks::Error::NeverFired { site }.into());
        }
        Ok([found, seen])
    }

    /// The gradient at a query or key that nothing depends on.
    fn nothing(&self, batch: &PairBatch<B>, site: Site) -> AnyTensor<B::InnerBackend> {
        let config = self.model.config();
        let heads = match site {
            Site::K(_) => config.n_key_value_heads,
            _ => config.n_heads,
        };
        let shape = [batch.clean.batch(), batch.clean.pos(), heads, config.d_head];
        Tensor::<_, 4>::zeros(shape, self.evidence.device()).into()
    }

    /// Gradients at what the readers from index `first` on read; those before are 0.
    pub(crate) fn readers(
        &self,
        batch: &PairBatch<B::InnerBackend>,
        replaced: &[(Site, AnyTensor<B::InnerBackend>)],
        first: usize,
        clean: Option<&Tensor<B::InnerBackend, 2>>,
    ) -> Result<ReaderGradients<B::InnerBackend>> {
        let graph = self.evidence.graph();
        let all = places(&graph).into_iter();
        let places: Vec<Place> = all.filter(|place| place.readers.start >= first).collect();
        let sites: Vec<Site> = places.iter().map(|place| place.site).collect();
        let goal = Goal::Metric(clean);
        let [gradients, streams] = self.run(batch, replaced, &sites, &streams(&places), &goal)?;
        self.at_readers(graph, places, &gradients, &streams)
    }

    /// What every node puts out, and the gradients at what every reader reads.
    #[expect(clippy::type_complexity, reason = "two results of one pass")]
    pub(crate) fn outputs_and_readers(
        &self,
        batch: &PairBatch<B::InnerBackend>,
        clean: Option<&Tensor<B::InnerBackend, 2>>,
    ) -> Result<(
        NodeOutputs<B::InnerBackend>,
        ReaderGradients<B::InnerBackend>,
    )> {
        let graph = self.evidence.graph();
        let places = places(&graph);
        let sites: Vec<Site> = places.iter().map(|place| place.site).collect();
        let mut watched = NodeOutputs::<B::InnerBackend>::sites(&graph);
        watched.extend(streams(&places));
        let [gradients, mut seen] = self.run(batch, &[], &sites, &watched, &Goal::Metric(clean))?;
        let readers = self.at_readers(graph, places, &gradients, &seen)?;
        Ok((NodeOutputs::of(&graph, |site| seen.remove(&site))?, readers))
    }

    /// What every writer adds to the stream with some activations replaced, and the gradients at what every reader reads.
    #[expect(clippy::type_complexity, reason = "two results of one pass")]
    pub(crate) fn streams_and_readers(
        &self,
        batch: &PairBatch<B::InnerBackend>,
        replaced: &[(Site, AnyTensor<B::InnerBackend>)],
        clean: Option<&Tensor<B::InnerBackend, 2>>,
    ) -> Result<(
        StreamOutputs<B::InnerBackend>,
        ReaderGradients<B::InnerBackend>,
    )> {
        let graph = self.evidence.graph();
        let places = places(&graph);
        let sites: Vec<Site> = places.iter().map(|place| place.site).collect();
        let watched = StreamOutputs::<B::InnerBackend>::sites(&graph);
        let [gradients, mut seen] =
            self.run(batch, replaced, &sites, &watched, &Goal::Metric(clean))?;
        let readers = self.at_readers(graph, places, &gradients, &seen)?;
        Ok((
            StreamOutputs::of(&graph, |site| seen.remove(&site))?,
            readers,
        ))
    }

    /// Gradients at what every node puts out and, with `edges`, at what every reader reads, of the logits
    /// at the last position, `[prompts, vocabulary]`, added up with `weights`.
    #[expect(clippy::type_complexity, reason = "two kinds of gradients of one pass")]
    pub(crate) fn everywhere(
        &self,
        batch: &PairBatch<B::InnerBackend>,
        replaced: &[(Site, AnyTensor<B::InnerBackend>)],
        weights: &Tensor<B::InnerBackend, 2>,
        edges: bool,
    ) -> Result<(
        NodeOutputs<B::InnerBackend>,
        Option<ReaderGradients<B::InnerBackend>>,
    )> {
        let graph = self.evidence.graph();
        let places = if edges { places(&graph) } else { Vec::new() };
        let mut sites = NodeOutputs::<B::InnerBackend>::sites(&graph);
        sites.extend(places.iter().map(|place| place.site));
        let goal = Goal::Logits(weights);
        let [mut gradients, streams] =
            self.run(batch, replaced, &sites, &streams(&places), &goal)?;
        let readers = edges.then(|| self.at_readers(graph, places, &gradients, &streams));
        let nodes = NodeOutputs::of(&graph, |site| gradients.remove(&site))?;
        Ok((nodes, readers.transpose()?))
    }

    fn at_readers(
        &self,
        graph: Graph,
        places: Vec<Place>,
        gradients: &Found<B::InnerBackend>,
        streams: &Found<B::InnerBackend>,
    ) -> Result<ReaderGradients<B::InnerBackend>> {
        let missing = |site| circuitscope_hooks::Error::NeverFired { site };
        let stream = |site: Site, values: &Found<B::InnerBackend>| {
            let value = values.get(&site).and_then(AnyTensor::get::<3>);
            value.ok_or_else(|| missing(site))
        };
        let mut readers = Vec::new();
        for Place {
            readers: at,
            site,
            port,
        } in places
        {
            let gradient = match port {
                Some((layer, port)) => {
                    let read = stream(Site::ResidPre(layer), streams)?;
                    let gradient = gradients.get(&site).and_then(AnyTensor::get::<4>);
                    let gradient = gradient.ok_or_else(|| missing(site))?;
                    Gradient::Port(layer, port, read, gradient)
                }
                None => Gradient::Stream(stream(site, gradients)?),
            };
            readers.push((at, gradient));
        }
        Ok(ReaderGradients {
            graph,
            readers,
            scales_held: self.rules.norm,
        })
    }

    /// What every node puts out, and the gradients there, with everything downstream following.
    pub(crate) fn nodes(
        &self,
        batch: &PairBatch<B::InnerBackend>,
        replaced: &[(Site, AnyTensor<B::InnerBackend>)],
        clean: Option<&Tensor<B::InnerBackend, 2>>,
    ) -> Result<[NodeOutputs<B::InnerBackend>; 2]> {
        let graph = self.evidence.graph();
        let sites = NodeOutputs::<B::InnerBackend>::sites(&graph);
        let found = self.run(batch, replaced, &sites, &sites, &Goal::Metric(clean))?;
        let [gradients, outputs] =
            found.map(|mut found| NodeOutputs::of(&graph, |site| found.remove(&site)));
        Ok([outputs?, gradients?])
    }
}

/// A stream that gradients are taken with respect to, in f32 at least.
fn tracked_leaf<B: AutodiffBackend>(stream: Tensor<B::InnerBackend, 3>) -> Tensor<B, 3> {
    Tensor::from_inner(wide(stream)).require_grad()
}

/// What is differentiated.
enum Goal<'a, B: Backend> {
    /// The metric of the evidence; with the logits of the unchanged model, which
    /// [`super::Metric::Kl`] compares with.
    Metric(Option<&'a Tensor<B, 2>>),
    /// Logits, each with its weight.
    Logits(&'a Tensor<B, 2>),
}

type Found<B> = BTreeMap<Site, AnyTensor<B>>;

/// Readers whose gradients come from one site.
struct Place {
    readers: Range<usize>,
    site: Site,
    /// The port, where the gradient has to be carried back to the stream.
    port: Option<(usize, Port)>,
}

/// The streams that gradients at ports are carried back to.
fn streams(places: &[Place]) -> Vec<Site> {
    let layers = places.iter().filter_map(|place| place.port);
    let streams: BTreeSet<Site> = layers.map(|(layer, _)| Site::ResidPre(layer)).collect();
    streams.into_iter().collect()
}

/// All readers, in order.
fn places(graph: &Graph) -> Vec<Place> {
    let mut places = Vec::new();
    for layer in 0..graph.n_layers {
        let sites = [Site::Q(layer), Site::K(layer), Site::V(layer)];
        for (port, site) in Port::ALL.into_iter().zip(sites) {
            places.push(Place {
                readers: graph.port_readers(layer, port),
                site,
                port: Some((layer, port)),
            });
        }
        if graph.mlps {
            let reader = graph.mlp_reader(layer);
            places.push(Place {
                readers: reader..reader + 1,
                site: Site::MlpIn(layer),
                port: None,
            });
        }
    }
    places.push(Place {
        readers: graph.logits()..graph.readers(),
        site: Site::ResidPost(graph.n_layers - 1),
        port: None,
    });
    places
}

/// Gradients of the metric with respect to what every reader of the graph reads.
#[derive(Debug, Clone)]
pub(crate) struct ReaderGradients<B: Backend> {
    graph: Graph,
    /// Whether norms scale by constants on the way from ports to streams, too.
    scales_held: bool,
    readers: Vec<(Range<usize>, Gradient<B>)>,
}

/// Gradients of some readers.
#[derive(Debug, Clone)]
enum Gradient<B: Backend> {
    /// At the stream that they read, `[prompts, pos, d_model]`.
    Stream(Tensor<B, 3>),
    /// At a port of a layer, `[prompts, pos, heads, d_head]`, to be carried back to the stream that it
    /// reads, `[prompts, pos, d_model]`.
    Port(usize, Port, Tensor<B, 3>, Tensor<B, 4>),
}

impl<B: Backend> ReaderGradients<B> {
    /// Those of some readers, and of others that share a projection with them.
    pub(crate) fn only(mut self, readers: &[usize]) -> Self {
        self.readers
            .retain(|(of, _)| readers.iter().any(|reader| of.contains(reader)));
        self
    }

    /// For each prompt and edge, the inner product of a writer's vectors and a reader's gradients, for
    /// the writers `members`.
    ///
    /// `writers` gives the vectors of some prompts, `[prompts, writers, pos * d_model]`, zero at padding;
    /// several sets of them share what the gradients take.
    ///
    /// # Shapes
    /// For each set and prompt `[writers * readers]`; 0 for other writers and where the reader does not see
    /// the writer.
    ///
    /// # Errors
    /// [`Error::Device`] if the result cannot be read back.
    pub(crate) fn dots<const N: usize>(
        &self,
        model: &Decoder<B>,
        members: Range<usize>,
        writers: impl Fn(Range<usize>) -> [Tensor<B, 3>; N],
    ) -> Result<[Vec<Vec<f32>>; N]> {
        let mut edges = [const { Vec::new() }; N];
        let [prompts, pos, d_model] = self.dims();
        let of_prompt = N * self.graph.writers() * pos * d_model * 4;
        let together = (AT_A_TIME / of_prompt.max(1)).max(1);
        for start in (0..prompts).step_by(together) {
            let some = start..(start + together).min(prompts);
            let found = self.dots_of(model, members.clone(), some.clone(), &writers(some))?;
            for (edges, found) in edges.iter_mut().zip(found) {
                edges.extend(found);
            }
        }
        Ok(edges)
    }

    /// Prompts, positions and width of the stream.
    fn dims(&self) -> [usize; 3] {
        let (_, gradient) = &self.readers[0];
        match gradient {
            Gradient::Stream(x) | Gradient::Port(_, _, x, _) => x.dims(),
        }
    }

    /// The same of some prompts.
    fn dots_of<const N: usize>(
        &self,
        model: &Decoder<B>,
        members: Range<usize>,
        prompts: Range<usize>,
        writers: &[Tensor<B, 3>; N],
    ) -> Result<[Vec<Vec<f32>>; N]> {
        let (n_writers, n_readers) = (self.graph.writers(), self.graph.readers());
        let count = prompts.len();
        let mut edges = [(); N].map(|()| vec![vec![0.0; n_writers * n_readers]; count]);
        let mut rest = self.readers.as_slice();
        while !rest.is_empty() {
            // Few readers at a time would read all writers' vectors over and over.
            let mut columns = 0;
            let enough = rest.iter().position(|(at, _)| {
                columns += at.len();
                columns >= COLUMNS
            });
            let (some, others) = rest.split_at(enough.map_or(rest.len(), |last| last + 1));
            rest = others;
            let visible = |at: &Range<usize>| {
                members.start
                    ..members
                        .end
                        .min(self.graph.visible(at.start))
                        .max(members.start)
            };
            let most = some.iter().map(|(at, _)| visible(at).end).max();
            let seen = members.start..most.unwrap_or(members.start);
            if seen.is_empty() {
                continue;
            }
            // [prompts, readers, pos * d_model]
            let gradients = some.iter().map(|(_, gradient)| {
                let gradient = match gradient {
                    Gradient::Stream(gradient) => gradient
                        .clone()
                        .slice_dim(0, prompts.clone())
                        .unsqueeze_dim(1),
                    Gradient::Port(layer, port, stream, gradient) => {
                        let stream = stream.clone().slice_dim(0, prompts.clone());
                        let gradient = gradient.clone().slice_dim(0, prompts.clone());
                        if self.scales_held {
                            model.port_gradient_of_constant_scale(*layer, *port, stream, gradient)
                        } else {
                            model.port_gradient(*layer, *port, stream, gradient)
                        }
                    }
                };
                let [_, readers, pos, d_model] = gradient.dims();
                gradient.reshape([count, readers, pos * d_model])
            });
            let gradients = Tensor::cat(gradients.collect(), 1).swap_dims(1, 2);
            let columns = gradients.dims()[2];
            for (writers, edges) in writers.iter().zip(&mut edges) {
                let writers = writers.clone().slice_dim(1, seen.clone());
                let products = host(writers.matmul(gradients.clone()))?;
                for (prompt, edges) in edges.iter_mut().enumerate() {
                    let mut first = 0;
                    for (at, _) in some {
                        for writer in visible(at) {
                            let row = prompt * seen.len() + writer - seen.start;
                            let from = row * columns + first;
                            let to = writer * n_readers + at.start;
                            edges[to..to + at.len()]
                                .copy_from_slice(&products[from..from + at.len()]);
                        }
                        first += at.len();
                    }
                }
            }
        }
        Ok(edges)
    }
}

/// Bytes of writers' vectors that products are taken of at a time, but for one prompt's.
const AT_A_TIME: usize = 28 << 20;
/// Readers whose products are taken at a time, at least.
const COLUMNS: usize = 96;

/// The values of a tensor, row-major.
///
/// # Errors
/// [`Error::NotFinite`], which [`CausalEvidence::located`] turns into the site where it began.
pub(crate) fn host<B: Backend, const D: usize>(x: Tensor<B, D>) -> Result<Vec<f32>> {
    let values: Vec<f32> = values(x.into_data())?;
    if values.iter().all(|x| x.is_finite()) {
        Ok(values)
    } else {
        Err(Error::NotFinite { precision: None })
    }
}

/// Data of a device as values of one type.
pub(crate) fn values<E: Element>(data: TensorData) -> Result<Vec<E>> {
    data.convert::<E>().to_vec().map_err(|error| Error::Device {
        reason: format!("{error:?}"),
    })
}
