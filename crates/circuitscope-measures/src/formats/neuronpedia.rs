use std::path::Path;

use circuitscope_core::{Graph, Node};
use circuitscope_files::write_atomic;
use serde_json::{Value, json};

use super::FormatError;

/// A circuit as an attribution graph that Neuronpedia shows: the JSON of
/// `apps/webapp/app/api/graph/graph-schema.json` in `hijohnnylin/neuronpedia`, which Anthropic's
/// viewer reads as well.
///
/// Such graphs have a node for each feature at each token; here a node stands for a whole head or MLP,
/// so all sit at the last token of one example prompt. Heads are of the type `lorsa` (the viewer's name
/// for attention), MLPs of `mlp reconstruction error`.
///
/// # Examples
/// ```
/// use circuitscope_measures::formats::ViewerGraph;
/// use circuitscope_core::{Graph, HeadId, Node};
///
/// let graph = Graph { n_layers: 2, n_heads: 2, n_key_value_heads: 2, mlps: true, parallel: false };
/// let head = Node::Head(HeadId::new(1, 0));
/// let shown = ViewerGraph {
///     slug: "ioi-eap".to_owned(),
///     scan: "gpt2-small".to_owned(),
///     description: "edge attribution patching".to_owned(),
///     prompt: "Mary and John".to_owned(),
///     prompt_tokens: vec!["Mary".to_owned(), " and".to_owned(), " John".to_owned()],
///     output: Some((" went".to_owned(), 0.25)),
///     nodes: vec![(Node::Input, None), (head, Some(0.5)), (Node::Logits, None)],
///     links: vec![(Node::Input, head, 0.5), (head, Node::Logits, -1.0)],
/// };
/// let json = shown.to_json(&graph);
/// assert_eq!(json["nodes"][1]["node_id"], "1_0_2");
/// assert_eq!(json["nodes"][2]["clerp"], "Output \" went\" (p=0.250)");
/// assert_eq!(json["links"][1]["weight"], -1.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ViewerGraph {
    /// Name of the graph in addresses: letters, digits and dashes.
    pub slug: String,
    /// The model, by the viewer's name for it.
    pub scan: String,
    /// What the graph shows.
    pub description: String,
    /// One prompt that shows the behaviour.
    pub prompt: String,
    /// Its tokens as text.
    pub prompt_tokens: Vec<String>,
    /// The most likely next token of that prompt and its probability, where known.
    pub output: Option<(String, f64)>,
    /// Nodes to show, with their scores.
    pub nodes: Vec<(Node, Option<f64>)>,
    /// Writer, reader and weight; both must be among the nodes.
    pub links: Vec<(Node, Node, f64)>,
}

