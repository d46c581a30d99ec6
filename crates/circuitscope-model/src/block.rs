use core::cell::OnceCell;

use burn::module::{Module, Param};
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};
use circuitscope_hooks::{NoTap, Site, Tap};

use crate::batch::TokenBatch;
use crate::config::{DecoderConfig, Direction, Norm};
use crate::fused;
use crate::mlp::MlpWeights;
use crate::norm::{NormWeights, normalise, normalise_heads, normalise_parts};
use crate::pass::{Pass, add_bias, affine, linear, soft_cap, wide};
use crate::past::Past;
use crate::rotary::Rotation;

/// One block: attention, then (or beside it) an MLP.
#[derive(Module, Debug)]
pub(crate) struct Block<B: Backend> {
    pub(crate) ln1: Option<NormWeights<B>>,
    /// `[d_model, (n_heads + 2 * n_key_value_heads) * d_head]`: queries, keys, values, each head by
    /// head.
    pub(crate) w_qkv: Param<Tensor<B, 2>>,
    pub(crate) b_qkv: Param<Tensor<B, 1>>,
    pub(crate) q_norm: Option<Param<Tensor<B, 1>>>,
    pub(crate) k_norm: Option<Param<Tensor<B, 1>>>,
    /// `[n_heads * d_head, d_model]`.
    pub(crate) w_o: Param<Tensor<B, 2>>,
    pub(crate) b_o: Param<Tensor<B, 1>>,
    pub(crate) ln1_post: Option<NormWeights<B>>,
    pub(crate) ln2: Option<NormWeights<B>>,
    pub(crate) mlp: Option<MlpWeights<B>>,
    pub(crate) ln2_post: Option<NormWeights<B>>,
}

/// Which positions may not be attended to.
struct Mask<B: Backend> {
    /// `[batch or 1, 1, q_pos, k_pos]`
    flags: Vec<bool>,
    shape: [usize; 4],
    /// On the device, once a layer asks for it.
    tensor: OnceCell<Tensor<B, 4, Bool>>,
}

impl<B: Backend> Mask<B> {
    fn new((flags, shape): (Vec<bool>, [usize; 4])) -> Self {
        Self {
            flags,
            shape,
            tensor: OnceCell::new(),
        }
    }

    /// For all `scores`, `[batch, heads, q_pos, k_pos]`.
    fn tensor(&self, scores: &Tensor<B, 4>) -> Tensor<B, 4, Bool> {
        let tensor = self.tensor.get_or_init(|| {
            let flags = TensorData::new(self.flags.clone(), self.shape);
            Tensor::from_data(flags, &scores.device())
        });
        tensor.clone().expand(scores.dims())
    }
}

/// What all blocks share in one pass.
pub(crate) struct Context<'a, B: Backend> {
    config: &'a DecoderConfig,
    /// Tokens of the longest prompt, those before the batch's own included.
    span: usize,
    /// Position vectors that only queries and keys read.
    qk_positions: Option<Tensor<B, 3>>,
    /// One for each way to rotate that occurs.
    rotations: Vec<Rotation<B>>,
    /// One mask for each window that occurs; none if all positions may be attended to.
    masks: Vec<(Option<usize>, Option<Mask<B>>)>,
    /// What comes before the batch's own positions.
    past: Option<&'a Past<B>>,
    /// Where the last block is read, if that is one position of each prompt.
    read: Option<Read<B>>,
}

/// The last position of each prompt.
struct Read<B: Backend> {
    /// `[batch]`, among all `batch * pos`.
    rows: Tensor<B, 1, Int>,
    rotation: Option<Rotation<B>>,
    mask: Mask<B>,
}

