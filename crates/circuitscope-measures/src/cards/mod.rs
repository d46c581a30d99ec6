//! What is known of the heads of a circuit: what each does, how much it matters, and how that is known.
//!
//! Plain values, as `discovery.json` keeps them under `cards` and pages draw them. Words of a vocabulary are text;
//! positions are counted from 0, the beginning of the sequence included; pairs are counted from 1. Effects are shares of
//! what the predictions after the two prompts of a pair are apart, unless said otherwise.

mod codes;
mod pattern;
mod said;
mod variables;
mod why;

use circuitscope_core::{HeadId, Node, Port, names};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use codes::{CodeCard, CodePrompt, TokenRule};
pub use pattern::{HeadPatterns, Pattern, PatternOfHeads, PatternScore, UnknownPattern};
pub use said::quoted;
pub(crate) use said::{effect, percent};
pub use variables::{VariableCell, VariableTable};
pub use why::{QkTerm, Why};

/// The form of [`Cards`], changed whenever a reader of an earlier one would go wrong.
pub const CARDS_SCHEMA: u32 = 1;

/// All that is known of the heads of a circuit beside their scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cards {
    /// [`CARDS_SCHEMA`].
    pub schema: u32,
    /// Pairs of prompts that were read.
    pub pairs: usize,
    /// What the predictions after the two prompts are apart, in nats (Jeffreys divergence, mean over the pairs read): what
    /// effects are shares of.
    pub divergence: f64,
    /// Prompts that attention is shown on.
    pub prompts: Vec<ShownPair>,
    /// One for each head of the circuit, from the highest score to the lowest.
    pub heads: Vec<HeadCard>,
    /// The effect of every head of the model, layer by layer, with its sign: the exact one where it was measured ([`Patched`]: heads
    /// with a card and some others), else that by a gradient; the larger of both references.
    pub effects: Vec<f64>,
    /// Where every head of the model attends to, pattern by pattern.
    pub patterns: Vec<PatternOfHeads>,
    /// What heads, MLPs and the embedding send into heads of the circuit and into the logits, and heads of the circuit into
    /// MLPs, strongest first.
    pub links: Vec<Link>,
    /// Pairs that links were measured on.
    pub link_pairs: usize,
    /// Attention of every head on random tokens said twice, layer by layer: what heads do whatever the prompts.
    pub repeated: Vec<HeadPatterns>,
    /// Which head carries which variable of the prompts, where any are known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub variables: Option<VariableTable>,
}

/// A pair of prompts as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShownPair {
    /// Its number, from 1.
    pub pair: usize,
    /// Tokens of the positive prompt.
    pub positive: Vec<String>,
    /// Tokens of the negative prompt.
    pub negative: Vec<String>,
    /// What is right after the positive prompt; empty where unknown.
    pub right: Vec<String>,
    /// What is wrong after it.
    pub wrong: Vec<String>,
    /// Named parts of the positive prompt and the positions of their tokens.
    pub slots: Vec<(String, Vec<usize>)>,
}

/// One head of a circuit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeadCard {
    /// The head.
    #[schemars(with = "String")]
    pub head: HeadId,
    /// Its place in the ranking of all heads, from 1.
    pub rank: usize,
    /// What it moves the prediction by.
    pub effect: Effect,
    /// What the prediction moves by when this head alone is patched.
    pub patched: Patched,
    /// Where in the positive prompts its effect arises: shares of the sizes of its effects at named parts, at the last token
    /// and elsewhere, largest first.
    pub matters_at: Vec<(String, f64)>,
    /// Where it attends from where it matters; every pattern that the prompts define, roles first, then by
    /// [`PatternScore::joined`].
    pub patterns: Vec<PatternScore>,
    /// Its attention on [`Cards::prompts`], two entries for each: the positive prompt and the negative one.
    pub attention: Vec<Attention>,
    /// What it writes.
    pub writes: Writes,
    /// Codes of what it puts out where it matters, by the size of their effects.
    pub codes: Vec<CodeCard>,
    /// Why it attends where it does, on [`Cards::prompts`].
    pub why: Vec<Why>,
}

