use burn::tensor::backend::{Backend, DeviceOps as _};
use burn::tensor::{Tensor, TensorData};

/// A sparse autoencoder with one bias shared between input and output:
///
/// `f(x) = ReLU((x − b_dec) W_enc + b_enc)`,   `x̂ = f(x) W_dec + b_dec`.
///
/// This is the paper's (O'Neill & Bui 2024, arXiv 2405.12522); in PyTorch's layout of linear layers
/// its encoder weight is `W_encᵀ` and its decoder weight `W_decᵀ`. A row of `w_dec` is a dictionary
/// atom: what one feature writes.
///
/// It encodes through [`Encoder`](crate::Encoder). Nothing here renormalises: weights come from [`SaeConfig::init`](crate::SaeConfig::init), training or a file, and
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
        Self {
            w_enc: uploaded(w_enc, [d_in, d_sae], device),
            w_dec: uploaded(w_dec, [d_sae, d_in], device),
            b_enc: uploaded(b_enc, [d_sae], device),
            b_dec: uploaded(b_dec, [d_in], device),
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
}

/// Values on a device, row by row.
pub(crate) fn uploaded<B: Backend, const D: usize>(
    values: &[f32],
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D> {
    // An autodiff device of the dispatch backend would make tensors that record a graph.
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device.inner())
}

/// Panics unless a tensor that a caller made has the width of the dictionary.
pub(crate) fn assert_width(argument: &str, axis: &str, found: usize, expected: usize) {
    assert!(
        found == expected,
        "`{argument}` has width {found}: expected {axis} = {expected}"
    );
}
