use serde::{Deserialize, Serialize};

use crate::config::{DecoderConfig, Norm, Positions};
use crate::host::{HostAttention, HostEmbedding, HostMlp, HostNorm, HostUnembedding, Matrix};

/// How weights are rewritten when they are loaded. It changes `hook_z`, `hook_result` and more, so
/// every result names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Processing {
    /// As stored: the computation of Hugging Face, and of TransformerLens without processing.
    Raw,
    /// TransformerLens' default before version 3, and what the paper used: gains and biases of norms
    /// folded into the weights that follow, those weights and all that write to the residual stream
    /// centred, the unembedding centred over the vocabulary, value biases moved into `b_O`. The
    /// model's log-probabilities stay the same. RMS norms have only their gains folded.
    #[default]
    Folded,
}

impl core::fmt::Display for Processing {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Folded => "folded",
        })
    }
}

/// Which rewritings of [`Processing::Folded`] a model gets. What TransformerLens skips is skipped here
/// too: everything but value biases for shortformer models; for RMS norms, which do not centre, the
/// centring of weights that read or write the stream; under a soft cap of the logits, which a shift
/// would change, the centring of the unembedding. Gains of norms after a layer stay. An unembedding
/// with a single column (a numerical output) is not centred, which would erase it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fold {
    norms: bool,
    centre_stream: bool,
    centre_unembedding: bool,
}

impl Fold {
    /// For a model as stored.
    pub(crate) fn new(config: &DecoderConfig) -> Self {
        let whole = config.positions != Positions::Shortformer;
        Self {
            norms: whole,
            centre_stream: whole && matches!(config.norm, Norm::Layer | Norm::LayerPre),
            centre_unembedding: whole
                && config.d_vocab_out > 1
                && config.output_logits_soft_cap.is_none(),
        }
    }

    /// The configuration of the rewritten model.
    pub(crate) fn config(self, config: &DecoderConfig) -> DecoderConfig {
        let norm = match config.norm {
            Norm::Layer if self.norms => Norm::LayerPre,
            Norm::Rms if self.norms => Norm::RmsPre,
            other => other,
        };
        DecoderConfig {
            norm,
            tied_embeddings: false,
            ..config.clone()
        }
    }

    pub(crate) fn embedding(self, weights: &mut HostEmbedding) {
        if self.centre_stream {
            centre_rows(&mut weights.w_e);
            if let Some(w_pos) = &mut weights.w_pos {
                centre_rows(w_pos);
            }
        }
    }

    pub(crate) fn attention(self, config: &DecoderConfig, layer: &mut HostAttention) {
        if self.norms {
            fold_norm(layer.ln1.take(), [(&mut layer.w_qkv, &mut layer.b_qkv)]);
        }
        if self.centre_stream {
            centre_rows(&mut layer.w_o);
            centre(&mut layer.b_o);
        }
        fold_value_biases(config, layer);
    }

    pub(crate) fn mlp(self, mlp: &mut HostMlp) {
        if self.norms {
            let gate = mlp.gate.as_mut().map(|(w, b)| (w, b));
            let readers = gate.into_iter().chain([(&mut mlp.w_in, &mut mlp.b_in)]);
            fold_norm(mlp.ln2.take(), readers);
        }
        if self.centre_stream {
            centre_rows(&mut mlp.w_out);
            centre(&mut mlp.b_out);
        }
    }

    /// `w_u` is there, also for tied embeddings.
    pub(crate) fn unembedding(self, w_u: &mut Matrix, weights: &mut HostUnembedding) {
        if self.norms
            && let Some(norm) = weights.ln_final.take()
        {
            let none = weights.b_u.is_none();
            let b_u = weights.b_u.get_or_insert_with(|| vec![0.0; w_u.cols]);
            let shifts = norm.b.is_some();
            fold_norm(Some(norm), [(&mut *w_u, b_u)]);
            if none && !shifts {
                weights.b_u = None;
            }
        }
        if self.centre_unembedding {
            centre_rows(w_u);
            if let Some(b_u) = &mut weights.b_u {
                centre(b_u);
            }
        }
    }
}

/// `(x̂ ⊙ w + b) · W + c = x̂ · (w ⊙ W) + (b · W + c)` for every `W` that reads the norm's output. After
/// a `LayerNorm` (one with a bias) the columns of the new `W` are then centred, which changes nothing
/// because `x̂` has mean zero.
fn fold_norm<'w>(
    norm: Option<HostNorm>,
    readers: impl IntoIterator<Item = (&'w mut Matrix, &'w mut Vec<f32>)>,
) {
    let Some(norm) = norm else { return };
    for (weight, bias) in readers {
        if let Some(b) = &norm.b {
            let mut shift: Vec<f64> = bias.iter().map(|&c| c.into()).collect();
            for (row, &b) in weight.data.chunks_exact(weight.cols).zip(b) {
                for (sum, &w) in shift.iter_mut().zip(row) {
                    *sum += f64::from(b) * f64::from(w);
                }
            }
            for (c, sum) in bias.iter_mut().zip(shift) {
                *c = sum as f32;
            }
        }
        for (row, &gain) in weight.data.chunks_exact_mut(weight.cols).zip(&norm.w) {
            for w in row {
                *w *= gain;
            }
        }
        if norm.b.is_some() {
            centre_columns(weight);
        }
    }
}

fn centre_columns(matrix: &mut Matrix) {
    let mut mean = vec![0.0f64; matrix.cols];
    for row in matrix.data.chunks_exact(matrix.cols) {
        for (sum, &x) in mean.iter_mut().zip(row) {
            *sum += f64::from(x);
        }
    }
    for row in matrix.data.chunks_exact_mut(matrix.cols) {
        for (x, sum) in row.iter_mut().zip(&mean) {
            *x = (f64::from(*x) - sum / matrix.rows as f64) as f32;
        }
    }
}

fn centre_rows(matrix: &mut Matrix) {
    for row in matrix.data.chunks_exact_mut(matrix.cols) {
        centre(row);
    }
}

fn centre(values: &mut [f32]) {
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
    for x in values {
        *x = (f64::from(*x) - mean) as f32;
    }
}

/// Attention probabilities sum to 1, so `b_V` adds the constant `b_V · W_O` to the layer's output.
fn fold_value_biases(config: &DecoderConfig, layer: &mut HostAttention) {
    let (d_head, group) = (config.d_head, config.n_heads / config.n_key_value_heads);
    let mut sum: Vec<f64> = layer.b_o.iter().map(|&b| b.into()).collect();
    let b_v = &mut layer.b_qkv[config.q_width() + config.kv_width()..];
    for (at, row) in layer.w_o.data.chunks_exact(layer.w_o.cols).enumerate() {
        let (head, entry) = (at / d_head, at % d_head);
        let b = f64::from(b_v[head / group * d_head + entry]);
        for (sum, &w) in sum.iter_mut().zip(row) {
            *sum += b * f64::from(w);
        }
    }
    b_v.fill(0.0);
    layer.b_o = sum.into_iter().map(|x| x as f32).collect();
}
