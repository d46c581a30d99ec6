//! Which heads a graph goes through.

use circuitscope_core::HeadId;

use super::build::{AttributionGraph, NodeKind};

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
}

impl AttributionGraph {
    /// All heads, those of the largest influence first, ties in the order of heads: which heads carried the graph's edges.
    ///
    /// Unlike the influence of nodes it is no share: what a head moves may cancel against what others do, and a path through two
    /// heads counts for both. What the head moves of biases, such as what it reads from a first token that serves as a sink, counts
    /// too.
    pub fn head_influence(&self) -> Vec<HeadInfluence> {
        let influence = self.influence();
        let [layers, heads] = self.heads;
        let all =
            (0..layers).flat_map(|layer| (0..heads).map(move |head| HeadId::new(layer, head)));
        let mut found: Vec<HeadInfluence> = all
            .map(|head| HeadInfluence {
                head,
                influence: 0.0,
                to_targets: 0.0,
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
            for (head, through) in found.iter_mut().zip(&row.through) {
                let through = f64::from(*through);
                if size > 0.0 {
                    head.influence += (influence[target] + weight) * through.abs() / size;
                }
                head.to_targets += weight * through;
            }
        }
        found.sort_by(|a, b| b.influence.total_cmp(&a.influence));
        found
    }
}
