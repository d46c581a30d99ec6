//! What one pair of prompts says of every head, and of those that get a card.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use circuitscope_core::HeadId;
use circuitscope_hooks::{AnyTensor, NodeOutputs, Site, Tap, wide};
use circuitscope_model::{Decoder, TokenBatch};

use super::patterns::{Follows, Patterns, from_positions};
use crate::causal::{CausalEvidence, Differentiable, PairBatch, host};
use crate::methods::{Contrast, Outputs, Runs};
use crate::{Error, Result};

/// The two references that effects are measured against: the negative prompt, and the mean.
pub(super) const REFERENCES: usize = 2;
/// Positions of a prompt that are kept of a head by each reference: those where most of its effect arises.
const ROWS: usize = 3;
/// Positions attended to whose values are kept.
const SOURCES: usize = 16;

/// Of one pair.
#[derive(Debug)]
pub(super) struct OfPair {
    /// What the predictions are apart.
    pub(super) total: f32,
    /// Effects of all heads by each reference.
    pub(super) effects: [Vec<f32>; REFERENCES],
    /// `[head * patterns + pattern]`, all heads.
    pub(super) follows: Vec<Follows>,
    /// Heads that get a card.
    pub(super) heads: Vec<HeadRead>,
}

/// Of one pair and one head.
#[derive(Debug)]
pub(super) struct HeadRead {
    pub(super) by: [ByReference; REFERENCES],
    /// `[pattern][reference][position]`: see [`from_positions`].
    pub(super) from: Vec<[Vec<f32>; REFERENCES]>,
    pub(super) positive: PromptRead,
    pub(super) negative: PromptRead,
}

/// What depends on the reference; vectors `[d_head]`, weighted by where the head matters.
#[derive(Debug, Default)]
pub(super) struct ByReference {
    pub(super) effect: f32,
    /// Share of the sizes of effects that arises at each position of the positive prompt.
    pub(super) weights: Vec<f32>,
    pub(super) positive: Vec<f32>,
    pub(super) negative: Vec<f32>,
    /// The positive prompt less the mean of both prompts of all pairs.
    pub(super) above: Vec<f32>,
    /// What it adds to the weighted logits directly.
    pub(super) direct: f32,
    /// To the difference of right and wrong logits.
    pub(super) direct_logits: f32,
}

/// One of the two prompts, as one head reads it.
#[derive(Debug, Default)]
pub(super) struct PromptRead {
    /// The positions where the head matters most, of the positive prompt or what corresponds to them.
    pub(super) rows: Vec<Row>,
    /// Values at the positions that are attended to most from there.
    pub(super) sources: Vec<(usize, Vec<f32>)>,
}

#[derive(Debug)]
pub(super) struct Row {
    /// In the positive prompt, where effects are.
    pub(super) weighed_at: usize,
    pub(super) position: usize,
    /// Attention to each position of the prompt.
    pub(super) attention: Vec<f32>,
    /// `[d_head]`.
    pub(super) z: Vec<f32>,
}

impl PromptRead {
    /// The row with the largest weight.
    pub(super) fn first(&self, weights: &[f32]) -> Option<&Row> {
        let rows = self.rows.iter();
        rows.max_by(|a, b| weights[a.weighed_at].total_cmp(&weights[b.weighed_at]))
    }
}

/// Reads some pairs.
pub(super) struct Reader<'a> {
    pub(super) heads: &'a [HeadId],
    pub(super) patterns: &'a Patterns,
    /// Of the way between the prompts, where the gradient is taken, for every pair.
    pub(super) shares: &'a [f64],
}

