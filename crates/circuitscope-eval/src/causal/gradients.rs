use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};

use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Element, Tensor, TensorData};
use circuitscope_core::{Graph, Port};
use circuitscope_hooks::{
    AnyTensor, Capture, Gradients, Intervene, Intervention, NodeOutputs, Op, Site,
};
use circuitscope_model::Decoder;

use super::{CausalEvidence, PairBatch, last_logits};
use crate::{Error, Result};

/// A model that can be differentiated, and how a batch of prompts is run through it.
#[derive(Debug)]
pub(crate) struct Differentiable<B: AutodiffBackend> {
    evidence: CausalEvidence<B::InnerBackend>,
    model: Decoder<B>,
}

impl<B: AutodiffBackend> Differentiable<B> {
    /// The model of `evidence`, without gradients of its weights.
    pub(crate) fn new(evidence: &CausalEvidence<B::InnerBackend>) -> Self {
        Self {
            evidence: evidence.clone(),
            model: Decoder::<B>::from_inner(evidence.model().clone()).no_grad(),
        }
    }

    /// What it was made of.
    pub(crate) const fn evidence(&self) -> &CausalEvidence<B::InnerBackend> {
        &self.evidence
    }

    /// The model.
    pub(crate) const fn model(&self) -> &Decoder<B> {
        &self.model
    }

    /// Runs the positive prompts with some activations replaced, and differentiates the metric, summed
    /// over prompts, with respect to activations. `clean` holds the logits of the unchanged model,
    /// which [`super::Metric::Kl`] compares with.
    fn run(
        &self,
        batch: &PairBatch<B>,
        replaced: &[(Site, AnyTensor<B::InnerBackend>)],
        sites: Vec<Site>,
        watched: Vec<Site>,
        clean: Option<&Tensor<B::InnerBackend, 2>>,
    ) -> Result<[Found<B::InnerBackend>; 2]> {
        let last = Site::ResidPost(self.evidence.graph().n_layers - 1);
        let changes = replaced.iter().map(|(site, value)| {
            let value = match value {
                AnyTensor::D2(x) => AnyTensor::D2(Tensor::from_inner(x.clone())),
                AnyTensor::D3(x) => AnyTensor::D3(Tensor::from_inner(x.clone())),
                AnyTensor::D4(x) => AnyTensor::D4(Tensor::from_inner(x.clone())),
            };
            Intervention::new(*site, Op::Replace(value))
        });
        let mut run = (
            Intervene::new(changes),
            Gradients::<B>::new(sites),
            Capture::new(watched.iter().copied().chain([last])),
        );
        self.model.forward(&batch.clean, &mut run);
        let (_, gradients, mut capture) = run;
        let stream = capture.take(last).and_then(|stream| stream.get::<3>());
        let stream = stream.ok_or(circuitscope_hooks::Error::NeverFired { site: last })?;
        let watched = watched.into_iter().filter_map(|site| {
            let value = match capture.take(site)? {
                AnyTensor::D2(x) => AnyTensor::D2(x.inner()),
                AnyTensor::D3(x) => AnyTensor::D3(x.inner()),
                AnyTensor::D4(x) => AnyTensor::D4(x.inner()),
            };
            Some((site, value))
        });
        let watched = watched.collect();
        let logits = last_logits(&self.model, &batch.clean, stream);
        let clean = clean.map(|logits| Tensor::from_inner(logits.clone()));
        let metric = self.evidence.metric();
        let values = metric.values(logits, &batch.targets, clean.as_ref());
        let mut backward = values.sum().backward();
        Ok([gradients.finish(&mut backward)?, watched])
    }

