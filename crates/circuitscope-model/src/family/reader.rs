use serde_json::{Map, Value};

use crate::config::DecoderConfig;
use crate::host::{HostEmbedding, HostMlp, HostNorm, Matrix};
use crate::source::Source;

/// A model's weights, read by name.
///
/// A tensor that is missing, of another shape or type or not finite becomes part of the one error that loading ends
/// with; here an empty vector or matrix stands for it. Every tensor is asked for twice: at first only names and shapes
/// are checked, and everything is empty.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub(crate) config: &'a DecoderConfig,
    pub(crate) json: &'a Map<String, Value>,
    pub(crate) source: &'a Source<'a>,
}

#[cfg(feature = "unstable-family")]
impl<'a> Reader<'a> {
    /// The configuration that the family made.
    #[must_use]
    pub const fn config(&self) -> &'a DecoderConfig {
        self.config
    }

    /// `config.json`.
    #[must_use]
    pub const fn json(&self) -> &'a Map<String, Value> {
        self.json
    }
}

impl<'a> Reader<'a> {
    /// The same tensors with an object inside `config.json` for its flags.
    #[must_use]
    pub const fn within(self, json: &'a Map<String, Value>) -> Self {
        Self { json, ..self }
    }

    /// The tensor of this name and shape, row-major, widened to f32.
    #[must_use]
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        self.source.take(name, shape)
    }

    /// A flag of the configuration, which was validated before.
    #[must_use]
    pub fn flag_or(&self, key: &str, default: bool) -> bool {
        let value = self.json.get(key).and_then(Value::as_bool);
        value.unwrap_or(default)
    }

    /// The vector of this name, `[len]`.
    #[must_use]
    pub fn vector(&self, name: &str, len: usize) -> Vec<f32> {
        self.tensor(name, &[len])
    }

    /// The vector if it is expected, else zeros.
    #[must_use]
    pub fn vector_if(&self, expected: bool, name: &str, len: usize) -> Vec<f32> {
        if expected {
            self.vector(name, len)
        } else {
            self.zeros(len)
        }
    }

    /// Zeros, where nothing is stored; nothing while the source only checks, because a broken
    /// configuration may ask for any number of them.
    #[must_use]
    pub fn zeros(&self, len: usize) -> Vec<f32> {
        vec![0.0; if self.source.only_checks() { 0 } else { len }]
    }

    /// A matrix as it is stored.
    #[must_use]
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Matrix {
        Matrix::new(rows, cols, self.tensor(name, &[rows, cols]))
    }

    /// The weight of a linear layer, stored output-first, as `[inputs, outputs]`.
    #[must_use]
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Matrix {
        let data = self.source.take_transposed(name, outputs, inputs);
        Matrix::new(inputs, outputs, data)
    }

    /// A token embedding, where positions have no vectors.
    #[must_use]
    pub fn tokens_only(&self, name: &str) -> HostEmbedding {
        HostEmbedding {
            w_e: self.matrix(name, self.config.d_vocab, self.config.d_model),
            w_pos: None,
        }
    }

    /// An MLP of two linear layers after a `LayerNorm`, by the names of the three; `bias` says whether the
    /// layers have biases.
    #[must_use]
    pub fn plain_mlp(&self, norm: &str, layers: [&str; 2], bias: bool) -> Option<HostMlp> {
        let (d, d_mlp) = (self.config.d_model, self.config.mlp?.d_mlp);
        let [reads, writes] = layers;
        Some(HostMlp {
            ln2: Some(self.layer_norm(norm)),
            gate: None,
            w_in: self.linear(&format!("{reads}.weight"), d, d_mlp),
            b_in: self.vector_if(bias, &format!("{reads}.bias"), d_mlp),
            w_out: self.linear(&format!("{writes}.weight"), d_mlp, d),
            b_out: self.vector_if(bias, &format!("{writes}.bias"), d),
            ln2_post: None,
        })
    }

    /// An unembedding without bias; nothing where the configuration ties it to the embedding.
    #[must_use]
    pub fn untied(&self, name: &str) -> Option<Matrix> {
        let (d, d_vocab) = (self.config.d_model, self.config.d_vocab);
        (!self.config.tied_embeddings).then(|| self.linear(name, d, d_vocab))
    }

    /// Gain and bias of a `LayerNorm` of the stream, as `{name}.weight` and `{name}.bias`.
    #[must_use]
    pub fn layer_norm(&self, name: &str) -> HostNorm {
        HostNorm {
            w: self.vector(&format!("{name}.weight"), self.config.d_model),
            b: Some(self.vector(&format!("{name}.bias"), self.config.d_model)),
        }
    }
}

impl core::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let config = &self.config;
        f.debug_struct("Reader")
            .field("config", config)
            .finish_non_exhaustive()
    }
}

/// What follows the layer number in a name `{prefix}{layer}.{rest}`.
pub(super) fn in_layer<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    let (layer, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    let digits = !layer.is_empty() && layer.bytes().all(|b| b.is_ascii_digit());
    digits.then_some(rest)
}
