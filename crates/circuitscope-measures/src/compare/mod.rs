//! Two discoveries beside each other: which heads both found, in what order, what each circuit keeps in the other run, and in
//! what the runs differ.
//!
//! Heads are matched by their place. What each circuit keeps in the other run is measured by running the models, which this
//! crate does not do: whoever does puts it into [`Comparison::kept`].

mod agreement;
mod kept;
mod made;
mod said;
mod tables;

use circuitscope_core::HeadId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use agreement::{Agreement, TopOverlap};
pub use kept::{KeptIn, KeptTable};
pub use made::Made;
pub use tables::Table;

use crate::cards::{Effect, HeadCard, Pattern};
use crate::{DiscoveryFile, average_ranks};

/// The form of [`Comparison`], changed whenever a reader of an earlier one would go wrong.
pub const COMPARISON_SCHEMA: u32 = 1;

/// A head that is in both circuits has moved where its ranks differ by more than this share of all heads.
const MOVED: f64 = 0.1;

/// Two discoveries beside each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Comparison {
    /// [`COMPARISON_SCHEMA`].
    pub schema: u32,
    /// The first discovery.
    pub a: Side,
    /// The second.
    pub b: Side,
    /// How alike the circuits and the orders of heads are; absent where the models have other numbers of layers or heads:
    /// heads cannot be matched then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agreement: Option<Agreement>,
    /// Heads of either circuit, those in both first, each group by the better of their ranks; empty where heads cannot be
    /// matched.
    pub heads: Vec<HeadInBoth>,
    /// Roles of heads of either circuit, those of most heads first.
    pub roles: Vec<RoleInBoth>,
    /// What each circuit keeps in each run.
    pub kept: KeptTable,
    /// How the two were made.
    pub made: Vec<Made>,
}

/// One of two discoveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Side {
    /// The task, or the files that show the behaviour.
    pub examples: String,
    /// Name of the model, where one was run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    /// Name of the method.
    pub method: String,
    /// The rule that chose the circuit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// Name of the metric.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metric: Option<String>,
    /// What took the place of ablated heads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ablation: Option<String>,
    /// Pairs of prompts: the smaller of the numbers of positive and of negative ones; absent in files without either.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pairs: Option<usize>,
    /// Number of layers.
    pub n_layers: usize,
    /// Number of heads in each.
    pub n_heads: usize,
    /// Heads of the circuit, in the order of rank.
    pub circuit: Vec<CircuitHead>,
    /// One score for each head, layer by layer.
    pub scores: Vec<f64>,
    /// The effect of each head with its sign, layer by layer, a share of what the predictions after the two prompts are apart;
    /// absent where it was not measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effects: Option<Vec<f64>>,
    /// The form of what the file says of heads, where this program does not know that form: roles and effects are missing then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unknown_cards: Option<u64>,
}

/// A head of a circuit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CircuitHead {
    /// The head.
    #[schemars(with = "String")]
    pub head: HeadId,
    /// What is known of it.
    #[serde(flatten)]
    pub at: HeadSide,
}

/// What one discovery says of a head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HeadSide {
    /// Its place in the ranking of all heads, from 1; of equal scores the first in index order.
    pub rank: usize,
    /// Its score.
    pub score: f64,
    /// Its effect with its sign, a share of what the predictions are apart, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub effect: Option<f64>,
    /// The same with an interval, for heads of the circuit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub measured: Option<Effect>,
    /// What it attends to, more than chance and with more effect than heads that attend so idly; for heads of the circuit.
    #[serde(default)]
    pub roles: Vec<Pattern>,
    /// What it does, in a few words; for heads of the circuit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub does: Option<String>,
}

/// Which circuit a head is in.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In both.
    Both,
    /// Only in that of A.
    OnlyA,
    /// Only in that of B.
    OnlyB,
}

