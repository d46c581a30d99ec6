//! Comparisons in words.

use std::collections::BTreeSet;

use circuitscope_core::HeadId;

use super::kept::KeptIn;
use super::{Agreement, Comparison, HeadInBoth, KeptTable, Place, Side};
use crate::cards::{effect, percent};

/// Fewer pairs than this are few.
const FEW: usize = 20;

/// Heads that a sentence names.
const NAMED: usize = 12;

/// So many heads ranked first are compared in a sentence.
const TOP: usize = 10;

/// Two random circuits that have as many heads in common in more than this share of draws make an overlap say little.
const CHANCE: f64 = 0.05;

/// A circuit that keeps this share of what the own one does, does the same work.
const SAME: f64 = 0.8;

/// A circuit that keeps no more than this share of what the own one does, does other work.
const OTHER: f64 = 0.2;

/// `1 head`, `2 heads`.
pub(super) fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// To two digits, without the sign of what rounds to none.
fn two(value: f64) -> String {
    format!("{:.2}", (100.0 * value).round() / 100.0 + 0.0)
}

/// Whole numbers plain, others to one digit, or to two where one says nothing.
pub(super) fn about(value: f64) -> String {
    let tenths = (10.0 * value).round() / 10.0 + 0.0;
    if tenths == 0.0 {
        if value > 0.0 {
            two(value)
        } else {
            "0".to_owned()
        }
    } else if tenths == tenths.trunc() {
        format!("{tenths:.0}")
    } else {
        format!("{tenths:.1}")
    }
}

fn listed(heads: &[String]) -> String {
    let rest = heads.len().saturating_sub(NAMED);
    let shown = heads[..heads.len() - rest].join(", ");
    if rest > 0 {
        format!("{shown} and {rest} more")
    } else {
        shown
    }
}

fn names(heads: impl Iterator<Item = HeadId>) -> String {
    let heads: Vec<String> = heads.map(|head| head.to_string()).collect();
    listed(&heads)
}

/// What a difference in how the two were made is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Model,
    Prompts,
    Choice,
    Seed,
}

impl Kind {
    /// Of a fact by its name; `None` for what changes no result.
    fn of(name: &str) -> Option<Self> {
        match name {
            "model" | "weights" | "configuration and tokenizer" | "precision" | "processing" => {
                Some(Self::Model)
            }
            "prompts"
            | "prompt files"
            | "positive prompts"
            | "negative prompts"
            | "only pairs answered right" => Some(Self::Prompts),
            "seed" => Some(Self::Seed),
            "program" | "device" => None,
            name if name.starts_with("prepend_bos") => Some(Self::Prompts),
            _ => Some(Self::Choice),
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Model => "the model",
            Self::Prompts => "the prompts",
            Self::Choice => "how heads were scored and chosen",
            Self::Seed => "the seed",
        }
    }
}

/// What a circuit is worth in the other run, beside that run's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carries {
    Same,
    Part,
    Other,
}

impl Carries {
    /// `None` where the shares cannot tell.
    fn of(own: Option<&KeptIn>, cross: Option<&KeptIn>) -> Option<Self> {
        let (own, cross) = own.zip(cross)?;
        if own.weak || cross.weak || own.kept <= 0.0 || own.beats_random() == Some(false) {
            return None;
        }
        Some(
            if cross.beats_random() == Some(false) || cross.kept <= OTHER * own.kept {
                Self::Other
            } else if cross.kept >= SAME * own.kept {
                Self::Same
            } else {
                Self::Part
            },
        )
    }
}

