//! What chosen heads signal: codes of what they put out where it matters, and what each code carries.

use std::collections::BTreeMap;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_core::{HeadGrid, HeadId, Polarity, Progress, Seed, names};
use circuitscope_hooks::{NodeOutputs, Site};
use circuitscope_model::Decoder;
use circuitscope_score::Code;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::causal::{CausalEvidence, Held, WholeWriters, host, values};
use crate::encodings::SaeSettings;
use crate::methods::{Contrast, PatchedEdges, PatchingSettings, Sae, Work};
use crate::{Error, Evidence, Result};

/// How [`signals`] reads heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct SignalSettings {
    /// Pairs that are read, at most. Default 250.
    pub pairs: usize,
    /// Features of the dictionary. Default 200, as everywhere.
    pub n_codes: usize,
    /// Tokens that are named for each code. Default 3.
    pub promoted: usize,
}

impl Default for SignalSettings {
    fn default() -> Self {
        Self {
            pairs: PatchingSettings::default().gradient_pairs,
            n_codes: SaeSettings::default().n_codes,
            promoted: 3,
        }
    }
}

/// What takes a head's place where its effect is larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reference {
    /// What it puts out on the negative prompt: the head tells the prompts apart.
    Differs,
    /// Its mean over both: the head works alike on both.
    Used,
}

names!(pub Reference { Differs => "differs", Used => "used" });

/// What one head signals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HeadSignals {
    /// The head.
    pub head: HeadId,
    /// What its effects were measured against: what gives the larger ones.
    pub reference: Reference,
    /// Its mean effect, a share of what the predictions after the two prompts are apart; below 0 it works against the
    /// behaviour.
    pub effect: f64,
    /// Its codes on positives, by the size of their effects.
    pub codes: Vec<CodeSignal>,
}

/// What one code of a head stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CodeSignal {
    /// The feature, or [`circuitscope_core::INACTIVE`].
    pub code: i32,
    /// On how many positive prompts the head has it.
    pub positives: usize,
    /// On how many negative ones, read at the same positions with the same weights.
    pub negatives: usize,
    /// Its part of [`HeadSignals::effect`]: those of all codes add up to that.
    pub effect: f64,
    /// The token where the head matters most, on most of these positives.
    pub token: u32,
    /// On how many of them.
    pub at_token: usize,
    /// Tokens whose logits the head raises most there, above its mean output.
    pub promotes: Vec<u32>,
}

/// What one pair says of one head and reference; vectors `[d_head]`, weighted by where the head matters.
#[derive(Debug, Clone)]
struct Read {
    effect: f32,
    /// The position that matters most.
    at: usize,
    positive: Vec<f32>,
    negative: Vec<f32>,
    /// The positive prompt less the mean of both prompts of all pairs.
    above: Vec<f32>,
}

/// Of one pair: what the predictions are apart, and for each head both references.
struct OfPair {
    total: f32,
    heads: Vec<[Read; 2]>,
}

