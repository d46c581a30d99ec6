//! What `graph` says.

use anyhow::Result;
use circuitscope::HeadId;
use circuitscope::features::{
    AttributionGraph, GraphNode, HeadRow, LogitTarget, NodeKind, PrunedGraph, head_table,
};
use circuitscope::measures::cards::quoted;
use circuitscope::model::Loaded;
use circuitscope::report::{GraphLine, GraphMark, GraphPage, GraphTable, MarkKind};
use serde::Serialize;
use serde_json::json;

use super::dictionary::Origin;
use super::explain::token;
use crate::device::B;
use crate::output::{count, indented, table};
use crate::provenance::Provenance;

/// Heads that the control names.
const FIRST: usize = 3;

/// What is printed, and kept as `graph.json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    layers: usize,
    pub(super) prompt: Text,
    /// What it stands against.
    against: Option<Text>,
    /// Transcoders by layer. Layers without one have neurons, or their output is error.
    transcoders: Vec<Through>,
    pub(super) targets: Vec<TargetRow>,
    scores: Scores,
    /// The error with the largest share of what reaches the targets.
    largest_error: Option<LargestError>,
    check: Check,
    counts: Counts,
    /// The features that were kept, the most influential first.
    features: Vec<FeatureRow>,
    /// All heads, those of the largest contrast first, or else of the largest influence.
    heads: Vec<HeadLine>,
    /// The same through the model's neurons.
    control: Option<Control>,
    /// What was kept.
    nodes: Vec<Node>,
    /// Edges between those, the strongest first.
    edges: Vec<Edge>,
    settings: Settings,
    provenance: Provenance,
}

/// A prompt.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Text {
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
    tokens: Vec<(u32, f64)>,
    /// The probability of a token; 1 of a difference.
    weight: f64,
    /// The sum, in nats.
    value: f64,
}

/// How well features account for the targets, both from 0 to 1.
#[derive(Debug, Clone, Copy, Serialize)]
struct Scores {
    replacement: f64,
    completeness: f64,
}

/// An error.
#[derive(Debug, Serialize)]
struct LargestError {
    layer: usize,
    position: usize,
    /// Of the influence that starts in the prompt and in errors.
    share: f64,
}

/// Whether edges sum to what they are the parts of.
#[derive(Debug, Serialize)]
struct Check {
    /// The largest difference between the sum of the edges into a node and its value.
    largest_deviation: f64,
    /// The same relative to the sum of the sizes of these edges.
    relative: f64,
}

/// Sizes of the graph.
#[derive(Debug, Serialize)]
struct Counts {
    /// Features that are active, at all positions together.
    active_features: usize,
    /// Those of them that are nodes.
    features: usize,
    nodes: usize,
    /// Edges that are not 0.
    edges: usize,
    kept_nodes: usize,
    kept_edges: usize,
}

/// A feature at a position.
#[derive(Debug, Clone, Serialize)]
struct FeatureRow {
    layer: usize,
    feature: usize,
    position: usize,
    token: String,
    activation: f64,
    /// Share of the influence of all nodes.
    influence: f64,
}

/// A head.
#[derive(Debug, Clone, Serialize)]
struct HeadLine {
    head: HeadId,
    /// What the head moves because of what differs between the prompts, in nats.
    contrast: Option<f64>,
    influence: f64,
    /// What the head moves, in nats.
    total: f64,
}

/// The graph through neurons.
#[derive(Debug, Serialize)]
pub(super) struct Control {
    /// Neurons that are nodes, at most.
    max_features: usize,
    scores: Scores,
    heads: Vec<HeadLine>,
}

/// A node that was kept.
#[derive(Debug, Serialize)]
struct Node {
    /// Its place in the graph, which edges name.
    id: usize,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<usize>,
    value: f64,
    influence: f64,
}

