use circuitscope_core::{Graph, HeadGrid};
use circuitscope_hooks::{Site, SiteCatalog};
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How positions enter the model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Positions {
    /// A learned vector for each position, added to the token embedding (GPT-2, OPT).
    Learned,
    /// A learned vector for each position, added to what queries and keys read and to nothing else
    /// (Press et al. 2021, arXiv 2012.15832; TransformerLens' attention-only models).
    Shortformer,
    /// Queries and keys are rotated by an angle that grows with the position.
    Rotary(Rotary),
    /// The same, with angles of their own in the layers that attend in a window (Gemma 3).
    RotaryByWindow {
        /// In layers with a window.
        windowed: Rotary,
        /// In all others.
        whole: Rotary,
    },
    /// None.
    None,
}

/// Rotary positions (Su et al. 2021, arXiv 2104.09864): pair `i` of the first `dim` entries of every
/// query and key turns by `position / base^(2 i / dim)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct Rotary {
    /// Number of entries of a head that are rotated: even, at most `d_head`.
    pub dim: usize,
    /// θ.
    pub base: f64,
    /// Which entries form a pair.
    pub pairs: RotaryPairs,
    /// How the angles are stretched for contexts longer than those of training.
    pub scaling: RopeScaling,
}

impl Rotary {
    /// Angles as they were trained, without [`scaling`](Self::scaling).
    #[must_use]
    pub const fn new(dim: usize, base: f64, pairs: RotaryPairs) -> Self {
        Self {
            dim,
            base,
            pairs,
            scaling: RopeScaling::None,
        }
    }
}

/// Which entries of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RotaryPairs {
    /// `i` and `i + dim / 2` (GPT-NeoX, Llama).
    Halves,
    /// `2 i` and `2 i + 1` (GPT-J).
    Adjacent,
}

/// How rotary angles are stretched; names are those of `rope_scaling` in Hugging Face configurations.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not.
    None,
    /// Every angle is divided by the factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Slow pairs are divided by the factor, fast ones are kept, and those between are blended (Llama
    /// 3.1). A pair is slow if its wavelength is over `original / low_freq_factor`, fast if it is under
    /// `original / high_freq_factor`.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Bound of the slow pairs.
        low_freq_factor: f64,
        /// Bound of the fast pairs.
        high_freq_factor: f64,
        /// Context length of the training before.
        original: f64,
    },
}

/// The normalisation before attention, before the MLP and before the unembedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Norm {
    /// `LayerNorm` with gain and bias.
    Layer,
    /// `LayerNorm` whose gain and bias were folded into the following weights: centre and scale.
    LayerPre,
    /// RMS norm with gain (Zhang and Sennrich 2019, arXiv 1910.07467). Where a family stores the gain
    /// less 1 (Gemma), the loader adds it.
    Rms,
    /// RMS norm whose gain was folded into the following weights: scale only.
    RmsPre,
    /// None (compiled models).
    None,
}

/// The nonlinearity of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// GELU by its tanh approximation, `gelu_new` of GPT-2.
    GeluTanh,
    /// GELU by the error function.
    GeluExact,
    /// `x · sigmoid(x)`.
    Silu,
}

/// The MLP of every block: `f(x · W_in + b_in) · W_out + b_out`, or gated
/// `(f(x · W_gate + b_gate) ⊙ (x · W_in + b_in)) · W_out + b_out` (Shazeer 2020, arXiv 2002.05202).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct Mlp {
    /// Width.
    pub d_mlp: usize,
    /// The nonlinearity `f`.
    pub activation: Activation,
    /// Whether it has a gate.
    pub gated: bool,
}

impl Mlp {
    /// An MLP without a gate.
    #[must_use]
    pub const fn new(d_mlp: usize, activation: Activation) -> Self {
        Self {
            d_mlp,
            activation,
            gated: false,
        }
    }
}

