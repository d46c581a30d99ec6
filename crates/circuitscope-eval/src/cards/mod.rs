//! Cards of the heads of a circuit: what each does, from where to where, how much that matters, and what chance gives.

mod codes;
mod links;
mod patched;
mod patterns;
mod read;
mod repeated;
mod rule;
mod variables;
mod why;
mod writes;

use std::collections::BTreeMap;

use burn::module::Module as _;
use burn::tensor::backend::{AutodiffBackend, Backend};
use circuitscope_core::{HeadGrid, HeadId, Progress, Seed, draw};
use circuitscope_measures::cards::{
    Attention, AttentionRow, CARDS_SCHEMA, Cards, Effect, HeadCard, Patched, Pattern, PatternScore,
    Reference, ShownPair, Why,
};
use circuitscope_score::stats::Interval;
use derive_setters::Setters;

use crate::causal::{CausalEvidence, Held, WholeWriters};
use crate::encodings::{Encoded, SaeSettings};
use crate::methods::{Contrast, PatchedEdges, PatchingSettings, Work};
use crate::{Error, Result};
use codes::{Codebook, Codes};
use patterns::Patterns;
use read::{HeadRead, OfPair, Reader};

/// The words of a vocabulary.
type Words<'a> = &'a dyn Fn(u32) -> String;

/// How [`cards`] reads heads.
#[derive(Debug, Clone, PartialEq, Eq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct CardSettings {
    /// Pairs that are read, at most. Default: as many as take 1.2·10¹² operations (two for each parameter and token, in
    /// twelve passes), from 20 to 250.
    #[setters(strip_option)]
    pub pairs: Option<usize>,
    /// Features of the dictionary that makes codes. Default 200, as everywhere.
    pub n_codes: usize,
    /// Tokens that are named as raised or lowered. Default 5.
    pub promoted: usize,
    /// Pairs whose prompts attention is shown on. Default 3.
    pub shown: usize,
    /// Pairs that edges are measured on, at most. Default 10; 6 where more pairs could be read than the default number.
    #[setters(strip_option)]
    pub link_pairs: Option<usize>,
    /// Pairs that heads are patched on one by one, at most. Default 16; 8 likewise.
    #[setters(strip_option)]
    pub patched_pairs: Option<usize>,
    /// Heads that are patched beside those with a card: those with the largest effects by the gradient. Default 16.
    pub patched_others: usize,
    /// Prompts of random tokens said twice. Default 8; 0 for none.
    pub repeated: usize,
}

impl Default for CardSettings {
    fn default() -> Self {
        Self {
            pairs: None,
            n_codes: SaeSettings::default().n_codes,
            promoted: 5,
            shown: 3,
            link_pairs: None,
            patched_pairs: None,
            patched_others: 16,
            repeated: 8,
        }
    }
}

/// What is known of the prompts of pairs beside their tokens. Empty lists where nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptParts {
    /// For each pair the named parts of its positive prompt, with the positions of their tokens.
    pub slots: Vec<Vec<(String, Vec<usize>)>>,
    /// For each pair the variables of its positive and its negative prompt.
    pub variables: Vec<[BTreeMap<String, String>; 2]>,
}

/// Draws of the bootstrap of effects.
const DRAWS: usize = 1000;