/// Reads `heads` on pairs of prompts where they matter, gives what they put out a code, and says of each code on which prompts it
/// is, what it carries and what it promotes.
///
/// With `e_bt` the effect of a head on pair `b` at position `t` by one gradient of the contrast
/// ([`Contrast`]), against what the head puts out on the negative prompt (*differs*) or its mean (*used*), whichever is larger: the head
/// is read as `y_b = Σ_t ω_bt z_bt W_O` with `ω_bt = |e_bt| / Σ_t |e_bt|`, on the negative prompt with the same weights. A dictionary that
/// was never trained makes codes of `y`; the effect of a code is the mean of `e_b` over all pairs, those without it counted as 0, in
/// units of what the predictions are apart. So the effects of all codes of a head add up to the head's.
///
/// Codes say what a head signals, not that it matters: the effect beside each does.
///
/// # Errors
/// Those of the device, [`Error::NotFinite`], [`Error::Cancelled`].
///
/// # Panics
/// If a head is not one of the model's.
pub fn signals<B: AutodiffBackend>(
    causal: &CausalEvidence<B::InnerBackend>,
    heads: &[HeadId],
    how: SignalSettings,
    seed: Seed,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Vec<HeadSignals>> {
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    let count = how.pairs.min(causal.pairs().len());
    let contrast = Contrast::<B>::new(
        PatchingSettings::default().with_edges(PatchedEdges::None),
        device.clone(),
    );
    let shares = Contrast::<B>::shares(count, seed);
    let held = if WholeWriters::applies(causal.model()) {
        Held::Nodes
    } else {
        Held::Streams
    };
    let work: &Work<'_, B, OfPair> = &|model, members, runs, mean| {
        let (gradients, _) = Contrast::<B>::gradients(model, members, runs, &shares, false)?;
        let [positive, negative] = [&runs.positive.nodes, &runs.negative.nodes];
        let read = read(heads, positive, negative, &mean.nodes, &gradients)?;
        let pairs = runs.total.iter().zip(read);
        let pairs = pairs.map(|(&total, heads)| OfPair { total, heads });
        Ok(pairs.collect())
    };
    let pairs = contrast.each_pair(causal, (count, held), progress, work)?;
    let total = pairs.iter().map(|pair| f64::from(pair.total)).sum::<f64>() / count as f64;
    let references: Vec<usize> = (0..heads.len())
        .map(|head| {
            let size = |kind: usize| {
                let effects = pairs.iter().map(|pair| pair.heads[head][kind].effect.abs());
                effects.map(f64::from).sum::<f64>()
            };
            usize::from(size(1) > size(0))
        })
        .collect();
    let codes = codes(causal, heads, &pairs, &references, how, seed, progress)?;
    let mut found = Vec::new();
    for (slot, &head) in heads.iter().enumerate() {
        let kind = references[slot];
        let reads: Vec<&Read> = pairs.iter().map(|pair| &pair.heads[slot][kind]).collect();
        let codes = &codes[slot];
        let mut of_code: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (pair, &[positive, _]) in codes.iter().enumerate() {
            of_code.entry(positive).or_default().push(pair);
        }
        let means = of_code.values().map(|members| mean_above(&reads, members));
        let means: Vec<Vec<f32>> = means.collect();
        let promoted = promoted(causal.model(), head, &means, how.promoted)?;
        let effect = |members: &[usize]| {
            let sum: f64 = members
                .iter()
                .map(|&pair| f64::from(reads[pair].effect))
                .sum();
            sum / (count as f64 * total)
        };
        let mut signals: Vec<CodeSignal> = of_code
            .iter()
            .zip(promoted)
            .map(|((&code, members), promotes)| {
                let mut at: BTreeMap<u32, usize> = BTreeMap::new();
                for &pair in members {
                    *at.entry(causal.pairs()[pair].clean[reads[pair].at])
                        .or_default() += 1;
                }
                // Of those as frequent, the first.
                let most = at.values().copied().max().unwrap_or(0);
                let token = at.iter().find(|(_, times)| **times == most);
                CodeSignal {
                    code,
                    positives: members.len(),
                    negatives: codes
                        .iter()
                        .filter(|[_, negative]| *negative == code)
                        .count(),
                    effect: effect(members),
                    token: token.map_or(0, |(token, _)| *token),
                    at_token: most,
                    promotes,
                }
            })
            .collect();
        signals.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
        let all: Vec<usize> = (0..count).collect();
        found.push(HeadSignals {
            head,
            reference: [Reference::Differs, Reference::Used][kind],
            effect: effect(&all),
            codes: signals,
        });
    }
    Ok(found)
}

/// Every head of some pairs, by both references: `[pair][head][reference]`.
fn read<B: Backend>(
    heads: &[HeadId],
    positive: &NodeOutputs<B>,
    negative: &NodeOutputs<B>,
    mean: &NodeOutputs<B>,
    gradients: &NodeOutputs<B>,
) -> Result<Vec<Vec<[Read; 2]>>> {
    let mut found: Vec<Vec<[Read; 2]>> = Vec::new();
    for head in heads {
        let site = Site::Z(head.layer);
        let of = |run: &NodeOutputs<B>| {
            let z = run.at(site).cloned();
            let z = z.ok_or(circuitscope_hooks::Error::NeverFired { site })?;
            // [pairs, pos, d_head]
            Ok::<_, Error>(z.slice_dim(2, head.head..=head.head).squeeze_dim::<3>(2))
        };
        let (z, other, mean, gradient) = (of(positive)?, of(negative)?, of(mean)?, of(gradients)?);
        let above = z.clone() - mean.clone();
        let mut both: [Vec<Read>; 2] = [Vec::new(), Vec::new()];
        for (reads, reference) in both.iter_mut().zip([other.clone(), mean]) {
            let effects = ((z.clone() - reference) * gradient.clone()).sum_dim(2);
            let sizes = effects.clone().abs();
            let weights = sizes.clone() / sizes.clone().sum_dim(1).clamp_min(f32::MIN_POSITIVE);
            let weighted = |x: &Tensor<B, 3>| {
                let [pairs, _, width] = x.dims();
                let sum = (x.clone() * weights.clone()).sum_dim(1);
                let all = host(sum.reshape([pairs, width]))?;
                Ok::<_, Error>(all.chunks(width).map(<[_]>::to_vec).collect::<Vec<_>>())
            };
            let [positive, negative, above] = [&z, &other, &above].map(weighted);
            let at: Vec<i64> = values(sizes.argmax(1).into_data())?;
            let effects = host(effects.sum_dim(1))?.into_iter();
            let vectors = positive?.into_iter().zip(negative?).zip(above?);
            reads.extend(effects.zip(at).zip(vectors).map(
                |((effect, at), ((positive, negative), above))| Read {
                    effect,
                    at: at as usize,
                    positive,
                    negative,
                    above,
                },
            ));
        }
        let [differs, used] = both;
        found.resize_with(differs.len(), Vec::new);
        for (pair, (differs, used)) in differs.into_iter().zip(used).enumerate() {
            found[pair].push([differs, used]);
        }
    }
    Ok(found)
}