impl Reader<'_> {
    pub(super) fn read<B: AutodiffBackend>(
        &self,
        model: &Differentiable<B>,
        members: &[usize],
        runs: &Runs<B::InnerBackend>,
        mean: &Outputs<B::InnerBackend>,
    ) -> Result<Vec<OfPair>> {
        let (gradients, _) = Contrast::<B>::gradients(model, members, runs, self.shares, false)?;
        let causal = model.evidence();
        let mut pairs = self.effects(causal, runs, mean, &gradients)?;
        self.attention(causal, members, runs, &gradients, &mut pairs)?;
        self.direct(causal, members, runs, mean, &mut pairs)?;
        let found = pairs.into_iter().map(|pair| pair.done);
        Ok(found.collect())
    }

    /// Effects by position of all heads, and what those with a card put out.
    fn effects<B: Backend>(
        &self,
        causal: &CausalEvidence<B>,
        runs: &Runs<B>,
        mean: &Outputs<B>,
        gradients: &NodeOutputs<B>,
    ) -> Result<Vec<Reading>> {
        let graph = causal.graph();
        let mut pairs: Vec<Reading> = runs.total.iter().map(|&total| Reading::of(total)).collect();
        for layer in 0..graph.n_layers {
            let at = |run: &NodeOutputs<B>| z(run, layer);
            let (here, there) = (at(&runs.positive.nodes)?, at(&runs.negative.nodes)?);
            let (mean, gradient) = (at(&mean.nodes)?, at(gradients)?);
            let [_, pos, heads, _] = here.dims();
            let of_layer: Vec<usize> = self.of_layer(layer);
            for (kind, reference) in [there.clone(), mean.clone()].into_iter().enumerate() {
                // [pairs, heads, pos]
                let effects = ((here.clone() - reference) * gradient.clone()).sum_dim(3);
                let effects = effects.squeeze_dim::<3>(3).swap_dims(1, 2);
                let sizes = effects.clone().abs();
                let all = sizes.clone().sum_dim(2).clamp_min(f32::MIN_POSITIVE);
                let weights = sizes / all;
                let sums = host(effects.sum_dim(2))?;
                let of_positions = host(weights.clone())?;
                for (pair, reading) in pairs.iter_mut().enumerate() {
                    let sums = &sums[pair * heads..(pair + 1) * heads];
                    reading.done.effects[kind].extend_from_slice(sums);
                    let rows = heads * pos;
                    let of_positions = &of_positions[pair * rows..(pair + 1) * rows];
                    reading.weights[kind].extend(of_positions.chunks(pos).map(<[f32]>::to_vec));
                }
                for &slot in &of_layer {
                    let head = self.heads[slot].head;
                    let weights = weights.clone().slice_dim(1, head..=head).swap_dims(1, 2);
                    let weighted = |x: &Tensor<B, 4>| {
                        let x = x.clone().slice_dim(2, head..=head).squeeze_dim::<3>(2);
                        let width = x.dims()[2];
                        let sum = (x * weights.clone()).sum_dim(1);
                        let all = host(sum)?;
                        Ok::<_, Error>(all.chunks(width).map(<[f32]>::to_vec).collect::<Vec<_>>())
                    };
                    let above = here.clone() - mean.clone();
                    let [positive, negative, above] = [&here, &there, &above].map(weighted);
                    let vectors = positive?.into_iter().zip(negative?).zip(above?);
                    for (reading, ((positive, negative), above)) in pairs.iter_mut().zip(vectors) {
                        let index = layer * heads + head;
                        reading.by[kind].push((
                            slot,
                            ByReference {
                                effect: reading.done.effects[kind][index],
                                weights: reading.weights[kind][index].clone(),
                                positive,
                                negative,
                                above,
                                ..ByReference::default()
                            },
                        ));
                    }
                }
            }
        }
        for reading in &mut pairs {
            let [differs, used] = core::mem::take(&mut reading.by).map(|mut by| {
                by.sort_by_key(|(slot, _)| *slot);
                by
            });
            let both = differs.into_iter().zip(used);
            reading.done.heads = both
                .map(|((_, differs), (_, used))| HeadRead {
                    by: [differs, used],
                    from: Vec::new(),
                    positive: PromptRead::default(),
                    negative: PromptRead::default(),
                })
                .collect();
        }
        Ok(pairs)
    }

    /// Attention of all heads on the positive prompts and of those with a card on the negative ones.
    fn attention<B: Backend>(
        &self,
        causal: &CausalEvidence<B>,
        members: &[usize],
        runs: &Runs<B>,
        gradients: &NodeOutputs<B>,
        pairs: &mut [Reading],
    ) -> Result<()> {
        let (graph, model) = (causal.graph(), causal.model());
        let batch: PairBatch<B> = causal.batch(members.to_vec(), causal.device());
        let layers: BTreeSet<usize> = self.heads.iter().map(|head| head.layer).collect();
        let all = (0..graph.n_layers).flat_map(|layer| [Site::V(layer), Site::Pattern(layer)]);
        let kept = runs.attention.as_ref();
        let mut v = None;
        let watch = Watch::new(all, |site, x: AnyTensor<B>| {
            let x = four(site, &x)?;
            let Site::Pattern(layer) = site else {
                v = Some(x);
                return Ok(());
            };
            let v = v.take().ok_or(circuitscope_hooks::Error::NeverFired {
                site: Site::V(layer),
            })?;
            let dims = x.dims();
            let [_, heads, pos, _] = dims;
            let moved = host(moved(&x, &v, z(gradients, layer)?))?;
            let data = host(x)?;
            let values = if layers.contains(&layer) {
                host(v)?
            } else {
                Vec::new()
            };
            let square = pos * pos;
            for (at, reading) in pairs.iter_mut().enumerate() {
                let targets = &self.patterns.targets[members[at]];
                for head in 0..heads {
                    let first = (at * heads + head) * square;
                    let rows = &data[first..first + square];
                    let index = layer * heads + head;
                    let weights = [0, 1].map(|kind| reading.weights[kind][index].as_slice());
                    let follows = targets.iter();
                    let moved = &moved[first..first + square];
                    let follows = follows.map(|targets| Follows::of(targets, rows, moved, weights));
                    reading.done.follows.extend(follows);
                }
                for slot in self.of_layer(layer) {
                    let head = self.heads[slot];
                    let weighed: Vec<usize> = reading.done.heads[slot].most();
                    let first = (at * heads + head.head) * square;
                    let of_head = &moved[first..first + square];
                    let weights = [0, 1]
                        .map(|kind| reading.weights[kind][layer * heads + head.head].as_slice());
                    let from = targets.iter().map(|targets| {
                        weights.map(|weights| from_positions(targets, of_head, weights))
                    });
                    reading.done.heads[slot].from = from.collect();
                    let z = z_of(&runs.positive.nodes, head, at, &weighed)?;
                    let place = |at: usize| at;
                    let prompt = Prompt {
                        data: &data,
                        values: &values,
                        at,
                        dims,
                        length: pos,
                    };
                    reading.done.heads[slot].positive =
                        prompt.read(model, head, &weighed, z, place);
                }
            }
            Ok(())
        });
        watch.over(kept.map(|kept| &kept[0]), model, &batch.clean)?;
        let sites = layers
            .iter()
            .flat_map(|&layer| [Site::V(layer), Site::Pattern(layer)]);
        let mut values = Vec::new();
        let watch = Watch::new(sites, |site, x: AnyTensor<B>| {
            let x = four(site, &x)?;
            let dims = x.dims();
            // Rows at padding hold no numbers.
            let data = crate::causal::values::<f32>(x.into_data())?;
            let Site::Pattern(layer) = site else {
                values = data;
                return Ok(());
            };
            for (at, reading) in pairs.iter_mut().enumerate() {
                let pair = members[at];
                for slot in self.of_layer(layer) {
                    let head = self.heads[slot];
                    let weighed: Vec<usize> = reading.done.heads[slot].most();
                    // Those of the negative run stand where the positive prompt has what corresponds to them.
                    let z = z_of(&runs.negative.nodes, head, at, &weighed)?;
                    let prompt = Prompt {
                        data: &data,
                        values: &values,
                        at,
                        dims,
                        length: causal.pairs()[pair].corrupt.len(),
                    };
                    let place = |at: usize| causal.place(pair, at);
                    reading.done.heads[slot].negative =
                        prompt.read(model, head, &weighed, z, place);
                }
            }
            Ok(())
        });
        watch.over(kept.map(|kept| &kept[1]), model, &batch.corrupt)
    }

    /// What reaches the logits directly from where they are read.
    fn direct<B: Backend>(
        &self,
        causal: &CausalEvidence<B>,
        members: &[usize],
        runs: &Runs<B>,
        mean: &Outputs<B>,
        pairs: &mut [Reading],
    ) -> Result<()> {
        let model = causal.model();
        if model.config().norm_after || self.heads.is_empty() {
            return Ok(());
        }
        let batch: PairBatch<B> = causal.batch(members.to_vec(), causal.device());
        let mut parts = Vec::new();
        for &head in self.heads {
            let at = |run: &NodeOutputs<B>| {
                let z = z(run, head.layer)?.slice_dim(2, head.head..=head.head);
                Ok::<_, Error>(z.squeeze_dim::<3>(2))
            };
            let here = at(&runs.positive.nodes)?;
            for reference in [at(&runs.negative.nodes)?, at(&mean.nodes)?] {
                let there = reference.expand(here.dims());
                let last = batch.clean.last(here.clone() - there);
                parts.push(into_stream(model, head, last).unsqueeze_dim::<3>(1));
            }
        }
        let parts = Tensor::cat(parts, 1);
        let count = parts.dims()[1];
        let stream = runs.last.clone();
        let weighted =
            host(model.direct_logits(stream.clone(), parts.clone(), runs.contrast.clone()))?;
        let answers = batch.targets.contrast::<B>(causal.device());
        let logits = host(model.direct_logits(stream, parts, answers))?;
        for (at, reading) in pairs.iter_mut().enumerate() {
            for (slot, head) in reading.done.heads.iter_mut().enumerate() {
                for (kind, by) in head.by.iter_mut().enumerate() {
                    let place = at * count + REFERENCES * slot + kind;
                    by.direct = weighted[place];
                    by.direct_logits = logits[place];
                }
            }
        }
        Ok(())
    }

    /// Which of the heads are of a layer.
    fn of_layer(&self, layer: usize) -> Vec<usize> {
        let heads = self.heads.iter().enumerate();
        let of_layer = heads.filter(|(_, head)| head.layer == layer);
        of_layer.map(|(slot, _)| slot).collect()
    }
}

