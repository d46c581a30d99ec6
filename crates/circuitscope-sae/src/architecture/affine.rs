//! The maps into features and out of them, of autoencoders and of transcoders.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::Normalisation;
use crate::autoencoder::{assert_width, uploaded};
use crate::tensors::Tensors;
use crate::{Reads, Result, SparseAutoencoder};

/// What all architectures have: an affine map into the features and one out of them,
///
/// `h = (x − s b_dec) W_enc + b_enc`,   `y = f W_dec + b_dec + x W_skipᵀ`,
///
/// with a normalisation around them.
///
/// An autoencoder's `y` is `x` again; few have a `W_skip`. A transcoder's (Dunefsky et al. 2024, arXiv 2406.11944) is
/// another activation, as a rule an MLP's output made of its input; with `W_skip` it is a skip transcoder (Paulo et al.
/// 2025, arXiv 2501.18823). A transcoder has `s = 0`, and what normalises its input is not undone.
///
/// # Shapes
/// `W_enc` `[d_in, d_sae]`, `W_dec` `[d_sae, d_out]`, `b_enc` `[d_sae]`, `b_dec` `[d_out]`, `W_skip` `[d_out, d_in]`.
///
/// # Examples
/// ```
/// use burn::tensor::Tensor;
/// use circuitscope_sae::{Affine, Encoder, Standard};
///
/// type B = burn_flex::Flex;
/// let device = Default::default();
/// // Two numbers in, one out: twice the first where it is above 0, 1 more, and the second.
/// let maps = Affine::<B>::transcoder(
///     Tensor::from_floats([[1.0], [0.0]], &device),
///     Tensor::from_floats([[2.0]], &device),
///     Tensor::zeros([1], &device),
///     Tensor::ones([1], &device),
/// )
/// .with_skip(Tensor::from_floats([[0.0, 1.0]], &device));
/// let transcoder = Standard::new(maps);
/// let x = Tensor::from_floats([[3.0, 5.0], [-3.0, 5.0]], &device);
/// let y: Vec<f32> = transcoder.reconstruct(x).unwrap().to_data().iter().collect();
/// assert_eq!(y, [12.0, 6.0]);
/// assert_eq!((Encoder::<B>::d_in(&transcoder), Encoder::<B>::d_out(&transcoder)), (2, 1));
/// ```
#[derive(Debug, Clone)]
pub struct Affine<B: Backend> {
    w_enc: Tensor<B, 2>,
    w_dec: Tensor<B, 2>,
    pub(super) b_enc: Tensor<B, 1>,
    b_dec: Tensor<B, 1>,
    w_skip: Option<Tensor<B, 2>>,
    transcodes: bool,
    centred: bool,
    normalisation: Normalisation,
}

impl<B: Backend> Affine<B> {
    /// Of an autoencoder, with the bias shared (`s` is 1) and nothing normalised.
    ///
    /// # Panics
    /// Unless the shapes are those of [`SparseAutoencoder`].
    #[must_use]
    pub fn new(weights: SparseAutoencoder<B>) -> Self {
        let d_in = weights.d_in();
        assert_eq!(weights.b_dec.dims(), [d_in], "b_dec [d_in]");
        let SparseAutoencoder {
            w_enc,
            w_dec,
            b_enc,
            b_dec,
        } = weights;
        Self {
            transcodes: false,
            centred: true,
            ..Self::transcoder(w_enc, w_dec, b_enc, b_dec)
        }
    }

    /// Of a transcoder without skip connection, with nothing normalised.
    ///
    /// # Panics
    /// Unless the shapes are those [above](Self#shapes).
    #[must_use]
    pub fn transcoder(
        w_enc: Tensor<B, 2>,
        w_dec: Tensor<B, 2>,
        b_enc: Tensor<B, 1>,
        b_dec: Tensor<B, 1>,
    ) -> Self {
        let ([_, d_sae], [d_out]) = (w_enc.dims(), b_dec.dims());
        assert_eq!(w_dec.dims(), [d_sae, d_out], "w_dec [d_sae, d_out]");
        assert_eq!(b_enc.dims(), [d_sae], "b_enc [d_sae]");
        Self {
            w_enc,
            w_dec,
            b_enc,
            b_dec,
            w_skip: None,
            transcodes: true,
            centred: false,
            normalisation: Normalisation::None,
        }
    }

    /// With a linear map of the vectors themselves, before anything normalises them, added to what features write.
    ///
    /// # Panics
    /// Unless its shape is `[d_out, d_in]`.
    #[must_use]
    pub fn with_skip(mut self, w_skip: Tensor<B, 2>) -> Self {
        assert_eq!(
            w_skip.dims(),
            [self.d_out(), self.d_in()],
            "w_skip [d_out, d_in]"
        );
        self.w_skip = Some(w_skip);
        self
    }

    /// Whether `b_dec` is subtracted from the input (`s`): SAELens' `apply_b_dec_to_input`.
    ///
    /// # Panics
    /// If it is to be of a transcoder, whose `b_dec` is of another activation.
    #[must_use]
    pub fn with_centring(mut self, centred: bool) -> Self {
        assert!(
            !(centred && self.transcodes),
            "a transcoder does not centre its input by b_dec"
        );
        self.centred = centred;
        self
    }

    /// With the input normalised, and the output of an autoencoder taken back.
    #[must_use]
    pub fn with_normalisation(mut self, normalisation: Normalisation) -> Self {
        self.normalisation = normalisation;
        self
    }

    pub(super) fn d_in(&self) -> usize {
        self.w_enc.dims()[0]
    }

    pub(super) fn d_out(&self) -> usize {
        self.w_dec.dims()[1]
    }

