//! Points on the way from ablated activations to clean ones.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use circuitscope_hooks::{AnyTensor, NodeOutputs, Site};

/// A point on the way from ablated inputs to clean ones.
pub(super) enum Step {
    /// This share of it, for all prompts.
    Alike(f64),
    /// A share for each prompt.
    Each(Vec<f64>),
}

impl Step {
    /// What replaces the embedded prompts, `[prompts, pos, d_model]`.
    pub(super) fn input<B: Backend>(
        &self,
        from: &Tensor<B, 3>,
        to: &Tensor<B, 3>,
    ) -> [(Site, AnyTensor<B>); 1] {
        let input = match self {
            Self::Alike(share) => between(from, to, *share),
            Self::Each(shares) => between_each(from, to, shares),
        };
        [(Site::ResidPre(0), AnyTensor::from(input))]
    }
}

/// The embedded prompts of a run.
pub(super) fn input<B: Backend>(run: &NodeOutputs<B>) -> Tensor<B, 3> {
    run.places[0].1.clone().squeeze_dim(2)
}

/// Shares of the way from the ablated run to the clean one.
pub(super) fn points(steps: usize) -> impl Iterator<Item = f64> {
    (1..=steps).map(move |k| k as f64 / steps as f64)
}

pub(super) type Replaced<B> = (Site, AnyTensor<<B as AutodiffBackend>::InnerBackend>);

/// `from + share · (to − from)`.
pub(super) fn between<B: Backend, const D: usize>(
    from: &Tensor<B, D>,
    to: &Tensor<B, D>,
    share: f64,
) -> Tensor<B, D> {
    from.clone() + (to.clone() - from.clone()).mul_scalar(share)
}

/// The same with a share for each prompt, `[prompts, pos, d_model]`.
pub(crate) fn between_each<B: Backend>(
    from: &Tensor<B, 3>,
    to: &Tensor<B, 3>,
    shares: &[f64],
) -> Tensor<B, 3> {
    let shares: Vec<f32> = shares.iter().map(|share| *share as f32).collect();
    let shares = TensorData::new(shares, [from.dims()[0], 1, 1]);
    let shares = Tensor::<B, 3>::from_data(shares, &from.device());
    from.clone() + (to.clone() - from.clone()) * shares
}
