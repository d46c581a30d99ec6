//! What the page of a discovered circuit is made of.

use circuitscope_core::HeadId;
use circuitscope_measures::cards::Cards;
use serde_json::Value;

use crate::TaskReport;

/// All that the page of one discovered circuit shows; what is absent or empty has no section.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitPage<'a> {
    /// Heading of the page.
    pub title: String,
    /// A sentence or two below it; may be empty.
    pub lead: String,
    /// Names and values: model, examples, method, device, time.
    pub facts: Vec<(String, String)>,
    /// The first screen.
    pub verdict: Verdict,
    /// The circuit. [`truth`](TaskReport::truth) is the *known* circuit, `None` where none is known;
    /// [`marked`](TaskReport::marked) says what that is; [`chosen`](TaskReport::chosen) are the heads of the circuit, strongest
    /// first, and may be none; [`methods`](TaskReport::methods) is the one method that ranked all heads, with its scores;
    /// its graph or pairs are drawn where there are no [`cards`](Self::cards).
    pub task: TaskReport,
    /// Scores with their signs, one for each head in index order, where they differ from the scores.
    pub signed: Option<Vec<f64>>,
    /// Mean length of what each head puts out, in index order, where the method reads that.
    pub norms: Option<Vec<f64>>,
    /// What is known of heads.
    pub cards: Option<&'a Cards>,
    /// What the metric loses without each chosen head.
    pub lost: Option<Lost>,
    /// How often resamples choose each head.
    pub stability: Option<Stability>,
    /// What circuits of each size keep.
    pub curve: Option<SizeCurve>,
    /// Files that lie beside the page.
    pub files: Vec<FileBeside>,
    /// The command that made the page; may be empty.
    pub command: String,
    /// What made the results, shown as it is.
    pub provenance: Value,
}

/// What the first screen says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The few numbers that matter most: whether the model shows the behaviour, what the circuit keeps, what is left
    /// without it, what random circuits of its size keep.
    pub figures: Vec<Figure>,
    /// What may be concluded, in one sentence; may be empty.
    pub conclusion: String,
    /// Sentences below it.
    pub sentences: Vec<String>,
    /// What to beware of; each stands out.
    pub warnings: Vec<String>,
}

/// A number of the first screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figure {
    /// What it is of, in a few words: `the circuit keeps`.
    pub label: String,
    /// The number as it is shown: `87 %`.
    pub value: String,
    /// Below it, in small letters: an interval, a unit; may be empty.
    pub note: String,
}

/// What a metric loses without single heads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lost {
    /// Name of the metric.
    pub metric: String,
    /// Heads and what is lost without each.
    pub heads: Vec<(HeadId, f64)>,
}

/// How often a choice on half of the examples chooses each head.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stability {
    /// Share of half-samples that choose it, one for each head in index order.
    pub shares: Vec<f64>,
    /// Number of half-samples.
    pub halves: usize,
    /// The share that choices of as many heads at random would reach.
    pub chance: f64,
}

/// What circuits of the best heads keep, by their size.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SizeCurve {
    /// Name of the metric.
    pub metric: String,
    /// Its value with the whole model.
    pub full: f64,
    /// Its value with every head ablated, where that was measured.
    pub empty: Option<f64>,
    /// Numbers of heads kept, from small to large.
    pub sizes: Vec<usize>,
    /// The metric at each.
    pub values: Vec<f64>,
    /// The size that was chosen.
    pub chosen: Option<usize>,
}

/// A file beside the page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileBeside {
    /// Its name, relative to the page.
    pub name: String,
    /// What it holds.
    pub what: String,
}

impl CircuitPage<'_> {
    /// The value of a head in a list with one for each.
    pub(super) fn of_head(&self, values: &[f64], head: HeadId) -> Option<f64> {
        values.get(self.task.grid.index(head)?).copied()
    }

    /// The score that ranks a head.
    pub(super) fn score(&self, head: HeadId) -> Option<f64> {
        self.of_head(&self.task.methods.first()?.scores, head)
    }

    /// Its score with its sign.
    pub(super) fn signed(&self, head: HeadId) -> Option<f64> {
        self.of_head(self.signed.as_ref()?, head)
    }

    /// Its norm.
    pub(super) fn norm(&self, head: HeadId) -> Option<f64> {
        self.of_head(self.norms.as_ref()?, head)
    }

    /// Its effect.
    pub(super) fn effect(&self, head: HeadId) -> Option<f64> {
        self.of_head(&self.cards?.effects, head)
    }

    /// What is lost without it.
    pub(super) fn lost(&self, head: HeadId) -> Option<f64> {
        let heads = &self.lost.as_ref()?.heads;
        let found = heads.iter().find(|(other, _)| *other == head);
        found.map(|(_, lost)| *lost)
    }

    /// How often it is chosen.
    pub(super) fn share(&self, head: HeadId) -> Option<f64> {
        self.of_head(&self.stability.as_ref()?.shares, head)
    }

    /// Whether it is in the known circuit.
    pub(super) fn known(&self, head: HeadId) -> bool {
        self.task.is_marked(head)
    }

    /// Chosen heads, each once.
    pub(super) fn chosen(&self) -> Vec<HeadId> {
        let mut heads: Vec<HeadId> = Vec::new();
        for head in &self.task.chosen {
            if self.task.grid.contains(*head) && !heads.contains(head) {
                heads.push(*head);
            }
        }
        heads
    }
}
