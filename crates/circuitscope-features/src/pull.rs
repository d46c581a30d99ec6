//! What is read at a position, taken apart into those who wrote it.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::HeadId;
use circuitscope_hooks::wide;
use serde::{Deserialize, Serialize};

use crate::frozen::{Frozen, FrozenNorm, floats};
use crate::{Error, Result};

/// Who reads the residual stream, through a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reader {
    /// The values of the heads of a layer, which all read the same.
    Value(usize),
    /// The MLP of a layer ([`MlpHookIn`](circuitscope_hooks::Site::MlpHookIn)).
    Mlp(usize),
    /// The unembedding.
    Final,
}

/// Who writes to the residual stream of one position, or adds a constant to what is read there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writer {
    /// The token embedding.
    Token {
        /// Of the token, from 0.
        position: usize,
    },
    /// The position vector, in models that add one to the stream.
    Position {
        /// From 0.
        position: usize,
    },
    /// What a head moves from one source position, biases of its values included.
    Head {
        /// The head.
        head: HeadId,
        /// Where it writes.
        position: usize,
        /// Where it reads.
        source: usize,
    },
    /// `b_O` of a layer.
    AttentionBias {
        /// The layer.
        layer: usize,
        /// Where it is added.
        position: usize,
    },
    /// Everything an MLP adds, `b_out` included.
    Mlp {
        /// The layer.
        layer: usize,
        /// Where it writes.
        position: usize,
    },
    /// Biases between the stream and the reader: that of the norm, and of the values of a head that was gone
    /// [through](Frozen::through).
    Constant,
}

/// A share of what is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Who wrote it.
    pub writer: Writer,
    /// Share of the sum.
    pub value: f64,
}

/// A covector carried from the output of a norm back to the residual stream that the norm reads: made by
/// [`Frozen::pull`].
#[derive(Debug, Clone)]
pub struct Pull<B: Backend> {
    /// Whose norm it was carried through.
    pub reader: Reader,
    /// Where that reads.
    pub position: usize,
    /// `[d_model]`: what is read is `stream · x + constant` of the residual stream `x`.
    pub stream: Tensor<B, 1>,
    /// What biases give: that of the norm, and what was added since.
    pub constant: f64,
}

