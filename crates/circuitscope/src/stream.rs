use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::NoProgress;
use circuitscope_eval::{ActivationSource, Result};
use circuitscope_model::{Decoder, capture_head_means, capture_head_means_and_last};

/// Bytes of a block: enough prompts that products are large, and little beside the weights of a model.
const BLOCK: usize = 48 << 20;

/// Head outputs that are made anew whenever they are read.
#[derive(Debug, Clone)]
pub(crate) struct HeadOutputs<B: Backend> {
    model: Decoder<B>,
    tokens: Arc<Vec<Vec<u32>>>,
    batch_tokens: usize,
    /// At the last position, instead of the mean.
    last: bool,
    device: B::Device,
}

impl<B: Backend> HeadOutputs<B> {
    /// Of prompts that fit the model.
    pub(crate) fn new(
        model: Decoder<B>,
        tokens: Arc<Vec<Vec<u32>>>,
        batch_tokens: usize,
        device: B::Device,
    ) -> Self {
        Self {
            model,
            tokens,
            batch_tokens,
            last: false,
            device,
        }
    }

    pub(crate) fn at_last(self) -> Self {
        Self { last: true, ..self }
    }
}

impl<B: Backend> ActivationSource<B> for HeadOutputs<B> {
    fn shape(&self) -> [usize; 3] {
        let config = self.model.config();
        [self.tokens.len(), config.grid().len(), config.d_model]
    }

    fn device(&self) -> B::Device {
        self.device.clone()
    }

    /// Prompts that begin alike are in one block: they are run together.
    fn blocks(&self) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.tokens.len()).collect();
        order.sort_by_key(|&prompt| (&self.tokens[prompt], prompt));
        let [_, heads, d] = self.shape();
        let prompts = (BLOCK / (4 * heads * d)).clamp(8, 256);
        order.chunks(prompts).map(<[usize]>::to_vec).collect()
    }

    fn read(&self, examples: &[usize]) -> Result<Tensor<B, 3>> {
        let tokens = examples.iter().map(|&at| self.tokens[at].as_slice());
        let tokens: Vec<&[u32]> = tokens.collect();
        let (model, batch, device) = (&self.model, self.batch_tokens, &self.device);
        Ok(if self.last {
            let [_, last] =
                capture_head_means_and_last(model, &tokens, batch, device, &NoProgress)?;
            last
        } else {
            capture_head_means(model, &tokens, batch, device, &NoProgress)?
        })
    }
}
