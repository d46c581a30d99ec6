//! Weights on the host, in one layout for every family, between a file and a device.

use burn::module::Param;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::Seed;
use circuitscope_core::draw::normal_pair;

use crate::block::Block;
use crate::config::{DecoderConfig, Norm};
use crate::decoder::Decoder;
use crate::mlp::MlpWeights;
use crate::norm::NormWeights;
use crate::precision::Precision;
use crate::upload::Upload;

/// Writes a matrix of these rows and columns, whose entries `read` gives in row-major order, transposed
/// into columns `from..` of a matrix of `width` columns.
pub(crate) fn transpose(
    [rows, cols]: [usize; 2],
    read: impl Fn(usize) -> f32,
    to: &mut [f32],
    width: usize,
    from: usize,
) {
    /// Side of the squares in which the walk goes: two of them fit the first-level cache.
    const TILE: usize = 32;

    for top in (0..rows).step_by(TILE) {
        for left in (0..cols).step_by(TILE) {
            for c in left..(left + TILE).min(cols) {
                for r in top..(top + TILE).min(rows) {
                    to[c * width + from + r] = read(r * cols + c);
                }
            }
        }
    }
}

/// A matrix, row-major, input-first: `[in, out]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) data: Vec<f32>,
}

impl Matrix {
    /// An empty `data` stands for a tensor that did not fit: such a model is refused before its
    /// weights are used ([`crate::source::Source::finish`]).
    pub(crate) fn new(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        assert!(
            data.is_empty() || data.len() == rows * cols,
            "{} entries in a matrix of {rows} × {cols}",
            data.len()
        );
        Self { rows, cols, data }
    }

    pub(crate) fn transposed(&self) -> Self {
        let mut data = vec![0.0; self.data.len()];
        self.transpose_into(&mut data, self.rows, 0);
        Self::new(self.cols, self.rows, data)
    }

    /// Writes the transposed matrix into columns `from..` of a matrix of `width` columns.
    fn transpose_into(&self, to: &mut [f32], width: usize, from: usize) {
        if !self.data.is_empty() {
            transpose([self.rows, self.cols], |at| self.data[at], to, width, from);
        }
    }

    /// Matrices stored output-first, `[out, in]`, side by side as one `[in, out + out + …]`.
    ///
    /// Empty if one of them is.
    pub(crate) fn side_by_side(parts: &[Self]) -> Self {
        let width = parts.iter().map(|part| part.rows).sum();
        let height = parts.first().map_or(0, |part| part.cols);
        if parts.iter().any(|part| part.data.is_empty()) {
            return Self::new(height, width, Vec::new());
        }
        let mut data = vec![0.0; height * width];
        let mut from = 0;
        for part in parts {
            part.transpose_into(&mut data, width, from);
            from += part.rows;
        }
        Self::new(height, width, data)
    }

    /// `count` rows, taken in this order.
    pub(crate) fn rows(&self, count: usize, rows: impl Iterator<Item = usize>) -> Self {
        let mut data = Vec::new();
        if !self.data.is_empty() {
            data.reserve_exact(count * self.cols);
            for row in rows {
                data.extend_from_slice(&self.data[row * self.cols..(row + 1) * self.cols]);
            }
        }
        Self::new(count, self.cols, data)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostNorm {
    pub(crate) w: Vec<f32>,
    pub(crate) b: Option<Vec<f32>>,
}

/// An MLP with the norms before and after it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostMlp {
    pub(crate) ln2: Option<HostNorm>,
    /// `[d_model, d_mlp]` and `[d_mlp]`.
    pub(crate) gate: Option<(Matrix, Vec<f32>)>,
    pub(crate) w_in: Matrix,
    pub(crate) b_in: Vec<f32>,
    pub(crate) w_out: Matrix,
    pub(crate) b_out: Vec<f32>,
    pub(crate) ln2_post: Option<HostNorm>,
}

/// An attention layer with the norms before and after it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostAttention {
    pub(crate) ln1: Option<HostNorm>,
    /// `[d_model, (n_heads + 2 * n_key_value_heads) * d_head]`.
    pub(crate) w_qkv: Matrix,
    pub(crate) b_qkv: Vec<f32>,
    /// `[d_head]` each.
    pub(crate) qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    /// `[n_heads * d_head, d_model]`.
    pub(crate) w_o: Matrix,
    pub(crate) b_o: Vec<f32>,
    pub(crate) ln1_post: Option<HostNorm>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostBlock {
    pub(crate) attention: HostAttention,
    pub(crate) mlp: Option<HostMlp>,
}

/// What comes before the blocks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostEmbedding {
    /// `[d_vocab, d_model]`.
    pub(crate) w_e: Matrix,
    /// `[n_ctx, d_model]`.
    pub(crate) w_pos: Option<Matrix>,
}

/// What comes after the blocks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostUnembedding {
    pub(crate) ln_final: Option<HostNorm>,
    /// `[d_model, d_vocab_out]`; `None` stands for the transposed `W_E`.
    pub(crate) w_u: Option<Matrix>,
    pub(crate) b_u: Option<Vec<f32>>,
}

/// All weights of a small model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HostWeights {
    pub(crate) embedding: HostEmbedding,
    pub(crate) blocks: Vec<HostBlock>,
    pub(crate) unembedding: HostUnembedding,
}

impl HostWeights {
    pub(crate) fn into_decoder<B: Backend>(
        self,
        config: DecoderConfig,
        device: &B::Device,
    ) -> Decoder<B> {
        let mut upload = Upload::new(device, Precision::F32);
        upload.embedding(self.embedding);
        upload.unembedding(self.unembedding);
        for block in self.blocks {
            upload.attention(block.attention);
            upload.mlp(block.mlp);
        }
        upload.finish(config)
    }

    /// Reads the weights back from a device.
    pub(crate) fn from_decoder<B: Backend>(decoder: &Decoder<B>) -> Self {
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

impl DecoderConfig {
    /// A model with random weights, for training and for tests.
    ///
    /// Matrices that read the residual stream are normal with standard deviation `1/√fan_in`, those
    /// that write to it half of that; embeddings have 0.4 (tokens) and 0.2 (positions), the
    /// unembedding 0.08; gains are 1 and biases 0. Drawn on the host from stream `model/init`, so
    /// equal on every backend.
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
        HostWeights {
            embedding: HostEmbedding { w_e, w_pos },
            blocks,
            unembedding: HostUnembedding {
                ln_final: norm(),
                w_u,
                b_u: None,
            },
        }
        .into_decoder(self.clone(), device)
    }
}