/// A pair while it is read.
struct Reading {
    done: OfPair,
    /// `[head][position]` of all heads.
    weights: [Vec<Vec<f32>>; REFERENCES],
    by: [Vec<(usize, ByReference)>; REFERENCES],
}

impl Reading {
    fn of(total: f32) -> Self {
        Self {
            done: OfPair {
                total,
                effects: [Vec::new(), Vec::new()],
                follows: Vec::new(),
                heads: Vec::new(),
            },
            weights: [Vec::new(), Vec::new()],
            by: [Vec::new(), Vec::new()],
        }
    }
}

impl HeadRead {
    /// The positions where most of the head's effects arise, by either reference.
    fn most(&self) -> Vec<usize> {
        let mut most = BTreeSet::new();
        for by in &self.by {
            let mut order: Vec<usize> = (0..by.weights.len()).collect();
            order.sort_by(|&a, &b| by.weights[b].total_cmp(&by.weights[a]));
            most.extend(order.into_iter().take(ROWS));
        }
        most.into_iter().collect()
    }
}

/// One prompt of a batch in one layer.
struct Prompt<'a> {
    /// Attention, `[batch, head, pos, pos]`.
    data: &'a [f32],
    /// `[batch, pos, key/value head, d_head]`.
    values: &'a [f32],
    at: usize,
    dims: [usize; 4],
    length: usize,
}

