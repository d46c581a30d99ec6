//! `standard`: the positive part of the pre-activations.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;

use super::{Affine, Settings, affine};
use crate::autoencoder::assert_width;
use crate::tensors::Tensors;
use crate::{Encoder, Reads, Result, SparseAutoencoder};

pub(super) const TENSORS: &[&str] = &["b_enc"];

/// `f = max(h, 0)`: the paper's architecture (arXiv 2405.12522), and SAELens' `standard`.
///
/// [`SparseAutoencoder`] is the same with its bias shared and nothing normalised.
#[derive(Debug, Clone)]
pub struct Standard<B: Backend>(Affine<B>);

impl<B: Backend> Standard<B> {
    /// Of these maps.
    #[must_use]
    pub const fn new(affine: Affine<B>) -> Self {
        Self(affine)
    }
}

pub(super) fn read<B: Backend>(
    settings: &Settings,
    tensors: &Tensors<'_>,
    device: &B::Device,
) -> Result<Standard<B>> {
    Ok(Standard(affine(settings, tensors, "b_enc", device)?))
}

impl<B: Backend> Encoder<B> for Standard<B> {
    fn d_in(&self) -> usize {
        self.0.d_in()
    }

    fn d_out(&self) -> usize {
        self.0.d_out()
    }

    fn n_codes(&self) -> usize {
        self.0.d_sae()
    }

    fn encode(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        relu(self.strengths(x))
    }

    /// The pre-activations: their arg-max is that of the activations wherever one is positive.
    fn strengths(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.0.pre_activations(x)
    }

    fn decode(&self, features: Tensor<B, 2>, x: Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        Some(self.0.decode(x, features))
    }

    fn reads(&self) -> Option<Reads<B>> {
        self.0.reads()
    }

    fn skip(&self) -> Option<Tensor<B, 2>> {
        self.0.skip()
    }

    fn atoms(&self) -> Option<Tensor<B, 2>> {
        Some(self.0.atoms())
    }
}

impl<B: Backend> Encoder<B> for SparseAutoencoder<B> {
    fn d_in(&self) -> usize {
        self.d_in()
    }

    fn n_codes(&self) -> usize {
        self.d_sae()
    }

    fn encode(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        relu(self.strengths(x))
    }

    /// As those of [`Standard`]: `(x − b_dec) W_enc + b_enc`, in this order.
    fn strengths(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        assert_width("x", "d_in", x.dims()[1], self.d_in());
        let centred = x - self.b_dec.clone().unsqueeze_dim(0);
        // [rows, d_in] x [d_in, d_sae] -> [rows, d_sae]
        centred.matmul(self.w_enc.clone()) + self.b_enc.clone().unsqueeze_dim(0)
    }

    fn decode(&self, features: Tensor<B, 2>, _: Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        Some(Self::decode(self, features))
    }

    fn reads(&self) -> Option<Reads<B>> {
        let b_dec = self.b_dec.clone().unsqueeze_dim::<2>(0);
        let centre = b_dec.matmul(self.w_enc.clone()).squeeze_dim(0);
        Some(Reads {
            weight: self.w_enc.clone(),
            bias: self.b_enc.clone() - centre,
        })
    }

    fn atoms(&self) -> Option<Tensor<B, 2>> {
        Some(self.w_dec.clone())
    }
}