/// Which positions a position may attend to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Direction {
    /// Itself and earlier ones.
    Causal,
    /// All.
    Bidirectional,
}

/// Largest batch where memory does not ask for less: beyond it CPUs gain nothing.
const MAX_BATCH_TOKENS: usize = 4096;

/// Everything the forward pass needs to know of a model. A family is a parser into this and a table
/// of weight names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about a model, not states"
)]
#[non_exhaustive]
pub struct DecoderConfig {
    /// Number of blocks.
    pub n_layers: usize,
    /// Attention heads in each.
    pub n_heads: usize,
    /// Heads of keys and values in each: a divisor of `n_heads`. Query head `h` reads key/value head
    /// `h / (n_heads / n_key_value_heads)` (Ainslie et al. 2023, arXiv 2305.13245).
    pub n_key_value_heads: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Longest prompt, in tokens.
    pub n_ctx: usize,
    /// Number of input tokens.
    pub d_vocab: usize,
    /// Number of output logits.
    pub d_vocab_out: usize,
    /// The token embedding is multiplied by this (Gemma's `√d_model`; else 1).
    pub embed_scale: f64,
    /// Whether the unembedding is the transposed token embedding. Tells how weights were stored, not
    /// how they are computed with.
    pub tied_embeddings: bool,
    /// The MLPs; `None` for attention-only models.
    pub mlp: Option<Mlp>,
    /// Whether attention and MLP both read the residual stream before the block.
    pub parallel_attn_mlp: bool,
    /// The norms.
    pub norm: Norm,
    /// Whether the outputs of attention and MLP pass through RMS norms with gain (Gemma 2 and 3).
    pub norm_after: bool,
    /// Whether queries and keys pass, head by head, through RMS norms with gain (Qwen3, Gemma 3).
    pub qk_norm: bool,
    /// ε inside the square root of the norms.
    pub eps: f64,
    /// Positions.
    pub positions: Positions,
    /// Attention mask.
    pub direction: Direction,
    /// For each layer the number of positions, itself included, that a position may look back;
    /// empty if no layer is so limited.
    pub windows: Vec<Option<usize>>,
    /// Attention scores are divided by this (`√d_head`, usually).
    pub attn_scale: f64,
    /// Whether scores of layer l are further divided by l + 1.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Attention scores `s` become `c · tanh(s / c)`, before the mask.
    pub attn_scores_soft_cap: Option<f64>,
    /// Logits likewise.
    pub output_logits_soft_cap: Option<f64>,
    /// Token that is put before a prompt, if the model has one.
    pub bos_token: Option<u32>,
}

impl DecoderConfig {
    /// A causal pre-LayerNorm model with learned positions and GELU(tanh) MLPs of width
    /// `4 * d_model`: the architecture of GPT-2.
    ///
    /// # Panics
    /// Unless `n_heads` divides `d_model`.
    #[must_use]
    pub fn gpt2(
        n_layers: usize,
        n_heads: usize,
        d_model: usize,
        n_ctx: usize,
        d_vocab: usize,
    ) -> Self {
        assert!(
            n_heads > 0 && d_model.is_multiple_of(n_heads),
            "{n_heads} heads in a width of {d_model}"
        );
        let d_head = d_model / n_heads;
        Self {
            n_layers,
            n_heads,
            n_key_value_heads: n_heads,
            d_model,
            d_head,
            n_ctx,
            d_vocab,
            d_vocab_out: d_vocab,
            embed_scale: 1.0,
            tied_embeddings: false,
            mlp: Some(Mlp {
                d_mlp: 4 * d_model,
                activation: Activation::GeluTanh,
                gated: false,
            }),
            parallel_attn_mlp: false,
            norm: Norm::Layer,
            norm_after: false,
            qk_norm: false,
            eps: 1e-5,
            positions: Positions::Learned,
            direction: Direction::Causal,
            windows: Vec::new(),
            attn_scale: (d_head as f64).sqrt(),
            scale_attn_by_inverse_layer_idx: false,
            attn_scores_soft_cap: None,
            output_logits_soft_cap: None,
            bos_token: None,
        }
    }

