//! What `graph` says.

use std::collections::BTreeMap;

use anyhow::Result;
use circuitscope::HeadId;
use circuitscope::features::{
    AttributionGraph, GraphNode, HeadRow, LogitTarget, NodeKind, PrunedGraph, head_table,
};
use circuitscope::measures::cards::quoted;
use circuitscope::measures::{pearson, spearman};
use circuitscope::model::Loaded;
use serde::Serialize;

use super::dictionary::Origin;
use super::explain::token;
use crate::device::B;
use crate::output::count;
use crate::provenance::Provenance;

/// What is printed, and kept as `graph.json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) layers: usize,
    pub(super) prompt: Prompt,
    /// What it stands against.
    pub(super) against: Option<Prompt>,
    /// Transcoders by layer. Layers without one have neurons, or their output is error.
    pub(super) transcoders: Vec<Through>,
    pub(super) targets: Vec<TargetRow>,
    pub(super) scores: Scores,
    /// The error with the largest share of what reaches the targets.
    pub(super) largest_error: Option<LargestError>,
    pub(super) check: Check,
    pub(super) counts: Counts,
    /// The features that were kept, the most influential first.
    pub(super) features: Vec<FeatureRow>,
    /// All heads, those of the largest contrast first, or else of the largest influence.
    pub(super) heads: Vec<HeadLine>,
    /// The same through the model's neurons.
    pub(super) control: Option<Control>,
    /// Whether the model agrees on what features add.
    pub(super) ablated: Ablated,
    /// What was kept.
    pub(super) nodes: Vec<Node>,
    /// Edges between those, the strongest first.
    pub(super) edges: Vec<Edge>,
    pub(super) settings: Settings,
    pub(super) provenance: Provenance,
}

/// A prompt.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Prompt {
    pub(super) text: String,
    pub(super) tokens: Vec<u32>,
    /// The tokens as text.
    pub(super) words: Vec<String>,
}

/// A layer with a transcoder.
#[derive(Debug, Serialize)]
pub(super) struct Through {
    pub(super) layer: usize,
    #[serde(flatten)]
    pub(super) transcoder: Origin,
}

/// What is explained: a weighted sum of logits.
#[derive(Debug, Serialize)]
pub(super) struct TargetRow {
    pub(super) name: String,
    /// Tokens, and their weights in the sum.
    pub(super) tokens: Vec<(u32, f64)>,
    /// The probability of a token; 1 of a difference.
    pub(super) weight: f64,
    /// The sum, in nats.
    pub(super) value: f64,
}

/// How well features account for the targets, both from 0 to 1.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Scores {
    pub(super) replacement: f64,
    pub(super) completeness: f64,
}

/// An error.
#[derive(Debug, Serialize)]
pub(super) struct LargestError {
    pub(super) layer: usize,
    pub(super) position: usize,
    /// Of the influence that starts in the prompt and in errors.
    pub(super) share: f64,
}

/// Whether edges sum to what they are the parts of.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    /// The largest difference between the sum of the edges into a node and its value.
    pub(super) largest_deviation: f64,
    /// The same relative to the sum of the sizes of these edges.
    pub(super) relative: f64,
}

/// Sizes of the graph.
#[derive(Debug, Serialize)]
pub(super) struct Counts {
    /// Features that are active, at all positions together.
    pub(super) active_features: usize,
    /// Those of them that are nodes.
    pub(super) features: usize,
    pub(super) nodes: usize,
    /// Edges that are not 0.
    pub(super) edges: usize,
    pub(super) kept_nodes: usize,
    pub(super) kept_edges: usize,
}

/// A feature at a position.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FeatureRow {
    pub(super) layer: usize,
    pub(super) feature: usize,
    pub(super) position: usize,
    pub(super) token: String,
    pub(super) activation: f64,
    /// Share of the influence of all nodes.
    pub(super) influence: f64,
    /// What it adds to what is explained, in nats, as the graph says.
    pub(super) adds: f64,
    /// What the model loses of it when the feature is taken away and nothing is held; of the most influential ones.
    pub(super) exact: Option<f64>,
}

/// Features that were taken away one by one.
#[derive(Debug, Serialize)]
pub(super) struct Ablated {
    pub(super) features: usize,
    /// Pearson's r of what they add as the graph says and as the model does.
    pub(super) pearson: Option<f64>,
    /// Spearman's ρ of the same.
    pub(super) spearman: Option<f64>,
    /// Of how many both have the same sign.
    pub(super) same_sign: usize,
    /// By node.
    #[serde(skip)]
    pub(super) exact: BTreeMap<usize, f64>,
}

impl Ablated {
    /// Of features, by their nodes: what each adds as the graph says, `[nodes of the graph]`, and as the model does.
    pub(super) fn of(adds: &[f64], nodes: Vec<usize>, exact: Vec<f64>) -> Self {
        let attributed: Vec<f64> = nodes.iter().map(|at| adds[*at]).collect();
        let both = attributed.iter().zip(&exact);
        Self {
            features: nodes.len(),
            pearson: pearson(&attributed, &exact),
            spearman: spearman(&attributed, &exact),
            same_sign: both.filter(|(a, b)| *a * *b > 0.0).count(),
            exact: nodes.into_iter().zip(exact).collect(),
        }
    }
}

