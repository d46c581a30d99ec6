use burn::module::Param;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::HeadId;
use circuitscope_hooks::{NoTap, Site, wide};

use crate::TokenBatch;
use crate::block::columns;
use crate::decoder::Decoder;
use crate::norm::{frozen_norm, normalise, root_mean_square};
use crate::pass::affine;
use crate::rotary::Rotation;

/// Query and key of one head taken apart: made by [`Decoder::score_parts`].
#[derive(Debug, Clone)]
pub struct ScoreParts<B: Backend> {
    /// `[pos, parts + 1, d_head]`, scaled: the last part is what biases and whatever else is no part of the stream give.
    pub queries: Tensor<B, 3>,
    /// The same of the keys.
    pub keys: Tensor<B, 3>,
}

impl<B: Backend> Decoder<B> {
    /// Takes the scores of one head apart: with norms scaling as they do in this run, queries and keys are linear in the
    /// stream, so that `score[t, s] = Σ_a Σ_b queries[t, a] · keys[s, b]`, exactly, over what writes the query and what writes
    /// the key; before a soft cap and the mask, in models that have one.
    ///
    /// # Shapes
    /// - `batch`: one prompt of `pos` tokens
    /// - `stream`: `[1, pos, d_model]`, what the layer reads ([`Site::ResidPre`])
    /// - `parts`: `[parts, pos, d_model]`, what writers before it have added to that; whatever is missing of the stream is
    ///   counted with the biases
    ///
    /// # Panics
    /// If there is no such head or shapes do not fit.
    pub fn score_parts(
        &self,
        batch: &TokenBatch<B>,
        head: HeadId,
        stream: &Tensor<B, 3>,
        parts: Tensor<B, 3>,
    ) -> ScoreParts<B> {
        let config = &self.config;
        let block = &self.blocks[head.layer];
        let [_, pos, d_model] = stream.dims();
        let count = parts.dims()[0];
        let ln1 = block.ln1.as_ref();
        // [pos, parts, d_model]
        let parts = wide(parts).swap_dims(0, 1);
        let at_positions = stream.clone().swap_dims(0, 1);
        let parts = frozen_norm(config.norm, config.eps, ln1, at_positions, parts);
        let sites = [Site::Ln1Scale(head.layer), Site::Ln1Normalized(head.layer)];
        let mut silent = NoTap;
        let mut pass = self.pass(&mut silent, Site::Logits);
        let read = normalise(
            config.norm,
            config.eps,
            ln1,
            stream.clone(),
            sites,
            &mut pass,
        );
        let read = match self.qk_positions(batch) {
            Some(positions) => wide(read) + wide(positions),
            None => wide(read),
        };
        let [q, k, _] = columns(config);
        let shared = config.n_heads / config.n_key_value_heads;
        let rotation = config.rotary(head.layer);
        let rotation = rotation.map(|rotary| Rotation::new(rotary, batch));
        let port = |first: usize, norm: Option<&Param<Tensor<B, 1>>>| {
            let columns = first..first + config.d_head;
            // In f32 at least, as parts of the stream are.
            let w = wide(block.w_qkv.val().slice_dim(1, columns.clone()));
            let b = wide(block.b_qkv.val().slice_dim(0, columns));
            let whole = affine(read.clone(), w.clone(), b, false);
            let whole = whole.swap_dims(0, 1);
            let of_parts = parts.clone().reshape([pos * count, d_model]).matmul(w);
            let of_parts = of_parts.reshape([pos, count, config.d_head]);
            let rest = whole.clone() - of_parts.clone().sum_dim(1);
            let mut all = Tensor::cat(vec![of_parts, rest], 1);
            if let Some(gain) = norm {
                let scale = root_mean_square(whole, config.eps);
                all = all / scale * wide(gain.val()).unsqueeze();
            }
            let all = all.unsqueeze_dim::<4>(0);
            let all = match &rotation {
                Some(rotation) => rotation.apply(all),
                None => all,
            };
            all.squeeze_dim::<3>(0)
        };
        let queries = port(q.start + head.head * config.d_head, block.q_norm.as_ref());
        let keys = port(
            k.start + head.head / shared * config.d_head,
            block.k_norm.as_ref(),
        );
        ScoreParts {
            queries: queries.div_scalar(config.score_divisor(head.layer)),
            keys,
        }
    }
}