impl Prompt<'_> {
    /// Attention from the positions `weighed` of the positive prompt, or what corresponds to them, and the values attended to.
    fn read<B: Backend>(
        &self,
        model: &Decoder<B>,
        head: HeadId,
        weighed: &[usize],
        z: Vec<Vec<f32>>,
        place: impl Fn(usize) -> usize,
    ) -> PromptRead {
        let config = model.config();
        let [_, heads, _, pos] = self.dims;
        let row = |position: usize| {
            let first = ((self.at * heads + head.head) * pos + position) * pos;
            self.data[first..first + self.length].to_vec()
        };
        let rows = weighed.iter().zip(z);
        let rows: Vec<Row> = rows
            .map(|(&weighed_at, z)| {
                let position = place(weighed_at);
                Row {
                    weighed_at,
                    position,
                    attention: row(position),
                    z,
                }
            })
            .collect();
        let most = |position: usize| {
            let attention = rows.iter().map(|row| row.attention[position]);
            attention.fold(0.0, f32::max)
        };
        let mut order: Vec<usize> = (0..self.length).collect();
        order.sort_by(|&a, &b| most(b).total_cmp(&most(a)));
        let (shared, width) = (config.n_key_value_heads, config.d_head);
        let of_head = head.head * shared / config.n_heads;
        let value = |position: usize| {
            let first = ((self.at * pos + position) * shared + of_head) * width;
            self.values[first..first + width].to_vec()
        };
        let sources = order.into_iter().take(SOURCES);
        let sources = sources
            .map(|position| (position, value(position)))
            .collect();
        PromptRead { rows, sources }
    }
}

