use burn::tensor::activation::relu;
use burn::tensor::backend::{Backend, DeviceOps as _};
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::Seed;

use crate::{Result, SaeConfig, init};

/// A sparse autoencoder with one bias shared between input and output:
///
/// `f(x) = ReLU((x − b_dec) W_enc + b_enc)`,   `x̂ = f(x) W_dec + b_dec`.
///
/// This is the paper's (O'Neill & Bui 2024, arXiv 2405.12522); in PyTorch's layout of linear layers
/// its encoder weight is `W_encᵀ` and its decoder weight `W_decᵀ`. A row of `w_dec` is a dictionary
/// atom: what one feature writes.
///
/// Nothing here renormalises: weights come from [`SaeConfig::init`], training or a file, and
/// training keeps its constraint in the optimiser step.
///
/// # Shapes
/// - `w_enc` `[d_in, d_sae]`, `w_dec` `[d_sae, d_in]`, `b_enc` `[d_sae]`, `b_dec` `[d_in]`, as
///   SAELens stores them.
#[derive(Debug, Clone)]
pub struct SparseAutoencoder<B: Backend> {
    /// Encoder weight, `[d_in, d_sae]`: one column for each feature.
    pub w_enc: Tensor<B, 2>,
    /// Decoder weight, `[d_sae, d_in]`: one row for each feature, its dictionary atom.
    pub w_dec: Tensor<B, 2>,
    /// Encoder bias, `[d_sae]`.
    pub b_enc: Tensor<B, 1>,
    /// The shared bias, `[d_in]`: subtracted from the input, added to the output.
    pub b_dec: Tensor<B, 1>,
}

impl SaeConfig {
    /// An untrained autoencoder: the one that [`train`](crate::train) starts from with the same
    /// seed, and so the *untrained dictionary* control.
    ///
    /// Weights are drawn from a standard normal distribution and normalised as
    /// [`dictionary`](Self::dictionary) says; `b_enc` is uniform in ±1/√`d_in`; `b_dec` is zero.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if a setting is out of range.
    ///
    /// # Determinism
    /// Everything is drawn and normalised on the host, so that every backend starts from the same
    /// numbers. The streams of `seed` are `sae/w_enc`, `sae/w_dec` and `sae/b_enc`; weights are
    /// drawn in the order of PyTorch's layout (`[out, in]`, row by row). The draws do not depend on
    /// `dictionary`.
    ///
    /// # Examples
    /// ```
    /// use circuitscope_core::Seed;
    /// use circuitscope_sae::SaeConfig;
    ///
    /// type B = burn_flex::Flex;
    /// let device = Default::default();
    /// let sae = SaeConfig::new(16).with_d_sae(8).init::<B>(Seed::new(0), &device)?;
    /// assert_eq!(sae.w_enc.dims(), [16, 8]);
    /// # Ok::<(), circuitscope_sae::Error>(())
    /// ```
    pub fn init<B: Backend>(&self, seed: Seed, device: &B::Device) -> Result<SparseAutoencoder<B>> {
        self.validate()?;
        Ok(SparseAutoencoder::from_host(
            &init::draw(self, seed),
            device,
        ))
    }
}

/// The parameters on the host, row by row, in the layout of [`SparseAutoencoder`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostWeights {
    pub(crate) d_in: usize,
    pub(crate) d_sae: usize,
    pub(crate) w_enc: Vec<f32>,
    pub(crate) w_dec: Vec<f32>,
    pub(crate) b_enc: Vec<f32>,
    pub(crate) b_dec: Vec<f32>,
}

impl<B: Backend> SparseAutoencoder<B> {
    pub(crate) fn from_host(host: &HostWeights, device: &B::Device) -> Self {
        let HostWeights {
            d_in,
            d_sae,
            w_enc,
            w_dec,
            b_enc,
            b_dec,
        } = host;
        let (d_in, d_sae) = (*d_in, *d_sae);
        // An autodiff device of the dispatch backend would make tensors that record a graph.
        let device = device.inner();
        let data = |values: &Vec<f32>, shape: &[usize]| TensorData::new(values.clone(), shape);
        Self {
            w_enc: Tensor::from_data(data(w_enc, &[d_in, d_sae]), device),
            w_dec: Tensor::from_data(data(w_dec, &[d_sae, d_in]), device),
            b_enc: Tensor::from_data(data(b_enc, &[d_sae]), device),
            b_dec: Tensor::from_data(data(b_dec, &[d_in]), device),
        }
    }

    /// Width of the activations.
    pub fn d_in(&self) -> usize {
        self.w_enc.dims()[0]
    }

    /// Number of features.
    pub fn d_sae(&self) -> usize {
        self.w_enc.dims()[1]
    }

    /// Where the weights are.
    pub fn device(&self) -> B::Device {
        self.w_enc.device()
    }

    /// Feature activations `f(x)`.
    ///
    /// # Shapes
    /// - `x`: `[rows, d_in]`
    /// - returns `[rows, d_sae]`
    ///
    /// # Panics
    /// If `x` has another width.
    #[must_use]
    pub fn encode(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        relu(self.pre_activations(x))
    }

    /// Reconstructions from feature activations.
    ///
    /// # Shapes
    /// - `features`: `[rows, d_sae]`
    /// - returns `[rows, d_in]`
    ///
    /// # Panics
    /// If `features` has another width.
    #[must_use]
    pub fn decode(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        assert_width("features", "d_sae", features.dims()[1], self.d_sae());
        // [rows, d_sae] x [d_sae, d_in] -> [rows, d_in]
        features.matmul(self.w_dec.clone()) + self.b_dec.clone().unsqueeze_dim(0)
    }

    /// `(x − b_dec) W_enc + b_enc`, in this order: what SAELens and the authors' code compute.
    pub(crate) fn pre_activations(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        assert_width("x", "d_in", x.dims()[1], self.d_in());
        let centred = x - self.b_dec.clone().unsqueeze_dim(0);
        // [rows, d_in] x [d_in, d_sae] -> [rows, d_sae]
        centred.matmul(self.w_enc.clone()) + self.b_enc.clone().unsqueeze_dim(0)
    }
}

fn assert_width(argument: &str, axis: &str, found: usize, expected: usize) {
    assert!(
        found == expected,
        "`{argument}` has width {found}: expected {axis} = {expected}"
    );
}
