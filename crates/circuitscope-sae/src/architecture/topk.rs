//! `topk`: the k largest pre-activations of a row.

use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Tensor};

use super::{Affine, Rescaled, Settings, affine, atoms, check_k, read_rescaled, rescaled, written};
use crate::tensors::Tensors;
use crate::{Encoder, Reads, Result};

pub(super) const TENSORS: &[&str] = &["b_enc"];

/// The k largest pre-activations of a vector, where they are above 0 (Gao et al. 2024, arXiv 2406.04093): SAELens'
/// `topk`, and what sparsify trains. Fewer than k features are active where fewer are above 0.
///
/// Its code is that of [`Standard`](crate::Standard) with the same weights: the largest is among the k largest.
#[derive(Debug, Clone)]
pub struct TopK<B: Backend> {
    affine: Affine<B>,
    k: usize,
    rescaled: Option<Rescaled<B>>,
}

impl<B: Backend> TopK<B> {
    /// Keeping `k` features.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if `k` is 0 or above the number of features.
    pub fn new(affine: Affine<B>, k: usize) -> Result<Self> {
        check_k(k, affine.d_sae())?;
        Ok(Self {
            affine,
            k,
            rescaled: None,
        })
    }

    /// With features chosen by their pre-activation times the norm of their atom, which is their activation then:
    /// SAELens' `rescale_acts_by_decoder_norm`. The reconstruction divides by the norm again.
    #[must_use]
    pub fn by_decoder_norm(mut self) -> Self {
        self.rescaled = Some(Rescaled::of(&self.affine));
        self
    }
}

pub(super) fn read<B: Backend>(
    settings: &Settings,
    tensors: &Tensors<'_>,
    device: &B::Device,
) -> Result<TopK<B>> {
    let read = TopK::new(affine(settings, tensors, "b_enc", device)?, settings.k)?;
    Ok(if settings.by_decoder_norm {
        read.by_decoder_norm()
    } else {
        read
    })
}

impl<B: Backend> Encoder<B> for TopK<B> {
    fn d_in(&self) -> usize {
        self.affine.d_in()
    }

    fn d_out(&self) -> usize {
        self.affine.d_out()
    }

    fn n_codes(&self) -> usize {
        self.affine.d_sae()
    }

    fn encode(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let h = self.strengths(x);
        let nothing = h.zeros_like();
        let (values, index) = h.topk_with_indices(self.k, 1);
        nothing.scatter(1, index, relu(values), IndexingUpdateOp::Add)
    }

    /// All pre-activations, of which no k are looked for.
    fn strengths(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        rescaled(self.affine.pre_activations(x), self.rescaled.as_ref())
    }

    fn decode(&self, features: Tensor<B, 2>, x: Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        let by = self.rescaled.as_ref();
        Some(written(&self.affine, by, features, x))
    }

    fn reads(&self) -> Option<Reads<B>> {
        read_rescaled(&self.affine, self.rescaled.as_ref())
    }

    fn skip(&self) -> Option<Tensor<B, 2>> {
        self.affine.skip()
    }

    fn atoms(&self) -> Option<Tensor<B, 2>> {
        Some(atoms(&self.affine, self.rescaled.as_ref()))
    }
}