impl HeadCard {
    /// Patterns that are more than chance, in heads that matter more than others with the same pattern.
    pub fn roles(&self) -> impl Iterator<Item = &PatternScore> {
        self.patterns.iter().filter(|pattern| pattern.role)
    }
}

/// What takes a head's place where its effect is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reference {
    /// What it puts out on the negative prompt: the head tells the prompts apart.
    Differs,
    /// Its mean over both: the head works alike on both.
    Used,
}

names!(pub Reference { Differs => "differs", Used => "used" });

/// What a head moves the prediction by, by one gradient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Effect {
    /// What it was measured against: what gives the larger effects.
    pub reference: Reference,
    /// The mean over pairs; below 0 the head works against the behaviour.
    pub mean: f64,
    /// Lower end of a 95 % interval: a bootstrap over pairs.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Share of pairs whose effect has the sign of the mean.
    pub same_sign: f64,
}

/// The exact effect of one head: what the contrast of the predictions loses when the head alone is given another output.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Patched {
    /// Which output: that on the negative prompt (differs), or that on another positive prompt of as many tokens (used); what has
    /// the larger effect.
    pub reference: Reference,
    /// The mean over pairs, a share of what the predictions are apart; below 0 where the head works against the behaviour.
    pub mean: f64,
    /// Pairs that it was measured on: those whose predictions are furthest apart.
    pub pairs: usize,
}

/// Attention of a head on one prompt, from where it matters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attention {
    /// Place of the pair in [`Cards::prompts`], from 0.
    pub prompt: usize,
    /// Whether this is its positive prompt.
    pub positive: bool,
    /// The positions where most of the head's effect on this pair arises, most first.
    pub rows: Vec<AttentionRow>,
}

/// Attention from one position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttentionRow {
    /// The position attended from.
    pub position: usize,
    /// Share of the sizes of the head's effects on this pair that arises there.
    pub weight: f64,
    /// Attention to each token of the prompt; adds up to 1.
    pub to: Vec<f64>,
}

/// What a head writes where it matters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Writes {
    /// Its direct effect: of its effect at the last position, what reaches the logits through no other head and no MLP, as
    /// a share of what the predictions are apart (direct logit attribution; the scale of the last norm as it is). Absent in
    /// models with a norm after attention, where heads have no outputs of their own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub direct: Option<f64>,
    /// The same of the logit difference of right and wrong answers, in logits; absent without answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub direct_logits: Option<f64>,
    /// Tokens that it raises most, above its mean over both prompts, over all pairs.
    pub promotes: Vec<String>,
    /// Tokens that it lowers most.
    pub suppresses: Vec<String>,
    /// Whether it writes the tokens that it attends to.
    pub copying: Copying,
}

/// Whether a head raises the token that it attends to most where it matters most (copying by the OV circuit; Elhage et al.
/// 2021, "A mathematical framework for transformer circuits"; read on the prompts instead of over the vocabulary).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Copying {
    /// Share of pairs in which that token is among the [`top`](Self::top) that what is moved from there raises most.
    pub copied: f64,
    /// The same of all other tokens of the prompt: what chance gives.
    pub others: f64,
    /// Share of pairs in which it is among those lowered most.
    pub lowered: f64,
    /// How many of the vocabulary count.
    pub top: usize,
}

/// What one node sends into another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// Who writes: `input`, `a3.h1`, `m2`.
    #[schemars(with = "String")]
    pub writer: Node,
    /// Who reads: a head of the circuit, `logits`, or an MLP that a head of the circuit writes to.
    #[schemars(with = "String")]
    pub reader: Node,
    /// Where a head reads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    pub port: Option<Port>,
    /// The mean over pairs of what it moves the prediction by, with its sign, against the negative prompt, a share
    /// of what the predictions are apart.
    pub weight: f64,
    /// Whether two gradients, one at the positive prompt and one at a point drawn on the way from the negative one, give it
    /// the same sign.
    pub agrees: bool,
}