/// Reads heads on pairs of prompts and says of each what it does.
///
/// With `e_bt` the effect of a head on pair `b` at position `t` by one gradient of the contrast
/// ([`Contrast`]), against what the head puts out on the negative prompt (*differs*) or its mean (*used*), whichever is
/// larger:
///
/// - **effect**: `Σ_bt e_bt` over what the predictions are apart, with a bootstrap over pairs.
/// - **patched**: the exact effect of the head alone, given what it puts out on the negative prompt or on another positive one.
/// - **patterns**: with `ω_bt = |e_bt| / Σ_t |e_bt|` and `m_b[t, s] = |A_b[t, s] v_b[s] · g_b[t]| / Σ_s |…|` of attention, value and gradient,
///   `mean_b Σ_t ω_bt Σ_{s ∈ T(t)} m_b[t, s]`, where `T(t)` is where the pattern would attend to: of what the head does where it
///   matters, the share that comes from there. It is a role where it is above its null (as many tokens drawn at random,
///   normal approximation) and, times the size of the exact effect, above what heads without an effect have (less than 7 % of
///   the largest): patterns alone name heads that do nothing with them.
/// - **codes**: of `y_b = Σ_t ω_bt z_bt W_O` by a dictionary that was never trained, or where scores rest on the codes of a dictionary
///   of their own (`own`), those; the effects of the codes of a head add up to the head's.
/// - **links**: edge attribution of the contrast into its ports.
/// - **why**: the score of the attention that matters most, taken apart exactly into what writes the query and what writes the
///   key ([`Decoder::score_parts`](circuitscope_model::Decoder::score_parts)).
/// - **variables**: mutual information of clusters of `y_b` (k-means, of eight prompts on average, 16 at most) and what the prompts are made of ([`circuitscope_score::carried`]).
///
/// Codes and patterns say what a head does, not that it matters: the effect beside each does.
///
/// `heads` are those that get a card, with their ranks from 1; `words` gives the text of a token.
///
/// # Complexity
/// Of each pair two forward passes, two more to watch attention, one more and a backward one for the gradient; of
/// [`CardSettings::link_pairs`] as much again.
///
/// # Errors
/// Those of the device, [`Error::NotFinite`], [`Error::Cancelled`].
///
/// # Panics
/// If a head is not one of the model's.
#[expect(clippy::too_many_arguments, reason = "all that a page is made of")]
pub fn cards<B: AutodiffBackend>(
    causal: &CausalEvidence<B::InnerBackend>,
    (parts, own): (&PromptParts, Option<&Encoded<B::InnerBackend>>),
    heads: &[(HeadId, usize)],
    words: &dyn Fn(u32) -> String,
    how: &CardSettings,
    seed: Seed,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Cards> {
    let effort = Effort::of(causal, how);
    let count = effort.pairs;
    let of_heads: Vec<HeadId> = heads.iter().map(|(head, _)| *head).collect();
    let shares = Contrast::<B>::shares(causal.pairs().len(), seed);
    let patterns = Patterns::of(causal, parts, count);
    let reader = Reader {
        heads: &of_heads,
        patterns: &patterns,
        shares: &shares,
    };
    let contrast = Contrast::<B>::new(
        PatchingSettings::default().with_edges(PatchedEdges::None),
        device.clone(),
    )
    .watching();
    let held = if WholeWriters::applies(causal.model()) {
        Held::Nodes
    } else {
        Held::Streams
    };
    let work: &Work<'_, B, OfPair> =
        &|model, members, runs, mean| reader.read(model, members, runs, mean);
    let pairs = contrast.each_pair(causal, ("reading heads", count, held), progress, work)?;
    let total = pairs.iter().map(|pair| f64::from(pair.total)).sum::<f64>() / count as f64;
    let all = AllHeads::of(&pairs, total);
    let grid = causal.graph().grid();
    let candidates = all.candidates(&of_heads, grid, how.patched_others);
    let exact = patched::patched(causal, &candidates, &pairs, effort.patched, seed, progress)?;
    let mut sizes = vec![0.0; grid.len()];
    for (head, patched) in candidates.iter().zip(&exact) {
        if let Some(index) = grid.index(*head) {
            sizes[index] = patched.mean.abs();
        }
    }
    let mut effects = all.effects.clone();
    for (head, patched) in candidates.iter().zip(&exact) {
        if let Some(index) = grid.index(*head) {
            effects[index] = patched.mean;
        }
    }
    let scores = patterns::scored(&patterns, &pairs, &sizes, &all.kinds);
    let made = Making {
        causal,
        parts,
        own,
        words,
        how,
        seed,
        pairs: &pairs,
        patterns: &patterns.all,
        total,
    };
    let (cards, clusters) = made.cards(heads, &all, (&scores, &exact), progress)?;
    let repeated = repeated::repeated(causal, how.repeated, seed, progress)?;
    let link_pairs = effort.links;
    let links = if link_pairs == 0 {
        Vec::new()
    } else {
        links::links::<B>(causal, &of_heads, link_pairs, &shares, device, progress)?
    };
    Ok(Cards {
        schema: CARDS_SCHEMA,
        pairs: count,
        divergence: total,
        prompts: made.prompts(),
        effects,
        patterns: patterns::of_heads(&patterns, &scores, grid),
        links,
        link_pairs,
        repeated,
        variables: variables::variables(parts, &of_heads, &clusters, seed, progress)?,
        heads: cards,
    })
}

/// How many pairs are run.
struct Effort {
    pairs: usize,
    links: usize,
    patched: usize,
}

/// Operations that reading all pairs may take where nobody says how many are read.
const AFFORDABLE: f64 = 1.2e12;
/// Passes that reading a pair takes, about.
const PASSES: f64 = 12.0;
/// Pairs that are read whatever they take, and that are enough.
const PAIRS: [usize; 2] = [20, 250];

impl Effort {
    fn of<B: Backend>(causal: &CausalEvidence<B>, how: &CardSettings) -> Self {
        let there = causal.pairs().len();
        let tokens: usize = causal.pairs().iter().map(|pair| pair.clean.len()).sum();
        let passes = 2.0 * causal.model().num_params() as f64 * tokens as f64 * PASSES;
        let affordable = (AFFORDABLE / passes * there as f64) as usize;
        let [least, most] = PAIRS;
        let default = affordable.clamp(least, most).min(there);
        let all = default == most.min(there);
        let pairs = how.pairs.map_or(default, |pairs| pairs.min(there));
        let of = |asked: Option<usize>, plenty: usize, few: usize| {
            let default = if all { plenty } else { few };
            asked.unwrap_or(default).min(pairs)
        };
        Self {
            pairs,
            links: of(how.link_pairs, 10, 6),
            patched: of(how.patched_pairs, 16, 8),
        }
    }
}

/// What is known of every head.
struct AllHeads {
    /// The reference that gives the larger effects: 0 differs, 1 used.
    kinds: Vec<usize>,
    /// Mean effects by it, a share of what the predictions are apart.
    effects: Vec<f64>,
    /// Means of their sizes.
    sizes: Vec<f64>,
}

impl AllHeads {
    fn of(pairs: &[OfPair], total: f64) -> Self {
        let heads = pairs.first().map_or(0, |pair| pair.effects[0].len());
        let mean = |head: usize, kind: usize, value: fn(f32) -> f32| {
            let effects = pairs.iter().map(|pair| value(pair.effects[kind][head]));
            effects.map(f64::from).sum::<f64>() / (pairs.len() as f64 * total)
        };
        let mut all = Self {
            kinds: Vec::new(),
            effects: Vec::new(),
            sizes: Vec::new(),
        };
        for head in 0..heads {
            let [differs, used] = [0, 1].map(|kind| mean(head, kind, f32::abs));
            let kind = usize::from(used > differs);
            all.kinds.push(kind);
            all.sizes.push(differs.max(used));
            all.effects.push(mean(head, kind, |effect| effect));
        }
        all
    }
}

impl AllHeads {
    /// Heads with a card first, then of the others those with the largest effects.
    fn candidates(&self, heads: &[HeadId], grid: HeadGrid, others: usize) -> Vec<HeadId> {
        let mut rest: Vec<HeadId> = grid.heads().filter(|head| !heads.contains(head)).collect();
        let size = |head: &HeadId| grid.index(*head).map_or(0.0, |index| self.sizes[index]);
        rest.sort_by(|a, b| size(b).total_cmp(&size(a)));
        rest.truncate(others);
        heads.iter().copied().chain(rest).collect()
    }
}

/// All that cards are made of.
struct Making<'a, B: Backend> {
    causal: &'a CausalEvidence<B>,
    parts: &'a PromptParts,
    own: Option<&'a Encoded<B>>,
    words: Words<'a>,
    how: &'a CardSettings,
    seed: Seed,
    pairs: &'a [OfPair],
    patterns: &'a [Pattern],
    total: f64,
}

