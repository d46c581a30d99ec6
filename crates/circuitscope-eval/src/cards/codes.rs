//! What the codes of a head stand for: the prompts that carry them, where and from where, and what foretells them.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{HeadId, INACTIVE, Polarity, Progress, Seed};
use circuitscope_hooks::wide;
use circuitscope_measures::cards::{CodeCard, CodePrompt};
use circuitscope_sae::{EncodeConfig, Encoder, SaeConfig, SparseAutoencoder};
use circuitscope_score::Code;

use super::read::{OfPair, PromptRead, into_stream};
use super::rule::token_rule;
use super::writes::{Extremes, extremes, extremes_in_stream};
use super::{CardSettings, Words, mean_of};
use crate::Result;
use crate::causal::{CausalEvidence, host};
use crate::encodings::Encoded;
use crate::methods::clusters_of;

/// Prompts that are shown of a code.
const SHOWN: usize = 3;

/// The codes of one head on every pair: positive and negative prompt.
pub(super) type Codes = Vec<[i32; 2]>;

/// What makes codes: the dictionary that the scores rest on, where they rest on one, else one that was never trained.
pub(super) enum Codebook<'a, B: Backend> {
    Own(&'a Encoded<B>),
    Untrained(SparseAutoencoder<B>),
}

impl<'a, B: Backend> Codebook<'a, B> {
    pub(super) fn of(
        causal: &CausalEvidence<B>,
        own: Option<&'a Encoded<B>>,
        how: &CardSettings,
        seed: Seed,
    ) -> Result<Self> {
        if let Some(own) = own {
            return Ok(Self::Own(own));
        }
        let config = SaeConfig::new(causal.model().config().d_model).with_d_sae(how.n_codes);
        let untrained = config.init(seed.stream("sae/weights"), causal.device())?;
        Ok(Self::Untrained(untrained))
    }

    /// `[codes, d_model]`: the atoms, or of a dictionary that was never trained, whose atoms are not what it reads, what it
    /// reads.
    fn directions(&self) -> Option<Tensor<B, 2>> {
        match self {
            Self::Own(own) => own.encoder.atoms(),
            Self::Untrained(untrained) => Some(untrained.w_enc.clone().transpose()),
        }
    }

    /// The tokens that the atoms of some codes raise and lower most through the unembedding.
    fn atoms(
        &self,
        causal: &CausalEvidence<B>,
        codes: &[i32],
        count: usize,
    ) -> Result<Vec<Extremes>> {
        let nothing = || vec![Extremes::default(); codes.len()];
        let Self::Own(own) = self else {
            return Ok(nothing());
        };
        let Some(atoms) = own.encoder.atoms() else {
            return Ok(nothing());
        };
        let mut found = nothing();
        for (at, found) in found.iter_mut().enumerate() {
            if let Ok(code) = usize::try_from(codes[at]) {
                let atom = atoms.clone().slice_dim(0, code..=code);
                *found = extremes_in_stream(causal.model(), atom, count)?;
            }
        }
        Ok(found)
    }
}

/// What a head puts out where it matters, `[2 * pairs, d_model]`: on positives, then on negatives.
fn outputs<B: Backend>(
    causal: &CausalEvidence<B>,
    (slot, head): (usize, HeadId),
    kind: usize,
    pairs: &[OfPair],
) -> Tensor<B, 2> {
    let reads = || pairs.iter().map(|pair| &pair.heads[slot].by[kind]);
    let positive = reads().flat_map(|by| by.positive.iter().copied());
    let all = positive.chain(reads().flat_map(|by| by.negative.iter().copied()));
    let all: Vec<f32> = all.collect();
    let width = all.len() / (2 * pairs.len());
    let data = TensorData::new(all, [2 * pairs.len(), width]);
    let vectors = Tensor::<B, 2>::from_data(data, causal.device());
    into_stream(causal.model(), head, vectors)
}

/// Codes of the vectors of [`outputs`], pair by pair.
fn by_pair(codes: &[i32]) -> Codes {
    let (positive, negative) = codes.split_at(codes.len() / 2);
    let both = positive.iter().zip(negative);
    both.map(|(a, b)| [*a, *b]).collect()
}