/// A head of either circuit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct HeadInBoth {
    /// The head.
    #[schemars(with = "String")]
    pub head: HeadId,
    /// Which circuit it is in.
    pub place: Place,
    /// What A says of it.
    pub a: HeadSide,
    /// What B says of it.
    pub b: HeadSide,
    /// Whether it is in both circuits and its ranks, equal scores sharing theirs, differ by more than a tenth of all heads.
    pub moved_rank: bool,
    /// Whether it is in both circuits and the 95 % intervals of its effects, measured against the same reference, have
    /// nothing in common.
    pub moved_effect: bool,
}

impl HeadInBoth {
    /// Whether it is in both circuits, but in another place or with another effect.
    #[must_use]
    pub const fn moved(&self) -> bool {
        self.moved_rank || self.moved_effect
    }

    /// Whether it has a role in common on both sides; absent where it has none on one of them.
    #[must_use]
    pub fn same_role(&self) -> Option<bool> {
        if self.a.roles.is_empty() || self.b.roles.is_empty() {
            return None;
        }
        let shared = |role: &Pattern| self.b.roles.iter().any(|other| alike(role, other));
        Some(self.a.roles.iter().any(shared))
    }
}

/// Whether two patterns are the same, however many tokens of induction match.
fn alike(a: &Pattern, b: &Pattern) -> bool {
    matches!((a, b), (Pattern::Induction(_), Pattern::Induction(_))) || a == b
}

/// A role, and heads that have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RoleInBoth {
    /// What they attend to.
    pub role: Pattern,
    /// Heads of A's circuit, in the order of rank.
    #[schemars(with = "Vec<String>")]
    pub a: Vec<HeadId>,
    /// Heads of B's circuit.
    #[schemars(with = "Vec<String>")]
    pub b: Vec<HeadId>,
}

impl Comparison {
    /// Puts two discoveries beside each other. [`KeptTable::a_in_b`] and [`KeptTable::b_in_a`] stay empty.
    #[must_use]
    pub fn of(a: &DiscoveryFile, b: &DiscoveryFile) -> Self {
        let (sides, grids) = ([Side::of(a), Side::of(b)], [a.grid(), b.grid()]);
        let matched = grids[0] == grids[1];
        let roles = roles(&sides);
        let [first, second] = sides;
        Self {
            schema: COMPARISON_SCHEMA,
            agreement: matched.then(|| Agreement::of(&first, &second)),
            heads: if matched { heads(a, b) } else { Vec::new() },
            roles,
            kept: KeptTable {
                a_in_a: a.quality.as_ref().and_then(KeptIn::of),
                b_in_b: b.quality.as_ref().and_then(KeptIn::of),
                a_in_b: None,
                b_in_a: None,
            },
            made: made::made(a, b),
            a: first,
            b: second,
        }
    }

    /// Whether the models have the same numbers of layers and of heads, so that heads can be matched.
    #[must_use]
    pub const fn is_matched(&self) -> bool {
        self.agreement.is_some()
    }

    /// Heads in this place, by the better of their ranks.
    pub fn heads_in(&self, place: Place) -> impl Iterator<Item = &HeadInBoth> {
        self.heads.iter().filter(move |head| head.place == place)
    }

    /// In what the two differ as they were made.
    pub fn differences(&self) -> impl Iterator<Item = &Made> {
        self.made.iter().filter(|made| made.differs())
    }
}

impl Side {
    fn of(file: &DiscoveryFile) -> Self {
        let name = file.model.get("name").and_then(|name| name.as_str());
        let ranked = file.heads.iter().enumerate();
        let circuit = ranked.filter(|(_, found)| found.selected);
        Self {
            examples: file.examples.clone(),
            model: name.map(str::to_owned),
            method: file.method.clone(),
            rule: file.selection.clone(),
            metric: file.metric.clone(),
            ablation: file.ablation.clone(),
            pairs: file.positives.into_iter().chain(file.negatives).min(),
            n_layers: file.n_layers,
            n_heads: file.n_heads,
            circuit: circuit
                .map(|(at, found)| CircuitHead {
                    head: found.head,
                    at: HeadSide::of(file, at),
                })
                .collect(),
            scores: file.scores(),
            effects: file.cards.as_ref().map(|cards| cards.effects.clone()),
            unknown_cards: file.unknown_cards,
        }
    }

