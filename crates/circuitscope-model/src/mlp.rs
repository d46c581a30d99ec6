use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, relu, sigmoid, silu};
use burn::tensor::backend::Backend;
use circuitscope_hooks::{Site, Tap};

use crate::config::{Activation, Mlp};
use crate::fused;
use crate::pass::{Pass, add_bias, affine, linear};

/// Weights of an MLP.
#[derive(Module, Debug)]
pub(crate) struct MlpWeights<B: Backend> {
    pub(crate) gate: Option<Gate<B>>,
    /// `[d_model, d_mlp]`.
    pub(crate) w_in: Param<Tensor<B, 2>>,
    pub(crate) b_in: Param<Tensor<B, 1>>,
    /// `[d_mlp, d_model]`.
    pub(crate) w_out: Param<Tensor<B, 2>>,
    pub(crate) b_out: Param<Tensor<B, 1>>,
}

/// The gate of a gated MLP.
#[derive(Module, Debug)]
pub(crate) struct Gate<B: Backend> {
    /// `[d_model, d_mlp]`.
    pub(crate) w: Param<Tensor<B, 2>>,
    pub(crate) b: Param<Tensor<B, 1>>,
}

impl<B: Backend> MlpWeights<B> {
    /// From the normalised input to the output, without the norm that may follow.
    pub(crate) fn run<T: Tap<B>>(
        &self,
        layer: usize,
        mlp: Mlp,
        x: Tensor<B, 3>,
        pass: &mut Pass<'_, T>,
    ) -> Option<Tensor<B, 3>> {
        pass.need(Site::MlpHookIn(layer))?;
        let x = pass.site(Site::MlpHookIn(layer), x);
        pass.need(Site::MlpPre(layer))?;
        let watched = [Site::MlpPre(layer), Site::MlpPreLinear(layer)];
        let watched = watched.iter().any(|site| pass.tap.wants(*site));
        if let Some(gate) = &self.gate
            && !watched
            && mlp.activation != Activation::GeluExact
            && fused::applies(pass.fused, &x)
        {
            pass.need(Site::MlpPost(layer))?;
            let products = [linear(x.clone(), gate.w.val()), linear(x, self.w_in.val())];
            let biases = [gate.b.val(), self.b_in.val()];
            let post = fused::gated(products, biases, mlp.activation);
            let post = pass.site(Site::MlpPost(layer), post);
            pass.need(Site::Ln2PostScale(layer))?;
            return Some(affine(post, self.w_out.val(), self.b_out.val(), pass.fused));
        }
        let (w, b) = match &self.gate {
            None => (&self.w_in, &self.b_in),
            Some(gate) => (&gate.w, &gate.b),
        };
        let pre = linear(x.clone(), w.val());
        let activated = if pass.tap.wants(Site::MlpPre(layer)) {
            let pre = pass.site(Site::MlpPre(layer), add_bias(pre, b.val(), pass.fused));
            mlp.activation.apply(pre)
        } else {
            mlp.activation.apply_biased(pre, b.val(), pass.fused)
        };
        let post = if self.gate.is_some() {
            pass.need(Site::MlpPreLinear(layer))?;
            let linear = affine(x, self.w_in.val(), self.b_in.val(), pass.fused);
            let linear = pass.site(Site::MlpPreLinear(layer), linear);
            pass.need(Site::MlpPost(layer))?;
            activated * linear
        } else {
            pass.need(Site::MlpPost(layer))?;
            activated
        };
        let post = pass.site(Site::MlpPost(layer), post);
        pass.need(Site::Ln2PostScale(layer))?;
        Some(affine(post, self.w_out.val(), self.b_out.val(), pass.fused))
    }
}

impl Activation {
    /// The function of `x + b`, with `b` at every position.
    fn apply_biased<B: Backend>(
        self,
        x: Tensor<B, 3>,
        b: Tensor<B, 1>,
        fused: bool,
    ) -> Tensor<B, 3> {
        if fused::applies(fused, &x) && self != Self::GeluExact {
            fused::bias_activation(x, b, self)
        } else {
            self.apply(add_bias(x, b, fused))
        }
    }

    /// The function itself, entry by entry.
    pub fn apply<B: Backend>(self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        match self {
            Self::Relu => relu(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::GeluExact => gelu(x),
            Self::Silu => silu(x),
        }
    }
}

/// `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))` (Hendrycks and Gimpel 2016, arXiv 1606.08415, §2), as
/// `x · σ(2 √(2/π) (x + 0.044715 x³))`: the same function in half as many passes over memory.
fn gelu_tanh<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    let slope = 2.0 * core::f64::consts::FRAC_2_SQRT_PI / core::f64::consts::SQRT_2;
    let square = x.clone() * x.clone();
    let inner = square.mul_scalar(0.044_715 * slope).add_scalar(slope) * x.clone();
    sigmoid(inner) * x
}