    /// Width of all queries of a layer: `n_heads * d_head`.
    pub(crate) const fn q_width(&self) -> usize {
        self.n_heads * self.d_head
    }

    /// Width of all keys, or all values, of a layer: `n_key_value_heads * d_head`.
    pub(crate) const fn kv_width(&self) -> usize {
        self.n_key_value_heads * self.d_head
    }

    /// Width of queries, keys and values together.
    pub(crate) const fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// Whether positions have vectors of their own.
    pub(crate) const fn has_position_vectors(&self) -> bool {
        matches!(self.positions, Positions::Learned | Positions::Shortformer)
    }

    /// The window of a layer, where it is smaller than a prompt of `pos` tokens.
    pub(crate) fn window(&self, layer: usize, pos: usize) -> Option<usize> {
        let window = self.windows.get(layer).copied().flatten();
        window.filter(|&window| window < pos)
    }

    /// How queries and keys of a layer are rotated, if they are.
    pub(crate) fn rotary(&self, layer: usize) -> Option<Rotary> {
        match self.positions {
            Positions::Rotary(rotary) => Some(rotary),
            Positions::RotaryByWindow { windowed, whole } => {
                let window = self.windows.get(layer).copied().flatten();
                Some(window.map_or(whole, |_| windowed))
            }
            Positions::Learned | Positions::Shortformer | Positions::None => None,
        }
    }

    /// Layers and heads.
    pub const fn grid(&self) -> HeadGrid {
        HeadGrid::new(self.n_layers, self.n_heads)
    }

    /// The computation graph: who writes to the residual stream and who reads it. Where the model
    /// normalises what attention and MLPs write, a head writes what comes out of that norm
    /// ([`Site::HeadOut`](circuitscope_hooks::Site::HeadOut)).
    pub const fn graph(&self) -> Graph {
        Graph {
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_key_value_heads: self.n_key_value_heads,
            mlps: self.mlp.is_some(),
            parallel: self.parallel_attn_mlp,
        }
    }

    /// The sites of the model.
    pub fn catalog(&self) -> SiteCatalog {
        let norms = !matches!(self.norm, Norm::None);
        let rotary = matches!(
            self.positions,
            Positions::Rotary(_) | Positions::RotaryByWindow { .. }
        );
        SiteCatalog::full(self.n_layers)
            .with_attn_only(self.mlp.is_none())
            .with_block_norms(norms)
            .with_final_norm(norms)
            .with_position_embedding(self.has_position_vectors())
            .with_rotary(rotary)
            .with_parallel(self.parallel_attn_mlp)
            .with_gated(matches!(self.mlp, Some(Mlp { gated: true, .. })))
            .with_post_norms(self.norm_after)
    }

    /// What the scores of `layer` are divided by.
    pub(crate) fn score_divisor(&self, layer: usize) -> f64 {
        let by_layer = if self.scale_attn_by_inverse_layer_idx {
            (layer + 1) as f64
        } else {
            1.0
        };
        self.attn_scale * by_layer
    }