/// `[n, d_head]` of one head in the stream, `[n, d_model]`.
fn in_stream<B: Backend>(model: &Decoder<B>, head: HeadId, rows: &[&[f32]]) -> Tensor<B, 2> {
    let w_o = circuitscope_hooks::wide(model.w_o(head.layer));
    let w_o = w_o.slice_dim(0, head.head..=head.head).squeeze_dim::<2>(0);
    let data = TensorData::new(rows.concat(), [rows.len(), w_o.dims()[0]]);
    Tensor::<B, 2>::from_data(data, &w_o.device()).matmul(w_o)
}

/// For each head the codes of every pair, positive and negative.
fn codes<B: Backend>(
    causal: &CausalEvidence<B>,
    heads: &[HeadId],
    pairs: &[OfPair],
    references: &[usize],
    how: SignalSettings,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<Vec<[i32; 2]>>> {
    let n = pairs.len();
    let of_heads = heads.iter().zip(references).enumerate();
    let of_heads = of_heads.map(|(slot, (&head, &kind))| {
        let reads = || pairs.iter().map(|pair| &pair.heads[slot][kind]);
        let rows = reads().map(|read| read.positive.as_slice());
        let rows = rows.chain(reads().map(|read| read.negative.as_slice()));
        let rows: Vec<&[f32]> = rows.collect();
        in_stream(causal.model(), head, &rows).unsqueeze_dim::<3>(1)
    });
    let activations = Tensor::cat(of_heads.collect(), 1);
    let labels = [vec![Polarity::Positive; n], vec![Polarity::Negative; n]].concat();
    let rows = (0..n).map(|pair| (pair, n + pair)).collect();
    let grid = HeadGrid::new(1, heads.len());
    let evidence = Evidence::new(grid, activations, labels, rows)?.with_exec(causal.model().exec());
    let settings = SaeSettings::default().with_n_codes(how.n_codes);
    let encoded = Sae::untrained(settings).encode(&evidence, &[seed], progress)?;
    let table = &encoded[0].table;
    let code = |example: usize, head: usize| match table.code(example, head) {
        Code::Feature(feature) => feature as i32,
        _ => circuitscope_core::INACTIVE,
    };
    let of_head = |head| (0..n).map(move |pair| [code(pair, head), code(n + pair, head)]);
    Ok((0..heads.len())
        .map(|head| of_head(head).collect())
        .collect())
}

/// The mean of what some pairs put out above the mean, `[d_head]`.
fn mean_above(reads: &[&Read], members: &[usize]) -> Vec<f32> {
    let mut mean = vec![0.0; reads[members[0]].above.len()];
    for &pair in members {
        for (mean, x) in mean.iter_mut().zip(&reads[pair].above) {
            *mean += x / members.len() as f32;
        }
    }
    mean
}

/// The tokens whose logits each of some outputs of a head raises most.
fn promoted<B: Backend>(
    model: &Decoder<B>,
    head: HeadId,
    outputs: &[Vec<f32>],
    count: usize,
) -> Result<Vec<Vec<u32>>> {
    let rows: Vec<&[f32]> = outputs.iter().map(Vec::as_slice).collect();
    let mut found = Vec::new();
    for rows in rows.chunks(64) {
        let stream = in_stream(model, head, rows).unsqueeze_dim::<3>(1);
        // What biases promote is not the head's doing.
        let logits = model.unembed(stream.clone()) - model.unembed(stream.zeros_like());
        let [rows, _, vocabulary] = logits.dims();
        let top = count.min(vocabulary);
        let (_, tokens): (_, Tensor<B, 3, Int>) = logits.topk_with_indices(top, 2);
        let tokens: Vec<i64> = values(tokens.into_data())?;
        debug_assert_eq!(tokens.len(), rows * top);
        let each = tokens.chunks(top.max(1));
        found.extend(each.map(|tokens| tokens.iter().map(|&token| token as u32).collect()));
    }
    Ok(found)
}
