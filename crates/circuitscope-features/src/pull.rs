//! A forward pass with its attention patterns and the scales of its norms held: what is read anywhere is then linear in
//! what was written before, and is taken apart into writers.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_core::HeadId;
use circuitscope_hooks::{AnyTensor, Capture, Site, wide};
use circuitscope_model::{Decoder, Norm, NormAt, PaddingSide, Positions, TokenBatch};

use crate::{Error, Result};

/// Who reads the residual stream, through a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reader {
    /// The values of the heads of a layer, which all read the same.
    Value(usize),
    /// The MLP of a layer ([`Site::MlpHookIn`]).
    Mlp(usize),
    /// The unembedding.
    Final,
}

/// Who writes to the residual stream of one position, or adds a constant to what is read there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// A norm with the scale it had.
#[derive(Debug, Clone)]
pub(crate) struct FrozenNorm<B: Backend> {
    centres: bool,
    /// `[pos, 1]`
    scale: Option<Tensor<B, 2>>,
    /// `[d_model]`
    gain: Option<Tensor<B, 1>>,
    bias: Option<Tensor<B, 1>>,
}

impl<B: Backend> FrozenNorm<B> {
    /// Parts of the input at each position, `[pos, d_model]`, in the output; without the bias.
    pub(crate) fn apply(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let x = if self.centres {
            let mean = x.clone().mean_dim(1);
            x - mean
        } else {
            x
        };
        let x = match &self.scale {
            Some(scale) => x / scale.clone(),
            None => x,
        };
        match &self.gain {
            Some(gain) => x * gain.clone().unsqueeze(),
            None => x,
        }
    }

    /// The same of any number of parts, `[n, d_model]`, at one position.
    pub(crate) fn apply_at(&self, x: Tensor<B, 2>, position: usize) -> Tensor<B, 2> {
        let scale = self.scale.clone();
        Self {
            scale: scale.map(|scale| scale.slice_dim(0, position..position + 1)),
            ..self.clone()
        }
        .apply(x)
    }

    /// Covectors on the output, `[pos, n, d_model]`, on the input.
    pub(crate) fn pull(&self, u: Tensor<B, 3>) -> Tensor<B, 3> {
        self.scaled(u, self.scale.clone().map(|scale| scale.unsqueeze_dim(2)))
    }

    /// Covectors on the output at one position each, `[n, d_model]`, on the input.
    pub(crate) fn pull_at(&self, u: Tensor<B, 2>, positions: &[usize]) -> Tensor<B, 2> {
        let scale = self.scale.clone().map(|scale| {
            let at = rows(positions, &scale.device());
            scale.select(0, at).unsqueeze_dim(0)
        });
        self.scaled(u.unsqueeze_dim(0), scale).squeeze_dim(0)
    }

    fn scaled(&self, u: Tensor<B, 3>, scale: Option<Tensor<B, 3>>) -> Tensor<B, 3> {
        let u = match &self.gain {
            Some(gain) => u * gain.clone().unsqueeze(),
            None => u,
        };
        let u = if self.centres {
            let mean = u.clone().mean_dim(2);
            u - mean
        } else {
            u
        };
        match scale {
            Some(scale) => u / scale,
            None => u,
        }
    }

    /// What the bias gives, `[n]`, of covectors on the output, `[n, d_model]`.
    pub(crate) fn constant(&self, u: &Tensor<B, 2>) -> Tensor<B, 1> {
        match &self.bias {
            Some(bias) => (u.clone() * bias.clone().unsqueeze())
                .sum_dim(1)
                .squeeze_dim(1),
            None => Tensor::zeros([u.dims()[0]], &u.device()),
        }
    }
}

/// What a layer did, in f32 at least.
#[derive(Debug, Clone)]
pub(crate) struct FrozenLayer<B: Backend> {
    pub(crate) ln1: FrozenNorm<B>,
    pub(crate) ln1_post: Option<FrozenNorm<B>>,
    /// `[heads, q_pos, k_pos]`
    pub(crate) pattern: Tensor<B, 3>,
    /// `[kv_heads, pos, d_head]`
    pub(crate) values: Tensor<B, 3>,
    /// `[heads, pos, d_head]`
    pub(crate) z: Tensor<B, 3>,
    /// `[heads, d_head, d_model]`
    pub(crate) w_o: Tensor<B, 3>,
    /// `[kv_heads, d_model, d_head]`
    pub(crate) w_v: Tensor<B, 3>,
    /// `[kv_heads, d_head]`
    pub(crate) b_v: Tensor<B, 2>,
    /// `[d_model]`
    pub(crate) b_o: Tensor<B, 1>,
    pub(crate) mlp: Option<FrozenMlp<B>>,
}

impl<B: Backend> FrozenLayer<B> {
    /// Covectors on what attention adds to the stream, `[pos, n, d_model]`, before the norm of that.
    pub(crate) fn before_post(&self, u: Tensor<B, 3>) -> Tensor<B, 3> {
        match &self.ln1_post {
            Some(norm) => norm.pull(u),
            None => u,
        }
    }
}