impl<'a, B: Backend> Context<'a, B> {
    pub(crate) fn new(
        config: &'a DecoderConfig,
        batch: &TokenBatch<B>,
        qk_positions: Option<Tensor<B, 3>>,
    ) -> Self {
        let span = batch.span();
        let mut windows: Vec<_> = (0..config.n_layers)
            .map(|layer| config.window(layer, span))
            .collect();
        windows.sort_unstable();
        windows.dedup();
        let masks = windows.into_iter().map(|window| {
            let blocked = batch.blocked(config.direction == Direction::Causal, window);
            (window, blocked.map(Mask::new))
        });
        let masks = masks.collect();
        let mut rotations: Vec<Rotation<B>> = Vec::new();
        for rotary in (0..config.n_layers).filter_map(|layer| config.rotary(layer)) {
            if rotations.iter().all(|rotation| rotation.rotary != rotary) {
                rotations.push(Rotation::new(rotary, batch));
            }
        }
        Self {
            config,
            span,
            qk_positions,
            rotations,
            masks,
            past: None,
            read: None,
        }
    }

    /// The same after what other positions left, with the last block computed at the last position of
    /// each prompt only.
    pub(crate) fn resumed(
        self,
        batch: &TokenBatch<B>,
        past: &'a Past<B>,
        device: &B::Device,
    ) -> Self {
        let config = self.config;
        let window = config.window(config.n_layers - 1, self.span);
        let mask = batch.blocked_at_last(config.direction == Direction::Causal, window);
        let rotary = config.rotary(config.n_layers - 1);
        let rotation = rotary.map(|rotary| Rotation::at_last(rotary, batch));
        Self {
            past: Some(past),
            read: Some(Read {
                rows: batch.last_rows(device),
                rotation,
                mask: Mask::new(mask),
            }),
            ..self
        }
    }

    /// Where a block is read, if that is not everywhere.
    fn read(&self, layer: usize) -> Option<&Read<B>> {
        let last = layer + 1 == self.config.n_layers;
        self.read.as_ref().filter(|_| last)
    }

    /// A stream of all positions, `[batch, pos, d_model]`, where the block is read.
    fn at_read(&self, layer: usize, x: Tensor<B, 3>) -> Tensor<B, 3> {
        match self.read(layer) {
            None => x,
            Some(read) => {
                let [rows, pos, width] = x.dims();
                let x = x.reshape([rows * pos, width]).select(0, read.rows.clone());
                x.reshape([rows, 1, width])
            }
        }
    }

    fn mask(&self, layer: usize) -> Option<&Mask<B>> {
        if let Some(read) = self.read(layer) {
            return Some(&read.mask);
        }
        let window = self.config.window(layer, self.span);
        let entry = self.masks.iter().find(|(of, _)| *of == window);
        entry.and_then(|(_, mask)| mask.as_ref())
    }

    fn rotation(&self, layer: usize) -> Option<&Rotation<B>> {
        let rotary = self.config.rotary(layer)?;
        let mut rotations = self.rotations.iter();
        rotations.find(|rotation| rotation.rotary == rotary)
    }
}

impl<B: Backend> Block<B> {
    pub(crate) fn run<T: Tap<B>>(
        &self,
        layer: usize,
        context: &Context<'_, B>,
        x: Tensor<B, 3>,
        pass: &mut Pass<'_, T>,
    ) -> Option<Tensor<B, 3>> {
        let config = context.config;
        pass.need(Site::ResidPre(layer))?;
        let x = pass.site(Site::ResidPre(layer), x);
        let attn_out = self.attention(layer, context, &x, pass)?;
        let x = context.at_read(layer, x);
        let x = match (&self.mlp, config.mlp) {
            // Sums begin with what nobody else holds: CPU backends add to it in place.
            (Some(_), Some(_)) if config.parallel_attn_mlp => {
                self.add_mlp(layer, config, x.clone(), attn_out + x, pass)?
            }
            (Some(_), Some(_)) => {
                pass.need(Site::ResidMid(layer))?;
                let mid = pass.site(Site::ResidMid(layer), attn_out + x);
                self.add_mlp(layer, config, mid.clone(), mid, pass)?
            }
            _ => attn_out + x,
        };
        pass.need(Site::ResidPost(layer))?;
        Some(pass.site(Site::ResidPost(layer), x))
    }

