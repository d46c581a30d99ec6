use core::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Progress, Seed, draw};
use circuitscope_features::weight_shares;
use circuitscope_hooks::{Capture, NodeOutputs, Site, wide};
use circuitscope_measures::Scores;
use circuitscope_sae::{Encoder, Objective, StreamConfig, StreamTrainer};
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use super::PatchingSettings;
use super::attribution::AT_PROMPTS;
use super::of_pairs::{each_of_pairs, weights};
use crate::causal::{CausalEvidence, Differentiable, Held, host};
use crate::{About, Discover, Error, Evidence, Measured, Passes, Result};

/// What is known of `z-features`.
pub(super) static TRAINED: About = About::new(
    "z-features",
    "gradient times what features of the heads' outputs write, each shared out among its heads by weight",
)
.without_null()
.needs(AT_PROMPTS, Passes::EachPair(6));
/// Of `z-features-untrained`.
pub(super) static UNTRAINED: About = About::new(
    "z-features-untrained",
    "the same with dictionaries before their training, which is what training has to beat",
)
.without_null()
.needs(AT_PROMPTS, Passes::EachPair(6));

/// Rows of a step, at most.
const BATCH_ROWS: usize = 512;

/// Settings of the dictionaries of what all heads of a layer put out at a token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct ZFeatureSettings {
    /// Features of a layer's dictionary for each dimension of what its heads put out together. Default 2: ten pairs of prompts
    /// have a few hundred tokens.
    pub expansion: usize,
    /// Features that are active at a token, at most. Default 16.
    pub k: usize,
    /// Steps of each layer's training, of up to 512 tokens each. Default 200.
    pub steps: usize,
    /// Adam's step size, falling to 0 over the last fifth of the steps; rows are scaled to a mean square of 1. Default 1e-3.
    pub learning_rate: f64,
}

impl Default for ZFeatureSettings {
    fn default() -> Self {
        Self {
            expansion: 2,
            k: 16,
            steps: 200,
            learning_rate: 1e-3,
        }
    }
}

/// Dictionaries of what attention heads put out, as a way to score heads (after Kissane et al. 2024, arXiv 2406.17759, who
/// attribute features by hand).
///
/// For each layer a `TopK` dictionary (Gao et al. 2024, arXiv 2406.04093) is trained on `z` of all its heads side by side,
/// `[heads · d_head]`, at every token but the first of each prompt, of both classes: these prompts and no other text. With `g` the
/// gradient of the metric at `z` on the positive prompt, `f_i` the activation of feature `i` and `w_ih` the share of its atom's
/// length that lies in head `h`, the score of the head is the mean over pairs of
/// `Σ_t Σ_i |g[t] · f_i[t] W_dec[i]| w_ih`, `w_ih = |W_dec[i, h]| / Σ_h' |W_dec[i, h']|`.
///
/// Sizes, never below 0. What a feature does not write counts for nothing: the constant `b_dec` and the error that the dictionary
/// leaves. The first token counts for nothing either, as real models put out something at it that resembles no other.
///
/// Untrained it is the same with the dictionary that training begins with: random atoms of length 1, encoder transposed, and
/// `b_dec` the mean of the tokens. Their weights are spread over all heads, so that most of what it tells of heads is their
/// layer; what training adds is what the first is above the second.
///
/// Of layer `l`, weights are drawn from stream `z-features/dictionary/{l}` and batches from `z-features/order/{l}`.
///
/// # Complexity
/// A forward pass and a backward one for each pair, two forward passes more to read `z`, and
/// [`ZFeatureSettings::steps`] · layers steps of training, each a product
/// `[512, heads · d_head] × [heads · d_head, features]`. In memory: `z` of all tokens of as many layers as fit a quarter of what a batch
/// may take, and all dictionaries.
#[derive(Debug, Clone)]
pub struct ZFeatures<B: AutodiffBackend> {
    trains: bool,
    settings: ZFeatureSettings,
    patching: PatchingSettings,
    device: B::Device,
}

impl<B: AutodiffBackend> ZFeatures<B> {
    /// With trained dictionaries.
    pub const fn trained(
        settings: ZFeatureSettings,
        patching: PatchingSettings,
        device: B::Device,
    ) -> Self {
        Self {
            trains: true,
            settings,
            patching,
            device,
        }
    }

    /// Its control, in which nothing is trained.
    pub const fn untrained(
        settings: ZFeatureSettings,
        patching: PatchingSettings,
        device: B::Device,
    ) -> Self {
        Self {
            trains: false,
            settings,
            patching,
            device,
        }
    }

