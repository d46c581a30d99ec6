//! The architectures of dictionaries, one file each: what makes feature activations of the encoder's product.

mod affine;
mod batchtopk;
mod gated;
mod groupmax;
mod jumprelu;
mod standard;
mod topk;

use core::fmt;
use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

pub use affine::Affine;
pub(crate) use affine::Settings;
use affine::affine;
pub use batchtopk::BatchTopK;
pub use gated::Gated;
pub use groupmax::GroupMax;
pub use jumprelu::JumpRelu;
pub use standard::Standard;
pub use topk::TopK;

use crate::tensors::Tensors;
use crate::{Encoder, Error, Reads, Result};

/// What makes feature activations `f` of the pre-activations `h = (x − s b_dec) W_enc + b_enc`, where `s` is 1 or 0
/// ([`Affine`]), under SAELens' names where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// `standard`: the positive part. [`Standard`]
    Standard,
    /// `topk`: the positive part of the k largest of a row. [`TopK`]
    TopK,
    /// `batchtopk`: what is above one threshold. [`BatchTopK`]
    BatchTopK,
    /// `jumprelu`: what is above a threshold of each feature. [`JumpRelu`]
    JumpRelu,
    /// `gated`: a gate, and a magnitude where it is open. [`Gated`]
    Gated,
    /// `groupmax`, which sparsify has and SAELens has not: the positive part of the largest of each group. [`GroupMax`]
    GroupMax,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Standard,
        Self::TopK,
        Self::BatchTopK,
        Self::JumpRelu,
        Self::Gated,
        Self::GroupMax,
    ];

    /// What SAELens or, of `groupmax`, sparsify calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::TopK => "topk",
            Self::BatchTopK => "batchtopk",
            Self::JumpRelu => "jumprelu",
            Self::Gated => "gated",
            Self::GroupMax => "groupmax",
        }
    }

    /// The tensors that it has beside `W_enc`, `W_dec` and `b_dec`.
    pub(crate) const fn tensors(self) -> &'static [&'static str] {
        match self {
            Self::Standard => standard::TENSORS,
            Self::TopK => topk::TENSORS,
            Self::BatchTopK => batchtopk::TENSORS,
            Self::JumpRelu => jumprelu::TENSORS,
            Self::Gated => gated::TENSORS,
            Self::GroupMax => groupmax::TENSORS,
        }
    }

    /// Reads the encoder.
    pub(crate) fn read<B: Backend>(
        self,
        settings: &Settings,
        tensors: &Tensors<'_>,
        device: &B::Device,
    ) -> Result<Arc<dyn Encoder<B>>> {
        Ok(match self {
            Self::Standard => Arc::new(standard::read::<B>(settings, tensors, device)?),
            Self::TopK => Arc::new(topk::read::<B>(settings, tensors, device)?),
            Self::BatchTopK => Arc::new(batchtopk::read::<B>(settings, tensors, device)?),
            Self::JumpRelu => Arc::new(jumprelu::read::<B>(settings, tensors, device)?),
            Self::Gated => Arc::new(gated::read::<B>(settings, tensors, device)?),
            Self::GroupMax => Arc::new(groupmax::read::<B>(settings, tensors, device)?),
        })
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is done to a vector before it is encoded, and undone after it is decoded, except by transcoders: what they
/// write is another activation, of which the input's length says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Normalisation {
    /// Nothing.
    #[default]
    None,
    /// Times this factor: SAELens' `expected_average_only_in`, `√d_in` over the mean length of the training
    /// vectors.
    Scale(f64),
    /// Scaled to length `√d_in`, each vector by itself: `constant_norm_rescale`. A vector of zeros stays as it is.
    ConstantNorm,
    /// Less its mean, over its standard deviation (unbiased) plus 1e-5: `layer_norm`. Undone with the deviation
    /// alone, as SAELens does it.
    LayerNorm,
}

/// How vectors were normalised.
enum Undo<B: Backend> {
    Nothing,
    Over(f64),
    /// `[rows, 1]` each.
    Times(Tensor<B, 2>),
    TimesPlus(Tensor<B, 2>, Tensor<B, 2>),
}