impl<B: Backend> Making<'_, B> {
    /// A card of each head, and the clusters that its outputs are in.
    fn cards(
        &self,
        heads: &[(HeadId, usize)],
        all: &AllHeads,
        (scores, exact): (&[Vec<PatternScore>], &[Patched]),
        progress: &dyn Progress,
    ) -> Result<(Vec<HeadCard>, Vec<Codes>)> {
        let (causal, pairs) = (self.causal, self.pairs);
        let grid = causal.graph().grid();
        let codebook = Codebook::of(causal, self.own, self.how, self.seed)?;
        let shown = self
            .shown()
            .map(|pair| why::Prompt::new(causal, &causal.pairs()[pair].clean));
        let shown: Vec<why::Prompt<B>> = shown.collect::<Result<_>>()?;
        let stage = progress.stage("cards", heads.len() as u64);
        let (mut cards, mut clusters) = (Vec::new(), Vec::new());
        for (slot, &(head, rank)) in heads.iter().enumerate() {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let Some(index) = grid.index(head) else {
                panic!("{head} of a model of {} heads", grid.len())
            };
            let kind = all.kinds[index];
            let place = (slot, head);
            let codes = codes::codes(causal, &codebook, place, kind, pairs)?;
            let mut patterns = scores[index].clone();
            for score in &mut patterns {
                score.from = self.read_from(slot, kind, &score.pattern);
            }
            patterns.sort_by(|a, b| {
                let roles = b.role.cmp(&a.role);
                roles.then(b.joined.total_cmp(&a.joined))
            });
            let why = shown.iter().enumerate().map(|(at, prompt)| {
                let read = &pairs[at].heads[slot];
                match read.positive.first(&read.by[kind].weights) {
                    Some(row) => prompt.why(causal, head, at, row),
                    None => Ok(None),
                }
            });
            let why: Vec<Option<Why>> = why.collect::<Result<_>>()?;
            cards.push(HeadCard {
                head,
                rank,
                effect: self.effect(slot, kind)?,
                patched: exact[slot],
                matters_at: self.matters_at(slot, kind),
                patterns,
                attention: self.attention(slot, kind),
                writes: writes::writes(
                    causal, place, kind, pairs, self.total, self.words, self.how,
                )?,
                codes: codes::code_cards(
                    causal,
                    &codebook,
                    place,
                    kind,
                    pairs,
                    &codes,
                    self.total,
                    self.words,
                    (self.how, self.seed),
                )?,
                why: why.into_iter().flatten().collect(),
            });
            clusters.push(codes::clusters(
                causal, place, kind, pairs, self.seed, progress,
            )?);
            progress.advance(1);
        }
        drop(stage);
        Ok((cards, clusters))
    }

    /// Pairs whose prompts are shown.
    fn shown(&self) -> impl Iterator<Item = usize> {
        0..self.how.shown.min(self.pairs.len())
    }

    fn prompts(&self) -> Vec<ShownPair> {
        let texts = |tokens: &[u32]| tokens.iter().map(|&token| (self.words)(token)).collect();
        let shown = self.shown().map(|at| {
            let pair = &self.causal.pairs()[at];
            ShownPair {
                pair: at + 1,
                positive: texts(&pair.clean),
                negative: texts(&pair.corrupt),
                right: texts(&pair.right),
                wrong: texts(&pair.wrong),
                slots: self.parts.slots.get(at).cloned().unwrap_or_default(),
            }
        });
        shown.collect()
    }

    fn effect(&self, slot: usize, kind: usize) -> Result<Effect> {
        let effects = self.pairs.iter().map(|pair| {
            let effect = pair.heads[slot].by[kind].effect;
            (f64::from(effect), f64::from(pair.total))
        });
        let effects: Vec<(f64, f64)> = effects.collect();
        let share = |rows: &mut dyn Iterator<Item = usize>| {
            let sums = rows.fold((0.0, 0.0), |(effect, total), row| {
                (effect + effects[row].0, total + effects[row].1)
            });
            sums.0 / sums.1
        };
        let n = effects.len();
        let mean = share(&mut (0..n));
        let mut rng = self.seed.stream("cards/bootstrap").rng();
        let draws = (0..DRAWS).map(|_| share(&mut (0..n).map(|_| draw::below(&mut rng, n))));
        let draws: Vec<f64> = draws.filter(|share| share.is_finite()).collect();
        let interval = Interval::percentile(&draws, 0.95)?;
        let same = effects
            .iter()
            .filter(|(effect, _)| (*effect < 0.0) == (mean < 0.0));
        Ok(Effect {
            reference: [Reference::Differs, Reference::Used][kind],
            mean,
            low: interval.low,
            high: interval.high,
            same_sign: same.count() as f64 / n as f64,
        })
    }

    fn matters_at(&self, slot: usize, kind: usize) -> Vec<(String, f64)> {
        let weights = |pair: &OfPair| pair.heads[slot].by[kind].weights.clone();
        self.by_place(weights)
    }

    /// Where most of what follows a pattern is read from; empty where it is nowhere.
    fn read_from(&self, slot: usize, kind: usize, pattern: &Pattern) -> String {
        let Some(at) = self.patterns.iter().position(|of| of == pattern) else {
            return String::new();
        };
        let places = self.by_place(|pair: &OfPair| pair.heads[slot].from[at][kind].clone());
        let first = places.into_iter().next();
        first.map_or_else(String::new, |(name, _)| name)
    }

    /// Values of positions summed by the named part that they are in, a mean over pairs; largest first.
    fn by_place(&self, values: impl Fn(&OfPair) -> Vec<f32>) -> Vec<(String, f64)> {
        let mut shares: BTreeMap<&str, f64> = BTreeMap::new();
        for (at, pair) in self.pairs.iter().enumerate() {
            let slots = self.parts.slots.get(at).map_or(&[][..], Vec::as_slice);
            let [last, _] = self.causal.read_at(at);
            for (position, value) in values(pair).into_iter().enumerate() {
                let slot = slots.iter().find(|(_, places)| places.contains(&position));
                let name = match slot {
                    _ if position == last => "last token",
                    Some((name, _)) => name,
                    None => "elsewhere",
                };
                *shares.entry(name).or_default() += f64::from(value) / self.pairs.len() as f64;
            }
        }
        let shares = shares.into_iter();
        let mut shares: Vec<(String, f64)> = shares
            .map(|(name, share)| (name.to_owned(), share))
            .collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares
    }

    fn attention(&self, slot: usize, kind: usize) -> Vec<Attention> {
        let of_prompt = |at: usize, positive: bool| {
            let read: &HeadRead = &self.pairs[at].heads[slot];
            let weights = &read.by[kind].weights;
            let prompt = if positive {
                &read.positive
            } else {
                &read.negative
            };
            let mut rows: Vec<AttentionRow> = prompt
                .rows
                .iter()
                .map(|row| AttentionRow {
                    position: row.position,
                    weight: f64::from(weights[row.weighed_at]),
                    to: row.attention.iter().copied().map(f64::from).collect(),
                })
                .collect();
            rows.sort_by(|a, b| b.weight.total_cmp(&a.weight));
            rows.truncate(3);
            Attention {
                prompt: at,
                positive,
                rows,
            }
        };
        self.shown()
            .flat_map(|at| [of_prompt(at, true), of_prompt(at, false)])
            .collect()
    }
}

/// The mean of some vectors of one width.
fn mean_of<'a>(vectors: impl Iterator<Item = &'a Vec<f32>>) -> Vec<f32> {
    let (mut mean, mut count) = (Vec::new(), 0.0f32);
    for vector in vectors {
        mean.resize(vector.len(), 0.0);
        for (mean, x) in mean.iter_mut().zip(vector) {
            *mean += x;
        }
        count += 1.0;
    }
    for mean in &mut mean {
        *mean /= count;
    }
    mean
}
