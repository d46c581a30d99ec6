//! The gate of `Gated` (arXiv 2404.16014): what of it is not in the step of every objective.

use burn::tensor::activation::relu;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};

/// Gate and magnitude of a batch, made of one product.
#[derive(Debug)]
pub(super) struct Gate<B: Backend> {
    /// `a W_enc`, `[rows, d_sae]`.
    product: Tensor<B, 2>,
    /// `π = a W_enc + b_gate`, `[rows, d_sae]`.
    pi: Tensor<B, 2>,
    /// `e^{r_mag}`, `[1, d_sae]`.
    scale: Tensor<B, 2>,
}

/// What the terms of the gate alone add.
pub(super) struct Alone<B: Backend> {
    /// To the gradient of `π`, `[rows, d_sae]`.
    pub(super) to_pi: Tensor<B, 2>,
    /// `2/rows (max(π, 0) W_dec + b_dec − y)`, `[rows, d_out]`.
    pub(super) to_output: Tensor<B, 2>,
    /// The mean of its squared error, over rows.
    pub(super) error: Tensor<B, 1>,
}

/// Gradients of what only this objective has.
pub(super) struct ToGate<B: Backend> {
    /// `[rows, d_sae]`
    pub(super) product: Tensor<B, 2>,
    /// `[1, d_sae]`
    pub(super) b_mag: Tensor<B, 2>,
    /// `[1, d_sae]`
    pub(super) r_mag: Tensor<B, 2>,
}

impl<B: Backend> Gate<B> {
    /// Of `a W_enc` and `π`, `[rows, d_sae]`, with `r_mag` `[1, d_sae]`.
    pub(super) fn new(product: Tensor<B, 2>, pi: Tensor<B, 2>, r_mag: Tensor<B, 2>) -> Self {
        Self {
            product,
            pi,
            scale: r_mag.exp(),
        }
    }

    /// `a W_enc e^{r_mag} + b_mag`, and where it is what a feature is: where both are above 0.
    pub(super) fn magnitude(&self, b_mag: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2, Bool>) {
        let magnitude = self.product.clone() * self.scale.clone() + b_mag;
        let on = self.pi.clone().greater_elem(0.0);
        let on = on.bool_and(magnitude.clone().greater_elem(0.0));
        (magnitude, on)
    }

    /// `max(π, 0)`, which is penalised.
    pub(super) fn positive(&self) -> Tensor<B, 2> {
        relu(self.pi.clone())
    }

    /// The reconstruction from the gate alone: `w_dec` `[d_sae, d_out]`, `base` what is there without features, less `y`,
    /// `[1 or rows, d_out]`; `slope` the penalty's of each feature, `[1, d_sae]`.
    pub(super) fn alone(
        &self,
        w_dec: &Tensor<B, 2>,
        base: Tensor<B, 2>,
        slope: Tensor<B, 2>,
    ) -> Alone<B> {
        let [rows, _] = self.pi.dims();
        let miss = self.positive().matmul(w_dec.clone()) + base;
        let to_output = miss.clone().mul_scalar(2.0 / rows as f64);
        let to_pi = to_output.clone().matmul(w_dec.clone().transpose()) + slope;
        Alone {
            to_pi: to_pi.mask_fill(self.pi.clone().lower_equal_elem(0.0), 0.0),
            to_output,
            error: (miss.clone() * miss).sum().div_scalar(rows as f64),
        }
    }

    /// From the gradients of the magnitude, where it counts, and of `π`.
    pub(super) fn backward(&self, to_magnitude: Tensor<B, 2>, to_pi: Tensor<B, 2>) -> ToGate<B> {
        let scaled = to_magnitude.clone() * self.scale.clone();
        ToGate {
            b_mag: to_magnitude.sum_dim(0),
            r_mag: (scaled.clone() * self.product.clone()).sum_dim(0),
            product: scaled + to_pi,
        }
    }
}
