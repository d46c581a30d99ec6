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
    read: Read,
    /// `[batch, readers, pos]`
    weights: Option<Tensor<B, 3>>,
}

/// Which positions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    Mean,
    Last,
    Given,
}

impl<B: Backend> HeadMeans<B> {
    /// For a model of `n_layers` layers.
    #[must_use]
    pub fn new(n_layers: usize) -> Self {
        Self {
            layers: vec![None; n_layers],
            read: Read::Mean,
            weights: None,
        }
    }

    /// What heads put out at the last real position, instead of the mean.
    #[must_use]
    pub fn at_last(n_layers: usize) -> Self {
        Self {
            read: Read::Last,
            ..Self::new(n_layers)
        }
    }

    /// Sums over positions with these weights, for one batch whose rows may be read in several ways:
    /// results are `[batch * readers, n_heads, d_head]`.
    ///
    /// # Shapes
    /// - `weights`: `[batch, readers, pos]`
    #[must_use]
    pub fn weighted(n_layers: usize, weights: Tensor<B, 3>) -> Self {
        Self {
            read: Read::Given,
            weights: Some(weights),
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
        let weights = match self.read {
            Read::Given => return,
            Read::Mean => mask.clone().div(mask.clone().sum_dim(1)),
            Read::Last => {
                let [batch, pos] = mask.dims();
                let mut one = vec![0.0f32; batch * pos];
                for (row, last) in positions.last.iter().enumerate() {
                    one[row * pos + last] = 1.0;
                }
                Tensor::from_data(TensorData::new(one, [batch, pos]), &mask.device())
            }
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
            let [_, readers, _] = weights.dims();
            // [batch, readers, pos] x [batch, pos, head * d_head] -> [batch, readers, head * d_head]
            let z = x.clone().cast(weights.dtype());
            let z = z.reshape([batch, pos, heads * d_head]);
            let mean = weights.clone().matmul(z);
            let mean = mean.reshape([batch * readers, heads, d_head]);
            self.layers[layer] = Some(mean);
        }
        x
    }
}
