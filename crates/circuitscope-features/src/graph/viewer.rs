//! Graphs as Neuronpedia and circuit-tracer's viewer read them.

use std::path::Path;

use circuitscope_files::write_atomic;
use serde_json::{Value, json};

use super::build::{AttributionGraph, NodeKind};
use super::influence::PrunedGraph;
use crate::{Error, Result};

/// What a viewer shows beside a graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ViewerPrompt {
    /// Name of the graph in addresses: letters, digits and dashes.
    pub slug: String,
    /// The model, by the viewer's name for it.
    pub scan: String,
    /// The transcoders, by Neuronpedia's name for the set, where it has one: features are then shown with their dashboards.
    pub source_set: Option<String>,
    /// What the graph shows.
    pub description: String,
    /// The prompt.
    pub prompt: String,
    /// Its tokens as text, one for each position.
    pub prompt_tokens: Vec<String>,
    /// The targets as text, one for each.
    pub targets: Vec<String>,
}

impl PrunedGraph {
    /// The graph in the JSON of Neuronpedia's `apps/webapp/app/api/graph/graph-schema.json`, as circuit-tracer writes it:
    /// a feature node has the id `layer_feature_position` and, as its `feature`, the Cantor pairing of layer and feature, from
    /// which the viewer takes the number of the feature; errors have the feature −1. Position vectors are embeddings
    /// with the id `E_p_position`. `influence` is cumulative ([`PrunedGraph::cumulative`]).
    ///
    /// # Errors
    /// [`Error::Unfit`] unless there is one text for each token and each target.
    pub fn to_viewer_json(&self, graph: &AttributionGraph, prompt: &ViewerPrompt) -> Result<Value> {
        let counts = [
            ("texts of tokens", prompt.prompt_tokens.len(), graph.pos),
            (
                "texts of targets",
                prompt.targets.len(),
                graph.targets().len(),
            ),
        ];
        for (what, found, expected) in counts {
            if found != expected {
                return Err(Error::Unfit {
                    what: what.to_owned(),
                    found: found.to_string(),
                    expected: expected.to_string(),
                });
            }
        }
        let shown = self
            .nodes
            .iter()
            .filter_map(|at| self.node(*at, graph, prompt));
        let ends = |at: usize| place(graph, at).map(|place| place.id);
        let links = self.edges.iter().filter_map(|(source, target, weight)| {
            let (source, target) = (ends(*source)?, ends(*target)?);
            Some(json!({ "source": source, "target": target, "weight": weight }))
        });
        let mut metadata = json!({
            "slug": prompt.slug,
            "scan": prompt.scan,
            "prompt": prompt.prompt,
            "prompt_tokens": prompt.prompt_tokens,
            "node_threshold": self.settings.nodes,
            "pruning_settings": {
                "node_threshold": self.settings.nodes,
                "edge_threshold": self.settings.edges,
            },
            "info": {
                "description": prompt.description,
                "generator": { "name": "circuitscope", "version": env!("CARGO_PKG_VERSION") },
            },
        });
        if let Some(set) = &prompt.source_set {
            metadata["feature_details"] = json!({ "neuronpedia_source_set": set });
        }
        Ok(json!({
            "metadata": metadata,
            "qParams": { "pinnedIds": [], "supernodes": [], "linkType": "both" },
            "nodes": shown.collect::<Vec<_>>(),
            "links": links.collect::<Vec<_>>(),
        }))
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// As [`to_viewer_json`](Self::to_viewer_json); [`Error::File`].
    pub fn write_viewer(
        &self,
        graph: &AttributionGraph,
        prompt: &ViewerPrompt,
        path: &Path,
    ) -> Result<()> {
        let text = self.to_viewer_json(graph, prompt)?.to_string();
        Ok(write_atomic(path, |out| out.write_all(text.as_bytes()))?)
    }

    fn node(&self, at: usize, graph: &AttributionGraph, prompt: &ViewerPrompt) -> Option<Value> {
        let node = graph.nodes()[at];
        let place = place(graph, at)?;
        let token = |position: usize| &prompt.prompt_tokens[position];
        let label = match node.kind {
            NodeKind::Feature { .. } | NodeKind::Bias => String::new(),
            NodeKind::Error { layer, position } => {
                format!("Error of MLP {layer} at {:?}", token(position))
            }
            NodeKind::Token { position, .. } => format!("Token {:?}", token(position)),
            NodeKind::Position { position } => format!("Position {position}"),
            NodeKind::Logit { target } => {
                let weight = graph.targets()[target].weight;
                format!("Output {:?} (p={weight:.3})", prompt.targets[target])
            }
        };
        let mut shown = json!({
            "node_id": place.id,
            "feature": place.feature,
            "layer": place.layer,
            "ctx_idx": place.position,
            "feature_type": place.kind,
            "jsNodeId": place.js,
            "clerp": label,
            "influence": self.cumulative[at],
            "activation": null,
        });
        match node.kind {
            NodeKind::Feature { .. } => shown["activation"] = json!(node.value),
            NodeKind::Logit { target } => {
                shown["token_prob"] = json!(graph.targets()[target].weight);
                shown["is_target_logit"] = json!(target == 0);
            }
            _ => {}
        }
        Some(shown)
    }
}

/// A node as the viewer places it.
struct Place {
    id: String,
    js: String,
    layer: String,
    feature: i64,
    position: usize,
    kind: &'static str,
}

fn place(graph: &AttributionGraph, at: usize) -> Option<Place> {
    let [layers, _] = graph.heads;
    let (layer, index, feature, position, kind) = match graph.nodes()[at].kind {
        NodeKind::Feature {
            layer,
            feature,
            position,
        } => {
            let (x, y) = (layer as i64, feature as i64);
            let paired = (x + y) * (x + y + 1) / 2 + y;
            let layer = layer.to_string();
            let index = feature.to_string();
            (layer, index, paired, position, "cross layer transcoder")
        }
        NodeKind::Error { layer, position } => {
            let layer = layer.to_string();
            (
                layer,
                "-1".to_owned(),
                -1,
                position,
                "mlp reconstruction error",
            )
        }
        NodeKind::Token { position, token } => {
            let layer = "E".to_owned();
            (
                layer,
                token.to_string(),
                position as i64,
                position,
                "embedding",
            )
        }
        NodeKind::Position { position } => {
            let layer = "E".to_owned();
            (
                layer,
                "p".to_owned(),
                position as i64,
                position,
                "embedding",
            )
        }
        NodeKind::Bias => return None,
        NodeKind::Logit { target } => {
            let (token, _) = *graph.targets()[target].tokens.first()?;
            let layer = layers.to_string();
            (
                layer,
                token.to_string(),
                token.into(),
                graph.position,
                "logit",
            )
        }
    };
    Some(Place {
        id: format!("{layer}_{index}_{position}"),
        js: format!("{layer}_{index}-{position}"),
        layer,
        feature,
        position,
        kind,
    })
}