/// What a head puts out where it matters, as codes.
pub(super) fn codes<B: Backend>(
    causal: &CausalEvidence<B>,
    codebook: &Codebook<'_, B>,
    place: (usize, HeadId),
    kind: usize,
    pairs: &[OfPair],
) -> Result<Codes> {
    match codebook {
        Codebook::Own(own) => {
            let table = &own.table;
            let head = table.grid().index(place.1).unwrap_or_default();
            let code = |example: usize| match table.code(example, head) {
                Code::Feature(feature) => feature as i32,
                _ => INACTIVE,
            };
            let rows = causal.pairs()[..pairs.len()].iter().map(|pair| pair.rows);
            Ok(rows.map(|(a, b)| [code(a), code(b)]).collect())
        }
        Codebook::Untrained(untrained) => {
            let vectors = outputs(causal, place, kind, pairs);
            let codes = untrained.encode_codes(vectors, &EncodeConfig::new())?;
            Ok(by_pair(&codes.codes))
        }
    }
}

/// The same in few clusters: codes of many values say little of a variable on few prompts.
pub(super) fn clusters<B: Backend>(
    causal: &CausalEvidence<B>,
    place: (usize, HeadId),
    kind: usize,
    pairs: &[OfPair],
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Codes> {
    let vectors = outputs(causal, place, kind, pairs);
    let count = (2 * pairs.len() / IN_CLUSTER).clamp(2, CLUSTERS);
    let clusters = clusters_of(&vectors, count, seed.stream("cards/clusters"), progress)?;
    Ok(by_pair(&clusters))
}

/// Prompts of a cluster, on average.
const IN_CLUSTER: usize = 8;
/// Clusters at most.
const CLUSTERS: usize = 16;

/// What a card says of each of its codes.
#[expect(clippy::too_many_arguments, reason = "all that one head has")]
pub(super) fn code_cards<B: Backend>(
    causal: &CausalEvidence<B>,
    codebook: &Codebook<'_, B>,
    (slot, head): (usize, HeadId),
    kind: usize,
    pairs: &[OfPair],
    codes: &Codes,
    total: f64,
    words: Words<'_>,
    (how, seed): (&CardSettings, Seed),
) -> Result<Vec<CodeCard>> {
    let mut carriers: BTreeMap<i32, Vec<(usize, Polarity)>> = BTreeMap::new();
    for (pair, of_pair) in codes.iter().enumerate() {
        for (code, class) in of_pair.iter().zip([Polarity::Positive, Polarity::Negative]) {
            carriers.entry(*code).or_default().push((pair, class));
        }
    }
    // Codes on negatives alone carry no part of the effect.
    carriers.retain(|_, prompts| {
        prompts
            .iter()
            .any(|(_, class)| *class == Polarity::Positive)
    });
    let positives = |prompts: &[(usize, Polarity)]| -> Vec<usize> {
        let positives = prompts
            .iter()
            .filter(|(_, class)| *class == Polarity::Positive);
        positives.map(|(pair, _)| *pair).collect()
    };
    let above = carriers.values().map(|prompts| {
        let members = positives(prompts);
        mean_of(
            members
                .iter()
                .map(|&pair| &pairs[pair].heads[slot].by[kind].above),
        )
    });
    let above: Vec<Vec<f32>> = above.collect();
    let written = extremes(causal.model(), head, &above, how.promoted)?;
    let along = Along::of(causal, codebook, head)?;
    let names: Vec<i32> = carriers.keys().copied().collect();
    let atoms = codebook.atoms(causal, &names, how.promoted)?;
    let mut cards = Vec::new();
    let of_codes = carriers.iter().zip(written.into_iter().zip(atoms));
    for ((&code, prompts), (Extremes { up, .. }, atom)) in of_codes {
        let members = positives(prompts);
        let effect = members.iter().map(|&pair| {
            let effect = pairs[pair].heads[slot].by[kind].effect;
            f64::from(effect)
        });
        let direction = along.direction(code);
        let mut shown: Vec<(f32, CodePrompt)> = prompts
            .iter()
            .filter_map(|&(pair, class)| {
                let read = &pairs[pair].heads[slot];
                let prompt = match class {
                    Polarity::Positive => &read.positive,
                    Polarity::Negative => &read.negative,
                };
                let tokens = causal.pairs()[pair].get(class);
                let (size, position, from) = largest(prompt, &read.by[kind].weights, direction)?;
                let place = CodePrompt {
                    pair: pair + 1,
                    class,
                    token: words(tokens[position]),
                    position,
                    from: words(tokens[from]),
                    from_position: from,
                };
                Some((size, place))
            })
            .collect();
        let mut at: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, prompt) in &shown {
            *at.entry(&prompt.token).or_default() += 1;
        }
        // Of those as frequent, the first.
        let most = at.values().copied().max().unwrap_or(0);
        let token = at.iter().find(|(_, times)| **times == most);
        let token = token.map_or_else(String::new, |(token, _)| (*token).to_owned());
        shown.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let has = |pair: usize, class: Polarity| prompts.contains(&(pair, class));
        cards.push(CodeCard {
            code,
            positives: members.len(),
            negatives: prompts.len() - members.len(),
            effect: effect.sum::<f64>() / (pairs.len() as f64 * total),
            token,
            at_token: most,
            prompts: shown
                .into_iter()
                .take(SHOWN)
                .map(|(_, prompt)| prompt)
                .collect(),
            promotes: up.into_iter().map(words).collect(),
            atom_up: atom.up.into_iter().map(words).collect(),
            atom_down: atom.down.into_iter().map(words).collect(),
            rule: token_rule(
                &causal.pairs()[..pairs.len()],
                &has,
                words,
                seed.nth("cards/rule", code.unsigned_abs().into()),
            ),
        });
    }
    cards.sort_by(|a, b| b.effect.abs().total_cmp(&a.effect.abs()));
    Ok(cards)
}

