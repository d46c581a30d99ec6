//! Weights on the host, in one layout for every family, between a file and a device.

use crate::config::{DecoderConfig, Norm};

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
///
/// ```
/// # #[cfg(feature = "unstable-family")] {
/// use circuitscope_model::family::Matrix;
///
/// let stored = Matrix::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
/// assert_eq!(stored.transposed().data, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// assert_eq!(stored.rows(1, 1..2).data, [4.0, 5.0, 6.0]);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// The entries, row by row. Empty where a tensor did not fit, or was not read yet: such a model is refused before
    /// its weights are used.
    pub data: Vec<f32>,
}

impl Matrix {
    /// From its entries, row by row; or empty.
    ///
    /// # Panics
    /// If there are entries, and not `rows * cols`.
    #[must_use]
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        assert!(
            data.is_empty() || data.len() == rows * cols,
            "{} entries in a matrix of {rows} × {cols}",
            data.len()
        );
        Self { rows, cols, data }
    }

    /// Rows and columns exchanged.
    #[must_use]
    pub fn transposed(&self) -> Self {
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
    ///
    /// # Panics
    /// If they do not have the same number of columns.
    #[must_use]
    pub fn side_by_side(parts: &[Self]) -> Self {
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

    /// The `count` rows that `rows` names, in its order; empty if the matrix is.
    ///
    /// # Panics
    /// If there is no such row, or `rows` names another number of them.
    #[must_use]
    pub fn rows(&self, count: usize, rows: impl Iterator<Item = usize>) -> Self {
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

/// Gain and bias of a norm.
#[derive(Debug, Clone, PartialEq)]
pub struct HostNorm {
    /// `[d_model]`. Of an RMS norm whose file stores the gain less 1, with the 1 added.
    pub w: Vec<f32>,
    /// `[d_model]`, of a `LayerNorm`; none of an RMS norm.
    pub b: Option<Vec<f32>>,
}

/// An MLP with the norms before and after it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostMlp {
    /// The norm before it, if it has weights.
    pub ln2: Option<HostNorm>,
    /// Weight `[d_model, d_mlp]` and bias `[d_mlp]` of the gate, if it is gated.
    pub gate: Option<(Matrix, Vec<f32>)>,
    /// `[d_model, d_mlp]`.
    pub w_in: Matrix,
    /// `[d_mlp]`; zeros where the family has none.
    pub b_in: Vec<f32>,
    /// `[d_mlp, d_model]`.
    pub w_out: Matrix,
    /// `[d_model]`; zeros where the family has none.
    pub b_out: Vec<f32>,
    /// The RMS norm after it, in models with [`DecoderConfig::norm_after`].
    pub ln2_post: Option<HostNorm>,
}

/// An attention layer with the norms before and after it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostAttention {
    /// The norm before it, if it has weights.
    pub ln1: Option<HostNorm>,
    /// `[d_model, (n_heads + 2 * n_key_value_heads) * d_head]`: queries, keys, values, each head by head.
    pub w_qkv: Matrix,
    /// As many as `w_qkv` has columns; zeros where the family has none.
    pub b_qkv: Vec<f32>,
    /// Gains of the norms of queries and of keys, `[d_head]` each, in models with [`DecoderConfig::qk_norm`].
    pub qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    /// `[n_heads * d_head, d_model]`.
    pub w_o: Matrix,
    /// `[d_model]`; zeros where the family has none.
    pub b_o: Vec<f32>,
    /// The RMS norm after it, in models with [`DecoderConfig::norm_after`].
    pub ln1_post: Option<HostNorm>,
}

/// One block.
#[derive(Debug, Clone, PartialEq)]
pub struct HostBlock {
    /// Its attention layer.
    pub attention: HostAttention,
    /// Its MLP, if the model has MLPs.
    pub mlp: Option<HostMlp>,
}

/// What comes before the blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct HostEmbedding {
    /// `[d_vocab, d_model]`.
    pub w_e: Matrix,
    /// `[n_ctx, d_model]`, where positions have vectors.
    pub w_pos: Option<Matrix>,
}

/// What comes after the blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct HostUnembedding {
    /// The final norm, if it has weights.
    pub ln_final: Option<HostNorm>,
    /// `[d_model, d_vocab_out]`; `None` stands for the transposed `W_E`.
    pub w_u: Option<Matrix>,
    /// `[d_vocab_out]`.
    pub b_u: Option<Vec<f32>>,
}

/// What of weights does not fit a configuration, one line each, by the names that TransformerLens has.
pub(crate) struct Misfits<'c> {
    config: &'c DecoderConfig,
    pub(crate) found: Vec<String>,
}

impl<'c> Misfits<'c> {
    pub(crate) const fn new(config: &'c DecoderConfig) -> Self {
        Self {
            config,
            found: Vec::new(),
        }
    }

    pub(crate) fn embedding(&mut self, host: &HostEmbedding) {
        let DecoderConfig {
            d_vocab,
            d_model,
            n_ctx,
            ..
        } = *self.config;
        self.matrix("W_E", &host.w_e, [d_vocab, d_model]);
        let expected = self.config.has_position_vectors();
        if let Some(w_pos) = self.present("W_pos", expected, host.w_pos.as_ref()) {
            self.matrix("W_pos", w_pos, [n_ctx, d_model]);
        }
    }