    /// `rest` and what the MLP makes of `input`.
    pub(crate) fn add_mlp<T: Tap<B>>(
        &self,
        layer: usize,
        config: &DecoderConfig,
        input: Tensor<B, 3>,
        rest: Tensor<B, 3>,
        pass: &mut Pass<'_, T>,
    ) -> Option<Tensor<B, 3>> {
        let (Some(weights), Some(mlp)) = (&self.mlp, config.mlp) else {
            return Some(rest);
        };
        pass.need(Site::MlpIn(layer))?;
        let input = pass.site(Site::MlpIn(layer), input);
        pass.need(Site::Ln2Scale(layer))?;
        let sites = [Site::Ln2Scale(layer), Site::Ln2Normalized(layer)];
        let norm = self.ln2.as_ref();
        let input = normalise(config.norm, config.eps, norm, input, sites, pass);
        let out = weights.run(layer, mlp, input, pass)?;
        let sites = [Site::Ln2PostScale(layer), Site::Ln2PostNormalized(layer)];
        let out = norm_after(config, self.ln2_post.as_ref(), out, sites, pass);
        pass.need(Site::MlpOut(layer))?;
        Some(pass.site(Site::MlpOut(layer), out) + rest)
    }

    /// What attention adds to the residual stream.
    fn attention<T: Tap<B>>(
        &self,
        layer: usize,
        context: &Context<'_, B>,
        x: &Tensor<B, 3>,
        pass: &mut Pass<'_, T>,
    ) -> Option<Tensor<B, 3>> {
        let config = context.config;
        pass.need(Site::QInput(layer))?;
        let inputs = [
            Site::QInput(layer),
            Site::KInput(layer),
            Site::VInput(layer),
        ];
        let split = inputs.iter().any(|site| pass.tap.wants(*site));
        let apart = [
            Site::Q(layer),
            Site::K(layer),
            Site::V(layer),
            Site::RotQ(layer),
            Site::RotK(layer),
        ];
        let watched = apart.iter().any(|site| pass.tap.wants(*site));
        let kv_heads = config.n_key_value_heads;
        let scale = 1.0 / config.score_divisor(layer);
        // Queries `[batch, head, q_pos, d_head]`, keys and values `[batch, kv_head, k_pos, d_head]`.
        let [q, k, v] = if !split && !watched && self.fuses(context, x, pass.fused) {
            let qkv = self.fused_qkv(layer, context, x, pass);
            pass.need(Site::AttnScores(layer))?;
            qkv
        } else {
            let [q, k, v] = if split {
                self.split_qkv(layer, context, x, inputs, pass)
            } else {
                self.joint_qkv(layer, context, x, pass)
            };
            pass.need(Site::Q(layer))?;
            let q = pass.site(Site::Q(layer), q);
            let k = pass.site(Site::K(layer), k);
            let v = pass.site(Site::V(layer), v);
            pass.need(Site::RotQ(layer))?;
            let (q, k) = self.placed(layer, context, q, k, pass);
            pass.need(Site::AttnScores(layer))?;
            [q, k, v].map(|x| x.swap_dims(1, 2))
        };
        let [k, v] = match context.past {
            Some(past) => past.before(layer, [k, v]),
            None => [k, v],
        };

        let [rows, heads, pos, d_head] = q.dims();
        let [_, _, keys, _] = k.dims();
        // Query heads that share a key/value head stand under each other, as one taller matrix:
        // [batch, kv_head, group * q_pos, d_head] x [batch, kv_head, d_head, k_pos].
        let group = heads / kv_heads;
        let watched = pass.tap.wants(Site::AttnScores(layer));
        let fuse =
            !watched && config.attn_scores_soft_cap.is_none() && fused::applies(pass.fused, &q);
        let q = if fuse { q } else { q.mul_scalar(scale) };
        let q = q.reshape([rows, kv_heads, group * pos, d_head]);
        let scores = q
            .matmul(k.swap_dims(2, 3))
            .reshape([rows, heads, pos, keys]);
        let mask = context.mask(layer);
        let pattern = if fuse {
            pass.need(Site::Pattern(layer))?;
            fused::attend(scores, scale as f32, mask.map_or(&[], |mask| &mask.flags))
        } else {
            let mut scores = soft_cap(wide(scores), config.attn_scores_soft_cap);
            if let Some(mask) = mask {
                let mask = mask.tensor(&scores);
                scores = scores.mask_fill(mask, f32::NEG_INFINITY);
            }
            let scores = pass.site(Site::AttnScores(layer), scores);
            pass.need(Site::Pattern(layer))?;
            softmax(scores, 3)
        };
        let pattern = pass.site(Site::Pattern(layer), pattern);
        pass.need(Site::Z(layer))?;
        // One copy into the order of the weights serves all who read it.
        let z = pattern
            .cast(v.dtype())
            .reshape([rows, kv_heads, group * pos, keys])
            .matmul(v)
            .reshape([rows, heads, pos, d_head])
            .swap_dims(1, 2)
            .reshape([rows, pos, heads * d_head]);
        let z = pass.site(Site::Z(layer), z.reshape([rows, pos, heads, d_head]));
        pass.need(Site::Result(layer))?;

        let sites = [Site::Result(layer), Site::HeadOut(layer)];
        let mut per_head = None;
        let attn_out = if sites.iter().any(|site| pass.tap.wants(*site)) {
            // [head, batch * pos, d_head] x [head, d_head, d_model] -> [batch, pos, head, d_model]
            // In f32 at least: their sum is what the one product of all heads gives, rounded once.
            let w_o = wide(self.w_o.val()).reshape([heads, d_head, config.d_model]);
            let dtype = z.dtype();
            let result = wide(z)
                .reshape([rows * pos, heads, d_head])
                .swap_dims(0, 1)
                .matmul(w_o);
            let result = result
                .swap_dims(0, 1)
                .reshape([rows, pos, heads, config.d_model]);
            let mut result = pass.site(Site::Result(layer), result);
            if !config.norm_after {
                result = pass.site(Site::HeadOut(layer), result);
            } else if pass.tap.wants(Site::HeadOut(layer)) {
                per_head = Some(result.clone());
            }
            result.sum_dim(2).squeeze_dim::<3>(2).cast(dtype)
        } else {
            linear(z.reshape([rows, pos, heads * d_head]), self.w_o.val())
        };
        pass.need(Site::Ln1PostScale(layer))?;
        let attn_out = add_bias(attn_out, self.b_o.val(), pass.fused);
        let sites = [Site::Ln1PostScale(layer), Site::Ln1PostNormalized(layer)];
        let norm = self.ln1_post.as_ref();
        let attn_out = match per_head {
            None => norm_after(config, norm, attn_out, sites, pass),
            Some(heads) => {
                let share = wide(self.b_o.val()).div_scalar(heads.dims()[2] as f64);
                let heads = heads + share.unsqueeze();
                let site = Site::HeadOut(layer);
                normalise_parts(config.eps, norm, attn_out, sites, (site, heads), pass)
            }
        };
        pass.need(Site::AttnOut(layer))?;
        Some(pass.site(Site::AttnOut(layer), attn_out))
    }

