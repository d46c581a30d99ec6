use burn::module::Param;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::block::Block;
use crate::config::DecoderConfig;
use crate::decoder::Decoder;
use crate::host::{
    HostAttention, HostBlock, HostEmbedding, HostMlp, HostNorm, HostUnembedding, Matrix, Misfits,
};
use crate::mlp::MlpWeights;
use crate::norm::NormWeights;
use crate::precision::Precision;
use crate::upload::Upload;
use crate::{Error, Result};

/// All weights of a model on the host.
///
/// ```
/// # #[cfg(feature = "unstable-family")] {
/// use circuitscope_core::Seed;
/// use circuitscope_model::family::HostDecoder;
/// use circuitscope_model::{DecoderConfig, Error};
///
/// type B = burn_flex::Flex;
/// # fn main() -> Result<(), Error> {
/// let device = Default::default();
/// let config = DecoderConfig::gpt2(2, 2, 8, 16, 10);
/// let host = HostDecoder::from_decoder(&config.init::<B>(Seed::new(0), &device));
///
/// // The same model with its blocks in another order.
/// let mut other = HostDecoder::new(host.embedding, host.unembedding);
/// for block in host.blocks.into_iter().rev() {
///     other = other.with_block(block.attention, block.mlp);
/// }
/// let model = other.into_decoder::<B>(config.clone(), &device)?;
/// assert_eq!(model.config(), &config);
///
/// // Weights that do not fit are named.
/// let short = config.with_d_vocab(11);
/// let error = HostDecoder::from_decoder(&model).into_decoder::<B>(short, &device).unwrap_err();
/// assert!(error.to_string().ends_with("W_E: shape [10, 8], expected [11, 8]"), "{error}");
/// # Ok(())
/// # }
/// # main().unwrap();
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct HostDecoder {
    /// What comes before the blocks.
    pub embedding: HostEmbedding,
    /// The blocks, first to last.
    pub blocks: Vec<HostBlock>,
    /// What comes after them.
    pub unembedding: HostUnembedding,
}

impl HostDecoder {
    /// Without blocks yet.
    #[cfg(feature = "unstable-family")]
    #[must_use]
    pub const fn new(embedding: HostEmbedding, unembedding: HostUnembedding) -> Self {
        Self {
            embedding,
            blocks: Vec::new(),
            unembedding,
        }
    }

    /// With another block after those it has.
    #[cfg(feature = "unstable-family")]
    #[must_use]
    pub fn with_block(mut self, attention: HostAttention, mlp: Option<HostMlp>) -> Self {
        self.blocks.push(HostBlock { attention, mlp });
        self
    }

    /// The model with these weights, in f32.
    ///
    /// # Errors
    /// [`Error::HostWeights`] with everything that does not fit the configuration; [`Error::Overflow`] for the first
    /// weight that is not finite.
    pub fn into_decoder<B: Backend>(
        self,
        config: DecoderConfig,
        device: &B::Device,
    ) -> Result<Decoder<B>> {
        let problems = self.misfits(&config);
        if !problems.is_empty() {
            return Err(Error::HostWeights { problems });
        }
        let mut upload = Upload::new(device, Precision::F32);
        upload.embedding(self.embedding);
        upload.unembedding(self.unembedding);
        for block in self.blocks {
            upload.attention(block.attention);
            upload.mlp(block.mlp);
        }
        upload.check()?;
        Ok(upload.finish(config))
    }

    fn misfits(&self, config: &DecoderConfig) -> Vec<String> {
        let mut problems = config.problems();
        if self.blocks.len() != config.n_layers {
            problems.push(format!(
                "{} blocks, expected n_layers = {}",
                self.blocks.len(),
                config.n_layers
            ));
        }
        if !problems.is_empty() {
            return problems;
        }
        let mut misfits = Misfits::new(config);
        misfits.embedding(&self.embedding);
        for (layer, block) in self.blocks.iter().enumerate() {
            misfits.attention(layer, &block.attention);
            misfits.mlp(layer, block.mlp.as_ref());
        }
        misfits.unembedding(&self.unembedding);
        misfits.found
    }

    /// Reads the weights of a model back from its device, widened to f32.
    #[must_use]
    pub fn from_decoder<B: Backend>(decoder: &Decoder<B>) -> Self {
        let matrix = |p: &Param<Tensor<B, 2>>| {
            let [rows, cols] = p.val().dims();
            Matrix::new(rows, cols, p.val().into_data().iter::<f32>().collect())
        };
        let vector =
            |p: &Param<Tensor<B, 1>>| -> Vec<f32> { p.val().into_data().iter::<f32>().collect() };
        let norm = |n: &NormWeights<B>| HostNorm {
            w: vector(&n.w),
            b: n.b.as_ref().map(vector),
        };
        let mlp = |block: &Block<B>, mlp: &MlpWeights<B>| HostMlp {
            ln2: block.ln2.as_ref().map(norm),
            gate: mlp
                .gate
                .as_ref()
                .map(|gate| (matrix(&gate.w), vector(&gate.b))),
            w_in: matrix(&mlp.w_in),
            b_in: vector(&mlp.b_in),
            w_out: matrix(&mlp.w_out),
            b_out: vector(&mlp.b_out),
            ln2_post: block.ln2_post.as_ref().map(norm),
        };
        let attention = |block: &Block<B>| HostAttention {
            ln1: block.ln1.as_ref().map(norm),
            w_qkv: matrix(&block.w_qkv),
            b_qkv: vector(&block.b_qkv),
            qk_norm: match (&block.q_norm, &block.k_norm) {
                (Some(q), Some(k)) => Some((vector(q), vector(k))),
                _ => None,
            },
            w_o: matrix(&block.w_o),
            b_o: vector(&block.b_o),
            ln1_post: block.ln1_post.as_ref().map(norm),
        };
        let block = |block: &Block<B>| HostBlock {
            attention: attention(block),
            mlp: block.mlp.as_ref().map(|weights| mlp(block, weights)),
        };
        Self {
            blocks: decoder.blocks.iter().map(block).collect(),
            embedding: HostEmbedding {
                w_e: matrix(&decoder.w_e),
                w_pos: decoder.w_pos.as_ref().map(matrix),
            },
            unembedding: HostUnembedding {
                ln_final: decoder.ln_final.as_ref().map(norm),
                w_u: Some(matrix(&decoder.w_u)),
                b_u: decoder.b_u.as_ref().map(vector),
            },
        }
    }
}
