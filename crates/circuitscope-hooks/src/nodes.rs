use core::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::Graph;

use crate::{AnyTensor, Capture, Error, Result, Site, wide};

/// What every node of a [`Graph`] puts out in one run, heads before `W_O`.
///
/// To put another run's value of a node in its place and compute on is activation patching, exact in
/// every model. [`StreamOutputs`](crate::StreamOutputs) holds what the nodes add to the residual stream
/// instead, where a norm of an attention layer's output has mixed its heads. Half precision is widened.
#[derive(Debug, Clone)]
pub struct NodeOutputs<B: Backend> {
    /// In the order of [`Graph::writer`]: a site, and of the nodes that put out there `[batch, pos,
    /// nodes, d]`, with `d` the width of a head for heads and of the stream for input and MLPs.
    pub places: Vec<(Site, Tensor<B, 4>)>,
}

impl<B: Backend> NodeOutputs<B> {
    /// The sites to capture: the stream before the first block, every `hook_z` and `hook_mlp_out`.
    #[must_use]
    pub fn sites(graph: &Graph) -> Vec<Site> {
        let mut sites = vec![Site::ResidPre(0)];
        for layer in 0..graph.n_layers {
            sites.push(Site::Z(layer));
            if graph.mlps {
                sites.push(Site::MlpOut(layer));
            }
        }
        sites
    }

    /// Takes them out of a capture.
    ///
    /// # Errors
    /// [`Error::NeverFired`] if one of the sites is missing.
    pub fn take(graph: &Graph, mut capture: Capture<B>) -> Result<Self> {
        Self::of(graph, |site| capture.take(site))
    }

    /// Of a value for each site: activations, or gradients. Half precision is widened.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn of(graph: &Graph, mut value: impl FnMut(Site) -> Option<AnyTensor<B>>) -> Result<Self> {
        let places = Self::sites(graph).into_iter().map(|site| {
            let found = match value(site) {
                Some(AnyTensor::D3(x)) => Some(wide(x).unsqueeze_dim(2)),
                Some(AnyTensor::D4(x)) => Some(wide(x)),
                _ => None,
            };
            Ok((site, found.ok_or(Error::NeverFired { site })?))
        });
        Ok(Self {
            places: places.collect::<Result<_>>()?,
        })
    }

    /// The same with every value changed.
    #[must_use]
    pub fn map(&self, mut change: impl FnMut(Tensor<B, 4>) -> Tensor<B, 4>) -> Self {
        let places = self.places.iter();
        Self {
            places: places.map(|(site, x)| (*site, change(x.clone()))).collect(),
        }
    }

    /// This run and another one, added.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, |a, b| a + b)
    }

    /// This run less another one.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.with(other, |a, b| a - b)
    }

    fn with(
        &self,
        other: &Self,
        join: impl Fn(Tensor<B, 4>, Tensor<B, 4>) -> Tensor<B, 4>,
    ) -> Self {
        let pairs = self.places.iter().zip(&other.places);
        let places = pairs.map(|((site, a), (_, b))| (*site, join(a.clone(), b.clone())));
        Self {
            places: places.collect(),
        }
    }

    /// Those of some prompts.
    #[must_use]
    pub fn prompts(&self, prompts: Range<usize>) -> Self {
        self.map(|x| x.slice_dim(0, prompts.clone()))
    }

    /// The values at one site.
    #[must_use]
    pub fn at(&self, site: Site) -> Option<&Tensor<B, 4>> {
        let place = self.places.iter().find(|(of, _)| *of == site);
        place.map(|(_, x)| x)
    }

    /// For each prompt and node the inner product with another one's values: `[batch, writers]`.
    #[must_use]
    pub fn dot(&self, other: &Self) -> Tensor<B, 2> {
        let pairs = self.places.iter().zip(&other.places);
        let products = pairs.map(|((_, a), (_, b))| {
            let [batch, _, nodes, _] = a.dims();
            let product = (a.clone() * b.clone()).sum_dim(3).sum_dim(1);
            product.reshape([batch, nodes])
        });
        Tensor::cat(products.collect(), 1)
    }
}