/// What a head's outputs have along the directions of the dictionary.
struct Along {
    /// `[codes][d_head]`.
    directions: Vec<Vec<f32>>,
}

impl Along {
    fn of<B: Backend>(
        causal: &CausalEvidence<B>,
        codebook: &Codebook<'_, B>,
        head: HeadId,
    ) -> Result<Self> {
        let Some(directions) = codebook.directions() else {
            return Ok(Self {
                directions: Vec::new(),
            });
        };
        let w_o = wide(causal.model().w_o(head.layer)).slice_dim(0, head.head..=head.head);
        // [codes, d_head]
        let all = w_o
            .squeeze_dim::<2>(0)
            .matmul(directions.transpose())
            .transpose();
        let width = all.dims()[1];
        let all = host(all)?;
        Ok(Self {
            directions: all.chunks(width).map(<[f32]>::to_vec).collect(),
        })
    }

    /// Nothing where no feature is active.
    fn direction(&self, code: i32) -> Option<&[f32]> {
        if code == INACTIVE {
            return None;
        }
        let direction = self.directions.get(usize::try_from(code).ok()?)?;
        Some(direction.as_slice())
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Where the contribution along a direction is largest, and which token attended to gives most of it; by weight and attention
/// alone where there is no direction.
fn largest(
    prompt: &PromptRead,
    weights: &[f32],
    direction: Option<&[f32]>,
) -> Option<(f32, usize, usize)> {
    let part = |x: &[f32]| direction.map_or(1.0, |direction| dot(x, direction));
    let rows = prompt.rows.iter();
    let rows = rows.map(|row| (weights[row.weighed_at] * part(&row.z), row));
    let (size, row) = rows.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    let from = prompt.sources.iter();
    let from = from.map(|(position, value)| (row.attention[*position] * part(value), *position));
    let (_, from) = from.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    Some((size, row.position, from))
}

/// Distinct tokens of a prompt.
pub(super) fn distinct(tokens: &[u32]) -> BTreeSet<u32> {
    tokens.iter().copied().collect()
}
