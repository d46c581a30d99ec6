use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_hooks::{Site, Tap};

use crate::config::Norm;
use crate::fused;
use crate::pass::{Pass, wide};

/// Gain of a norm, `[d_model]`, and its bias if it is a `LayerNorm`.
#[derive(Module, Debug)]
pub(crate) struct NormWeights<B: Backend> {
    pub(crate) w: Param<Tensor<B, 1>>,
    pub(crate) b: Option<Param<Tensor<B, 1>>>,
}

/// A norm with its two sites: scale, then normalised. Computed in f32 at least.
pub(crate) fn normalise<B: Backend, T: Tap<B>>(
    kind: Norm,
    eps: f64,
    weights: Option<&NormWeights<B>>,
    x: Tensor<B, 3>,
    [scale_site, normalised_site]: [Site; 2],
    pass: &mut Pass<'_, T>,
) -> Tensor<B, 3> {
    let dtype = x.dtype();
    let centre = match kind {
        Norm::None => return x,
        Norm::Layer | Norm::LayerPre => true,
        Norm::Rms | Norm::RmsPre => false,
    };
    let watched = [scale_site, normalised_site].map(|site| pass.tap.wants(site));
    if watched == [false; 2] && fused::applies(pass.fused, &x) {
        let gain = weights.map(|norm| norm.w.val());
        let bias = weights.and_then(|norm| norm.b.as_ref());
        return fused::normalise(x, eps, centre, gain, bias.map(Param::val));
    }
    let x = if centre { centred(wide(x)) } else { wide(x) };
    let scale = pass.site(scale_site, root_mean_square(x.clone(), eps));
    let x = x / scale;
    let x = if centre {
        pass.site(normalised_site, gain(weights, x))
    } else {
        gain(weights, pass.site(normalised_site, x))
    };
    x.cast(dtype)
}

/// An RMS norm of a sum, with the site of its parts, `[batch, pos, parts, d_model]`, that were taken
/// through the norm with the scale of the whole: what a tap changes there is added to the output.
pub(crate) fn normalise_parts<B: Backend, T: Tap<B>>(
    eps: f64,
    weights: Option<&NormWeights<B>>,
    x: Tensor<B, 3>,
    [scale_site, normalised_site]: [Site; 2],
    (parts_site, parts): (Site, Tensor<B, 4>),
    pass: &mut Pass<'_, T>,
) -> Tensor<B, 3> {
    let dtype = x.dtype();
    let x = wide(x);
    let scale = pass.site(scale_site, root_mean_square(x.clone(), eps));
    let out = gain(weights, pass.site(normalised_site, x / scale.clone()));
    let mut parts = wide(parts) / scale.unsqueeze_dim(2);
    if let Some(norm) = weights {
        parts = parts * wide(norm.w.val()).unsqueeze();
    }
    let changed = pass.site(parts_site, parts.clone());
    let moved = (changed - parts).sum_dim(2).squeeze_dim(2);
    (out + moved).cast(dtype)
}

/// Parts of a stream, `[batch, parts, d_model]`, through a norm whose scale is that of the whole
/// stream, `[batch, 1, d_model]`; without its bias.
pub(crate) fn frozen_norm<B: Backend>(
    kind: Norm,
    eps: f64,
    weights: Option<&NormWeights<B>>,
    stream: Tensor<B, 3>,
    parts: Tensor<B, 3>,
) -> Tensor<B, 3> {
    let (stream, parts) = match kind {
        Norm::None => return parts,
        Norm::Layer | Norm::LayerPre => (centred(wide(stream)), centred(parts)),
        Norm::Rms | Norm::RmsPre => (wide(stream), parts),
    };
    let parts = parts / root_mean_square(stream, eps);
    match weights {
        Some(norm) => parts * wide(norm.w.val()).unsqueeze(),
        None => parts,
    }
}

/// Gradients with respect to the input of a norm, `[batch, n, pos, d_model]`, from `n` gradients with
/// respect to its output, `[n, batch * pos, d_model]`.
///
/// With `x̂` the normalised input, `σ` its scale and `v` the gradient times the gain:
/// `(v − mean(v) − x̂ · mean(v · x̂)) / σ`; an RMS norm has no `mean(v)`. With `held` the scale is a constant, and there is
/// no `x̂ · mean(v · x̂)`.
pub(crate) fn norm_gradient<B: Backend>(
    kind: Norm,
    eps: f64,
    weights: Option<&NormWeights<B>>,
    x: Tensor<B, 3>,
    gradient: Tensor<B, 3>,
    (held, fused): (bool, bool),
) -> Tensor<B, 4> {
    let [rows, pos, d_model] = x.dims();
    let [count, _, _] = gradient.dims();
    let x = wide(x);
    let centre = matches!(kind, Norm::Layer | Norm::LayerPre);
    let fuse = !held && fused::applies(fused, &x) && fused::applies(fused, &gradient);
    if kind != Norm::None && fuse {
        let gain = weights.map(|norm| norm.w.val());
        return fused::norm_gradient(x, eps, centre, gain, gradient);
    }
    let gradient = gradient
        .reshape([count, rows, pos, d_model])
        .swap_dims(0, 1);
    if kind == Norm::None {
        return gradient;
    }
    let x = if centre { centred(x) } else { x };
    let scale = root_mean_square(x.clone(), eps);
    let normalised = (x / scale.clone()).unsqueeze_dim::<4>(1);
    let v = match weights {
        Some(norm) => gradient * wide(norm.w.val()).unsqueeze(),
        None => gradient,
    };
    let mut back = if held {
        v.clone()
    } else {
        let along = (v.clone() * normalised.clone()).mean_dim(3);
        v.clone() - normalised * along
    };
    if centre {
        back = back - v.mean_dim(3);
    }
    back / scale.unsqueeze_dim(1)
}

/// The RMS norm of every head's query or key, `[batch, pos, head, d_head]`, with one gain `[d_head]`.
pub(crate) fn normalise_heads<B: Backend>(
    eps: f64,
    w: &Tensor<B, 1>,
    x: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let dtype = x.dtype();
    let x = wide(x);
    let x = x.clone() / root_mean_square(x, eps);
    (x * wide(w.clone()).unsqueeze()).cast(dtype)
}

fn centred<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    let mean = x.clone().mean_dim(2);
    x - mean
}

/// `√(mean(x²) + ε)` over the last axis.
pub(crate) fn root_mean_square<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    eps: f64,
) -> Tensor<B, D> {
    (x.clone() * x).mean_dim(D - 1).add_scalar(eps).sqrt()
}

fn gain<B: Backend>(weights: Option<&NormWeights<B>>, x: Tensor<B, 3>) -> Tensor<B, 3> {
    let Some(norm) = weights else { return x };
    let x = x * wide(norm.w.val()).unsqueeze();
    match &norm.b {
        Some(b) => x + wide(b.val()).unsqueeze(),
        None => x,
    }
}