impl<B: Backend> Frozen<'_, B> {
    fn norm(&self, reader: Reader) -> Result<&FrozenNorm<B>> {
        Ok(match reader {
            Reader::Value(layer) => &self.check_layer(layer)?.ln1,
            Reader::Mlp(layer) => &self.check_mlp(layer)?.ln2,
            Reader::Final => &self.ln_final,
        })
    }

    /// Carries a covector on what `reader` reads at `position`, the output of its norm with gain and bias, back to the
    /// residual stream: through the gain, the centring of a `LayerNorm` and the scale as it was.
    ///
    /// # Shapes
    /// - `u`: `[d_model]`
    ///
    /// # Errors
    /// [`Error::Unfit`] if there is no such reader or position, or `u` has another width.
    pub fn pull(&self, reader: Reader, position: usize, u: Tensor<B, 1>) -> Result<Pull<B>> {
        self.check_position(position)?;
        let d_model = self.model.config().d_model;
        if u.dims() != [d_model] {
            return Err(Error::Unfit {
                what: "covector on the residual stream".to_owned(),
                found: format!("width {}", u.dims()[0]),
                expected: format!("width {d_model}"),
            });
        }
        let norm = self.norm(reader)?;
        let u = wide(u).unsqueeze_dim::<2>(0);
        let constant = floats(norm.constant(&u))?[0];
        Ok(Pull {
            reader,
            position,
            stream: norm.pull_at(u, &[position]).squeeze_dim(0),
            constant: constant.into(),
        })
    }

    /// Who wrote what is read: the token embedding, the position vector, each head from each source position, `b_O` of each
    /// layer and each MLP that come before the reader, and the constant of `pull`. The values sum to `u · x`.
    ///
    /// # Errors
    /// What the device cannot read back.
    pub fn parts(&self, pull: &Pull<B>) -> Result<Vec<Part>> {
        let position = pull.position;
        let at = position..position + 1;
        let mut writers = vec![Writer::Token { position }];
        let r = pull.stream.clone().unsqueeze_dim::<2>(1);
        let read = |x: &Tensor<B, 2>| -> Tensor<B, 1> {
            // [1, d_model] x [d_model, 1]
            x.clone()
                .slice_dim(0, at.clone())
                .matmul(r.clone())
                .squeeze_dim(1)
        };
        let mut values = vec![read(&self.tokens)];
        if let Some(positions) = &self.positions {
            writers.push(Writer::Position { position });
            values.push(read(positions));
        }
        for (layer, frozen) in self.layers.iter().enumerate() {
            let (attention, mlp) = self.before(pull.reader, layer);
            if attention {
                let r = self.before_post(layer, position, pull.stream.clone());
                let moved = self.by_source(layer, position, self.on_z(layer, r.clone()));
                let [heads, _] = moved.dims();
                for head in (0..heads).map(|head| HeadId::new(layer, head)) {
                    writers.extend((0..self.pos).map(|source| Writer::Head {
                        head,
                        position,
                        source,
                    }));
                }
                values.push(moved.reshape([heads * self.pos]));
                writers.push(Writer::AttentionBias { layer, position });
                values.push((r * frozen.b_o.clone()).sum());
            }
            if let Some(done) = frozen.mlp.as_ref().filter(|_| mlp) {
                writers.push(Writer::Mlp { layer, position });
                values.push(read(&done.output));
            }
        }
        let values = floats(Tensor::cat(values, 0))?;
        let parts = writers.into_iter().zip(values).map(|(writer, value)| Part {
            writer,
            value: value.into(),
        });
        // Nobody attends to what it may not see.
        let mut parts: Vec<Part> = parts
            .filter(|part| part.value != 0.0 || !matches!(part.writer, Writer::Head { .. }))
            .collect();
        parts.push(Part {
            writer: Writer::Constant,
            value: pull.constant,
        });
        Ok(parts)
    }

    /// Whether attention and MLP of a layer write before `reader` reads.
    fn before(&self, reader: Reader, layer: usize) -> (bool, bool) {
        let sequential = !self.model.config().parallel_attn_mlp;
        match reader {
            Reader::Value(at) => (layer < at, layer < at),
            Reader::Mlp(at) => (layer < at || sequential && layer == at, layer < at),
            Reader::Final => (true, true),
        }
    }

    /// A covector on what attention adds to the stream at a position, before the norm of that.
    fn before_post(&self, layer: usize, position: usize, r: Tensor<B, 1>) -> Tensor<B, 1> {
        match &self.layers[layer].ln1_post {
            Some(norm) => {
                let r = norm.pull_at(r.unsqueeze_dim(0), &[position]);
                r.squeeze_dim(0)
            }
            None => r,
        }
    }

    /// Covectors on the `z` of all heads, `[heads, d_head]`, from one on the sum of their outputs.
    fn on_z(&self, layer: usize, r: Tensor<B, 1>) -> Tensor<B, 2> {
        let w_o = self.layers[layer].w_o.clone();
        let [heads, d_head, d_model] = w_o.dims();
        let product = w_o
            .reshape([heads * d_head, d_model])
            .matmul(r.unsqueeze_dim(1));
        product.reshape([heads, d_head])
    }

    /// What heads move from each source, `[heads, pos]`, as covectors on their `z` at `position` see it:
    /// `A_h[t, s] · (v_g(h)[s] · u_h)`.
    pub(crate) fn by_source(
        &self,
        layer: usize,
        position: usize,
        on_z: Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let frozen = &self.layers[layer];
        let [heads, d_head] = on_z.dims();
        let [kv_heads, pos, _] = frozen.values.dims();
        let on_z = on_z.reshape([kv_heads, heads / kv_heads, d_head]);
        // [kv_heads, group, d_head] x [kv_heads, d_head, pos]
        let read = on_z.matmul(frozen.values.clone().swap_dims(1, 2));
        let pattern = frozen.pattern.clone().slice_dim(1, position..position + 1);
        read.reshape([heads, pos]) * pattern.squeeze_dim::<2>(1)
    }

    /// Goes on through a head: `pull` as what the head moves from `source` sees the residual stream there. The constant is what
    /// the biases of its values and of its norm give, so that the parts of the result sum to the part of
    /// [`Writer::Head`] in the parts of `pull`.
    ///
    /// # Errors
    /// [`Error::Unfit`] if there is no such head or source.
    pub fn through(&self, pull: &Pull<B>, head: HeadId, source: usize) -> Result<Pull<B>> {
        self.check_head(head)?;
        let r = self.before_post(head.layer, pull.position, pull.stream.clone());
        let on_z = self.on_z(head.layer, r);
        let on_z = on_z.slice_dim(0, head.head..head.head + 1).squeeze_dim(0);
        self.through_z(head, pull.position, source, on_z)
    }

    fn check_head(&self, head: HeadId) -> Result<()> {
        self.check_layer(head.layer)?;
        let heads = self.model.config().n_heads;
        if head.head < heads {
            return Ok(());
        }
        Err(Error::Unfit {
            what: "head".to_owned(),
            found: head.to_string(),
            expected: format!("one of the {heads} heads of its layer"),
        })
    }

    /// The same from a covector on the head's `z` at `position`.
    ///
    /// # Shapes
    /// - `on_z`: `[d_head]`
    ///
    /// # Errors
    /// As [`through`](Self::through).
    pub fn through_z(
        &self,
        head: HeadId,
        position: usize,
        source: usize,
        on_z: Tensor<B, 1>,
    ) -> Result<Pull<B>> {
        self.check_head(head)?;
        self.check_position(position)?;
        self.check_position(source)?;
        let frozen = &self.layers[head.layer];
        let config = self.model.config();
        let group = head.head / (config.n_heads / config.n_key_value_heads);
        let share = frozen.pattern.clone().slice([
            head.head..head.head + 1,
            position..position + 1,
            source..source + 1,
        ]);
        let on_z = wide(on_z) * share.reshape([1]);
        let w_v = frozen.w_v.clone().slice_dim(0, group..group + 1);
        // [d_model, d_head] x [d_head, 1]
        let u = w_v
            .squeeze_dim::<2>(0)
            .matmul(on_z.clone().unsqueeze_dim(1));
        let mut pull = self.pull(Reader::Value(head.layer), source, u.squeeze_dim(1))?;
        let b_v = frozen.b_v.clone().slice_dim(0, group..group + 1);
        let bias = floats((on_z * b_v.squeeze_dim::<1>(0)).sum())?[0];
        pull.constant += f64::from(bias);
        Ok(pull)
    }
}
