use burn::module::Param;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::decoder::Decoder;
use crate::norm::NormWeights;

/// One of the norms of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormAt {
    /// Before the attention of a layer.
    Attention(usize),
    /// Of what the attention of a layer adds to the residual stream, in models that normalise that.
    AttentionOut(usize),
    /// Before the MLP of a layer.
    Mlp(usize),
    /// Of what the MLP of a layer adds to the residual stream, in models that normalise that.
    MlpOut(usize),
    /// Before the unembedding.
    Final,
}

/// What a norm multiplies by and adds after it has scaled: made by [`Decoder::norm_parts`].
#[derive(Debug, Clone)]
pub struct NormParts<B: Backend> {
    /// `[d_model]`; `None` where it is folded into the weights that follow, or where there is no such norm.
    pub gain: Option<Tensor<B, 1>>,
    /// `[d_model]`, of a `LayerNorm` that is not folded.
    pub bias: Option<Tensor<B, 1>>,
}

/// The matrices of an MLP: made by [`Decoder::mlp_parts`].
#[derive(Debug, Clone)]
pub struct MlpParts<B: Backend> {
    /// `W_gate` `[d_model, d_mlp]` and its bias `[d_mlp]`, of a gated one.
    pub gate: Option<(Tensor<B, 2>, Tensor<B, 1>)>,
    /// `W_in` `[d_model, d_mlp]`.
    pub w_in: Tensor<B, 2>,
    /// `[d_mlp]`
    pub b_in: Tensor<B, 1>,
    /// `W_out` `[d_mlp, d_model]`.
    pub w_out: Tensor<B, 2>,
    /// `[d_model]`
    pub b_out: Tensor<B, 1>,
}

impl<B: Backend> Decoder<B> {
    /// Gain and bias of a norm.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn norm_parts(&self, at: NormAt) -> NormParts<B> {
        let weights: Option<&NormWeights<B>> = match at {
            NormAt::Attention(layer) => self.blocks[layer].ln1.as_ref(),
            NormAt::AttentionOut(layer) => self.blocks[layer].ln1_post.as_ref(),
            NormAt::Mlp(layer) => self.blocks[layer].ln2.as_ref(),
            NormAt::MlpOut(layer) => self.blocks[layer].ln2_post.as_ref(),
            NormAt::Final => self.ln_final.as_ref(),
        };
        NormParts {
            gain: weights.map(|norm| norm.w.val()),
            bias: weights.and_then(|norm| norm.b.as_ref()).map(Param::val),
        }
    }

    /// The matrices of the MLP of one layer; `None` in models without.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn mlp_parts(&self, layer: usize) -> Option<MlpParts<B>> {
        let mlp = self.blocks[layer].mlp.as_ref()?;
        Some(MlpParts {
            gate: mlp.gate.as_ref().map(|gate| (gate.w.val(), gate.b.val())),
            w_in: mlp.w_in.val(),
            b_in: mlp.b_in.val(),
            w_out: mlp.w_out.val(),
            b_out: mlp.b_out.val(),
        })
    }

    /// `b_O` of one layer, `[d_model]`: where biases of values are folded, they are in it.
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn b_o(&self, layer: usize) -> Tensor<B, 1> {
        self.blocks[layer].b_o.val()
    }

    /// Bias of the logits, `[d_vocab_out]`, in models that have one.
    pub fn b_u(&self) -> Option<Tensor<B, 1>> {
        self.b_u.as_ref().map(Param::val)
    }
}