    pub(crate) fn unembedding(&mut self, host: &HostUnembedding) {
        let (d_model, out) = (self.config.d_model, self.config.d_vocab_out);
        self.norm("ln_final", host.ln_final.as_ref());
        match &host.w_u {
            Some(w_u) => self.matrix("W_U", w_u, [d_model, out]),
            None if out != self.config.d_vocab => self.found.push(format!(
                "W_U: none, expected one: {out} logits are not the {} of the token embedding",
                self.config.d_vocab
            )),
            None => {}
        }
        if let Some(b_u) = &host.b_u {
            self.vector("b_U", b_u, out);
        }
    }

    pub(crate) fn attention(&mut self, layer: usize, host: &HostAttention) {
        let config = self.config;
        let (d, q, qkv) = (config.d_model, config.q_width(), config.qkv_width());
        let at = |name: &str| format!("blocks.{layer}.{name}");
        self.norm(&at("ln1"), host.ln1.as_ref());
        self.matrix(&at("attn.W_QKV"), &host.w_qkv, [d, qkv]);
        self.vector(&at("attn.b_QKV"), &host.b_qkv, qkv);
        let norms = host.qk_norm.as_ref();
        if let Some((q, k)) = self.present(&at("attn.q_norm"), config.qk_norm, norms) {
            self.vector(&at("attn.q_norm.w"), q, config.d_head);
            self.vector(&at("attn.k_norm.w"), k, config.d_head);
        }
        self.matrix(&at("attn.W_O"), &host.w_o, [q, d]);
        self.vector(&at("attn.b_O"), &host.b_o, d);
        self.norm_after(&at("ln1_post"), host.ln1_post.as_ref());
    }

    pub(crate) fn mlp(&mut self, layer: usize, host: Option<&HostMlp>) {
        let at = |name: &str| format!("blocks.{layer}.{name}");
        let (d, expected) = (self.config.d_model, self.config.mlp);
        let host = self.present(&at("mlp"), expected.is_some(), host);
        let (Some(host), Some(mlp)) = (host, expected) else {
            return;
        };
        self.norm(&at("ln2"), host.ln2.as_ref());
        if let Some((w, b)) = self.present(&at("mlp.W_gate"), mlp.gated, host.gate.as_ref()) {
            self.matrix(&at("mlp.W_gate"), w, [d, mlp.d_mlp]);
            self.vector(&at("mlp.b_gate"), b, mlp.d_mlp);
        }
        self.matrix(&at("mlp.W_in"), &host.w_in, [d, mlp.d_mlp]);
        self.vector(&at("mlp.b_in"), &host.b_in, mlp.d_mlp);
        self.matrix(&at("mlp.W_out"), &host.w_out, [mlp.d_mlp, d]);
        self.vector(&at("mlp.b_out"), &host.b_out, d);
        self.norm_after(&at("ln2_post"), host.ln2_post.as_ref());
    }

    /// A norm of the stream: with weights unless they are folded away, with a bias if it is a `LayerNorm`.
    fn norm(&mut self, name: &str, norm: Option<&HostNorm>) {
        let (weights, bias) = match self.config.norm {
            Norm::Layer => (true, true),
            Norm::Rms => (true, false),
            Norm::LayerPre | Norm::RmsPre | Norm::None => (false, false),
        };
        self.norm_of(name, norm, weights, bias);
    }

    fn norm_after(&mut self, name: &str, norm: Option<&HostNorm>) {
        self.norm_of(name, norm, self.config.norm_after, false);
    }

    fn norm_of(&mut self, name: &str, norm: Option<&HostNorm>, weights: bool, bias: bool) {
        let d = self.config.d_model;
        if let Some(norm) = self.present(name, weights, norm) {
            self.vector(&format!("{name}.w"), &norm.w, d);
            let name = format!("{name}.b");
            if let Some(b) = self.present(&name, bias, norm.b.as_ref()) {
                self.vector(&name, b, d);
            }
        }
    }

    /// The weight, if it is there and is to be; notes if it is not as expected.
    fn present<'w, T>(
        &mut self,
        name: &str,
        expected: bool,
        weight: Option<&'w T>,
    ) -> Option<&'w T> {
        match (weight, expected) {
            (None, true) => self
                .found
                .push(format!("{name}: none, the configuration has one")),
            (Some(_), false) => self
                .found
                .push(format!("{name}: found one, the configuration has none")),
            _ => {}
        }
        weight.filter(|_| expected)
    }

    fn vector(&mut self, name: &str, values: &[f32], expected: usize) {
        if values.len() != expected {
            let found = values.len();
            self.found
                .push(format!("{name}: shape [{found}], expected [{expected}]"));
        }
    }

    fn matrix(&mut self, name: &str, matrix: &Matrix, expected: [usize; 2]) {
        let found = [matrix.rows, matrix.cols];
        if found != expected {
            self.found
                .push(format!("{name}: shape {found:?}, expected {expected:?}"));
        } else if matrix.data.len() != matrix.rows * matrix.cols {
            let entries = matrix.data.len();
            self.found
                .push(format!("{name}: {entries} entries, expected {expected:?}"));
        }
    }
}
