//! `gated`: a gate that says whether, and a magnitude that says how much.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;

use super::{Affine, Settings, affine};
use crate::autoencoder::uploaded;
use crate::tensors::Tensors;
use crate::{Encoder, Reads, Result};

const GATE: &str = "b_gate";
pub(super) const TENSORS: &[&str] = &[GATE, "b_mag", "r_mag"];

/// `f = max(a W_enc e^{r_mag} + b_mag, 0)` where `a W_enc + b_gate > 0`, else 0, with `a = x − s b_dec` (Rajamanoharan et
/// al. 2024, arXiv 2404.16014): SAELens' `gated`.
#[derive(Debug, Clone)]
pub struct Gated<B: Backend> {
    /// Its `b_enc` is that of the gate.
    affine: Affine<B>,
    /// `[1, d_sae]`
    b_mag: Tensor<B, 2>,
    /// `e^{r_mag}`, `[1, d_sae]`.
    scale: Tensor<B, 2>,
}

impl<B: Backend> Gated<B> {
    /// With `b_gate` as the `b_enc` of `gate`, and `b_mag` and `r_mag` `[d_sae]`.
    ///
    /// # Panics
    /// Unless there is one of both for each feature.
    #[must_use]
    pub fn new(gate: Affine<B>, b_mag: Tensor<B, 1>, r_mag: Tensor<B, 1>) -> Self {
        assert_eq!(b_mag.dims(), [gate.d_sae()], "b_mag [d_sae]");
        assert_eq!(r_mag.dims(), [gate.d_sae()], "r_mag [d_sae]");
        Self {
            affine: gate,
            b_mag: b_mag.unsqueeze_dim(0),
            scale: r_mag.exp().unsqueeze_dim(0),
        }
    }
}

pub(super) fn read<B: Backend>(
    settings: &Settings,
    tensors: &Tensors<'_>,
    device: &B::Device,
) -> Result<Gated<B>> {
    let gate = affine(settings, tensors, GATE, device)?;
    let d_sae = settings.d_sae;
    let b_mag = tensors.floats("b_mag", &[d_sae], "[d_sae]")?;
    let r_mag = tensors.floats_that(
        ("r_mag", &[d_sae], "[d_sae]"),
        "logarithms of at most 80",
        |value| value <= 80.0,
    )?;
    let upload = |values: &[f32]| uploaded(values, [d_sae], device);
    Ok(Gated::new(gate, upload(&b_mag), upload(&r_mag)))
}

impl<B: Backend> Encoder<B> for Gated<B> {
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
        // One product for both: a (W e^r) = (a W) e^r.
        let product = self.affine.product(x);
        let gate = product.clone() + self.affine.b_enc.clone().unsqueeze_dim(0);
        let magnitude = relu(product * self.scale.clone() + self.b_mag.clone());
        magnitude.mask_fill(gate.lower_equal_elem(0.0), 0.0)
    }

    fn decode(&self, features: Tensor<B, 2>, x: Tensor<B, 2>) -> Option<Tensor<B, 2>> {
        Some(self.affine.decode(x, features))
    }

    /// Of the magnitude.
    fn reads(&self) -> Option<Reads<B>> {
        let gate = self.affine.reads()?;
        let scale = self.scale.clone();
        // What the gate reads beside its own bias is read by the magnitude, too.
        let shared = gate.bias - self.affine.b_enc.clone();
        let bias = shared.unsqueeze_dim::<2>(0) * scale.clone() + self.b_mag.clone();
        Some(Reads {
            weight: gate.weight * scale,
            bias: bias.squeeze_dim(0),
        })
    }

    fn skip(&self) -> Option<Tensor<B, 2>> {
        self.affine.skip()
    }

    fn atoms(&self) -> Option<Tensor<B, 2>> {
        Some(self.affine.atoms())
    }
}
