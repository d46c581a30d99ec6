//! How much of the targets goes through each node, and which nodes and edges carry most of it.

use derive_setters::Setters;

use super::build::{AttributionGraph, NodeKind};
use crate::{Error, Result};

/// How well features account for a graph, both from 0 to 1: see [`AttributionGraph::scores`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplacementScores {
    /// Of the influence that starts in tokens, position vectors and errors, the share that starts in the first two: how much of
    /// the paths to the targets runs from the prompt through features and heads alone. Errors are where paths break off.
    pub replacement: f64,
    /// The share of what enters a node that is not from errors, averaged over all nodes with their influence (of a target:
    /// its weight) as weight; nothing enters tokens, positions and errors, for which the share is 1.
    pub completeness: f64,
}

/// What [`AttributionGraph::prune`] keeps. The defaults are circuit-tracer's.
#[derive(Debug, Clone, Copy, PartialEq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct PruneSettings {
    /// The most influential nodes, until they have this share of the influence of all. Default 0.8.
    pub nodes: f64,
    /// Of the edges between them, the strongest, until they have this share of all. Default 0.98.
    pub edges: f64,
}

impl Default for PruneSettings {
    fn default() -> Self {
        Self {
            nodes: 0.8,
            edges: 0.98,
        }
    }
}

/// The part of a graph that carries most of the influence: made by [`AttributionGraph::prune`].
#[derive(Debug, Clone, PartialEq)]
pub struct PrunedGraph {
    /// Kept nodes by their place in the graph, in its order.
    pub nodes: Vec<usize>,
    /// Kept edges: source, target and effect, by target, then source.
    pub edges: Vec<(usize, usize, f64)>,
    /// For each node of the *graph* the share of all influence that nodes at least as influential have: a viewer that shows the nodes
    /// with at most `s` prunes to the share `s`. 1 for what has no influence.
    pub cumulative: Vec<f64>,
    /// How it was pruned.
    pub settings: PruneSettings,
}

impl AttributionGraph {
    /// The influence of every node on the targets: `w (A + A² + …)`, where row `t` of `A` holds the absolute values of the
    /// edges into `t`, divided by their sum, and `w` the weights of the targets. The bias node is left out of `A`, as in
    /// circuit-tracer, and has no influence; targets have none either.
    pub fn influence(&self) -> Vec<f64> {
        self.influence_among(|_, _| true)
    }

    /// The same over the edges (source, target) that are chosen.
    fn influence_among(&self, chosen: impl Fn(usize, usize) -> bool) -> Vec<f64> {
        let mut influence = self.weights();
        let weights = influence.clone();
        // Edges lead from earlier nodes to later ones: one walk back from the targets sums over all powers.
        let mut targets: Vec<usize> = self.target_nodes().collect();
        targets.reverse();
        for target in targets {
            let weight = influence[target];
            for (source, share) in self.shares(target, &chosen) {
                influence[source] += weight * share;
            }
        }
        influence
            .iter()
            .zip(weights)
            .map(|(all, own)| all - own)
            .collect()
    }

    /// Weights of targets, 0 for other nodes.
    pub(super) fn weights(&self) -> Vec<f64> {
        let weight = |kind| match kind {
            NodeKind::Logit { target } => self.targets()[target].weight,
            _ => 0.0,
        };
        self.nodes.iter().map(|node| weight(node.kind)).collect()
    }

    /// Sources of a node and their shares of the absolute values of the chosen edges into it; the bias is none.
    fn shares(&self, target: usize, chosen: &impl Fn(usize, usize) -> bool) -> Vec<(usize, f64)> {
        let Some(row) = self.row(target) else {
            return Vec::new();
        };
        let edges = row.edges.iter().enumerate();
        let mut edges: Vec<(usize, f64)> = edges
            .filter(|(source, edge)| **edge != 0.0 && chosen(*source, target))
            .map(|(source, edge)| (source, f64::from(edge.abs())))
            .collect();
        let total: f64 = edges.iter().map(|(_, edge)| edge).sum();
        for (_, edge) in &mut edges {
            *edge /= total;
        }
        edges
    }

