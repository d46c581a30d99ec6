//! Passes that differ from an earlier one only from some position, or some block, on.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_hooks::{Site, Tap};

use crate::batch::TokenBatch;
use crate::block::Context;
use crate::decoder::Decoder;
use crate::past::Past;

/// Where a resumed pass begins.
#[derive(Debug, Clone)]
pub enum Resume<B: Backend> {
    /// With what this block reads, `[batch, pos, d_model]`; with as many as there are blocks, the
    /// stream after the last one.
    Block(usize, Tensor<B, 3>),
    /// With the stream between attention and MLP of this block, `[batch, pos, d_model]`, in a model
    /// whose MLP reads what attention wrote. In the last block it is the last position of each prompt
    /// alone, `[batch, 1, d_model]`.
    Mid(usize, Tensor<B, 3>),
}

impl<B: Backend> Decoder<B> {
    /// Runs the rest of an earlier pass, in which something was changed: later positions, from some
    /// block on. Of the last block only the last position of each prompt is computed, where the
    /// output is read, and a tap sees its sites there alone.
    ///
    /// # Shapes
    /// - `batch`: the positions that are run ([`TokenBatch::tail`])
    /// - `past`: what that pass left at the positions before them
    /// - result: `[batch, d_model]`, the stream after the last block at the last position
    ///
    /// # Panics
    /// If there is no such block, or `tap` wants the inputs of heads apart.
    pub fn resume<T: Tap<B>>(
        &self,
        batch: &TokenBatch<B>,
        past: &Past<B>,
        start: Resume<B>,
        tap: &mut T,
    ) -> Tensor<B, 2> {
        let config = self.config();
        let split = |layer| tap.wants(Site::QInput(layer));
        assert!(
            !(0..config.n_layers).any(split),
            "inputs of heads apart are shown by whole passes only"
        );
        tap.begin(batch.positions());
        let mut pass = self.pass(tap, Site::Logits);
        let rest = || unreachable!("the pass goes to the end");
        let (next, mut x) = match start {
            Resume::Block(layer, x) => (layer, x),
            Resume::Mid(layer, x) => {
                let block = &self.blocks[layer];
                let x = block.add_mlp(layer, config, x.clone(), x, &mut pass);
                (layer + 1, x.unwrap_or_else(rest))
            }
        };
        let device = x.device();
        let context = Context::new(config, batch, self.qk_positions(batch));
        let context = context.resumed(batch, past, &device);
        for (layer, block) in self.blocks.iter().enumerate().skip(next) {
            x = block
                .run(layer, &context, x, &mut pass)
                .unwrap_or_else(rest);
        }
        let [_, pos, _] = x.dims();
        if pos == 1 {
            x.squeeze_dim(1)
        } else {
            batch.last(x)
        }
    }
}
