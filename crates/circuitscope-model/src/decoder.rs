use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};
use circuitscope_core::Exec;
use circuitscope_hooks::{Capture, NoTap, Site, Tap};

use crate::batch::TokenBatch;
use crate::block::{Block, Context, columns};
use crate::config::{DecoderConfig, Positions};
use crate::norm::{NormWeights, normalise};
use crate::pass::{Pass, linear, soft_cap, wide};
use crate::precision::Precision;

/// The decoder: one forward pass for every family, driven by [`DecoderConfig`].
///
/// `x₀ = W_E[token] + W_pos[position]`, then for each block `x += attention(norm(x))` and
/// `x += mlp(norm(x))`, then `logits = norm(x) · W_U + b_U`. Every intermediate with a TransformerLens
/// name is a [`Site`] that a tap may watch or change.
///
/// With an autodiff backend every weight is trainable; where only the gradients of activations are
/// wanted, [`Module::no_grad`] saves those of the weights.
///
/// # Shapes
/// Weights are stored input-first, as in TransformerLens: `[in, out]`.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    pub(crate) w_e: Param<Tensor<B, 2>>,
    pub(crate) w_pos: Option<Param<Tensor<B, 2>>>,
    pub(crate) blocks: Vec<Block<B>>,
    pub(crate) ln_final: Option<NormWeights<B>>,
    pub(crate) w_u: Param<Tensor<B, 2>>,
    pub(crate) b_u: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    pub(crate) config: DecoderConfig,
    #[module(skip)]
    pub(crate) exec: Exec,
}

impl<B: Backend> Decoder<B> {
    /// What the model is.
    pub const fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// How the model's work is laid out: [`Exec::serial`] unless it was loaded with another
    /// ([`LoadSettings::exec`](crate::LoadSettings)) or [given](Self::with_exec) one.
    pub const fn exec(&self) -> Exec {
        self.exec
    }

    /// The same model with its work laid out in another way.
    #[must_use]
    pub const fn with_exec(mut self, exec: Exec) -> Self {
        self.exec = exec;
        self
    }

    /// The type of the weights.
    fn dtype(&self) -> DType {
        self.w_e.val().dtype()
    }

    /// What weights are held and multiplied in, as it was asked for.
    pub fn precision(&self) -> Precision {
        match self.dtype() {
            DType::F16 => Precision::F16,
            DType::BF16 => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// `W_E` `[d_vocab, d_model]`, the token embedding.
    pub fn w_e(&self) -> Tensor<B, 2> {
        self.w_e.val()
    }

    /// `W_U` `[d_model, d_vocab_out]`, the unembedding.
    pub fn w_u(&self) -> Tensor<B, 2> {
        self.w_u.val()
    }

    /// `W_O` of one layer, `[n_heads, d_head, d_model]`.
    pub fn w_o(&self, layer: usize) -> Tensor<B, 3> {
        let DecoderConfig {
            n_heads,
            d_head,
            d_model,
            ..
        } = self.config;
        self.blocks[layer]
            .w_o
            .val()
            .reshape([n_heads, d_head, d_model])
    }

    /// `W_V` of one layer, `[n_key_value_heads, d_model, d_head]`: what makes values of the normed residual stream. Query head
    /// `h` of `n_heads` reads the values of key/value head `h / (n_heads / n_key_value_heads)`.
    pub fn w_v(&self, layer: usize) -> Tensor<B, 3> {
        let [.., v] = columns(&self.config);
        let heads = v.len() / self.config.d_head;
        let w = self.blocks[layer].w_qkv.val().slice_dim(1, v);
        w.reshape([self.config.d_model, heads, self.config.d_head])
            .swap_dims(0, 1)
    }

    /// `b_V` of one layer, `[n_key_value_heads, d_head]`: 0 where biases of values are folded into `b_O`.
    pub fn b_v(&self, layer: usize) -> Tensor<B, 2> {
        let [.., v] = columns(&self.config);
        let heads = v.len() / self.config.d_head;
        let b = self.blocks[layer].b_qkv.val().slice_dim(0, v);
        b.reshape([heads, self.config.d_head])
    }

    /// Runs the model on a batch as far as `tap` wants: up to its last wanted site in forward order.
    ///
    /// Callers that take prompts from users check them first with [`DecoderConfig::check_tokens`].
    ///
    /// # Panics
    /// If the batch is longer than `n_ctx` or holds tokens the model does not have.
    pub fn forward<T: Tap<B>>(&self, batch: &TokenBatch<B>, tap: &mut T) {
        let Some(mut pass) = self.begin(batch, tap) else {
            return;
        };
        // `None` says that the pass ended before the logits because nobody wanted more.
        let (Some(()) | None) = self.run(batch, &mut pass);
    }

    /// Logits `[batch, pos, d_vocab_out]` at every position; those at padding have no meaning.
    pub fn logits(&self, batch: &TokenBatch<B>) -> Tensor<B, 3> {
        let mut capture = Capture::new([Site::Logits]);
        self.forward(batch, &mut capture);
        let logits = capture
            .take(Site::Logits)
            .and_then(|logits| logits.get::<3>());
        logits.unwrap_or_else(|| unreachable!("a forward pass that wants logits reaches them"))
    }

    /// Runs the blocks from block `layer` on, which reads `resid_pre`, as far as `tap` wants. Whatever
    /// the precision of `resid_pre`, the pass is in the model's.
    ///
    /// # Shapes
    /// - `resid_pre`: `[batch, pos, d_model]`, what [`Site::ResidPre`] of `layer` shows
    ///
    /// # Panics
    /// If there is no such block.
    pub fn forward_from<T: Tap<B>>(
        &self,
        batch: &TokenBatch<B>,
        layer: usize,
        resid_pre: Tensor<B, 3>,
        tap: &mut T,
    ) {
        let Some(mut pass) = self.begin(batch, tap) else {
            return;
        };
        let positions = self.qk_positions(batch);
        let resid_pre = resid_pre.cast(self.dtype());
        let (Some(()) | None) = self.run_blocks(batch, layer, resid_pre, positions, &mut pass);
    }

    /// Position vectors that only queries and keys read, in models that have such.
    pub(crate) fn qk_positions(&self, batch: &TokenBatch<B>) -> Option<Tensor<B, 3>> {
        match (self.config.positions, &self.w_pos) {
            (Positions::Shortformer, Some(w_pos)) => Some(self.pos_embed(&w_pos.val(), batch)),
            _ => None,
        }
    }

    /// A pass that ends at the last site that `tap` wants; `None` if it wants nothing.
    fn begin<'t, T: Tap<B>>(&self, batch: &TokenBatch<B>, tap: &'t mut T) -> Option<Pass<'t, T>> {
        let sites = self.config.catalog().sites().into_iter().rev();
        let last = sites.into_iter().find(|site| tap.wants(*site))?;
        tap.begin(&batch.positions);
        Some(self.pass(tap, last))
    }

