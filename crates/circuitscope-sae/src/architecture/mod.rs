//! The architectures of dictionaries, one file each: what makes feature activations of the encoder's product.

mod batchtopk;
mod gated;
mod jumprelu;
mod standard;
mod topk;

use core::fmt;
use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

pub use batchtopk::BatchTopK;
pub use gated::Gated;
pub use jumprelu::JumpRelu;
pub use standard::Standard;
pub use topk::TopK;

use crate::autoencoder::{HostWeights, assert_width};
use crate::tensors::Tensors;
use crate::{Encoder, Error, Reads, Result, SparseAutoencoder};

/// What makes feature activations `f` of the pre-activations `h = (x − s b_dec) W_enc + b_enc`, where `s` is 1 or 0
/// ([`Affine`]), under SAELens' names.
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
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Standard,
        Self::TopK,
        Self::BatchTopK,
        Self::JumpRelu,
        Self::Gated,
    ];

    /// What SAELens calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::TopK => "topk",
            Self::BatchTopK => "batchtopk",
            Self::JumpRelu => "jumprelu",
            Self::Gated => "gated",
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
        })
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is done to a vector before it is encoded, and undone after it is decoded.
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

/// What all architectures have: an affine map into the features and one out of them,
///
/// `h = (x − s b_dec) W_enc + b_enc`,   `x̂ = f W_dec + b_dec`,
///
/// with a normalisation around them.
#[derive(Debug, Clone)]
pub struct Affine<B: Backend> {
    weights: SparseAutoencoder<B>,
    centred: bool,
    normalisation: Normalisation,
}

impl<B: Backend> Affine<B> {
    /// With the bias shared (`s` is 1) and nothing normalised.
    ///
    /// # Panics
    /// Unless the shapes are those of [`SparseAutoencoder`].
    #[must_use]
    pub fn new(weights: SparseAutoencoder<B>) -> Self {
        let (d_in, d_sae) = (weights.d_in(), weights.d_sae());
        assert_eq!(weights.w_dec.dims(), [d_sae, d_in], "w_dec [d_sae, d_in]");
        assert_eq!(weights.b_enc.dims(), [d_sae], "b_enc [d_sae]");
        assert_eq!(weights.b_dec.dims(), [d_in], "b_dec [d_in]");
        Self {
            weights,
            centred: true,
            normalisation: Normalisation::None,
        }
    }

    /// Whether `b_dec` is subtracted from the input (`s`): SAELens' `apply_b_dec_to_input`.
    #[must_use]
    pub fn with_centring(mut self, centred: bool) -> Self {
        self.centred = centred;
        self
    }

    /// With the input normalised, and the output taken back.
    #[must_use]
    pub fn with_normalisation(mut self, normalisation: Normalisation) -> Self {
        self.normalisation = normalisation;
        self
    }

    fn d_in(&self) -> usize {
        self.weights.d_in()
    }

    fn d_sae(&self) -> usize {
        self.weights.d_sae()
    }

    fn atoms(&self) -> Tensor<B, 2> {
        self.weights.w_dec.clone()
    }

    /// `(x − s b_dec) W_enc`, `[rows, d_sae]`.
    fn product(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        assert_width("x", "d_in", x.dims()[1], self.d_in());
        let (mut x, _) = self.normalisation.apply(x);
        if self.centred {
            x = x - self.weights.b_dec.clone().unsqueeze_dim(0);
        }
        // [rows, d_in] x [d_in, d_sae] -> [rows, d_sae]
        x.matmul(self.weights.w_enc.clone())
    }

    /// `h`, `[rows, d_sae]`, in the order in which SAELens and the authors' code compute it.
    fn pre_activations(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.product(x) + self.weights.b_enc.clone().unsqueeze_dim(0)
    }

    /// What makes `h` of `x`, unless `x` is normalised by its own length or spread.
    fn reads(&self) -> Option<Reads<B>> {
        let factor = match self.normalisation {
            Normalisation::None => 1.0,
            Normalisation::Scale(factor) => factor,
            Normalisation::ConstantNorm | Normalisation::LayerNorm => return None,
        };
        let SparseAutoencoder {
            w_enc,
            b_enc,
            b_dec,
            ..
        } = self.weights.clone();
        let bias = if self.centred {
            // [1, d_in] x [d_in, d_sae]
            b_enc
                - b_dec
                    .unsqueeze_dim::<2>(0)
                    .matmul(w_enc.clone())
                    .squeeze_dim(0)
        } else {
            b_enc
        };
        Some(Reads {
            weight: w_enc.mul_scalar(factor),
            bias,
        })
    }

    /// `x̂` of the vectors whose features these are, `[rows, d_in]`.
    fn decode(&self, x: Tensor<B, 2>, features: Tensor<B, 2>) -> Tensor<B, 2> {
        let (_, undo) = self.normalisation.apply(x);
        undo.apply(self.weights.decode(features))
    }
}

/// What a folder says of an encoder beside its tensors.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) d_in: usize,
    pub(crate) d_sae: usize,
    /// Of `topk`.
    pub(crate) k: usize,
    /// Of `topk` and `batchtopk`.
    pub(crate) by_decoder_norm: bool,
    pub(crate) centred: bool,
    pub(crate) normalisation: Normalisation,
}

/// The tensors that all architectures have, and the bias `b_enc` of these pre-activations.
fn affine<B: Backend>(
    settings: &Settings,
    tensors: &Tensors<'_>,
    b_enc: &'static str,
    device: &B::Device,
) -> Result<Affine<B>> {
    let (d_in, d_sae) = (settings.d_in, settings.d_sae);
    let host = HostWeights {
        d_in,
        d_sae,
        w_enc: tensors.floats("W_enc", &[d_in, d_sae], "[d_in, d_sae]")?,
        w_dec: tensors.floats("W_dec", &[d_sae, d_in], "[d_sae, d_in]")?,
        b_enc: tensors.floats(b_enc, &[d_sae], "[d_sae]")?,
        b_dec: tensors.floats("b_dec", &[d_in], "[d_in]")?,
    };
    Ok(Affine::new(SparseAutoencoder::from_host(&host, device))
        .with_centring(settings.centred)
        .with_normalisation(settings.normalisation))
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
