//! Comparisons as tables.

use circuitscope_core::HeadId;

use super::said::about;
use super::{Comparison, HeadSide, KeptIn, Place, Side};
use crate::cards::{effect, percent};

/// Names of columns, and rows.
pub type Table = (Vec<String>, Vec<Vec<String>>);

/// What stands for nothing.
const NOTHING: &str = "–";

/// Numbers of first heads that are shown.
const TOPS: [usize; 7] = [1, 2, 3, 5, 10, 20, 50];

/// Four significant digits or so.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        size if size < 100.0 => format!("{value:.3}"),
        _ => format!("{value:.0}"),
    }
}

fn or_nothing(value: Option<String>) -> String {
    value.unwrap_or_else(|| NOTHING.to_owned())
}

fn columns<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

/// The effect with its interval, or alone.
fn effect_words(side: &HeadSide) -> Option<String> {
    let alone = side.effect.map(effect);
    side.measured.map_or(alone, |measured| {
        Some(format!(
            "{} ({} to {})",
            effect(measured.mean),
            effect(measured.low),
            effect(measured.high)
        ))
    })
}

impl KeptIn {
    /// Such as `78 % (without it 12 %; random 3 %, 0 of 100 as good; 20 pairs)`; no share where shares say little.
    #[must_use]
    pub fn words(&self) -> String {
        if self.weak {
            return format!(
                "says little: all heads hardly matter ({} pairs)",
                self.pairs
            );
        }
        let random = self.random.map(|share| {
            format!(
                "; random {}, {} of {} as good",
                percent(share),
                self.random_as_good,
                self.randoms
            )
        });
        format!(
            "{} (without it {}{}; {} pairs)",
            percent(self.kept),
            percent(self.without),
            random.unwrap_or_default(),
            self.pairs
        )
    }
}

impl Comparison {
    /// Heads in one place: ranks, scores, effects and what they do; at most `most` of them. Columns without any entry are
    /// left out.
    #[must_use]
    pub fn heads_table(&self, place: Place, most: usize) -> Table {
        let names = columns([
            "head",
            "rank in A",
            "rank in B",
            "score in A",
            "score in B",
            "effect in A",
            "effect in B",
            "in A",
            "in B",
            "moved",
        ]);
        let rows = self.heads_in(place).take(most).map(|head| {
            let moved = match (head.moved_rank, head.moved_effect) {
                (true, true) => Some("rank, effect"),
                (true, false) => Some("rank"),
                (false, true) => Some("effect"),
                (false, false) => None,
            };
            vec![
                Some(head.head.to_string()),
                Some(head.a.rank.to_string()),
                Some(head.b.rank.to_string()),
                Some(figure(head.a.score)),
                Some(figure(head.b.score)),
                effect_words(&head.a),
                effect_words(&head.b),
                head.a.does.clone(),
                head.b.does.clone(),
                moved.map(str::to_owned),
            ]
        });
        filled(names, rows.collect())
    }

    /// What each circuit (rows) keeps in each run (columns).
    #[must_use]
    pub fn kept_table(&self) -> Table {
        let cell = |kept: &Option<KeptIn>| or_nothing(kept.as_ref().map(KeptIn::words));
        let kept = &self.kept;
        let rows = vec![
            vec![
                "A's circuit".to_owned(),
                cell(&kept.a_in_a),
                cell(&kept.a_in_b),
            ],
            vec![
                "B's circuit".to_owned(),
                cell(&kept.b_in_a),
                cell(&kept.b_in_b),
            ],
        ];
        (columns(["", "kept in A", "kept in B"]), rows)
    }

    /// What the first heads of both rankings have in common; no rows where heads cannot be matched.
    #[must_use]
    pub fn top_table(&self) -> Table {
        let top = self.agreement.iter().flat_map(|agreement| &agreement.top);
        let rows = top
            .filter(|top| TOPS.contains(&top.k))
            .map(|top| vec![top.k.to_string(), about(top.both), about(top.by_chance)]);
        (
            columns(["first heads", "in both", "by chance"]),
            rows.collect(),
        )
    }

    /// Roles and the heads that have them.
    #[must_use]
    pub fn roles_table(&self) -> Table {
        let heads = |heads: &[HeadId]| {
            let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
            or_nothing((!heads.is_empty()).then(|| heads.join(", ")))
        };
        let rows = self
            .roles
            .iter()
            .map(|row| vec![row.role.phrase(), heads(&row.a), heads(&row.b)]);
        (
            columns(["attends to", "heads of A's circuit", "heads of B's circuit"]),
            rows.collect(),
        )
    }

    /// How the two were made: what differs, or what is the same.
    #[must_use]
    pub fn made_table(&self, differing: bool) -> Table {
        let made = self.made.iter().filter(|made| made.differs() == differing);
        let rows = made.map(|made| vec![made.name.clone(), made.a.clone(), made.b.clone()]);
        (columns(["", "A", "B"]), rows.collect())
    }
}

impl Side {
    /// Heads of the circuit with ranks, scores, effects and what they do; at most `most` of them.
    #[must_use]
    pub fn circuit_table(&self, most: usize) -> Table {
        let names = columns(["head", "rank", "score", "effect", "does"]);
        let rows = self.circuit.iter().take(most).map(|member| {
            vec![
                Some(member.head.to_string()),
                Some(member.at.rank.to_string()),
                Some(figure(member.at.score)),
                effect_words(&member.at),
                member.at.does.clone(),
            ]
        });
        filled(names, rows.collect())
    }
}

/// Without columns that have no entry; a dash for other gaps.
fn filled(names: Vec<String>, rows: Vec<Vec<Option<String>>>) -> Table {
    let used: Vec<bool> = (0..names.len())
        .map(|at| rows.is_empty() || rows.iter().any(|row| row[at].is_some()))
        .collect();
    let used_of = |at: &usize| used[*at];
    let rows = rows.into_iter().map(|row| {
        let cells = row.into_iter().enumerate();
        let cells = cells.filter(|(at, _)| used_of(at));
        cells.map(|(_, cell)| or_nothing(cell)).collect()
    });
    let rows = rows.collect();
    let names = names.into_iter().enumerate();
    let names = names.filter(|(at, _)| used_of(at));
    (names.map(|(_, name)| name).collect(), rows)
}
