//! Weights on their way from the host to a device, part by part, so that no more than one part is
//! held twice.

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::block::Block;
use crate::config::DecoderConfig;
use crate::decoder::Decoder;
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostNorm, HostUnembedding, Matrix};
use crate::mlp::{Gate, MlpWeights};
use crate::norm::NormWeights;
use crate::precision::Precision;

type Vector<B> = Param<Tensor<B, 1>>;
type Weights<B> = Param<Tensor<B, 2>>;

/// Final norm, unembedding and its bias.
type Head<B> = (Option<NormWeights<B>>, Weights<B>, Option<Vector<B>>);

/// A decoder in the making.
pub(crate) struct Upload<'d, B: Backend> {
    device: &'d B::Device,
    precision: Precision,
    embedding: Option<(Weights<B>, Option<Weights<B>>)>,
    unembedding: Option<Head<B>>,
    blocks: Vec<Block<B>>,
}

impl<'d, B: Backend> Upload<'d, B> {
    pub(crate) const fn new(device: &'d B::Device, precision: Precision) -> Self {
        Self {
            device,
            precision,
            embedding: None,
            unembedding: None,
            blocks: Vec::new(),
        }
    }

    pub(crate) fn embedding(&mut self, host: HostEmbedding) {
        let w_pos = host.w_pos.map(|w_pos| self.matrix(w_pos));
        self.embedding = Some((self.matrix(host.w_e), w_pos));
    }

    /// After [`Upload::embedding`], whose `W_E` a tied unembedding shares.
    pub(crate) fn unembedding(&mut self, host: HostUnembedding) {
        let w_u = match (host.w_u, &self.embedding) {
            (Some(w_u), _) => self.matrix(w_u),
            (None, Some((w_e, _))) => Param::from_tensor(w_e.val().transpose()),
            (None, None) => unreachable!("a tied unembedding comes after the embedding"),
        };
        let ln_final = host.ln_final.map(|norm| self.norm(norm));
        let b_u = host.b_u.map(|b_u| self.vector(b_u));
        self.unembedding = Some((ln_final, w_u, b_u));
    }

    /// The attention layer of the next block.
    pub(crate) fn attention(&mut self, host: HostAttention) {
        let (q_norm, k_norm) = host
            .qk_norm
            .map(|(q, k)| (self.vector(q), self.vector(k)))
            .unzip();
        self.blocks.push(Block {
            ln1: host.ln1.map(|norm| self.norm(norm)),
            w_qkv: self.matrix(host.w_qkv),
            b_qkv: self.vector(host.b_qkv),
            q_norm,
            k_norm,
            w_o: self.matrix(host.w_o),
            b_o: self.vector(host.b_o),
            ln1_post: host.ln1_post.map(|norm| self.norm(norm)),
            ln2: None,
            mlp: None,
            ln2_post: None,
        });
    }

    /// The MLP of the block whose attention layer came last.
    pub(crate) fn mlp(&mut self, host: Option<HostMlp>) {
        let Some(host) = host else { return };
        let Some(mut block) = self.blocks.pop() else {
            unreachable!("every loader gives the attention layer first")
        };
        block.ln2 = host.ln2.map(|norm| self.norm(norm));
        block.ln2_post = host.ln2_post.map(|norm| self.norm(norm));
        block.mlp = Some(MlpWeights {
            gate: host.gate.map(|(w, b)| Gate {
                w: self.matrix(w),
                b: self.vector(b),
            }),
            w_in: self.matrix(host.w_in),
            b_in: self.vector(host.b_in),
            w_out: self.matrix(host.w_out),
            b_out: self.vector(host.b_out),
        });
        self.blocks.push(block);
    }

    /// The decoder.
    ///
    /// # Panics
    /// If a part was not given.
    pub(crate) fn finish(self, config: DecoderConfig) -> Decoder<B> {
        let (Some((w_e, w_pos)), Some((ln_final, w_u, b_u))) = (self.embedding, self.unembedding)
        else {
            unreachable!("every loader gives an embedding and an unembedding")
        };
        assert_eq!(
            self.blocks.len(),
            config.n_layers,
            "one block for each layer"
        );
        Decoder {
            w_e,
            w_pos,
            blocks: self.blocks,
            ln_final,
            w_u,
            b_u,
            config,
        }
    }

    fn norm(&self, host: HostNorm) -> NormWeights<B> {
        NormWeights {
            w: self.vector(host.w),
            b: host.b.map(|b| self.vector(b)),
        }
    }

    fn matrix(&self, host: Matrix) -> Weights<B> {
        self.parameter(host.data, [host.rows, host.cols])
    }

    fn vector(&self, host: Vec<f32>) -> Vector<B> {
        let shape = [host.len()];
        self.parameter(host, shape)
    }

    /// `from_tensor`, unlike `initialized`, makes the weight trainable.
    fn parameter<const D: usize>(&self, data: Vec<f32>, shape: [usize; D]) -> Param<Tensor<B, D>> {
        let dtype = self.precision.dtype();
        let data = match self.precision {
            Precision::F32 => TensorData::new(data, shape),
            Precision::F16 => {
                let data: Vec<_> = data.into_iter().map(half::f16::from_f32).collect();
                TensorData::new(data, shape)
            }
            Precision::Bf16 => {
                let data: Vec<_> = data.into_iter().map(half::bf16::from_f32).collect();
                TensorData::new(data, shape)
            }
        };
        Param::from_tensor(Tensor::from_data(data, (self.device, dtype)))
    }
}
