//! Weights on their way from the host to a device, part by part, so that no more than one part is
//! held twice.

use core::cell::OnceCell;

use burn::module::Param;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::Exec;

use crate::block::Block;
use crate::config::DecoderConfig;
use crate::decoder::Decoder;
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostNorm, HostUnembedding, Matrix};
use crate::mlp::{Gate, MlpWeights};
use crate::norm::NormWeights;
use crate::precision::Precision;
use crate::{Error, Result};

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
    /// The first weight that the precision cannot hold.
    overflow: OnceCell<String>,
}

impl<'d, B: Backend> Upload<'d, B> {
    pub(crate) const fn new(device: &'d B::Device, precision: Precision) -> Self {
        Self {
            device,
            precision,
            embedding: None,
            unembedding: None,
            blocks: Vec::new(),
            overflow: OnceCell::new(),
        }
    }

    /// Fails if a weight so far is finite on the host and not in the precision of the device.
    pub(crate) fn check(&self) -> Result<()> {
        match self.overflow.get() {
            None => Ok(()),
            Some(weight) => Err(Error::Overflow {
                what: weight.clone(),
                precision: self.precision,
            }),
        }
    }

    pub(crate) fn embedding(&mut self, host: HostEmbedding) {
        let w_pos = host.w_pos.map(|w_pos| self.matrix("W_pos", w_pos));
        self.embedding = Some((self.matrix("W_E", host.w_e), w_pos));
    }

    /// After [`Upload::embedding`], whose `W_E` a tied unembedding shares.
    pub(crate) fn unembedding(&mut self, host: HostUnembedding) {
        let w_u = match (host.w_u, &self.embedding) {
            (Some(w_u), _) => self.matrix("W_U", w_u),
            (None, Some((w_e, _))) => Param::from_tensor(w_e.val().transpose()),
            (None, None) => unreachable!("a tied unembedding comes after the embedding"),
        };
        let ln_final = host.ln_final.map(|norm| self.norm("ln_final", norm));
        let b_u = host.b_u.map(|b_u| self.vector("b_U", b_u));
        self.unembedding = Some((ln_final, w_u, b_u));
    }

    /// The attention layer of the next block.
    pub(crate) fn attention(&mut self, host: HostAttention) {
        let name = Names(self.blocks.len());
        let (q_norm, k_norm) = host
            .qk_norm
            .map(|(q, k)| {
                let q = self.vector(&name.of("attn.q_norm.w"), q);
                (q, self.vector(&name.of("attn.k_norm.w"), k))
            })
            .unzip();
        self.blocks.push(Block {
            ln1: host.ln1.map(|norm| self.norm(&name.of("ln1"), norm)),
            w_qkv: self.matrix(&name.of("attn.W_QKV"), host.w_qkv),
            b_qkv: self.vector(&name.of("attn.b_QKV"), host.b_qkv),
            q_norm,
            k_norm,
            w_o: self.matrix(&name.of("attn.W_O"), host.w_o),
            b_o: self.vector(&name.of("attn.b_O"), host.b_o),
            ln1_post: host
                .ln1_post
                .map(|norm| self.norm(&name.of("ln1_post"), norm)),
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
        let name = Names(self.blocks.len());
        block.ln2 = host.ln2.map(|norm| self.norm(&name.of("ln2"), norm));
        block.ln2_post = host
            .ln2_post
            .map(|norm| self.norm(&name.of("ln2_post"), norm));
        block.mlp = Some(MlpWeights {
            gate: host.gate.map(|(w, b)| Gate {
                w: self.matrix(&name.of("mlp.W_gate"), w),
                b: self.vector(&name.of("mlp.b_gate"), b),
            }),
            w_in: self.matrix(&name.of("mlp.W_in"), host.w_in),
            b_in: self.vector(&name.of("mlp.b_in"), host.b_in),
            w_out: self.matrix(&name.of("mlp.W_out"), host.w_out),
            b_out: self.vector(&name.of("mlp.b_out"), host.b_out),
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
            exec: Exec::serial(),
        }
    }

    fn norm(&self, name: &str, host: HostNorm) -> NormWeights<B> {
        NormWeights {
            w: self.vector(&format!("{name}.w"), host.w),
            b: host.b.map(|b| self.vector(&format!("{name}.b"), b)),
        }
    }

    fn matrix(&self, name: &str, host: Matrix) -> Weights<B> {
        self.parameter(name, host.data, [host.rows, host.cols])
    }

    fn vector(&self, name: &str, host: Vec<f32>) -> Vector<B> {
        let shape = [host.len()];
        self.parameter(name, host, shape)
    }

    /// `from_tensor`, unlike `initialized`, makes the weight trainable.
    fn parameter<const D: usize>(
        &self,
        name: &str,
        data: Vec<f32>,
        shape: [usize; D],
    ) -> Param<Tensor<B, D>> {
        let dtype = self.precision.dtype();
        // Loaders let only finite values through, but folding may have made others.
        let (data, finite) = match self.precision {
            Precision::F32 => {
                let finite = data.iter().all(|x| x.is_finite());
                (TensorData::new(data, shape), finite)
            }
            Precision::F16 => {
                let data: Vec<_> = data.into_iter().map(half::f16::from_f32).collect();
                let finite = data.iter().all(|x| x.is_finite());
                (TensorData::new(data, shape), finite)
            }
            Precision::Bf16 => {
                let data: Vec<_> = data.into_iter().map(half::bf16::from_f32).collect();
                let finite = data.iter().all(|x| x.is_finite());
                (TensorData::new(data, shape), finite)
            }
        };
        if !finite {
            self.overflow.get_or_init(|| name.to_owned());
        }
        Param::from_tensor(Tensor::from_data(data, (self.device, dtype)))
    }
}

/// Names of the weights of one block, as TransformerLens has them.
struct Names(usize);

impl Names {
    fn of(&self, weight: &str) -> String {
        format!("blocks.{}.{weight}", self.0)
    }
}