    /// A dictionary for each layer, of the first `count` pairs.
    fn dictionaries(
        &self,
        causal: &CausalEvidence<B::InnerBackend>,
        count: usize,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Vec<OfLayer<B::InnerBackend>>> {
        let config = causal.model().config();
        let (layers, width) = (config.n_layers, config.n_heads * config.d_head);
        let prompts = causal.pairs().iter().take(count);
        let rows: usize = prompts
            .flat_map(|pair| [&pair.clean, &pair.corrupt])
            .map(|tokens| tokens.len().saturating_sub(1))
            .sum();
        if rows == 0 {
            return Err(Error::TooFew {
                what: "tokens after the first of a prompt",
                found: 0,
                expected: 1,
            });
        }
        let bytes = (4 * rows * width) as u64;
        let together = (causal.memory() / 4 / bytes.max(1)).clamp(1, layers as u64) as usize;
        let steps = if self.trains { self.settings.steps } else { 0 };
        let stage = progress.stage("training dictionaries", (layers * steps) as u64);
        let mut found = Vec::with_capacity(layers);
        for start in (0..layers).step_by(together) {
            let some = start..(start + together).min(layers);
            for (layer, rows) in some.clone().zip(rows_of(causal, count, some)?) {
                found.push(self.of_layer(causal, layer, rows, seed, progress)?);
            }
        }
        drop(stage);
        Ok(found)
    }

    /// The dictionary of a layer, of `rows`, `[rows, heads · d_head]`.
    fn of_layer(
        &self,
        causal: &CausalEvidence<B::InnerBackend>,
        layer: usize,
        mut rows: Vec<f32>,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<OfLayer<B::InnerBackend>> {
        let model = causal.model().config();
        let (heads, width) = (model.n_heads, model.n_heads * model.d_head);
        let ZFeatureSettings {
            expansion,
            k,
            steps,
            learning_rate,
        } = self.settings;
        let scale = scale_of(&rows);
        for value in &mut rows {
            *value *= scale;
        }
        let features = expansion * width;
        let objective = Objective::TopK { k: k.min(features) };
        let config = StreamConfig::new(width, features, objective)
            .with_batch_rows(BATCH_ROWS)
            .with_learning_rate(learning_rate)
            .with_steps(steps as u64)
            .with_decay(steps as u64 / 5)
            .with_exec(causal.model().exec());
        let of_weights = seed.nth("z-features/dictionary", layer as u64);
        let device = causal.device();
        let mut trainer =
            StreamTrainer::<B::InnerBackend>::new(&config, &rows, None, of_weights, device)?;
        if self.trains {
            let mut rng = seed.nth("z-features/order", layer as u64).rng();
            let mut order: Vec<usize> = (0..rows.len() / width).collect();
            let mut left = 0..0;
            for _ in 0..steps {
                if progress.cancelled() {
                    return Err(Error::Cancelled);
                }
                if left.is_empty() {
                    draw::shuffle(&mut rng, &mut order);
                    left = 0..order.len();
                }
                let batch = left.start..(left.start + BATCH_ROWS).min(left.end);
                left.start = batch.end;
                let batch = order[batch].iter();
                let batch = batch.flat_map(|row| &rows[row * width..(row + 1) * width]);
                let batch: Vec<f32> = batch.copied().collect();
                trainer.step_host(&batch, None)?;
                progress.advance(1);
            }
        }
        let dictionary = trainer.dictionary()?;
        let encoder = dictionary.encoder::<B::InnerBackend>(device)?;
        let shares = dictionary.w_dec.chunks(width).flat_map(|atom| {
            let atom: Vec<f64> = atom.iter().map(|x| f64::from(*x)).collect();
            weight_shares(&atom, heads)
        });
        let shares: Vec<f32> = shares.map(|share| share as f32).collect();
        let atoms = TensorData::new(dictionary.w_dec, [features, width]);
        Ok(OfLayer {
            encoder,
            atoms: Tensor::from_data(atoms, device),
            shares: Tensor::from_data(TensorData::new(shares, [features, heads]), device),
            scale,
        })
    }
}

/// The dictionary of a layer, and what heads have of its features.
#[derive(Debug, Clone)]
struct OfLayer<B: Backend> {
    encoder: Arc<dyn Encoder<B>>,
    /// `[features, heads * d_head]`
    atoms: Tensor<B, 2>,
    /// `[features, heads]`
    shares: Tensor<B, 2>,
    /// What rows are multiplied with before they are encoded.
    scale: f32,
}

impl<B: Backend> OfLayer<B> {
    /// For each prompt and head, what the features write times the gradient, in size.
    ///
    /// # Shapes
    /// - `z`, `gradient`: `[prompts, pos, heads, d_head]`
    /// - `counts`: `[prompts, pos, 1]`, 1 where a position counts and 0 elsewhere
    /// - returns `[prompts, heads]`
    fn scores(
        &self,
        z: Tensor<B, 4>,
        gradient: Tensor<B, 4>,
        counts: Tensor<B, 3>,
    ) -> Tensor<B, 2> {
        let [prompts, pos, heads, d_head] = z.dims();
        let rows = [prompts * pos, heads * d_head];
        let active = self.encoder.encode(z.reshape(rows).mul_scalar(self.scale));
        let along = gradient
            .reshape(rows)
            .matmul(self.atoms.clone().transpose());
        let sizes = (active * along).abs().div_scalar(self.scale);
        let [_, features] = sizes.dims();
        let sizes = sizes.reshape([prompts, pos, features]) * counts;
        let of_features = sizes.sum_dim(1).reshape([prompts, features]);
        of_features.matmul(self.shares.clone())
    }
}

/// What rows are multiplied with to have a mean square of 1; 1 if all are 0.
fn scale_of(rows: &[f32]) -> f32 {
    let squares: f64 = rows.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let mean = squares / rows.len().max(1) as f64;
    if mean > 0.0 {
        (1.0 / mean.sqrt()) as f32
    } else {
        1.0
    }
}

/// `z` of all heads at every token but the first of the prompts of the first `count` pairs, positives first: of each of some layers
/// `[rows, heads * d_head]`.
fn rows_of<B: Backend>(
    causal: &CausalEvidence<B>,
    count: usize,
    layers: Range<usize>,
) -> Result<Vec<Vec<f32>>> {
    let mut found = vec![[Vec::new(), Vec::new()]; layers.len()];
    for batch in causal.batches::<B>(count, 1.0, causal.device()) {
        let pairs = || batch.members.iter().map(|&pair| &causal.pairs()[pair]);
        let lengths: [Vec<usize>; 2] = [
            pairs().map(|pair| pair.clean.len()).collect(),
            pairs().map(|pair| pair.corrupt.len()).collect(),
        ];
        for (class, tokens) in [&batch.clean, &batch.corrupt].into_iter().enumerate() {
            let mut capture = Capture::new(layers.clone().map(Site::Z));
            causal.model().forward(tokens, &mut capture);
            for (layer, found) in layers.clone().zip(&mut found) {
                let site = Site::Z(layer);
                let z = capture.take(site).and_then(|z| z.get::<4>());
                let z = z.ok_or(circuitscope_hooks::Error::NeverFired { site })?;
                let [_, pos, heads, d_head] = z.dims();
                let width = heads * d_head;
                let z = host(wide(z))?;
                for (prompt, length) in z.chunks(pos * width).zip(&lengths[class]) {
                    found[class].extend_from_slice(&prompt[width..length * width]);
                }
            }
        }
    }
    Ok(found.into_iter().map(|classes| classes.concat()).collect())
}

/// Scores of all heads on each of some pairs.
fn of_batch<B: AutodiffBackend>(
    model: &Differentiable<B>,
    members: &[usize],
    dictionaries: &[OfLayer<B::InnerBackend>],
) -> Result<Vec<Vec<f32>>> {
    let causal = model.evidence();
    let batch = causal.batch::<B::InnerBackend>(members.to_vec(), causal.device());
    let clean = causal.reference(causal.metric(), &batch)?;
    let [z, gradients] = model.nodes(&batch, &[], clean.as_ref())?;
    let pos = batch.clean.pos();
    let counts = members.iter().flat_map(|&pair| {
        let counted = 1..causal.pairs()[pair].clean.len();
        (0..pos).map(move |at| if counted.contains(&at) { 1.0f32 } else { 0.0 })
    });
    let counts = TensorData::new(counts.collect::<Vec<f32>>(), [members.len(), pos, 1]);
    let counts = Tensor::from_data(counts, causal.device());
    let at = |outputs: &NodeOutputs<B::InnerBackend>, site: Site| {
        let found = outputs.at(site).cloned();
        found.ok_or(circuitscope_hooks::Error::NeverFired { site })
    };
    let mut layers = Vec::with_capacity(dictionaries.len());
    for (layer, dictionary) in dictionaries.iter().enumerate() {
        let site = Site::Z(layer);
        layers.push(dictionary.scores(
            at(&z, site)?,
            at(&gradients, site)?,
            Tensor::clone(&counts),
        ));
    }
    let scores = Tensor::cat(layers, 1);
    let [_, heads] = scores.dims();
    Ok(host(scores)?.chunks(heads).map(<[_]>::to_vec).collect())
}

impl<B: AutodiffBackend> Discover<B::InnerBackend> for ZFeatures<B> {
    fn about(&self) -> &About {
        if self.trains { &TRAINED } else { &UNTRAINED }
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B::InnerBackend>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let causal = evidence.causal_for(Discover::<B::InnerBackend>::about(self))?;
        let grid = causal.graph().grid();
        let count = self.patching.pairs(causal.pairs().len(), false);
        let dictionaries = self.dictionaries(causal, count, seed, progress)?;
        let name = Discover::<B::InnerBackend>::name(self);
        let (pairs, of_pairs) = each_of_pairs::<B>(
            causal,
            (name, count, Held::Nodes),
            || Differentiable::new(causal, &self.device),
            |model, members| of_batch(model, members, &dictionaries),
            progress,
        )?;
        Ok(Box::new(move |rows: Option<&[usize]>| {
            let weights = weights(evidence, &pairs, rows);
            let total: f64 = weights.iter().sum();
            let mut mean = vec![0.0; grid.len()];
            for (scores, weight) in of_pairs.iter().zip(weights) {
                for (mean, score) in mean.iter_mut().zip(scores) {
                    *mean += weight * f64::from(*score) / total;
                }
            }
            Ok(Scores::of_nodes(grid, mean))
        }))
    }
}
