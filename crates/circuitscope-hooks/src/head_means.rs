use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::{Error, Positions, Result, Site, Tap};

/// Keeps every head's `z` averaged over real positions: `[batch, n_heads, d_head]` for each layer.
///
/// The mean over positions commutes with the output projection, so the mean of a head's *output*
/// (`hook_result`, what the method discretises) is this mean times `W_O`; the `[batch, pos, head,
/// d_model]` expansion is never made.
#[derive(Debug, Clone)]
pub struct HeadMeans<B: Backend> {
    layers: Vec<Option<Tensor<B, 3>>>,
    /// `[batch, 1, pos]`, each row summing to 1.
    weights: Option<Tensor<B, 3>>,
    /// Only the last position counts.
    last: bool,
}

impl<B: Backend> HeadMeans<B> {
    /// For a model of `n_layers` layers.
    #[must_use]
    pub fn new(n_layers: usize) -> Self {
        Self {
            layers: vec![None; n_layers],
            weights: None,
            last: false,
        }
    }

    /// What heads put out at the last real position, instead of the mean.
    #[must_use]
    pub fn at_last(n_layers: usize) -> Self {
        Self {
            last: true,
            ..Self::new(n_layers)
        }
    }

    /// The means of each layer, `[batch, n_heads, d_head]`.
    ///
    /// # Errors
    /// [`Error::NeverFired`] if a layer was not reached.
    pub fn finish(self) -> Result<Vec<Tensor<B, 3>>> {
        self.layers
            .into_iter()
            .enumerate()
            .map(|(layer, mean)| {
                mean.ok_or(Error::NeverFired {
                    site: Site::Z(layer),
                })
            })
            .collect()
    }
}

impl<B: Backend> Tap<B> for HeadMeans<B> {
    fn begin(&mut self, positions: &Positions<B>) {
        let mask = &positions.mask;
        let weights = if self.last {
            let [batch, pos] = mask.dims();
            let mut one = vec![0.0f32; batch * pos];
            for (row, last) in positions.last.iter().enumerate() {
                one[row * pos + last] = 1.0;
            }
            Tensor::from_data(TensorData::new(one, [batch, pos]), &mask.device())
        } else {
            mask.clone().div(mask.clone().sum_dim(1))
        };
        self.weights = Some(weights.unsqueeze_dim(1));
    }

    fn wants(&self, site: Site) -> bool {
        matches!(site, Site::Z(layer) if layer < self.layers.len())
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        if let (Site::Z(layer), Some(weights)) = (site, &self.weights) {
            let dims = x.dims();
            let [batch, pos, heads, d_head] = [dims[0], dims[1], dims[2], dims[3]];
            // [batch, 1, pos] x [batch, pos, head * d_head] -> [batch, 1, head * d_head]
            let z = x.clone().cast(weights.dtype());
            let z = z.reshape([batch, pos, heads * d_head]);
            let mean = weights.clone().matmul(z).reshape([batch, heads, d_head]);
            self.layers[layer] = Some(mean);
        }
        x
    }
}
