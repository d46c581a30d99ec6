//! `jumprelu`: what is above a threshold of each feature.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{Affine, Settings, affine};
use crate::autoencoder::uploaded;
use crate::tensors::Tensors;
use crate::{Encoder, Reads, Result};

const THRESHOLD: &str = "threshold";
pub(super) const TENSORS: &[&str] = &["b_enc", THRESHOLD];

/// `f = h` where `h` is above the feature's threshold, else 0 (Rajamanoharan et al. 2024, arXiv 2407.14435): SAELens'
/// `jumprelu`, and the dictionaries of Gemma Scope.
///
/// Its code is not always that of [`Standard`](crate::Standard) with the same weights: the largest pre-activation may be
/// below its threshold, and more vectors are inactive.
#[derive(Debug, Clone)]
pub struct JumpRelu<B: Backend> {
    affine: Affine<B>,
    /// `[1, d_sae]`
    threshold: Tensor<B, 2>,
}

impl<B: Backend> JumpRelu<B> {
    /// With thresholds `[d_sae]`, none of them negative.
    ///
    /// # Panics
    /// Unless there is one for each feature.
    #[must_use]
    pub fn new(affine: Affine<B>, threshold: Tensor<B, 1>) -> Self {
        assert_eq!(threshold.dims(), [affine.d_sae()], "threshold [d_sae]");
        Self {
            affine,
            threshold: threshold.unsqueeze_dim(0),
        }
    }
}

pub(super) fn read<B: Backend>(
    settings: &Settings,
    tensors: &Tensors<'_>,
    device: &B::Device,
) -> Result<JumpRelu<B>> {
    let threshold = tensors.thresholds(THRESHOLD, &[settings.d_sae], "[d_sae]")?;
    let threshold = uploaded(&threshold, [settings.d_sae], device);
    let affine = affine(settings, tensors, "b_enc", device)?;
    Ok(JumpRelu::new(affine, threshold))
}

impl<B: Backend> Encoder<B> for JumpRelu<B> {
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
        let h = self.affine.pre_activations(x);
        let off = h.clone().lower_equal(self.threshold.clone());
        h.mask_fill(off, 0.0)
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