/// An edge that was kept.
#[derive(Debug, Serialize)]
struct Edge {
    source: usize,
    target: usize,
    /// What the source adds to the target.
    effect: f64,
    /// Its share of the sizes of all edges into the target, times the influence of the target.
    strength: f64,
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
    pub(super) heads: Vec<HeadRow>,
    pub(super) prompt: Text,
    pub(super) against: Option<Text>,
    pub(super) through: Vec<Through>,
    pub(super) control: Option<Control>,
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
        let Made { graph, pruned, .. } = made;
        let influence = graph.influence();
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
            nodes,
            edges: edges(graph, pruned, &influence),
            settings: made.settings,
            provenance: made.provenance,
        }
    }

    /// What is explained, in a sentence.
    pub(super) fn lead(&self) -> String {
        let names = self.targets.iter().map(|target| {
            let value = if target.tokens.len() == 1 {
                format!("{:.1} %", 100.0 * target.weight)
            } else {
                format!("{:.3} nats", target.value)
            };
            format!("{} ({value})", target.name)
        });
        let names: Vec<String> = names.collect();
        let against = self.against.as_ref();
        let against = against.map_or_else(String::new, |text| {
            format!(", against {}", quoted(&text.text))
        });
        format!(
            "Explained after {}{against}: {}",
            quoted(&self.prompt.text),
            names.join(", ")
        )
    }

    /// How far to trust it, a sentence each.
    fn sentences(&self) -> Vec<String> {
        let share = |value: f64| format!("{:.1} %", 100.0 * value);
        let layers: Vec<String> = self
            .transcoders
            .iter()
            .map(|one| one.layer.to_string())
            .collect();
        let through = match (layers.is_empty(), self.settings.neurons) {
            (true, _) => "through neurons".to_owned(),
            (false, neurons) => format!(
                "through transcoders of layers {}{}",
                layers.join(", "),
                if neurons && layers.len() < self.layers {
                    ", neurons of the others"
                } else {
                    ""
                }
            ),
        };
        let Counts {
            active_features,
            features,
            nodes,
            edges,
            kept_nodes,
            kept_edges,
        } = self.counts;
        let error = self.largest_error.as_ref().map_or_else(
            || "no errors: features account for all of it".to_owned(),
            |error| {
                format!(
                    "largest error: {} of what reaches the targets starts in what features of layer {} leave over at {} (position {})",
                    share(error.share),
                    error.layer,
                    quoted(&self.prompt.words[error.position]),
                    error.position
                )
            },
        );
        let mut said = vec![
            format!("{through}: {active_features} active, {features} of them nodes"),
            format!(
                "replacement {}: of the influence that starts in the prompt or in errors, the share of the prompt",
                share(self.scores.replacement)
            ),
            format!(
                "completeness {}: of what enters nodes, weighted by their influence, the share that is no error",
                share(self.scores.completeness)
            ),
            error,
            format!(
                "kept: {kept_nodes} of {nodes} nodes and {kept_edges} of {edges} edges (--nodes {} --edges {})",
                self.settings.nodes, self.settings.edges
            ),
            format!(
                "check: edges into a node sum to its activation or logit within {:.1e}, {:.1e} of their sizes",
                self.check.largest_deviation, self.check.relative
            ),
        ];
        if self.settings.first_position > 0 && !self.transcoders.is_empty() {
            said.push(format!(
                "what MLPs write before position {} is error: the transcoders were trained without",
                self.settings.first_position
            ));
        }
        if let Some(control) = &self.control {
            let heads: Vec<String> = control
                .heads
                .iter()
                .take(FIRST)
                .map(|one| one.head.to_string())
                .collect();
            said.push(format!(
                "control, neurons in place of transcoders ({} at most): replacement {}, completeness {}, first heads {}",
                control.max_features,
                share(control.scores.replacement),
                share(control.scores.completeness),
                heads.join(" ")
            ));
        }
        said
    }

    fn feature_table(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let rows = self.features.iter().take(self.settings.rows).map(|row| {
            vec![
                row.layer.to_string(),
                row.feature.to_string(),
                quoted(&row.token),
                row.position.to_string(),
                format!("{:.3}", row.activation),
                format!("{:.2} %", 100.0 * row.influence),
            ]
        });
        let header = vec![
            "layer",
            "feature",
            "token",
            "position",
            "activation",
            "influence",
        ];
        (header, rows.collect())
    }

    fn head_rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let contrasted = self.heads.iter().all(|row| row.contrast.is_some());
        let rows = self.heads.iter().take(self.settings.rows).map(|row| {
            let contrast = row.contrast.map(|contrast| format!("{contrast:.4}"));
            let rest = [format!("{:.4}", row.influence), format!("{:.4}", row.total)];
            [row.head.to_string()]
                .into_iter()
                .chain(contrast)
                .chain(rest)
                .collect()
        });
        let mut header = vec!["head", "influence", "total"];
        if contrasted {
            header.insert(1, "contrast");
        }
        (header, rows.collect())
    }

    const FEATURES: &str =
        "influence: share of all nodes' influence, over all paths to the targets";
    const HEADS: &str = "contrast: what the head moves because of what differs from the prompt that --against names, in nats; influence: what \
        goes through the head into nodes, relative to all that does, weighted by their influence; total: what the head moves in all, in nats. \
        Patterns are held: heads that only tell others where to look do not show";

    pub(super) fn said(&self) -> String {
        let words: Vec<String> = self.prompt.words.iter().map(|word| quoted(word)).collect();
        let mut text = format!("{}\n{}\n\n", self.lead(), words.join(" "));
        text.push_str(&indented(&self.sentences()));
        let (header, rows) = self.feature_table();
        if !rows.is_empty() {
            text.push_str(&format!("\n{}{}\n", table(&header, &rows), Self::FEATURES));
        }
        let (header, rows) = self.head_rows();
        text.push_str(&format!("\n{}{}\n", table(&header, &rows), Self::HEADS));
        text
    }

    pub(super) fn page(&self) -> GraphPage {
        let place = |id: usize| self.nodes.iter().position(|node| node.id == id);
        let tables = [
            (
                "The strongest features",
                self.feature_table(),
                Self::FEATURES,
            ),
            ("Heads", self.head_rows(), Self::HEADS),
        ];
        GraphPage {
            title: "Attribution graph".to_owned(),
            lead: self.lead(),
            said: self.sentences(),
            tokens: self.prompt.words.clone(),
            layers: self.layers,
            nodes: self.nodes.iter().map(|node| self.mark(node)).collect(),
            edges: self
                .edges
                .iter()
                .filter_map(|edge| {
                    Some(GraphLine {
                        source: place(edge.source)?,
                        target: place(edge.target)?,
                        effect: edge.effect,
                    })
                })
                .collect(),
            tables: tables
                .into_iter()
                .map(|(heading, (columns, rows), note)| GraphTable {
                    heading: heading.to_owned(),
                    columns: columns.into_iter().map(str::to_owned).collect(),
                    rows,
                    note: format!("{note}."),
                })
                .collect(),
            provenance: json!(self.provenance),
        }
    }

    fn mark(&self, node: &Node) -> GraphMark {
        let position = node.position.unwrap_or(self.prompt.tokens.len() - 1);
        let layer = node.layer.unwrap_or(0);
        let at = format!("{} ({position})", quoted(&self.prompt.words[position]));
        let influence = format!("influence {:.2} %", 100.0 * node.influence);
        let (kind, label, hint) = match node.kind {
            "feature" => (
                MarkKind::Feature { layer, position },
                String::new(),
                format!(
                    "layer {layer}, feature {} at {at}: activation {:.3}, {influence}",
                    node.feature.unwrap_or(0),
                    node.value
                ),
            ),
            "error" => (
                MarkKind::Error { layer, position },
                String::new(),
                format!("error of layer {layer} at {at}, {influence}"),
            ),
            "token" => (
                MarkKind::Token { position },
                String::new(),
                format!("token {at}, {influence}"),
            ),
            "position" => (
                MarkKind::Position { position },
                String::new(),
                format!("position {position}, {influence}"),
            ),
            _ => {
                let target = node.target.and_then(|target| self.targets.get(target));
                let name = target.map_or_else(String::new, |target| target.name.clone());
                let label = name.trim_matches('`').to_owned();
                let hint = format!("{name}: {:.3} nats", node.value);
                (MarkKind::Logit { position }, label, hint)
            }
        };
        GraphMark {
            kind,
            influence: node.influence,
            label,
            hint,
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