    /// Whether prompts fit the model.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`] or [`Error::TokenOutOfRange`] for the first
    /// that does not.
    pub fn check_tokens<S: AsRef<[u32]>>(&self, sequences: &[S]) -> Result<()> {
        for (prompt, tokens) in sequences.iter().map(AsRef::as_ref).enumerate() {
            if tokens.is_empty() {
                return Err(Error::EmptyPrompt { prompt });
            }
            if tokens.len() > self.n_ctx {
                return Err(Error::PromptTooLong {
                    prompt,
                    length: tokens.len(),
                    n_ctx: self.n_ctx,
                });
            }
            if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.d_vocab) {
                return Err(Error::TokenOutOfRange {
                    prompt,
                    token,
                    d_vocab: self.d_vocab,
                });
            }
        }
        Ok(())
    }

    /// What contradicts itself or is not there at all, one line each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let sizes = [
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("n_key_value_heads", self.n_key_value_heads),
            ("d_model", self.d_model),
            ("d_head", self.d_head),
            ("n_ctx", self.n_ctx),
            ("d_vocab", self.d_vocab),
            ("d_vocab_out", self.d_vocab_out),
            ("d_mlp", self.mlp.map_or(1, |mlp| mlp.d_mlp)),
        ];
        let sizes = sizes.iter().filter(|(_, size)| *size == 0);
        let mut problems: Vec<String> = sizes
            .map(|(name, _)| format!("{name} = 0, expected a positive number"))
            .collect();
        let (heads, shared) = (self.n_heads, self.n_key_value_heads);
        if shared > 0 && !heads.is_multiple_of(shared) {
            problems.push(format!(
                "n_key_value_heads = {shared}, expected a divisor of n_heads = {heads}"
            ));
        }
        if !self.windows.is_empty() && self.windows.len() != self.n_layers {
            problems.push(format!(
                "windows of {} layers, expected none or n_layers = {}",
                self.windows.len(),
                self.n_layers
            ));
        }
        let rotaries = match self.positions {
            Positions::Rotary(rotary) => vec![rotary],
            Positions::RotaryByWindow { windowed, whole } => vec![windowed, whole],
            Positions::Learned | Positions::Shortformer | Positions::None => Vec::new(),
        };
        for Rotary { dim, .. } in rotaries {
            if dim > self.d_head || !dim.is_multiple_of(2) {
                problems.push(format!(
                    "rotary dim = {dim}, expected an even number up to d_head = {}",
                    self.d_head
                ));
            }
        }
        problems
    }

    /// Bytes that one token of a batch of prompts of `pos` tokens keeps alive in a forward pass that
    /// captures `sites`: the residual stream, one layer's attention or MLP with its scores, and the
    /// largest of the sites.
    #[must_use]
    pub fn bytes_per_token(&self, pos: usize, sites: &[Site]) -> u64 {
        let mlp = self
            .mlp
            .map_or(0, |mlp| mlp.d_mlp * if mlp.gated { 4 } else { 3 });
        let attention = 2 * self.qkv_width() + 3 * self.n_heads * pos;
        let site = |site: &Site| match site {
            Site::Logits => self.d_vocab_out,
            Site::Result(_)
            | Site::HeadOut(_)
            | Site::QInput(_)
            | Site::KInput(_)
            | Site::VInput(_) => self.n_heads * self.d_model,
            _ => 0,
        };
        // On the device, on its way to the host, and there.
        let sites = 3 * sites.iter().map(site).max().unwrap_or(0);
        4 * (6 * self.d_model + attention.max(mlp) + sites) as u64
    }

    /// Padded tokens of a batch for a device with `memory` free bytes, of which a quarter is used: at
    /// most 4096, at least one prompt of `pos` tokens.
    ///
    /// ```
    /// use circuitscope_model::DecoderConfig;
    ///
    /// let model = DecoderConfig::gpt2(12, 12, 768, 1024, 50257);
    /// assert_eq!(model.max_batch_tokens(20, &[], 8 << 30), 4096);
    /// let little = model.max_batch_tokens(20, &[], 64 << 20);
    /// assert!((20..1024).contains(&little), "{little}");
    /// ```
    #[must_use]
    pub fn max_batch_tokens(&self, pos: usize, sites: &[Site], memory: u64) -> usize {
        let fit = memory / 4 / self.bytes_per_token(pos, sites).max(1);
        let fit = usize::try_from(fit).unwrap_or(usize::MAX);
        fit.min(MAX_BATCH_TOKENS).max(pos)
    }
}