/// What an MLP did.
#[derive(Debug, Clone)]
pub(crate) struct FrozenMlp<B: Backend> {
    pub(crate) ln2: FrozenNorm<B>,
    pub(crate) ln2_post: Option<FrozenNorm<B>>,
    /// [`Site::MlpHookIn`] `[pos, d_model]`
    pub(crate) input: Tensor<B, 2>,
    /// [`Site::MlpOut`] `[pos, d_model]`
    pub(crate) output: Tensor<B, 2>,
}

/// One prompt through a model, its attention patterns and the scales of its norms held as they were: the map from every
/// writer to every reader of the residual stream is then affine, and exact for this prompt. What patterns, norms and the
/// nonlinearities of MLPs would do under a change is not in it (Elhage et al. 2021; transcoders: Dunefsky et al. 2024, arXiv
/// 2406.11944, §4.1).
///
/// # Symbols
/// `pos`: number of tokens; positions count from 0.
///
/// # Examples
/// The parts of a logit sum to it.
///
/// ```
/// use circuitscope_core::Seed;
/// use circuitscope_features::{Frozen, Reader};
/// use circuitscope_model::DecoderConfig;
///
/// type B = burn_flex::Flex;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Default::default();
/// let model = DecoderConfig::gpt2(2, 2, 8, 16, 10).init::<B>(Seed::new(0), &device);
/// let frozen = Frozen::new(&model, &[3, 1, 4], &device)?;
/// let column = model.w_u().slice_dim(1, 7..8).squeeze_dim(1);
/// let pull = frozen.pull(Reader::Final, 2, column)?;
/// let sum: f64 = frozen.parts(&pull)?.iter().map(|part| part.value).sum();
/// let logit = frozen.logits(2)?[7];
/// assert!((sum - f64::from(logit)).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Frozen<'m, B: Backend> {
    pub(crate) model: &'m Decoder<B>,
    pub(crate) pos: usize,
    /// The tokens themselves.
    pub(crate) ids: Vec<u32>,
    /// `[pos, d_model]`
    pub(crate) tokens: Tensor<B, 2>,
    /// `[pos, d_model]`
    pub(crate) positions: Option<Tensor<B, 2>>,
    pub(crate) layers: Vec<FrozenLayer<B>>,
    pub(crate) ln_final: FrozenNorm<B>,
    /// `[pos, d_vocab_out]`
    logits: Tensor<B, 2>,
}

/// What a pass left, taken site by site.
struct Taken<B: Backend>(Capture<B>);

impl<B: Backend> Taken<B> {
    fn any(&mut self, site: Site) -> Result<AnyTensor<B>> {
        let taken = self.0.take(site);
        Ok(taken.ok_or(circuitscope_hooks::Error::NeverFired { site })?)
    }

    /// `[1, pos, width]` as `[pos, width]`.
    fn flat(&mut self, site: Site) -> Result<Tensor<B, 2>> {
        let x = self.any(site)?.get::<3>();
        let x = x.unwrap_or_else(|| unreachable!("{site} has three axes"));
        Ok(wide(x).squeeze_dim(0))
    }

    /// `[1, a, b, c]` as `[a, b, c]`.
    fn deep(&mut self, site: Site) -> Result<Tensor<B, 3>> {
        let x = self.any(site)?.get::<4>();
        let x = x.unwrap_or_else(|| unreachable!("{site} has four axes"));
        Ok(wide(x).squeeze_dim(0))
    }

    /// The norm `at`, with the scale at `site`.
    fn norm(&mut self, model: &Decoder<B>, at: NormAt, site: Site) -> Result<FrozenNorm<B>> {
        let kind = match at {
            NormAt::AttentionOut(_) | NormAt::MlpOut(_) => Norm::Rms,
            _ => model.config().norm,
        };
        let parts = model.norm_parts(at);
        Ok(FrozenNorm {
            centres: matches!(kind, Norm::Layer | Norm::LayerPre),
            scale: match kind {
                Norm::None => None,
                _ => Some(self.flat(site)?),
            },
            gain: parts.gain.map(wide),
            bias: parts.bias.map(wide),
        })
    }
}

/// The sites that a frozen pass needs.
fn sites<B: Backend>(model: &Decoder<B>) -> Vec<Site> {
    let config = model.config();
    let mut sites = vec![Site::Embed, Site::LnFinalScale, Site::Logits];
    if config.positions == Positions::Learned {
        sites.push(Site::PosEmbed);
    }
    for layer in 0..config.n_layers {
        sites.extend([
            Site::Ln1Scale(layer),
            Site::Pattern(layer),
            Site::V(layer),
            Site::Z(layer),
        ]);
        if config.norm_after {
            sites.push(Site::Ln1PostScale(layer));
        }
        if config.mlp.is_some() {
            sites.extend([
                Site::Ln2Scale(layer),
                Site::MlpHookIn(layer),
                Site::MlpOut(layer),
            ]);
            if config.norm_after {
                sites.push(Site::Ln2PostScale(layer));
            }
        }
    }
    sites
}