impl Comparison {
    /// What may be concluded, without full stops: which heads both circuits have, what each keeps in the other run, what that
    /// comes to; what to be wary of begins with `warning:`. Ask again after filling [`Comparison::kept`].
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        match &self.agreement {
            Some(agreement) => self.matched(agreement, &mut said),
            None => said.push(format!(
                "the models have other shapes (A {} of {}, B {} of {}): heads cannot be matched; only sizes, what each circuit \
                 keeps in its own run, and roles are compared",
                count(self.a.n_layers, "layer"),
                count(self.a.n_heads, "head"),
                count(self.b.n_layers, "layer"),
                count(self.b.n_heads, "head")
            )),
        }
        if self.agreement.is_none() {
            let size =
                |side: &Side| format!("{} of {} heads", side.circuit.len(), side.scores.len());
            said.push(format!(
                "A's circuit has {}, B's {}",
                size(&self.a),
                size(&self.b)
            ));
        }
        self.roles_said(&mut said);
        self.kept.said(self.is_matched(), &mut said);
        self.concluded(&mut said);
        self.made_said(&mut said);
        self.wary(&mut said);
        said
    }

    /// Of models of one shape.
    fn matched(&self, agreement: &Agreement, said: &mut Vec<String>) {
        let (a, b) = (self.a.circuit.len(), self.b.circuit.len());
        match (a, b) {
            (0, 0) => {
                said.push("neither circuit has any heads: there is nothing in common".to_owned());
            }
            (0, some) => said.push(format!(
                "A's circuit has no heads to compare with the {some} of B's"
            )),
            (some, 0) => said.push(format!(
                "B's circuit has no heads to compare with the {some} of A's"
            )),
            _ => {
                said.push(format!(
                    "{} of {} of A's circuit {} among the {b} of B's (Jaccard {}; two random circuits of these sizes {})",
                    agreement.both,
                    count(a, "head"),
                    if agreement.both == 1 { "is" } else { "are" },
                    two(agreement.jaccard),
                    two(agreement.jaccard_by_chance)
                ));
                if agreement.both > 0 && agreement.as_many_by_chance > CHANCE {
                    said.push(format!(
                        "warning: two random circuits of these sizes have as many heads in common in {} of draws: that the \
                         circuits agree more than by chance is not shown",
                        percent(agreement.as_many_by_chance)
                    ));
                }
            }
        }
        let alone = [(Place::OnlyA, "A"), (Place::OnlyB, "B")];
        for (place, name) in alone {
            let heads = names(self.heads_in(place).map(|head| head.head));
            if !heads.is_empty() {
                said.push(format!("only in {name}'s circuit: {heads}"));
            }
        }
        said.extend(self.order_said(agreement));
        let both = || self.heads_in(Place::Both);
        let moved = both().filter(|head| head.moved_rank);
        let moved: Vec<String> = moved
            .map(|head| format!("{} ({} to {})", head.head, head.a.rank, head.b.rank))
            .collect();
        if !moved.is_empty() {
            said.push(format!(
                "in both circuits, but further up or down by more than a tenth of all heads (rank in A to rank in B): {}",
                listed(&moved)
            ));
        }
        let apart: Vec<String> = both().filter_map(apart).collect();
        if !apart.is_empty() {
            said.push(format!(
                "in both circuits, but with effects whose 95 % intervals have nothing in common (A to B): {}",
                listed(&apart)
            ));
        }
    }

    fn order_said(&self, agreement: &Agreement) -> Option<String> {
        let all = self.a.scores.len();
        let mut parts = Vec::new();
        if let Some(rho) = agreement.spearman {
            parts.push(format!(
                "the scores of all {all} heads, most of which may do little, have Spearman's ρ {}",
                two(rho)
            ));
        }
        if let Some(rho) = agreement.spearman_effects {
            parts.push(format!("effects with their signs {}", two(rho)));
        }
        let k = TOP.min(all.div_ceil(2));
        if let Some(top) = agreement.top.iter().find(|top| top.k == k) {
            parts.push(format!(
                "of the {k} ranked first {} are the same (by chance {})",
                about(top.both),
                about(top.by_chance)
            ));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    fn roles_said(&self, said: &mut Vec<String>) {
        let both = || self.heads_in(Place::Both);
        let same = both().filter(|head| head.same_role() == Some(true)).count();
        let known = both().filter(|head| head.same_role().is_some()).count();
        if known > 0 {
            let others = both().filter(|head| head.same_role() == Some(false));
            let others = names(others.map(|head| head.head));
            let others = if others.is_empty() {
                String::new()
            } else {
                format!("; none in common: {others}")
            };
            said.push(format!(
                "of the {} in both circuits with roles on both sides {same} {} a role in common{others}",
                count(known, "head"),
                if same == 1 { "has" } else { "have" }
            ));
        }
        if self.is_matched() || self.roles.is_empty() {
            return;
        }
        let shared = self
            .roles
            .iter()
            .filter(|row| !row.a.is_empty() && !row.b.is_empty());
        let shared = shared.map(|row| {
            format!(
                "{} ({} in A, {} in B)",
                row.role.phrase(),
                row.a.len(),
                row.b.len()
            )
        });
        let shared: Vec<String> = shared.collect();
        said.push(if shared.is_empty() {
            "no role occurs in both circuits".to_owned()
        } else {
            format!(
                "what heads of both circuits attend to: {}",
                shared.join(", ")
            )
        });
    }

    /// What keeping comes to.
    fn concluded(&self, said: &mut Vec<String>) {
        let KeptTable {
            a_in_a,
            a_in_b,
            b_in_a,
            b_in_b,
        } = &self.kept;
        let Some(agreement) = &self.agreement else {
            return;
        };
        let of_a = Carries::of(b_in_b.as_ref(), a_in_b.as_ref());
        let of_b = Carries::of(a_in_a.as_ref(), b_in_a.as_ref());
        let conclusion = match (of_a, of_b) {
            (Some(Carries::Same), Some(Carries::Same)) if agreement.jaccard >= 0.5 => {
                "each circuit does in the other run what that run's own does: as far as the metric tells, both found the same \
                 part of the model"
                    .to_owned()
            }
            (Some(Carries::Same), Some(Carries::Same)) => {
                "each circuit does in the other run what that run's own does, though most heads differ: other heads can do \
                 the same work, and neither circuit is the only one"
                    .to_owned()
            }
            (Some(Carries::Other), Some(Carries::Other)) => {
                "neither circuit does the other's work: heads that both have are not enough for either".to_owned()
            }
            (Some(one), Some(other)) => format!("{}; {}", carried("A", "B", one), carried("B", "A", other)),
            (Some(one), None) => carried("A", "B", one),
            (None, Some(other)) => carried("B", "A", other),
            (None, None) => return,
        };
        said.push(conclusion);
    }

    /// In what the runs differ, and what can be put down to that.
    fn made_said(&self, said: &mut Vec<String>) {
        let kinds = self.kinds();
        let seed = kinds.contains(&Kind::Seed);
        let others = kinds.iter().filter(|kind| **kind != Kind::Seed);
        let named: Vec<&str> = others.map(|kind| kind.words()).collect();
        said.push(match (named.as_slice(), seed) {
            ([], false) => {
                "the files name the same model, prompts, settings and seed for both".to_owned()
            }
            ([], true) => {
                "of how they were made only the seed differs, which also draws the prompts of a task: what differs between \
                 the circuits is what another draw changes"
                    .to_owned()
            }
            ([one], seed) => format!(
                "the runs differ in {one}{}: differences between the circuits come from there, or are what another draw of \
                 prompts would change, too",
                if seed { " and in the seed" } else { "" }
            ),
            (several, _) => format!(
                "warning: they differ in {} at once: no difference between the circuits can be put down to one of these",
                several.join(" and in ")
            ),
        });
        // Another precision of the same weights is the same model.
        let hashed = self.made.iter().any(|made| made.name == "weights");
        let weights = self
            .differences()
            .any(|made| made.name == "weights" || (made.name == "model" && !hashed));
        if kinds.contains(&Kind::Model) && weights && self.is_matched() {
            said.push(
                "warning: the models are not the same: heads are matched by their place, which means something only where \
                 one model was trained on from the other, or both from the same weights"
                    .to_owned(),
            );
        }
        let choice = [
            (
                "methods",
                &Some(self.a.method.clone()),
                &Some(self.b.method.clone()),
            ),
            ("rules", &self.a.rule, &self.b.rule),
            ("metrics", &self.a.metric, &self.b.metric),
            ("references", &self.a.ablation, &self.b.ablation),
        ];
        let other = choice.iter().filter_map(|(name, a, b)| {
            let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
            (a != b).then(|| format!("{name} ({}, {})", said(a), said(b)))
        });
        let other: Vec<String> = other.collect();
        if !other.is_empty() {
            said.push(format!(
                "warning: the circuits were found by other {}: that alone can change which heads are in them",
                other.join(", ")
            ));
        }
    }

    /// Kinds of differences. Names of models and of files say something only where there are no hashes.
    fn kinds(&self) -> BTreeSet<Kind> {
        let hashed = |name: &str| self.made.iter().any(|made| made.name == name);
        let counts = |name: &str| match name {
            "model" => !hashed("weights"),
            "prompts" => !hashed("prompt files"),
            _ => true,
        };
        let names = self.differences().map(|made| made.name.as_str());
        names
            .filter(|name| counts(name))
            .filter_map(Kind::of)
            .collect()
    }

    fn wary(&self, said: &mut Vec<String>) {
        let few = [("A", &self.a), ("B", &self.b)].map(|(name, side)| {
            let pairs = side.pairs.filter(|pairs| *pairs < FEW)?;
            Some(format!("{name} rests on {}", count(pairs, "pair")))
        });
        let few: Vec<String> = few.into_iter().flatten().collect();
        if !few.is_empty() {
            said.push(format!(
                "warning: {}: another draw of so few may change both order and circuit",
                few.join(", ")
            ));
        }
        let figures = [self.kept.a_in_a.is_some(), self.kept.b_in_b.is_some()];
        let sides = [("A", &self.a), ("B", &self.b)];
        for ((name, side), there) in sides.into_iter().zip(figures) {
            if !there && !side.circuit.is_empty() {
                said.push(format!(
                    "warning: {name} does not say what its circuit keeps: its run was not finished, ran no circuit, or ablating \
                     all heads changed nothing"
                ));
            }
            if let Some(schema) = side.unknown_cards {
                said.push(format!(
                    "warning: what heads do in {name} is written in form {schema}, which this program does not know: effects \
                     and roles of {name} are left out"
                ));
            }
        }
    }
}

fn apart(head: &HeadInBoth) -> Option<String> {
    let (a, b) = head.a.measured.zip(head.b.measured)?;
    let said = format!("{} ({} to {})", head.head, effect(a.mean), effect(b.mean));
    head.moved_effect.then_some(said)
}

fn carried(one: &str, other: &str, how: Carries) -> String {
    match how {
        Carries::Same => format!("{one}'s circuit does in {other} what {other}'s own does"),
        Carries::Part => format!("{one}'s circuit does in {other} part of what {other}'s own does"),
        Carries::Other => {
            format!("{one}'s circuit does not do in {other} what {other}'s own does")
        }
    }
}

impl KeptTable {
    fn said(&self, matched: bool, said: &mut Vec<String>) {
        let rows = [
            ("A", [("A", &self.a_in_a), ("B", &self.a_in_b)]),
            ("B", [("A", &self.b_in_a), ("B", &self.b_in_b)]),
        ];
        for (circuit, runs) in &rows {
            let told = |(run, kept): &(&'static str, &Option<KeptIn>)| {
                let kept = kept.as_ref().filter(|kept| !kept.weak)?;
                Some((*run, kept.clone()))
            };
            let told: Vec<(&str, KeptIn)> = runs.iter().filter_map(told).collect();
            let Some((_, first)) = told.first() else {
                continue;
            };
            let one_metric = told.iter().all(|(_, kept)| kept.metric == first.metric);
            let parts = told.iter().map(|(run, kept)| {
                let random = kept
                    .random
                    .map(|share| format!("random {}", percent(share)));
                let metric = (!one_metric).then(|| kept.metric.replace('-', " "));
                let notes: Vec<String> = metric.into_iter().chain(random).collect();
                let notes = if notes.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", notes.join("; "))
                };
                format!("{} in {run}{notes}", percent(kept.kept))
            });
            let parts: Vec<String> = parts.collect();
            let of = if one_metric {
                format!("the {}", first.metric.replace('-', " "))
            } else {
                "the metric".to_owned()
            };
            said.push(format!(
                "{circuit}'s circuit keeps {}, of what all heads do for {of}",
                parts.join(" and ")
            ));
        }
        let all = || {
            rows.iter().flat_map(|(circuit, runs)| {
                runs.iter().map(move |(run, kept)| (*circuit, *run, *kept))
            })
        };
        for run in ["A", "B"] {
            let weak = |(_, of, kept): &(&str, &str, &Option<KeptIn>)| {
                *of == run && kept.as_ref().is_some_and(|kept| kept.weak)
            };
            if all().any(|cell| weak(&cell)) {
                said.push(format!(
                    "warning: in {run} ablating all heads hardly lowers the metric, or raises it, so that what circuits keep \
                     there says little"
                ));
            }
        }
        for (circuit, run, kept) in all() {
            if let Some(kept) = kept.as_ref().filter(|kept| !kept.weak)
                && kept.beats_random() == Some(false)
            {
                said.push(format!(
                    "warning: {} of {} keep at least as much in {run} as {circuit}'s circuit",
                    kept.random_as_good,
                    count(kept.randoms, "random circuit")
                ));
            }
        }
        if matched && self.a_in_b.is_none() && self.b_in_a.is_none() {
            said.push(
                "what each circuit keeps in the other run was not measured: that both have a head does not show that it does \
                 the same in both"
                    .to_owned(),
            );
        }
    }
}