/// A head.
#[derive(Debug, Clone, Serialize)]
pub(super) struct HeadLine {
    pub(super) head: HeadId,
    /// What the head moves because of what differs between the prompts, in nats.
    pub(super) contrast: Option<f64>,
    pub(super) influence: f64,
    /// What the head moves, in nats.
    pub(super) total: f64,
}

/// The graph through neurons.
#[derive(Debug, Serialize)]
pub(super) struct Control {
    /// Neurons that are nodes, at most.
    pub(super) max_features: usize,
    pub(super) scores: Scores,
    pub(super) heads: Vec<HeadLine>,
}

/// A node that was kept.
#[derive(Debug, Serialize)]
pub(super) struct Node {
    /// Its place in the graph, which edges name.
    pub(super) id: usize,
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) feature: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) target: Option<usize>,
    pub(super) value: f64,
    pub(super) influence: f64,
}

/// An edge that was kept.
#[derive(Debug, Serialize)]
pub(super) struct Edge {
    pub(super) source: usize,
    pub(super) target: usize,
    /// What the source adds to the target.
    pub(super) effect: f64,
    /// Its share of the sizes of all edges into the target, times the influence of the target.
    pub(super) strength: f64,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    pub(super) neurons: bool,
    pub(super) max_features: usize,
    /// Position from which on features of transcoders are active.
    pub(super) first_position: usize,
    pub(super) nodes: f64,
    pub(super) edges: f64,
    #[serde(skip)]
    pub(super) rows: usize,
}

/// What a report is made of.
pub(super) struct Made<'a> {
    pub(super) model: &'a Loaded<B>,
    pub(super) graph: &'a AttributionGraph,
    pub(super) pruned: &'a PrunedGraph,
    /// Of each node of the graph.
    pub(super) influence: Vec<f64>,
    /// What each node adds to what is explained.
    pub(super) adds: Vec<f64>,
    pub(super) heads: Vec<HeadRow>,
    pub(super) prompt: Prompt,
    pub(super) against: Option<Prompt>,
    pub(super) through: Vec<Through>,
    pub(super) control: Option<Control>,
    pub(super) ablated: Ablated,
    pub(super) settings: Settings,
    pub(super) provenance: Provenance,
}

impl Scores {
    fn of(graph: &AttributionGraph) -> Self {
        let scores = graph.scores();
        Self {
            replacement: scores.replacement,
            completeness: scores.completeness,
        }
    }
}

impl From<HeadRow> for HeadLine {
    fn from(row: HeadRow) -> Self {
        Self {
            head: row.head,
            contrast: row.contrast,
            influence: row.influence,
            total: row.total,
        }
    }
}

impl Control {
    /// Of the graph through neurons, `max_features` of them at most.
    pub(super) fn of(graph: &AttributionGraph, max_features: usize) -> Result<Self> {
        let heads = head_table(std::slice::from_ref(graph))?;
        Ok(Self {
            max_features,
            scores: Scores::of(graph),
            heads: heads.into_iter().map(HeadLine::from).collect(),
        })
    }
}

impl Report {
    pub(super) fn of(made: Made<'_>) -> Self {
        let Made {
            graph,
            pruned,
            influence,
            adds,
            ..
        } = made;
        let total: f64 = influence.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let values = graph.nodes().iter().rev().take(graph.targets().len());
        let values = values.rev().map(|node| node.value);
        let targets = graph.targets().iter().zip(values);
        let nodes = pruned
            .nodes
            .iter()
            .map(|at| node(*at, graph.nodes()[*at], influence[*at] / total));
        let nodes: Vec<Node> = nodes.collect();
        let mut features: Vec<FeatureRow> = pruned
            .nodes
            .iter()
            .filter_map(|at| match graph.nodes()[*at] {
                GraphNode {
                    kind:
                        NodeKind::Feature {
                            layer,
                            feature,
                            position,
                        },
                    value,
                } => Some(FeatureRow {
                    layer,
                    feature,
                    position,
                    token: made.prompt.words[position].clone(),
                    activation: value,
                    influence: influence[*at] / total,
                    adds: adds[*at],
                    exact: made.ablated.exact.get(at).copied(),
                }),
                _ => None,
            })
            .collect();
        features.sort_by(|a, b| b.influence.total_cmp(&a.influence));
        let counts = Counts {
            active_features: graph.active_features(),
            features: graph
                .nodes()
                .iter()
                .filter(|node| matches!(node.kind, NodeKind::Feature { .. }))
                .count(),
            nodes: graph.nodes().len(),
            edges: graph
                .target_nodes()
                .filter_map(|target| graph.edges_into(target))
                .flatten()
                .filter(|edge| *edge != 0.0)
                .count(),
            kept_nodes: pruned.nodes.len(),
            kept_edges: pruned.edges.len(),
        };
        Self {
            model: made.model.provenance.name.clone(),
            layers: made.model.model.config().n_layers,
            targets: targets
                .map(|(target, value)| target_row(made.model, target, value))
                .collect(),
            prompt: made.prompt,
            against: made.against,
            transcoders: made.through,
            scores: Scores::of(graph),
            largest_error: largest_error(graph, &influence),
            check: check(graph),
            counts,
            features,
            heads: made.heads.into_iter().map(HeadLine::from).collect(),
            control: made.control,
            ablated: made.ablated,
            nodes,
            edges: edges(graph, pruned, &influence),
            settings: made.settings,
            provenance: made.provenance,
        }
    }
}