impl Normalisation {
    fn apply<B: Backend>(self, x: Tensor<B, 2>) -> (Tensor<B, 2>, Undo<B>) {
        let [_, d_in] = x.dims();
        match self {
            Self::None => (x, Undo::Nothing),
            Self::Scale(factor) => (x.mul_scalar(factor), Undo::Over(factor)),
            Self::ConstantNorm => {
                let length = (x.clone() * x.clone()).sum_dim(1).sqrt();
                let share = length.div_scalar((d_in as f64).sqrt());
                let share = share.clone().mask_fill(share.equal_elem(0.0), 1.0);
                (x / share.clone(), Undo::Times(share))
            }
            Self::LayerNorm => {
                let mean = x.clone().mean_dim(1);
                let centred = x - mean.clone();
                let variance = (centred.clone() * centred.clone()).sum_dim(1);
                let deviation = variance.div_scalar((d_in as f64 - 1.0).max(1.0)).sqrt();
                let normal = centred / deviation.clone().add_scalar(1e-5);
                (normal, Undo::TimesPlus(deviation, mean))
            }
        }
    }
}

impl<B: Backend> Undo<B> {
    fn apply(self, y: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Nothing => y,
            Self::Over(factor) => y.div_scalar(factor),
            Self::Times(share) => y * share,
            Self::TimesPlus(deviation, mean) => y * deviation + mean,
        }
    }
}

/// Activations that are not what `W_dec` is multiplied by, but that times the norm of the atom: SAELens'
/// `rescale_acts_by_decoder_norm`.
#[derive(Debug, Clone)]
struct Rescaled<B: Backend> {
    /// Norms of the rows of `W_dec`, `[1, d_sae]`.
    norms: Tensor<B, 2>,
    /// 1 over them, and 0 where a row is 0.
    inverse: Tensor<B, 2>,
}

impl<B: Backend> Rescaled<B> {
    fn of(affine: &Affine<B>) -> Self {
        let w_dec = affine.atoms();
        let norms = (w_dec.clone() * w_dec).sum_dim(1).sqrt().swap_dims(0, 1);
        let none = norms.clone().equal_elem(0.0);
        let inverse = norms.clone().recip().mask_fill(none, 0.0);
        Self { norms, inverse }
    }
}

/// `h`, by the norm of the atom where it is rescaled.
fn rescaled<B: Backend>(h: Tensor<B, 2>, by: Option<&Rescaled<B>>) -> Tensor<B, 2> {
    match by {
        Some(by) => h * by.norms.clone(),
        None => h,
    }
}

/// What `W_dec` is multiplied by.
fn unscaled<B: Backend>(features: Tensor<B, 2>, by: Option<&Rescaled<B>>) -> Tensor<B, 2> {
    match by {
        Some(by) => features * by.inverse.clone(),
        None => features,
    }
}

/// What rescaled activations write.
fn written<B: Backend>(
    affine: &Affine<B>,
    by: Option<&Rescaled<B>>,
    features: Tensor<B, 2>,
    x: Tensor<B, 2>,
) -> Tensor<B, 2> {
    affine.decode(x, unscaled(features, by))
}

/// What rescaled activations read.
fn read_rescaled<B: Backend>(affine: &Affine<B>, by: Option<&Rescaled<B>>) -> Option<Reads<B>> {
    let Reads { weight, bias } = affine.reads()?;
    Some(Reads {
        weight: rescaled(weight, by),
        bias: rescaled(bias.unsqueeze_dim(0), by).squeeze_dim(0),
    })
}

/// The atoms of rescaled activations.
fn atoms<B: Backend>(affine: &Affine<B>, by: Option<&Rescaled<B>>) -> Tensor<B, 2> {
    match by {
        Some(by) => affine.atoms() * by.inverse.clone().swap_dims(0, 1),
        None => affine.atoms(),
    }
}

/// A number of features that may be kept.
fn check_k(k: usize, d_sae: usize) -> Result<()> {
    if (1..=d_sae).contains(&k) {
        return Ok(());
    }
    Err(Error::Config {
        field: "k",
        found: k.to_string(),
        expected: "at least 1 and at most the number of features",
    })
}
