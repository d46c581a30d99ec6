//! What one pass did: everything that attribution holds as it was.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_hooks::{AnyTensor, Capture, Site, wide};
use circuitscope_model::{Decoder, Norm, NormAt, PaddingSide, Positions, TokenBatch};

use crate::{Error, Result};

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
