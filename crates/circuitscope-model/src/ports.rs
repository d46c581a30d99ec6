use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::Port;

use crate::decoder::Decoder;
use crate::norm::{frozen_norm, norm_gradient};
use crate::pass::wide;

impl<B: Backend> Decoder<B> {
    /// Direct logit attribution: what parts of the residual stream add to a weighted sum of logits,
    /// with the scale of the final norm as it is for the whole stream and biases left out (Elhage et
    /// al. 2021; "direct logit attribution" in TransformerLens).
    ///
    /// # Shapes
    /// - `stream`: `[batch, d_model]`, what the final norm reads at one position
    /// - `parts`: `[batch, parts, d_model]`, of which the stream is the sum
    /// - `weights`: `[batch, d_vocab_out]`, of the logits
    /// - result: `[batch, parts]`
    pub fn direct_logits(
        &self,
        stream: Tensor<B, 2>,
        parts: Tensor<B, 3>,
        weights: Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        // Σ_v weight_v · W_U[:, v]: [batch, d_vocab_out] x [d_vocab_out, d_model]
        let direction = weights.matmul(wide(self.w_u.val()).transpose());
        let direction = direction.unsqueeze_dim::<3>(1);
        let ln_final = self.ln_final.as_ref();
        let stream = stream.unsqueeze_dim::<3>(1);
        let scaled = frozen_norm(
            self.config.norm,
            self.config.eps,
            ln_final,
            stream,
            wide(parts),
        );
        (scaled * direction).sum_dim(2).squeeze_dim(2)
    }

    /// Carries a gradient back from a port's projection to the residual stream that the port reads:
    /// through `W_Q`, `W_K` or `W_V` and the norm before it.
    ///
    /// The result is the gradient at [`Site::QInput`](circuitscope_hooks::Site::QInput) and so on,
    /// of every head apart, from the gradient at [`Site::Q`](circuitscope_hooks::Site::Q): no pass
    /// has to read the stream once for each head, which at GPT-2's size is most of the memory of edge
    /// attribution.
    ///
    /// # Shapes
    /// - `stream`: `[batch, pos, d_model]`, what the layer reads
    /// - `gradient`: `[batch, pos, heads, d_head]`; key/value heads for k and v
    /// - result: `[batch, heads, pos, d_model]`
    ///
    /// # Panics
    /// If there is no such layer or shapes do not fit.
    pub fn port_gradient(
        &self,
        layer: usize,
        port: Port,
        stream: Tensor<B, 3>,
        gradient: Tensor<B, 4>,
    ) -> Tensor<B, 4> {
        self.carried(layer, port, (stream, gradient), false)
    }

    /// The same where the norm scales by a constant that does not follow the stream.
    ///
    /// # Panics
    /// As [`port_gradient`](Self::port_gradient).
    pub fn port_gradient_of_constant_scale(
        &self,
        layer: usize,
        port: Port,
        stream: Tensor<B, 3>,
        gradient: Tensor<B, 4>,
    ) -> Tensor<B, 4> {
        self.carried(layer, port, (stream, gradient), true)
    }

    /// A gradient carried back to `stream`, the scale of its norm `held` or not.
    fn carried(
        &self,
        layer: usize,
        port: Port,
        (stream, gradient): (Tensor<B, 3>, Tensor<B, 4>),
        held: bool,
    ) -> Tensor<B, 4> {
        let config = &self.config;
        let block = &self.blocks[layer];
        let [rows, pos, heads, d_head] = gradient.dims();
        let (q, kv) = (config.q_width(), config.kv_width());
        let columns = match port {
            Port::Q => 0..q,
            Port::K => q..q + kv,
            Port::V => q + kv..q + 2 * kv,
        };
        // [d_model, head * d_head] -> [head, d_head, d_model]
        let w = wide(block.w_qkv.val().slice_dim(1, columns))
            .transpose()
            .reshape([heads, d_head, config.d_model]);
        let at_norm = wide(gradient)
            .reshape([rows * pos, heads, d_head])
            .swap_dims(0, 1)
            .matmul(w);
        let (ln1, how) = (block.ln1.as_ref(), (held, self.exec.fused));
        norm_gradient(config.norm, config.eps, ln1, stream, at_norm, how)
    }
}
