use burn::tensor::backend::Backend;
use circuitscope_core::Seed;
use circuitscope_core::draw::normal_pair;

use crate::config::{DecoderConfig, Norm};
use crate::decoder::Decoder;
use crate::host::{
    HostAttention, HostBlock, HostEmbedding, HostMlp, HostNorm, HostUnembedding, Matrix,
};
use crate::host_decoder::HostDecoder;

impl DecoderConfig {
    /// A model with random weights, for training and for tests.
    ///
    /// Matrices that read the residual stream are normal with standard deviation `1/√fan_in`, those
    /// that write to it half of that; embeddings have 0.4 (tokens) and 0.2 (positions), the
    /// unembedding 0.08; gains are 1 and biases 0. Drawn on the host from stream `model/init`, so
    /// equal on every backend.
    ///
    /// # Panics
    /// If the configuration contradicts itself.
    #[must_use]
    pub fn init<B: Backend>(&self, seed: Seed, device: &B::Device) -> Decoder<B> {
        let mut rng = seed.stream("model/init").rng();
        let mut matrix = |rows: usize, cols: usize, std: f64| {
            let data = (0..rows * cols)
                .map(|_| (std * normal_pair(&mut rng)[0]) as f32)
                .collect();
            Matrix::new(rows, cols, data)
        };
        let ones = |bias: bool| HostNorm {
            w: vec![1.0; self.d_model],
            b: bias.then(|| vec![0.0; self.d_model]),
        };
        let norm = || match self.norm {
            Norm::Layer => Some(ones(true)),
            Norm::Rms => Some(ones(false)),
            Norm::LayerPre | Norm::RmsPre | Norm::None => None,
        };
        let reading = 1.0 / (self.d_model as f64).sqrt();
        let writing = |fan_in: usize| 0.5 / (fan_in as f64).sqrt();
        let w_e = matrix(self.d_vocab, self.d_model, 0.4);
        let w_pos = self
            .has_position_vectors()
            .then(|| matrix(self.n_ctx, self.d_model, 0.2));
        let width = self.q_width();
        let blocks = (0..self.n_layers).map(|_| HostBlock {
            attention: HostAttention {
                ln1: norm(),
                w_qkv: matrix(self.d_model, self.qkv_width(), reading),
                b_qkv: vec![0.0; self.qkv_width()],
                qk_norm: self
                    .qk_norm
                    .then(|| (vec![1.0; self.d_head], vec![1.0; self.d_head])),
                w_o: matrix(width, self.d_model, writing(width)),
                b_o: vec![0.0; self.d_model],
                ln1_post: self.norm_after.then(|| ones(false)),
            },
            mlp: self.mlp.map(|mlp| HostMlp {
                ln2: norm(),
                gate: mlp.gated.then(|| {
                    let w = matrix(self.d_model, mlp.d_mlp, reading);
                    (w, vec![0.0; mlp.d_mlp])
                }),
                w_in: matrix(self.d_model, mlp.d_mlp, reading),
                b_in: vec![0.0; mlp.d_mlp],
                w_out: matrix(mlp.d_mlp, self.d_model, writing(mlp.d_mlp)),
                b_out: vec![0.0; self.d_model],
                ln2_post: self.norm_after.then(|| ones(false)),
            }),
        });
        let blocks = blocks.collect();
        let w_u = Some(matrix(self.d_model, self.d_vocab_out, 0.08));
        let decoder = HostDecoder {
            embedding: HostEmbedding { w_e, w_pos },
            blocks,
            unembedding: HostUnembedding {
                ln_final: norm(),
                w_u,
                b_u: None,
            },
        };
        let made = decoder.into_decoder(self.clone(), device);
        made.unwrap_or_else(|error| panic!("{error}"))
    }
}
