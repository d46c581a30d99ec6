//! Which heads a graph goes through.

use circuitscope_core::HeadId;

use super::build::{AttributionGraph, NodeKind};
use crate::{Error, Result};

/// What goes through one head: see [`AttributionGraph::head_influence`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadInfluence {
    /// The head.
    pub head: HeadId,
    /// Over all nodes that edges lead to, the sum of the node's influence (of a target: its weight) times the size of what goes
    /// through the head into the node, relative to the sum of the sizes of the node's edges.
    pub influence: f64,
    /// What goes through the head into the targets without a feature between, in units of logits, weighted as the targets are.
    pub to_targets: f64,
    /// What goes through the head into the targets on all paths, with features between or not, each feature as active as it is for what
    /// it reads: the effect of the head's output where patterns, scales and the set of active features are held.
    pub total: f64,
    /// As `total`, of what the head writes less what it writes on the counterpart, where the graph was made
    /// [against](AttributionGraph::against) one: what of the difference of the two prompts reaches the targets through the head.
    /// What it writes on any prompt cancels. This is attribution patching along the graph, with its gains instead of gradients.
    pub contrast: Option<f64>,
}

/// One line of [`head_table`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadRow {
    /// The head.
    pub head: HeadId,
    /// Mean of [`HeadInfluence::influence`].
    pub influence: f64,
    /// Mean of [`HeadInfluence::total`].
    pub total: f64,
    /// Mean of [`HeadInfluence::contrast`], where all graphs have one.
    pub contrast: Option<f64>,
}

/// Which heads carry the graphs of some prompts: all heads, those of the largest mean contrast by size first (where graphs have none,
/// of the largest influence), ties in the order of heads.
///
/// # Errors
/// [`Error::Unfit`] unless there are graphs, all of models of one size.
pub fn head_table(graphs: &[AttributionGraph]) -> Result<Vec<HeadRow>> {
    let sizes = |graph: &AttributionGraph| {
        let [layers, heads] = graph.heads;
        format!("{layers} layers of {heads} heads")
    };
    let unfit = |found: String, expected: String| Error::Unfit {
        what: "graphs of a table of heads".to_owned(),
        found,
        expected,
    };
    let Some(first) = graphs.first() else {
        return Err(unfit("none".to_owned(), "at least one".to_owned()));
    };
    if let Some(other) = graphs.iter().find(|other| other.heads != first.heads) {
        return Err(unfit(sizes(other), sizes(first)));
    }
    let share = 1.0 / graphs.len() as f64;
    let mut rows: Vec<HeadRow> = Vec::new();
    for graph in graphs {
        for (at, found) in graph.by_head().into_iter().enumerate() {
            if rows.len() == at {
                rows.push(HeadRow {
                    head: found.head,
                    influence: 0.0,
                    total: 0.0,
                    contrast: Some(0.0),
                });
            }
            let row = &mut rows[at];
            row.influence += share * found.influence;
            row.total += share * found.total;
            let both = row.contrast.zip(found.contrast);
            row.contrast = both.map(|(sum, contrast)| sum + share * contrast);
        }
    }
    rows.sort_by(|a, b| {
        let key = |row: &HeadRow| row.contrast.map_or(row.influence, f64::abs);
        key(b).total_cmp(&key(a))
    });
    Ok(rows)
}

impl AttributionGraph {
    /// All heads, those of the largest influence first, ties in the order of heads: which heads carried the graph's edges.
    ///
    /// Unlike the influence of nodes it is no share: what a head moves may cancel against what others do, and a path through two
    /// heads counts for both. What the head moves of biases, such as what it reads from a first token that serves as a sink, counts
    /// too.
    pub fn head_influence(&self) -> Vec<HeadInfluence> {
        let mut found = self.by_head();
        found.sort_by(|a, b| b.influence.total_cmp(&a.influence));
        found
    }

    /// For each node what one unit of it adds to the targets, over all paths through features.
    fn gains(&self) -> Vec<f64> {
        let mut gains = self.weights();
        let mut targets: Vec<usize> = self.target_nodes().collect();
        targets.reverse();
        for target in targets {
            let gain = gains[target];
            let sources = self.row(target).map_or(&[][..], |row| &row.edges[..]);
            for (source, edge) in sources.iter().enumerate().take(self.n_features) {
                gains[source] += gain * f64::from(*edge) / self.nodes[source].value;
            }
        }
        gains
    }

    /// All heads in index order.
    fn by_head(&self) -> Vec<HeadInfluence> {
        let gains = self.gains();
        let influence = self.influence();
        let [layers, heads] = self.heads;
        let all =
            (0..layers).flat_map(|layer| (0..heads).map(move |head| HeadId::new(layer, head)));
        let mut found: Vec<HeadInfluence> = all
            .map(|head| HeadInfluence {
                head,
                influence: 0.0,
                to_targets: 0.0,
                total: 0.0,
                contrast: None,
            })
            .collect();
        for target in self.target_nodes() {
            let Some(row) = self.row(target) else {
                continue;
            };
            let weight = match self.nodes[target].kind {
                NodeKind::Logit { target } => self.targets()[target].weight,
                _ => 0.0,
            };
            let size: f64 = row.edges.iter().map(|edge| f64::from(edge.abs())).sum();
            for (head, contrast) in found.iter_mut().zip(&row.contrast) {
                let sum = head.contrast.get_or_insert(0.0);
                *sum += gains[target] * f64::from(*contrast);
            }
            for (head, through) in found.iter_mut().zip(&row.through) {
                let through = f64::from(*through);
                if size > 0.0 {
                    head.influence += (influence[target] + weight) * through.abs() / size;
                }
                head.to_targets += weight * through;
                head.total += gains[target] * through;
            }
        }
        found
    }
}