    /// What it is of, such as `method recommended on ioi, model gpt2 (12 layers of 12 heads), 50 pairs, circuit of 6 heads`.
    #[must_use]
    pub fn words(&self) -> String {
        use said::count;
        let model = self.model.as_ref();
        let model = model.map_or_else(|| "no model".to_owned(), |name| format!("model {name}"));
        let pairs = self
            .pairs
            .map(|pairs| format!(", {}", count(pairs, "pair")));
        format!(
            "method {} on {}, {model} ({} of {}){}, circuit of {}",
            self.method,
            self.examples,
            count(self.n_layers, "layer"),
            count(self.n_heads, "head"),
            pairs.unwrap_or_default(),
            count(self.circuit.len(), "head")
        )
    }
}

impl HeadSide {
    /// Of the head in this place of the ranking, from 0.
    fn of(file: &DiscoveryFile, at: usize) -> Self {
        let found = file.heads[at];
        let cards = file.cards.as_ref();
        let effect = cards.zip(file.grid().index(found.head));
        let card: Option<&HeadCard> = cards.and_then(|cards| {
            let mut heads = cards.heads.iter();
            heads.find(|card| card.head == found.head)
        });
        Self {
            rank: at + 1,
            score: found.score,
            effect: effect.and_then(|(cards, at)| cards.effects.get(at).copied()),
            measured: card.map(|card| card.effect),
            roles: card.map_or_else(Vec::new, |card| {
                card.roles().map(|role| role.pattern.clone()).collect()
            }),
            does: card.map(HeadCard::role_words),
        }
    }
}

/// Heads of either circuit, of two models of the same shape.
fn heads(a: &DiscoveryFile, b: &DiscoveryFile) -> Vec<HeadInBoth> {
    let ranks = [a, b].map(|file| average_ranks(&file.scores()));
    let far = MOVED * a.heads.len() as f64;
    let ranked = a.heads.iter().enumerate();
    let heads = ranked.filter_map(|(at, first)| {
        let head = first.head;
        let other = b.heads.iter().position(|found| found.head == head)?;
        let place = match (first.selected, b.heads[other].selected) {
            (true, true) => Place::Both,
            (true, false) => Place::OnlyA,
            (false, true) => Place::OnlyB,
            (false, false) => return None,
        };
        let index = a.grid().index(head)?;
        let (one, two) = (HeadSide::of(a, at), HeadSide::of(b, other));
        let both = place == Place::Both;
        let apart = one.measured.zip(two.measured).is_some_and(|(one, two)| {
            one.reference == two.reference && (one.high < two.low || two.high < one.low)
        });
        Some(HeadInBoth {
            head,
            place,
            moved_rank: both && (ranks[0][index] - ranks[1][index]).abs() > far,
            moved_effect: both && apart,
            a: one,
            b: two,
        })
    });
    let mut heads: Vec<HeadInBoth> = heads.collect();
    heads.sort_by_key(|head| (head.place, head.a.rank.min(head.b.rank), head.head));
    heads
}

/// Roles of heads of the circuits.
fn roles(sides: &[Side; 2]) -> Vec<RoleInBoth> {
    let mut roles: Vec<RoleInBoth> = Vec::new();
    for (at, side) in sides.iter().enumerate() {
        for member in &side.circuit {
            for role in &member.at.roles {
                let place = roles.iter().position(|row| row.role == *role);
                let place = place.unwrap_or_else(|| {
                    roles.push(RoleInBoth {
                        role: role.clone(),
                        a: Vec::new(),
                        b: Vec::new(),
                    });
                    roles.len() - 1
                });
                let row = &mut roles[place];
                let heads = if at == 0 { &mut row.a } else { &mut row.b };
                heads.push(member.head);
            }
        }
    }
    roles.sort_by(|one, two| {
        let of = |row: &RoleInBoth| row.a.len() + row.b.len();
        of(two).cmp(&of(one)).then_with(|| one.role.cmp(&two.role))
    });
    roles
}