fn target_row(model: &Loaded<B>, target: &LogitTarget, value: f64) -> TargetRow {
    let config = model.model.config();
    let word = |id: u32| {
        if config.d_vocab_out == config.d_vocab {
            quoted(&token(model, id))
        } else {
            format!("#{id}")
        }
    };
    let side = |sign: f64| {
        let of: Vec<u32> = target
            .tokens
            .iter()
            .filter(|(_, weight)| weight * sign > 0.0)
            .map(|(id, _)| *id)
            .collect();
        match of.as_slice() {
            [one] => word(*one),
            all => count(all.len(), "token"),
        }
    };
    let name = match target.tokens.as_slice() {
        [(one, _)] => word(*one),
        _ => format!("{} less {}", side(1.0), side(-1.0)),
    };
    TargetRow {
        name,
        tokens: target.tokens.clone(),
        weight: target.weight,
        value,
    }
}

fn node(id: usize, of: GraphNode, influence: f64) -> Node {
    let mut node = Node {
        id,
        kind: "bias",
        layer: None,
        feature: None,
        position: None,
        target: None,
        value: of.value,
        influence,
    };
    match of.kind {
        NodeKind::Feature {
            layer,
            feature,
            position,
        } => {
            node.kind = "feature";
            (node.layer, node.feature, node.position) =
                (Some(layer), Some(feature), Some(position));
        }
        NodeKind::Error { layer, position } => {
            node.kind = "error";
            (node.layer, node.position) = (Some(layer), Some(position));
        }
        NodeKind::Token { position, .. } => {
            node.kind = "token";
            node.position = Some(position);
        }
        NodeKind::Position { position } => {
            node.kind = "position";
            node.position = Some(position);
        }
        NodeKind::Logit { target } => {
            node.kind = "logit";
            node.target = Some(target);
        }
        NodeKind::Bias => {}
    }
    node
}

/// `None` where no error has influence.
fn largest_error(graph: &AttributionGraph, influence: &[f64]) -> Option<LargestError> {
    let (mut all, mut largest) = (0.0, None::<LargestError>);
    for (node, influence) in graph.nodes().iter().zip(influence) {
        match node.kind {
            NodeKind::Token { .. } | NodeKind::Position { .. } => all += influence,
            NodeKind::Error { layer, position } => {
                all += influence;
                let most = largest.as_ref().map_or(0.0, |error| error.share);
                if *influence > most {
                    largest = Some(LargestError {
                        layer,
                        position,
                        share: *influence,
                    });
                }
            }
            _ => {}
        }
    }
    largest.map(|error| LargestError {
        share: error.share / all,
        ..error
    })
}

fn check(graph: &AttributionGraph) -> Check {
    let mut found = Check {
        largest_deviation: 0.0,
        relative: 0.0,
    };
    for target in graph.target_nodes() {
        let edges: Vec<f64> = graph.edges_into(target).into_iter().flatten().collect();
        let deviation = (edges.iter().sum::<f64>() - graph.nodes()[target].value).abs();
        let size: f64 = edges.iter().map(|edge| edge.abs()).sum();
        found.largest_deviation = found.largest_deviation.max(deviation);
        found.relative = found.relative.max(deviation / size.max(f64::MIN_POSITIVE));
    }
    found
}

/// Kept edges, the strongest first.
fn edges(graph: &AttributionGraph, pruned: &PrunedGraph, influence: &[f64]) -> Vec<Edge> {
    let first_target = graph.nodes().len() - graph.targets().len();
    let out = |target: usize| match target.checked_sub(first_target) {
        Some(logit) => graph.targets()[logit].weight,
        None => influence[target],
    };
    let mut sizes = vec![0.0; graph.nodes().len()];
    for target in graph.target_nodes() {
        let edges = graph.edges_into(target).into_iter().flatten();
        sizes[target] = edges.map(f64::abs).sum::<f64>().max(f64::MIN_POSITIVE);
    }
    let mut edges: Vec<Edge> = pruned
        .edges
        .iter()
        .map(|(source, target, effect)| Edge {
            source: *source,
            target: *target,
            effect: *effect,
            strength: out(*target) * effect.abs() / sizes[*target],
        })
        .collect();
    edges.sort_by(|a, b| b.strength.total_cmp(&a.strength));
    edges
}