/// Of what each head moves to each position, the share that comes from each other one, `[pairs, heads, pos, pos]`: the size of
/// attention times value times gradient there, over the sum of sizes.
fn moved<B: Backend>(
    pattern: &Tensor<B, 4>,
    v: &Tensor<B, 4>,
    gradient: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let [rows, heads, pos, keys] = pattern.dims();
    let [_, _, shared, width] = v.dims();
    let group = heads / shared;
    // [pairs, key/value head, group * pos, d_head] x [pairs, key/value head, d_head, pos]
    let gradient = gradient
        .swap_dims(1, 2)
        .reshape([rows, shared, group * pos, width]);
    let v = v.clone().swap_dims(1, 2).swap_dims(2, 3);
    let along = gradient.matmul(v).reshape([rows, heads, pos, keys]);
    let sizes = (along * pattern.clone()).abs();
    let sums = sizes.clone().sum_dim(3).clamp_min(f32::MIN_POSITIVE);
    sizes / sums
}

/// The outputs of all heads of a layer, `[pairs, pos, heads, d_head]`.
fn z<B: Backend>(run: &NodeOutputs<B>, layer: usize) -> Result<Tensor<B, 4>> {
    let site = Site::Z(layer);
    let z = run.at(site).cloned();
    Ok(z.ok_or(circuitscope_hooks::Error::NeverFired { site })?)
}

/// The outputs of one head at some positions of one pair.
fn z_of<B: Backend>(
    run: &NodeOutputs<B>,
    head: HeadId,
    pair: usize,
    positions: &[usize],
) -> Result<Vec<Vec<f32>>> {
    let z = z(run, head.layer)?.slice_dim(0, pair..=pair);
    let z = z.slice_dim(2, head.head..=head.head);
    let width = z.dims()[3];
    let all = host(z)?;
    let at = |position: &usize| all[position * width..(position + 1) * width].to_vec();
    Ok(positions.iter().map(at).collect())
}

/// `[n, d_head]` of one head in the stream, `[n, d_model]`.
pub(super) fn into_stream<B: Backend>(
    model: &Decoder<B>,
    head: HeadId,
    z: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let w_o = wide(model.w_o(head.layer)).slice_dim(0, head.head..=head.head);
    z.matmul(w_o.squeeze_dim::<2>(0))
}

fn four<B: Backend>(site: Site, x: &AnyTensor<B>) -> Result<Tensor<B, 4>> {
    let x = x.get::<4>().map(wide);
    Ok(x.ok_or(circuitscope_hooks::Error::NeverFired { site })?)
}

/// Hands activations over as they come: of long prompts no more than one layer's attention is held.
pub(super) struct Watch<F> {
    sites: BTreeSet<Site>,
    take: F,
    outcome: Result<()>,
}

impl<F> Watch<F> {
    pub(super) fn new(sites: impl IntoIterator<Item = Site>, take: F) -> Self {
        Self {
            sites: sites.into_iter().collect(),
            take,
            outcome: Ok(()),
        }
    }

    /// Over what was kept of a run, or a run.
    pub(super) fn over<B: Backend>(
        mut self,
        kept: Option<&BTreeMap<Site, AnyTensor<B>>>,
        model: &Decoder<B>,
        batch: &TokenBatch<B>,
    ) -> Result<()>
    where
        F: FnMut(Site, AnyTensor<B>) -> Result<()>,
    {
        let Some(kept) = kept else {
            model.forward(batch, &mut self);
            return self.outcome;
        };
        for (site, value) in kept {
            if self.sites.contains(site) {
                (self.take)(*site, value.clone())?;
            }
        }
        Ok(())
    }
}

impl<B: Backend, F: FnMut(Site, AnyTensor<B>) -> Result<()>> Tap<B> for Watch<F> {
    fn wants(&self, site: Site) -> bool {
        self.sites.contains(&site)
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        if self.outcome.is_ok() {
            self.outcome = (self.take)(site, AnyTensor::new(x.clone()));
        }
        x
    }
}