    /// Whether queries, keys and values are made by [`fused_qkv`](Self::fused_qkv).
    fn fuses(&self, context: &Context<'_, B>, x: &Tensor<B, 3>, fused: bool) -> bool {
        let whole = context.qk_positions.is_none() && self.q_norm.is_none();
        whole && self.k_norm.is_none() && fused::applies(fused, x)
    }

    /// Queries, keys and values by one product, with biases, rotation and the order of axes that
    /// attention reads in one pass over memory. Nobody watches them on their way.
    fn fused_qkv<T: Tap<B>>(
        &self,
        layer: usize,
        context: &Context<'_, B>,
        x: &Tensor<B, 3>,
        pass: &mut Pass<'_, T>,
    ) -> [Tensor<B, 4>; 3] {
        let config = context.config;
        let sites = [Site::Ln1Scale(layer), Site::Ln1Normalized(layer)];
        let norm = self.ln1.as_ref();
        let x = normalise(config.norm, config.eps, norm, x.clone(), sites, pass);
        let (w, b) = (self.w_qkv.val(), self.b_qkv.val());
        let [q, k, v] = columns(config).map(|columns| columns.len() / config.d_head);
        let parts =
            |x: Tensor<B, 3>, b, rotation: Option<&Rotation<B>>, heads: &[(usize, bool)]| {
                fused::by_head(x, b, config.d_head, heads, rotation)
            };
        let take = |parts: Vec<Tensor<B, 4>>| -> [Tensor<B, 4>; 3] {
            let parts: Result<[_; 3], _> = parts.try_into();
            parts.unwrap_or_else(|_| unreachable!("queries, keys and values"))
        };
        let rotation = context.rotation(layer);
        let Some(read) = context.read(layer) else {
            let qkv = linear(x, w);
            return take(parts(qkv, b, rotation, &[(q, true), (k, true), (v, false)]));
        };
        // Queries of one position, keys and values of all.
        let [queries, keys, values] = columns(config);
        let rows = |columns| w.clone().slice_dim(1, columns);
        let at = context.at_read(layer, x.clone());
        let biases = |columns| b.clone().slice_dim(0, columns);
        let of_q = linear(at, rows(queries.clone()));
        let of_kv = linear(x, rows(keys.start..values.end));
        let mut all = parts(of_q, biases(queries), read.rotation.as_ref(), &[(q, true)]);
        let kv = biases(keys.start..values.end);
        all.extend(parts(of_kv, kv, rotation, &[(k, true), (v, false)]));
        take(all)
    }