impl<'m, B: Backend> Frozen<'m, B> {
    /// Runs `tokens` through the model.
    ///
    /// # Errors
    /// No tokens, too many, or tokens that the model does not have.
    pub fn new(model: &'m Decoder<B>, tokens: &[u32], device: &B::Device) -> Result<Self> {
        let config = model.config();
        config.check_tokens(&[tokens])?;
        let batch = TokenBatch::new(&[tokens], PaddingSide::Right, device)?;
        let mut capture = Capture::new(sites(model));
        model.forward(&batch, &mut capture);
        let mut taken = Taken(capture);
        let layers = (0..config.n_layers).map(|layer| {
            let mlp = match config.mlp {
                None => None,
                Some(_) => Some(FrozenMlp {
                    ln2: taken.norm(model, NormAt::Mlp(layer), Site::Ln2Scale(layer))?,
                    ln2_post: if config.norm_after {
                        let site = Site::Ln2PostScale(layer);
                        Some(taken.norm(model, NormAt::MlpOut(layer), site)?)
                    } else {
                        None
                    },
                    input: taken.flat(Site::MlpHookIn(layer))?,
                    output: taken.flat(Site::MlpOut(layer))?,
                }),
            };
            Ok(FrozenLayer {
                ln1: taken.norm(model, NormAt::Attention(layer), Site::Ln1Scale(layer))?,
                ln1_post: if config.norm_after {
                    let site = Site::Ln1PostScale(layer);
                    Some(taken.norm(model, NormAt::AttentionOut(layer), site)?)
                } else {
                    None
                },
                pattern: taken.deep(Site::Pattern(layer))?,
                values: taken.deep(Site::V(layer))?.swap_dims(0, 1),
                z: taken.deep(Site::Z(layer))?.swap_dims(0, 1),
                w_o: wide(model.w_o(layer)),
                w_v: wide(model.w_v(layer)),
                b_v: wide(model.b_v(layer)),
                b_o: wide(model.b_o(layer)),
                mlp,
            })
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            model,
            pos: tokens.len(),
            ids: tokens.to_vec(),
            tokens: taken.flat(Site::Embed)?,
            positions: if config.positions == Positions::Learned {
                Some(taken.flat(Site::PosEmbed)?)
            } else {
                None
            },
            ln_final: taken.norm(model, NormAt::Final, Site::LnFinalScale)?,
            logits: taken.flat(Site::Logits)?,
            layers,
        })
    }

    /// The model.
    pub const fn model(&self) -> &'m Decoder<B> {
        self.model
    }

    /// Number of tokens.
    pub const fn pos(&self) -> usize {
        self.pos
    }

    /// Logits at one position, `[d_vocab_out]`, after a soft cap if the model has one.
    ///
    /// # Errors
    /// [`Error::Unfit`] if there is no such position; what the device cannot read back.
    pub fn logits(&self, position: usize) -> Result<Vec<f32>> {
        self.check_position(position)?;
        floats(self.logits.clone().slice_dim(0, position..position + 1))
    }

    /// The device of the activations.
    pub(crate) fn device(&self) -> B::Device {
        self.tokens.device()
    }

    pub(crate) fn check_position(&self, position: usize) -> Result<()> {
        if position < self.pos {
            return Ok(());
        }
        Err(Error::Unfit {
            what: "position".to_owned(),
            found: position.to_string(),
            expected: format!("less than the {} tokens", self.pos),
        })
    }

    pub(crate) fn check_layer(&self, layer: usize) -> Result<&FrozenLayer<B>> {
        self.layers.get(layer).ok_or_else(|| Error::Unfit {
            what: "layer".to_owned(),
            found: layer.to_string(),
            expected: format!("less than the {} layers of the model", self.layers.len()),
        })
    }

    /// The MLP of a layer.
    pub(crate) fn check_mlp(&self, layer: usize) -> Result<&FrozenMlp<B>> {
        let mlp = self.check_layer(layer)?.mlp.as_ref();
        mlp.ok_or_else(|| Error::Unfit {
            what: format!("MLP of layer {layer}"),
            found: "a model of attention alone".to_owned(),
            expected: "a model with MLPs".to_owned(),
        })
    }

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

/// Numbers on the host.
pub(crate) fn floats<B: Backend, const D: usize>(x: Tensor<B, D>) -> Result<Vec<f32>> {
    let data = x.try_into_data().map_err(|error| Error::Device {
        reason: error.to_string(),
    })?;
    Ok(data.iter::<f32>().collect())
}

/// Row numbers on a device.
pub(crate) fn rows<B: Backend>(at: &[usize], device: &B::Device) -> Tensor<B, 1, Int> {
    let at: Vec<i64> = at.iter().map(|&at| at as i64).collect();
    Tensor::from_data(TensorData::new(at.clone(), [at.len()]), device)
}