    /// Gradients at what the readers from index `first` on read; those before are 0.
    pub(crate) fn readers(
        &self,
        batch: &PairBatch<B>,
        replaced: &[(Site, AnyTensor<B::InnerBackend>)],
        first: usize,
        clean: Option<&Tensor<B::InnerBackend, 2>>,
    ) -> Result<ReaderGradients<B::InnerBackend>> {
        let graph = self.evidence.graph();
        let all = places(&graph).into_iter();
        let places: Vec<Place> = all.filter(|place| place.readers.start >= first).collect();
        let layers = places.iter().filter_map(|place| place.port);
        let streams: BTreeSet<Site> = layers.map(|(layer, _)| Site::ResidPre(layer)).collect();
        let sites = places.iter().map(|place| place.site).collect();
        let streams = streams.into_iter().collect();
        let [gradients, streams] = self.run(batch, replaced, sites, streams, clean)?;
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
                    let read = stream(Site::ResidPre(layer), &streams)?;
                    let gradient = gradients.get(&site).and_then(AnyTensor::get::<4>);
                    let gradient = gradient.ok_or_else(|| missing(site))?;
                    Gradient::Port(layer, port, read, gradient)
                }
                None => Gradient::Stream(stream(site, &gradients)?),
            };
            readers.push((at, gradient));
        }
        Ok(ReaderGradients { graph, readers })
    }

    /// What every node puts out, and the gradients there, with everything downstream following.
    pub(crate) fn nodes(
        &self,
        batch: &PairBatch<B>,
        replaced: &[(Site, AnyTensor<B::InnerBackend>)],
        clean: Option<&Tensor<B::InnerBackend, 2>>,
    ) -> Result<[NodeOutputs<B::InnerBackend>; 2]> {
        let graph = self.evidence.graph();
        let sites = NodeOutputs::<B>::sites(&graph);
        let found = self.run(batch, replaced, sites.clone(), sites, clean)?;
        let [gradients, outputs] =
            found.map(|mut found| NodeOutputs::of(&graph, |site| found.remove(&site)));
        Ok([outputs?, gradients?])
    }
}

type Found<B> = BTreeMap<Site, AnyTensor<B>>;

/// Readers whose gradients come from one site.
struct Place {
    readers: Range<usize>,
    site: Site,
    /// The port, where the gradient has to be carried back to the stream.
    port: Option<(usize, Port)>,
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
    /// For each prompt and edge, the inner product of a writer's vectors and a reader's gradients, for
    /// the writers `members`.
    ///
    /// # Shapes
    /// - `writers`: `[prompts, writers, pos * d_model]`, zero at padding
    /// - result: for each prompt `[writers * readers]`; 0 for other writers and where the reader does
    ///   not see the writer
    ///
    /// # Errors
    /// [`Error::Device`] if the result cannot be read back.
    pub(crate) fn dot(
        &self,
        model: &Decoder<B>,
        writers: &Tensor<B, 3>,
        members: Range<usize>,
    ) -> Result<Vec<Vec<f32>>> {
        let [prompts, n_writers, _] = writers.dims();
        let n_readers = self.graph.readers();
        let mut edges = vec![vec![0.0; n_writers * n_readers]; prompts];
        for (at, gradient) in &self.readers {
            let seen = members.start..members.end.min(self.graph.visible(at.start));
            if seen.is_empty() {
                continue;
            }
            let gradient = match gradient.clone() {
                Gradient::Stream(gradient) => gradient.unsqueeze_dim(2),
                Gradient::Port(layer, port, stream, gradient) => {
                    model.port_gradient(layer, port, stream, gradient)
                }
            };
            let [_, pos, count, d_model] = gradient.dims();
            let gradient = gradient
                .permute([0, 1, 3, 2])
                .reshape([prompts, pos * d_model, count]);
            let products = writers.clone().slice_dim(1, seen.clone()).matmul(gradient);
            let products = host(products)?;
            for (prompt, edges) in edges.iter_mut().enumerate() {
                for (within, writer) in seen.clone().enumerate() {
                    let from = (prompt * seen.len() + within) * count;
                    let to = writer * n_readers + at.start;
                    edges[to..to + count].copy_from_slice(&products[from..from + count]);
                }
            }
        }
        Ok(edges)
    }
}

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