    /// Queries and keys after their norm and their rotation.
    fn placed<T: Tap<B>>(
        &self,
        layer: usize,
        context: &Context<'_, B>,
        q: Tensor<B, 4>,
        k: Tensor<B, 4>,
        pass: &mut Pass<'_, T>,
    ) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let norm = |w: &Option<Param<Tensor<B, 1>>>, x: Tensor<B, 4>| match w {
            Some(w) => normalise_heads(context.config.eps, &w.val(), x),
            None => x,
        };
        let (q, k) = (norm(&self.q_norm, q), norm(&self.k_norm, k));
        let Some(rotation) = context.rotation(layer) else {
            return (q, k);
        };
        let read = context.read(layer).and_then(|read| read.rotation.as_ref());
        (
            pass.site(Site::RotQ(layer), read.unwrap_or(rotation).apply(q)),
            pass.site(Site::RotK(layer), rotation.apply(k)),
        )
    }

    /// Queries `[batch, pos, head, d_head]`, keys and values `[batch, pos, kv_head, d_head]` by one
    /// product.
    fn joint_qkv<T: Tap<B>>(
        &self,
        layer: usize,
        context: &Context<'_, B>,
        x: &Tensor<B, 3>,
        pass: &mut Pass<'_, T>,
    ) -> [Tensor<B, 4>; 3] {
        let config = context.config;
        let sites = [Site::Ln1Scale(layer), Site::Ln1Normalized(layer)];
        let norm = self.ln1.as_ref();
        let x = normalise(config.norm, config.eps, norm, x.clone(), sites, pass);
        let (w, b) = (self.w_qkv.val(), self.b_qkv.val());
        let part = |all: &Tensor<B, 3>, columns: core::ops::Range<usize>| {
            let heads = columns.len() / config.d_head;
            let [rows, pos, _] = all.dims();
            let part = all.clone().slice([0..rows, 0..pos, columns]);
            part.reshape([rows, pos, heads, config.d_head])
        };
        let [q, k, v] = columns(config);
        if context.qk_positions.is_none() && context.read(layer).is_none() {
            let qkv = affine(x, w, b, pass.fused);
            return [q, k, v].map(|columns| part(&qkv, columns));
        }
        let fused = pass.fused;
        let some = |x: Tensor<B, 3>, columns: core::ops::Range<usize>| {
            let width = columns.len();
            let w = w.clone().slice([0..config.d_model, columns.clone()]);
            part(&affine(x, w, b.clone().slice([columns]), fused), 0..width)
        };
        let placed = match &context.qk_positions {
            Some(positions) => x.clone() + positions.clone(),
            None => x.clone(),
        };
        let queries = context.at_read(layer, placed.clone());
        [some(queries, q), some(placed, k), some(x, v)]
    }

    /// The same, with the residual stream read separately by every head through every port.
    fn split_qkv<T: Tap<B>>(
        &self,
        layer: usize,
        context: &Context<'_, B>,
        x: &Tensor<B, 3>,
        inputs: [Site; 3],
        pass: &mut Pass<'_, T>,
    ) -> [Tensor<B, 4>; 3] {
        let config = context.config;
        let [rows, pos, d_model] = x.dims();
        let columns = columns(config);
        let heads = columns.each_ref().map(|of| of.len() / config.d_head);
        let mut port = 0;
        let ports = inputs.map(|site| {
            let input = x.clone().unsqueeze_dim::<4>(2);
            let input = input.expand([rows, pos, heads[port], d_model]);
            port += 1;
            pass.site(site, input)
        });
        let sites = [Site::Ln1Scale(layer), Site::Ln1Normalized(layer)];
        let norm = self.ln1.as_ref();
        if sites.iter().any(|site| pass.tap.wants(*site)) {
            // The norm's own sites show the stream as it is, not the split copies.
            normalise(config.norm, config.eps, norm, x.clone(), sites, pass);
        }
        let mut port = 0;
        ports.map(|input| {
            let (heads, columns) = (heads[port], columns[port].clone());
            let flat = input.reshape([rows, pos * heads, d_model]);
            let mut silent = Pass {
                tap: &mut NoTap,
                last: pass.last,
                fused: pass.fused,
            };
            let flat = normalise(config.norm, config.eps, norm, flat, sites, &mut silent);
            let mut input = flat.reshape([rows, pos, heads, d_model]);
            if let Some(positions) = context.qk_positions.as_ref().filter(|_| port < 2) {
                input = input + positions.clone().unsqueeze_dim(2);
            }
            port += 1;
            let w = self.w_qkv.val().slice([0..d_model, columns.clone()]);
            // [d_model, head * d_head] -> [head, d_model, d_head]
            let w = w.reshape([d_model, heads, config.d_head]).swap_dims(0, 1);
            let b = self.b_qkv.val().slice([columns]);
            let out = input
                .reshape([rows * pos, heads, d_model])
                .swap_dims(0, 1)
                .matmul(w);
            out.swap_dims(0, 1)
                .reshape([rows, pos, heads, config.d_head])
                + b.reshape([1, 1, heads, config.d_head])
        })
    }
}

/// The columns of queries, keys and values in `w_qkv`.
pub(crate) fn columns(config: &DecoderConfig) -> [core::ops::Range<usize>; 3] {
    let (q, kv) = (config.q_width(), config.kv_width());
    [0..q, q..q + kv, q + kv..q + 2 * kv]
}

/// The RMS norm of a layer's output, where the model has one.
fn norm_after<B: Backend, T: Tap<B>>(
    config: &DecoderConfig,
    weights: Option<&NormWeights<B>>,
    x: Tensor<B, 3>,
    sites: [Site; 2],
    pass: &mut Pass<'_, T>,
) -> Tensor<B, 3> {
    if config.norm_after {
        normalise(Norm::Rms, config.eps, weights, x, sites, pass)
    } else {
        x
    }
}