    /// How well features account for the targets, as circuit-tracer measures it (`compute_graph_scores`), with position vectors
    /// counted with the tokens. Where no influence starts anywhere (all inputs are biases), both are 1.
    pub fn scores(&self) -> ReplacementScores {
        let influence = self.influence();
        let (mut prompt, mut errors) = (0.0, 0.0);
        for (node, influence) in self.nodes.iter().zip(&influence) {
            match node.kind {
                NodeKind::Token { .. } | NodeKind::Position { .. } => prompt += influence,
                NodeKind::Error { .. } => errors += influence,
                _ => {}
            }
        }
        let (mut complete, mut all) = (0.0, 0.0);
        let weights = self.weights();
        for (at, (influence, weight)) in influence.iter().zip(weights).enumerate() {
            let out = influence + weight;
            let from_errors: f64 = self
                .shares(at, &|_, _| true)
                .into_iter()
                .filter(|(source, _)| matches!(self.nodes[*source].kind, NodeKind::Error { .. }))
                .map(|(_, share)| share)
                .sum();
            complete += out * (1.0 - from_errors);
            all += out;
        }
        let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 1.0 };
        ReplacementScores {
            replacement: ratio(prompt, prompt + errors),
            completeness: ratio(complete, all),
        }
    }

    /// Keeps the nodes and edges that carry most of the influence, as circuit-tracer's `prune_graph`: the most influential nodes
    /// up to a share, with all tokens, positions and targets; then, with influence computed anew among these, the edges of the
    /// largest share × influence of their target (of a target logit: its weight) up to another share; then no feature or error
    /// that leads nowhere and no feature that nothing leads to. The bias node is not shown. Nodes and edges that tie with the
    /// last kept one are kept.
    ///
    /// # Errors
    /// [`Error::Unfit`] unless shares are in `[0, 1]`.
    pub fn prune(&self, settings: &PruneSettings) -> Result<PrunedGraph> {
        for (field, share) in [("nodes", settings.nodes), ("edges", settings.edges)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::Unfit {
                    what: format!("settings of pruning, `{field}`"),
                    found: share.to_string(),
                    expected: "a share in [0, 1]".to_owned(),
                });
            }
        }
        let influence = self.influence();
        let least = threshold(&influence, settings.nodes);
        let kinds = || self.nodes.iter().map(|node| node.kind);
        let removable: Vec<bool> = kinds()
            .map(|kind| matches!(kind, NodeKind::Feature { .. } | NodeKind::Error { .. }))
            .collect();
        let mut kept: Vec<bool> = kinds()
            .zip(&removable)
            .zip(&influence)
            .map(|((kind, removable), influence)| {
                if *removable {
                    *influence > 0.0 && *influence >= least
                } else {
                    kind != NodeKind::Bias
                }
            })
            .collect();
        let both = |source: usize, target: usize| kept[source] && kept[target];
        let among = self.influence_among(both);
        let weights = self.weights();
        let mut edges: Vec<(usize, usize, f64)> = Vec::new();
        for target in self.target_nodes().filter(|target| kept[*target]) {
            let out = among[target] + weights[target];
            let shares = self.shares(target, &both).into_iter();
            edges.extend(shares.map(|(source, share)| (source, target, share * out)));
        }
        let strengths: Vec<f64> = edges.iter().map(|edge| edge.2).collect();
        let least = threshold(&strengths, settings.edges);
        edges.retain(|edge| edge.2 > 0.0 && edge.2 >= least);
        loop {
            let mut leads = vec![false; kept.len()];
            let mut led_to = leads.clone();
            for (source, target, _) in &edges {
                leads[*source] = true;
                led_to[*target] = true;
            }
            let before = kept.clone();
            for at in (0..kept.len()).filter(|at| removable[*at]) {
                kept[at] &= leads[at] && (at >= self.n_features || led_to[at]);
            }
            if kept == before {
                break;
            }
            edges.retain(|(source, target, _)| kept[*source] && kept[*target]);
        }
        for (source, target, effect) in &mut edges {
            *effect = self.edge(*source, *target);
        }
        Ok(PrunedGraph {
            nodes: (0..kept.len()).filter(|at| kept[*at]).collect(),
            edges,
            cumulative: cumulative(&influence),
            settings: *settings,
        })
    }
}

/// Places in order of falling values, ties in their own order.
fn falling(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    order
}

/// The smallest of the largest values that sum to a share of all.
fn threshold(values: &[f64], share: f64) -> f64 {
    let total: f64 = values.iter().sum();
    let mut sum = 0.0;
    let mut last = f64::INFINITY;
    for at in falling(values) {
        last = values[at];
        sum += last;
        if sum >= share * total {
            break;
        }
    }
    last
}

/// For each value the share of all that values at least as large have; equal values have the same.
fn cumulative(values: &[f64]) -> Vec<f64> {
    let total: f64 = values.iter().sum();
    let mut shares = vec![1.0; values.len()];
    let order = falling(values);
    let mut sum = 0.0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        sum += equal.iter().map(|at| values[*at]).sum::<f64>();
        if values[equal[0]] > 0.0 {
            for at in equal {
                shares[*at] = (sum / total).min(1.0);
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let values = [0.1, 0.5, 0.3, 0.1];
        assert_eq!(threshold(&values, 0.0), 0.5);
        assert_eq!(threshold(&values, 0.5), 0.5);
        assert_eq!(threshold(&values, 0.51), 0.3);
        assert_eq!(threshold(&values, 1.0), 0.1);
        assert_eq!(threshold(&[], 0.5), f64::INFINITY);
        let found = cumulative(&[0.25, 0.5, 0.25, 0.0]);
        assert_eq!(found, [1.0, 0.5, 1.0, 1.0]);
    }
}
