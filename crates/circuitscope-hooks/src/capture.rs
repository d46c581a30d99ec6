use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::{AnyTensor, Error, Positions, Result, Site, Tap};

/// What to keep of the position axis. Padding never counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reduce {
    /// Every position; padded positions hold values without meaning.
    #[default]
    None,
    /// The mean over real positions. The axis goes away.
    Mean,
    /// The last real position. The axis goes away.
    Last,
}

/// Keeps the activations of a list of sites.
///
/// For sites with two position axes (`hook_attn_scores`, `hook_pattern`), [`Reduce`] applies to the
/// query axis.
#[derive(Debug, Clone)]
pub struct Capture<B: Backend> {
    sites: BTreeMap<Site, Option<AnyTensor<B>>>,
    reduce: Reduce,
    positions: Option<Positions<B>>,
}

impl<B: Backend> Capture<B> {
    /// Captures `sites` whole.
    #[must_use]
    pub fn new(sites: impl IntoIterator<Item = Site>) -> Self {
        let sites = sites.into_iter().map(|site| (site, None)).collect();
        Self {
            sites,
            reduce: Reduce::None,
            positions: None,
        }
    }

    /// Reduces each of them over positions as it is captured.
    #[must_use]
    pub fn with_reduce(mut self, reduce: Reduce) -> Self {
        self.reduce = reduce;
        self
    }

    /// What was captured at `site`, once.
    pub fn take(&mut self, site: Site) -> Option<AnyTensor<B>> {
        self.sites.get_mut(&site).and_then(Option::take)
    }

    /// Everything that was captured.
    ///
    /// # Errors
    /// [`Error::NeverFired`] for the first site that no pass reached.
    pub fn finish(self) -> Result<BTreeMap<Site, AnyTensor<B>>> {
        self.sites
            .into_iter()
            .map(|(site, value)| {
                value
                    .map(|value| (site, value))
                    .ok_or(Error::NeverFired { site })
            })
            .collect()
    }

    fn reduced<const D: usize>(&self, site: Site, x: Tensor<B, D>) -> AnyTensor<B> {
        let Some(positions) = self
            .positions
            .as_ref()
            .filter(|_| self.reduce != Reduce::None)
        else {
            return AnyTensor::new(x);
        };
        // Patterns and scores run [batch, head, q_pos, k_pos]; everything else [batch, pos, …].
        let axis = if site.head_axis() == Some(1) { 2 } else { 1 };
        let dims = x.dims();
        if self.reduce == Reduce::Last {
            return drop_axis(select_last(x, axis, &positions.last), axis);
        }
        let counts = positions.mask.clone().sum_dim(1);
        let weights = positions.mask.clone().div(counts);
        // A mean is taken in the precision of the weights even where the model computes in less.
        let x = x.cast(weights.dtype());
        let mut shape = [1; D];
        shape[0] = dims[0];
        shape[axis] = dims[axis];
        let weights: Tensor<B, D> = weights.reshape(shape);
        // Padded query rows may hold NaN (a row of −∞ scores): take them out before weighting.
        let real = weights.clone().greater_elem(0.0).expand(dims);
        let zeros = x.zeros_like();
        let x = zeros.mask_where(real, x);
        drop_axis((x * weights).sum_dim(axis), axis)
    }
}

/// `x[b, …, last[b], …]` along `axis`, which keeps size 1.
fn select_last<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    axis: usize,
    last: &[usize],
) -> Tensor<B, D> {
    let mut dims = x.dims();
    let index: Vec<i64> = last.iter().map(|&at| at as i64).collect();
    let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index, [last.len()]), &x.device());
    let mut shape = [1; D];
    shape[0] = dims[0];
    dims[axis] = 1;
    x.gather(axis, index.reshape(shape).expand(dims))
}

fn drop_axis<B: Backend, const D: usize>(x: Tensor<B, D>, axis: usize) -> AnyTensor<B> {
    match AnyTensor::new(x) {
        AnyTensor::D4(x) => AnyTensor::D3(x.squeeze_dim(axis)),
        AnyTensor::D3(x) => AnyTensor::D2(x.squeeze_dim(axis)),
        other @ AnyTensor::D2(_) => other,
    }
}

impl<B: Backend> Tap<B> for Capture<B> {
    fn begin(&mut self, positions: &Positions<B>) {
        self.positions = Some(positions.clone());
    }

    fn wants(&self, site: Site) -> bool {
        self.sites.contains_key(&site)
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        let value = self.reduced(site, x.clone());
        self.sites.insert(site, Some(value));
        x
    }
}