    pub(super) fn d_sae(&self) -> usize {
        self.w_enc.dims()[1]
    }

    pub(super) fn atoms(&self) -> Tensor<B, 2> {
        self.w_dec.clone()
    }

    pub(super) fn skip(&self) -> Option<Tensor<B, 2>> {
        self.w_skip.clone()
    }

    /// `(x − s b_dec) W_enc`, `[rows, d_sae]`.
    pub(super) fn product(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        assert_width("x", "d_in", x.dims()[1], self.d_in());
        let (mut x, _) = self.normalisation.apply(x);
        if self.centred {
            x = x - self.b_dec.clone().unsqueeze_dim(0);
        }
        // [rows, d_in] x [d_in, d_sae] -> [rows, d_sae]
        x.matmul(self.w_enc.clone())
    }

    /// `h`, `[rows, d_sae]`, in the order in which SAELens and the authors' code compute it.
    pub(super) fn pre_activations(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.product(x) + self.b_enc.clone().unsqueeze_dim(0)
    }

    /// What makes `h` of `x`, unless `x` is normalised by its own length or spread.
    pub(super) fn reads(&self) -> Option<Reads<B>> {
        let factor = match self.normalisation {
            Normalisation::None => 1.0,
            Normalisation::Scale(factor) => factor,
            Normalisation::ConstantNorm | Normalisation::LayerNorm => return None,
        };
        let mut bias = self.b_enc.clone();
        if self.centred {
            // [1, d_in] x [d_in, d_sae]
            let b_dec = self.b_dec.clone().unsqueeze_dim::<2>(0);
            bias = bias - b_dec.matmul(self.w_enc.clone()).squeeze_dim(0);
        }
        Some(Reads {
            weight: self.w_enc.clone().mul_scalar(factor),
            bias,
        })
    }

    /// `y` of the vectors whose features these are, `[rows, d_out]`.
    pub(super) fn decode(&self, x: Tensor<B, 2>, features: Tensor<B, 2>) -> Tensor<B, 2> {
        assert_width("features", "d_sae", features.dims()[1], self.d_sae());
        // [rows, d_sae] x [d_sae, d_out] -> [rows, d_out]
        let mut y = features.matmul(self.w_dec.clone()) + self.b_dec.clone().unsqueeze_dim(0);
        if !self.transcodes {
            let (_, undo) = self.normalisation.apply(x.clone());
            y = undo.apply(y);
        }
        match &self.w_skip {
            // [rows, d_in] x [d_in, d_out] -> [rows, d_out]
            Some(w_skip) => y + x.matmul(w_skip.clone().swap_dims(0, 1)),
            None => y,
        }
    }
}

/// What a folder says of an encoder beside its tensors.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) d_in: usize,
    pub(crate) d_out: usize,
    pub(crate) d_sae: usize,
    /// Of `topk` and `groupmax`.
    pub(crate) k: usize,
    /// Of `topk` and `batchtopk`.
    pub(crate) by_decoder_norm: bool,
    /// Whether it makes another activation of what it reads.
    pub(crate) transcodes: bool,
    pub(crate) centred: bool,
    pub(crate) normalisation: Normalisation,
}

impl Settings {
    /// Of an autoencoder that centres its input.
    pub(crate) const fn autoencoder(d_in: usize, d_sae: usize) -> Self {
        Self {
            d_in,
            d_out: d_in,
            d_sae,
            k: 0,
            by_decoder_norm: false,
            transcodes: false,
            centred: true,
            normalisation: Normalisation::None,
        }
    }

    /// Of a transcoder.
    pub(crate) const fn transcoder(d_in: usize, d_sae: usize, d_out: usize) -> Self {
        Self {
            d_out,
            transcodes: true,
            centred: false,
            ..Self::autoencoder(d_in, d_sae)
        }
    }
}

/// The tensors that all architectures have, `W_skip` where there is one, and the bias `b_enc` of these pre-activations.
pub(super) fn affine<B: Backend>(
    settings: &Settings,
    tensors: &Tensors<'_>,
    b_enc: &'static str,
    device: &B::Device,
) -> Result<Affine<B>> {
    let (d_in, d_sae, d_out) = (settings.d_in, settings.d_sae, settings.d_out);
    let matrix = |name, shape: [usize; 2], axes| -> Result<Tensor<B, 2>> {
        Ok(uploaded(
            &tensors.floats(name, &shape, axes)?,
            shape,
            device,
        ))
    };
    let vector = |name, width, axes| -> Result<Tensor<B, 1>> {
        Ok(uploaded(
            &tensors.floats(name, &[width], axes)?,
            [width],
            device,
        ))
    };
    let (w_dec_axes, b_dec_axes) = if settings.transcodes {
        ("[d_sae, d_out]", "[d_out]")
    } else {
        ("[d_sae, d_in]", "[d_in]")
    };
    let w_enc = matrix("W_enc", [d_in, d_sae], "[d_in, d_sae]")?;
    let w_dec = matrix("W_dec", [d_sae, d_out], w_dec_axes)?;
    let b_enc = vector(b_enc, d_sae, "[d_sae]")?;
    let b_dec = vector("b_dec", d_out, b_dec_axes)?;
    let mut read = Affine::transcoder(w_enc, w_dec, b_enc, b_dec);
    read.transcodes = settings.transcodes;
    read = read
        .with_centring(settings.centred)
        .with_normalisation(settings.normalisation);
    Ok(if tensors.has("W_skip") {
        read.with_skip(matrix("W_skip", [d_out, d_in], "[d_out, d_in]")?)
    } else {
        read
    })
}
