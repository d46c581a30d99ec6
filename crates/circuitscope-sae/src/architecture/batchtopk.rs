//! `batchtopk`: what is above one threshold.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{Affine, Rescaled, Settings, affine, atoms, read_rescaled, rescaled, written};
use crate::tensors::Tensors;
use crate::{Encoder, Error, Reads, Result};

/// The threshold as SAELens calls it.
const THRESHOLD: &str = "topk_threshold";
pub(super) const TENSORS: &[&str] = &["b_enc", THRESHOLD];

/// Pre-activations above one threshold (Bussmann et al. 2024, arXiv 2412.06410).
///
/// In training the k · rows largest activations of a batch are kept; what a vector is encoded as must not depend on
/// its batch, so that afterwards the threshold stands for them: the mean over training of the smallest activation that
/// was kept. SAELens saves a trained one as `jumprelu`; as `batchtopk` it is a checkpoint of training.
#[derive(Debug, Clone)]
pub struct BatchTopK<B: Backend> {
    affine: Affine<B>,
    threshold: f32,
    rescaled: Option<Rescaled<B>>,
}

impl<B: Backend> BatchTopK<B> {
    /// With this threshold.
    ///
    /// # Errors
    /// [`Error::Config`] if it is negative or not finite.
    pub fn new(affine: Affine<B>, threshold: f32) -> Result<Self> {
        if !threshold.is_finite() || threshold < 0.0 {
            return Err(Error::Config {
                field: "threshold",
                found: threshold.to_string(),
                expected: "a finite number, at least 0",
            });
        }
        Ok(Self {
            affine,
            threshold,
            rescaled: None,
        })
    }

    /// As [`TopK::by_decoder_norm`](crate::TopK::by_decoder_norm).
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
) -> Result<BatchTopK<B>> {
    let threshold = tensors.thresholds(THRESHOLD, &[], "[]")?;
    let affine = affine(settings, tensors, "b_enc", device)?;
    let read = BatchTopK::new(affine, threshold.first().copied().unwrap_or(0.0))?;
    Ok(if settings.by_decoder_norm {
        read.by_decoder_norm()
    } else {
        read
    })
}

impl<B: Backend> Encoder<B> for BatchTopK<B> {
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
        let h = rescaled(self.affine.pre_activations(x), self.rescaled.as_ref());
        let off = h.clone().lower_equal_elem(self.threshold);
        h.mask_fill(off, 0.0)
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
