//! `groupmax`: the largest pre-activation of each group of features.

use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Tensor};

use super::{Affine, Settings, affine};
use crate::tensors::Tensors;
use crate::{Encoder, Error, Reads, Result};

pub(super) const TENSORS: &[&str] = &["b_enc"];

/// Features in k groups of as many neighbours, and of each group the largest pre-activation, where it is above 0: another
/// activation function of sparsify, cheaper than the k largest of all.
///
/// Its code is that of [`Standard`](crate::Standard) with the same weights: the largest of all is the largest of its group.
#[derive(Debug, Clone)]
pub struct GroupMax<B: Backend> {
    affine: Affine<B>,
    k: usize,
}

impl<B: Backend> GroupMax<B> {
    /// Of `k` groups.
    ///
    /// # Errors
    /// [`Error::Config`] if the features are not `k` groups of equal size.
    pub fn new(affine: Affine<B>, k: usize) -> Result<Self> {
        if !affine.d_sae().is_multiple_of(k) {
            return Err(Error::Config {
                field: "k",
                found: k.to_string(),
                expected: "a divisor of the number of features",
            });
        }
        Ok(Self { affine, k })
    }
}

pub(super) fn read<B: Backend>(
    settings: &Settings,
    tensors: &Tensors<'_>,
    device: &B::Device,
) -> Result<GroupMax<B>> {
    GroupMax::new(affine(settings, tensors, "b_enc", device)?, settings.k)
}

impl<B: Backend> Encoder<B> for GroupMax<B> {
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
        let [rows, d_sae] = h.dims();
        // One row for each group.
        let groups = h.reshape([rows * self.k, d_sae / self.k]);
        let nothing = groups.zeros_like();
        let (values, index) = groups.max_dim_with_indices(1);
        let kept = nothing.scatter(1, index, relu(values), IndexingUpdateOp::Add);
        kept.reshape([rows, d_sae])
    }

    /// All pre-activations, of which no groups are made.
    fn strengths(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.affine.pre_activations(x)
    }

    fn decode(&self, features: Tensor<B, 2>, x: Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        Some(self.affine.decode(x, features))
    }

    fn reads(&self) -> Option<Reads<B>> {
        self.affine.reads()
    }

    fn skip(&self) -> Option<Tensor<B, 2>> {
        self.affine.skip()
    }

    fn atoms(&self) -> Option<Tensor<B, 2>> {
        Some(self.affine.atoms())
    }
}