impl ViewerGraph {
    /// The file's content.
    #[must_use]
    pub fn to_json(&self, graph: &Graph) -> Value {
        let last = self.prompt_tokens.len().saturating_sub(1);
        let place = |node: Node| -> (String, usize) {
            match node {
                Node::Input => ("E".to_owned(), 0),
                Node::Head(head) => (head.layer.to_string(), head.head),
                Node::Mlp(layer) => (layer.to_string(), graph.n_heads),
                Node::Logits => (graph.n_layers.to_string(), 0),
            }
        };
        let id = |node: Node| {
            let (layer, feature) = place(node);
            format!("{layer}_{feature}_{last}")
        };
        let nodes = self.nodes.iter().map(|&(node, score)| {
            let (layer, feature) = place(node);
            let kind = match node {
                Node::Input => "embedding",
                Node::Head(_) => "lorsa",
                Node::Mlp(_) => "mlp reconstruction error",
                Node::Logits => "logit",
            };
            let label = match (node, &self.output, score) {
                (Node::Logits, Some((token, p)), _) => format!("Output {token:?} (p={p:.3})"),
                (_, _, Some(score)) => format!("{node}, score {score:.4}"),
                _ => node.to_string(),
            };
            json!({
                "node_id": id(node),
                "feature": feature,
                "layer": layer,
                "ctx_idx": last,
                "feature_type": kind,
                "jsNodeId": format!("{layer}_{feature}-{last}"),
                "clerp": label,
                "activation": score,
            })
        });
        let links = self.links.iter().map(|&(writer, reader, weight)| {
            json!({ "source": id(writer), "target": id(reader), "weight": weight })
        });
        json!({
            "metadata": {
                "slug": self.slug,
                "scan": self.scan,
                "prompt": self.prompt,
                "prompt_tokens": self.prompt_tokens,
                "info": {
                    "description": self.description,
                    "generator": {
                        "name": "circuitscope",
                        "version": env!("CARGO_PKG_VERSION"),
                    },
                },
            },
            "qParams": { "pinnedIds": [], "supernodes": [], "linkType": "both" },
            "nodes": nodes.collect::<Vec<_>>(),
            "links": links.collect::<Vec<_>>(),
        })
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn write(&self, graph: &Graph, path: &Path) -> Result<(), FormatError> {
        let text = self.to_json(graph).to_string();
        Ok(write_atomic(path, |out| out.write_all(text.as_bytes()))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use circuitscope_core::HeadId;

    /// The fields that the published schema requires, with their types; numbers may be integers.
    const REQUIRED: [(&str, &[(&str, &str)]); 4] = [
        (
            "/metadata",
            &[
                ("slug", "string"),
                ("scan", "string"),
                ("prompt_tokens", "array"),
                ("prompt", "string"),
            ],
        ),
        ("/qParams", &[]),
        (
            "/nodes",
            &[
                ("node_id", "string"),
                ("feature", "integer"),
                ("layer", "string"),
                ("ctx_idx", "integer"),
                ("feature_type", "string"),
                ("jsNodeId", "string"),
                ("clerp", "string"),
            ],
        ),
        (
            "/links",
            &[
                ("source", "string"),
                ("target", "string"),
                ("weight", "number"),
            ],
        ),
    ];

    fn is(value: &Value, kind: &str) -> bool {
        match kind {
            "string" => value.is_string(),
            "integer" => value.is_u64(),
            "number" => value.is_number(),
            _ => value.is_array(),
        }
    }

    #[test]
    fn fields_that_the_schema_requires() {
        let graph = Graph {
            n_layers: 2,
            n_heads: 2,
            n_key_value_heads: 1,
            mlps: true,
            parallel: false,
        };
        let head = Node::Head(HeadId::new(1, 1));
        let shown = ViewerGraph {
            slug: "s".to_owned(),
            scan: "m".to_owned(),
            description: String::new(),
            prompt: "a \"b\"".to_owned(),
            prompt_tokens: vec!["a".to_owned(), " \"b\"".to_owned()],
            output: None,
            nodes: vec![
                (Node::Input, None),
                (head, Some(1.0)),
                (Node::Mlp(1), None),
                (Node::Logits, None),
            ],
            links: vec![(Node::Input, head, 1.0), (head, Node::Mlp(1), 2.0)],
        };
        let json = shown.to_json(&graph);
        for (place, fields) in REQUIRED {
            let part = json.pointer(place).unwrap();
            let all = part.as_array().cloned().unwrap_or(vec![part.clone()]);
            assert!(!all.is_empty());
            for (entry, (field, kind)) in
                all.iter().flat_map(|e| fields.iter().map(move |f| (e, f)))
            {
                assert!(is(&entry[field], kind), "{place}: {field} of {entry}");
            }
        }
        // Every end of a link is a node, and ids are told apart.
        let nodes = json["nodes"].as_array().unwrap();
        let ids: std::collections::BTreeSet<&str> = nodes
            .iter()
            .map(|node| node["node_id"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), nodes.len());
        for link in json["links"].as_array().unwrap() {
            for end in ["source", "target"] {
                assert!(ids.contains(link[end].as_str().unwrap()), "{link}");
            }
        }
    }
}
