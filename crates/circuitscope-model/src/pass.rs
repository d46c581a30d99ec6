use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
pub(crate) use circuitscope_hooks::wide;
use circuitscope_hooks::{Site, Tap};

use crate::fused;

/// A tap on one forward pass, and how far the pass goes.
pub(crate) struct Pass<'a, T> {
    pub(crate) tap: &'a mut T,
    pub(crate) last: Site,
    /// Whether what lies between matrix products is done in place ([`fused`]).
    pub(crate) fused: bool,
}

impl<T> Pass<'_, T> {
    /// Hands a site to the tap if it wants it, and goes on in the site's own precision.
    pub(crate) fn site<B: Backend, const D: usize>(
        &mut self,
        site: Site,
        x: Tensor<B, D>,
    ) -> Tensor<B, D>
    where
        T: Tap<B>,
    {
        if self.tap.wants(site) {
            let dtype = x.dtype();
            self.tap.tap(site, x).cast(dtype)
        } else {
            x
        }
    }

    /// `None` if nothing at `site` or after it is wanted.
    pub(crate) fn need(&self, site: Site) -> Option<()> {
        (self.last >= site).then_some(())
    }
}

/// `[batch, pos, in] x [in, out] -> [batch, pos, out]` as one flat product.
pub(crate) fn linear<B: Backend>(x: Tensor<B, 3>, w: Tensor<B, 2>) -> Tensor<B, 3> {
    let [rows, pos, width] = x.dims();
    let [_, out] = w.dims();
    x.reshape([rows * pos, width])
        .matmul(w)
        .reshape([rows, pos, out])
}

/// `x · w + b`, `[batch, pos, in]` to `[batch, pos, out]`.
pub(crate) fn affine<B: Backend>(
    x: Tensor<B, 3>,
    w: Tensor<B, 2>,
    b: Tensor<B, 1>,
    fused: bool,
) -> Tensor<B, 3> {
    add_bias(linear(x, w), b, fused)
}

/// `x + b` at every position.
pub(crate) fn add_bias<B: Backend>(x: Tensor<B, 3>, b: Tensor<B, 1>, fused: bool) -> Tensor<B, 3> {
    if fused::applies(fused, &x) {
        fused::add_bias(x, b)
    } else {
        x + b.unsqueeze()
    }
}

/// `cap · tanh(x / cap)`.
pub(crate) fn soft_cap<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    cap: Option<f64>,
) -> Tensor<B, D> {
    match cap {
        Some(cap) => x.div_scalar(cap).tanh().mul_scalar(cap),
        None => x,
    }
}