    /// A pass that ends at `last`.
    pub(crate) const fn pass<'t, T>(&self, tap: &'t mut T, last: Site) -> Pass<'t, T> {
        let fused = self.exec.fused;
        Pass { tap, last, fused }
    }

    /// Logits from the residual stream after the last block: final norm, unembedding, soft cap; in the
    /// model's precision whatever that of `resid`.
    ///
    /// # Shapes
    /// - `resid`: `[batch, pos, d_model]`; any choice of positions
    /// - result: `[batch, pos, d_vocab_out]`
    pub fn unembed(&self, resid: Tensor<B, 3>) -> Tensor<B, 3> {
        self.unembed_tapped(resid, &mut NoTap)
    }

    /// The same with a tap on the sites of the final norm and the logits.
    pub fn unembed_tapped<T: Tap<B>>(&self, resid: Tensor<B, 3>, tap: &mut T) -> Tensor<B, 3> {
        let mut run = (tap, Capture::new([Site::Logits]));
        let mut pass = self.pass(&mut run, Site::Logits);
        let (Some(()) | None) = self.read_out(resid.cast(self.dtype()), &mut pass);
        let logits = run
            .1
            .take(Site::Logits)
            .and_then(|logits| logits.get::<3>());
        logits.unwrap_or_else(|| unreachable!("the pass ends at the logits"))
    }

    /// The columns of the unembedding for some tokens: `W_U` `[d_model, tokens]` and its bias.
    pub fn unembedding_of(&self, tokens: &[u32]) -> (Tensor<B, 2>, Option<Tensor<B, 1>>) {
        let (w_u, b_u) = (self.w_u.val(), self.b_u.as_ref().map(Param::val));
        let at = |token: &u32| *token as usize..*token as usize + 1;
        // Slices are views: no backend lays out the whole matrix anew for them.
        let columns = tokens
            .iter()
            .map(|token| w_u.clone().slice_dim(1, at(token)));
        let w = Tensor::cat(columns.collect(), 1);
        let b = b_u.map(|b_u| {
            let entries = tokens
                .iter()
                .map(|token| b_u.clone().slice_dim(0, at(token)));
            Tensor::cat(entries.collect(), 0)
        });
        (w, b)
    }

    /// Logits of some tokens alone, as [`unembed`](Self::unembed) gives them, from columns that
    /// [`unembedding_of`](Self::unembedding_of) took.
    ///
    /// # Shapes
    /// - `resid`: `[batch, d_model]`
    /// - result: `[batch, tokens]`
    pub fn unembed_some(
        &self,
        resid: Tensor<B, 2>,
        (w, b): &(Tensor<B, 2>, Option<Tensor<B, 1>>),
    ) -> Tensor<B, 2> {
        let config = &self.config;
        let sites = [Site::LnFinalScale, Site::LnFinalNormalized];
        let mut silent = NoTap;
        let mut pass = self.pass(&mut silent, Site::Logits);
        let norm = self.ln_final.as_ref();
        let x = resid.unsqueeze_dim::<3>(1);
        let x = normalise(config.norm, config.eps, norm, x, sites, &mut pass);
        let mut logits = wide(x.squeeze_dim::<2>(1).matmul(w.clone()));
        if let Some(b) = b {
            logits = logits + wide(b.clone()).unsqueeze();
        }
        soft_cap(logits, config.output_logits_soft_cap)
    }

    /// Outputs of all heads in the residual stream from their (averaged) `z`:
    /// `result[l, h] = z[l, h] · W_O[l, h]`, without `b_O`.
    ///
    /// # Shapes
    /// - `z`: for each layer `[batch, n_heads, d_head]`
    /// - result: `[batch, n_layers * n_heads, d_model]`
    ///
    /// # Panics
    /// Unless there is one tensor for each layer, and a layer.
    pub fn head_results(&self, z: Vec<Tensor<B, 3>>) -> Tensor<B, 3> {
        assert_eq!(z.len(), self.config.n_layers, "one z for each layer");
        let layers = z.into_iter().enumerate().map(|(layer, z)| {
            // [head, batch, d_head] x [head, d_head, d_model] -> [head, batch, d_model]
            let w_o = wide(self.w_o(layer));
            z.swap_dims(0, 1).matmul(w_o).swap_dims(0, 1)
        });
        Tensor::cat(layers.collect(), 1)
    }

    fn run<T: Tap<B>>(&self, batch: &TokenBatch<B>, pass: &mut Pass<'_, T>) -> Option<()> {
        let config = &self.config;
        let (rows, pos) = (batch.batch(), batch.pos());
        assert!(
            batch.span() <= config.n_ctx,
            "{} positions in a model of context {}",
            batch.span(),
            config.n_ctx
        );

        // [batch, pos, d_model]
        let embed = self
            .w_e
            .val()
            .select(0, batch.tokens.clone().reshape([rows * pos]));
        let embed = embed.reshape([rows, pos, config.d_model]);
        let embed = if config.embed_scale == 1.0 {
            embed
        } else {
            embed.mul_scalar(config.embed_scale)
        };
        let embed = pass.site(Site::Embed, embed);
        let pos_embed = match &self.w_pos {
            Some(w_pos) => Some(pass.site(Site::PosEmbed, self.pos_embed(&w_pos.val(), batch))),
            None => None,
        };
        let (x, qk_positions) = match (config.positions, pos_embed) {
            (Positions::Learned, Some(positions)) => (embed + positions, None),
            (Positions::Shortformer, Some(positions)) => (embed, Some(positions)),
            _ => (embed, None),
        };
        self.run_blocks(batch, 0, x, qk_positions, pass)
    }

    /// From what block `first` reads to the logits.
    fn run_blocks<T: Tap<B>>(
        &self,
        batch: &TokenBatch<B>,
        first: usize,
        mut x: Tensor<B, 3>,
        qk_positions: Option<Tensor<B, 3>>,
        pass: &mut Pass<'_, T>,
    ) -> Option<()> {
        let context = Context::new(&self.config, batch, qk_positions);
        for (layer, block) in self.blocks.iter().enumerate().skip(first) {
            x = block.run(layer, &context, x, pass)?;
        }
        self.read_out(x, pass)
    }

    /// From the residual stream after the last block to the logits.
    fn read_out<T: Tap<B>>(&self, x: Tensor<B, 3>, pass: &mut Pass<'_, T>) -> Option<()> {
        let config = &self.config;
        pass.need(Site::LnFinalScale)?;
        let sites = [Site::LnFinalScale, Site::LnFinalNormalized];
        let ln_final = self.ln_final.as_ref();
        let x = normalise(config.norm, config.eps, ln_final, x, sites, pass);
        pass.need(Site::Logits)?;
        let mut logits = wide(linear(x, self.w_u.val()));
        if let Some(b_u) = &self.b_u {
            logits = logits + wide(b_u.val()).unsqueeze();
        }
        pass.site(
            Site::Logits,
            soft_cap(logits, config.output_logits_soft_cap),
        );
        Some(())
    }

    fn pos_embed(&self, w_pos: &Tensor<B, 2>, batch: &TokenBatch<B>) -> Tensor<B, 3> {
        let (rows, pos, width) = (batch.batch(), batch.pos(), self.config.d_model);
        if batch.is_even() {
            w_pos
                .clone()
                .slice_dim(0, batch.offset..batch.span())
                .unsqueeze_dim::<3>(0)
                .expand([rows, pos, width])
        } else {
            let ids = TensorData::new(batch.position_ids(), [rows * pos]);
            let ids = Tensor::<B, 1, Int>::from_data(ids, &w_pos.device());
            w_pos.clone().select(0, ids).reshape([rows, pos, width])
        }
    }
}
