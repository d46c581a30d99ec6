use std::path::Path;

use circuitscope_core::{Graph, HeadGrid, HeadId, Node};
use circuitscope_files::write_atomic;
use serde_json::{Value, json};

use super::FormatError;
use crate::GraphScores;

/// Links that are shown: those of the largest weight.
const LINKS: usize = 400;

/// Writer, reader and weight.
type Link = (Node, Node, f64);

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
    pub links: Vec<Link>,
}

impl ViewerGraph {
    /// Puts in a circuit with what joins it: all of its heads, the 400 strongest links among them and everything that
    /// is no head, and what those links join.
    ///
    /// Links are edges of `scores` (of several ports the strongest) or, without, the `pairs` of heads.
    ///
    /// # Shapes
    /// - `heads`: one score for each head, in index order
    /// - `pairs`: `[heads, heads]`, writer by reader
    #[must_use]
    pub fn with_circuit(
        mut self,
        graph: &Graph,
        circuit: &[HeadId],
        heads: &[f64],
        scores: Option<&GraphScores>,
        pairs: Option<&[f64]>,
    ) -> Self {
        let grid = graph.grid();
        let mut links = match (scores, pairs) {
            (Some(scores), _) => of_graph(scores, circuit),
            (None, Some(pairs)) => of_pairs(pairs, grid, circuit),
            (None, None) => Vec::new(),
        };
        links.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
        links.truncate(LINKS);
        let shown = |node: &Node| {
            let in_circuit = matches!(node, Node::Head(head) if circuit.contains(head));
            in_circuit || links.iter().any(|link| link.0 == *node || link.1 == *node)
        };
        let score = |node: Node| match node {
            Node::Head(head) => heads.get(grid.index(head)?).copied(),
            _ => None,
        };
        let writers = (0..graph.writers()).map(|at| graph.writer(at));
        let nodes = writers.chain([Node::Logits]).filter(shown);
        self.nodes = nodes.map(|node| (node, score(node))).collect();
        self.links = links;
        self
    }

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

/// Edges between heads of the circuit and everything that is no head; of several ports the strongest.
fn of_graph(scores: &GraphScores, circuit: &[HeadId]) -> Vec<Link> {
    let graph = scores.graph;
    let shown = |node: Node| match node {
        Node::Head(head) => circuit.contains(&head),
        _ => true,
    };
    let mut links: Vec<Link> = Vec::new();
    for (writer, reader) in graph.edges() {
        let weight = scores.edge(writer, reader).unwrap_or_default();
        let source = graph.writer(writer);
        if weight == 0.0 || !shown(source) {
            continue;
        }
        for edge in graph.edges_between(writer, reader) {
            let target = edge.destination;
            if !shown(target) {
                continue;
            }
            let same = |link: &&mut Link| link.0 == source && link.1 == target;
            match links.iter_mut().find(same) {
                Some(link) if link.2.abs() < weight.abs() => link.2 = weight,
                Some(_) => {}
                None => links.push((source, target, weight)),
            }
        }
    }
    links
}

/// Pairs of heads of the circuit.
fn of_pairs(pairs: &[f64], grid: HeadGrid, circuit: &[HeadId]) -> Vec<Link> {
    let mut links = Vec::new();
    for &source in circuit {
        for &target in circuit {
            if let (Some(from), Some(to)) = (grid.index(source), grid.index(target)) {
                let weight = pairs.get(from * grid.len() + to).copied();
                let weight = weight.filter(|weight| *weight != 0.0);
                links.extend(weight.map(|weight| (source.into(), target.into(), weight)));
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn links_join_the_circuit_and_what_is_no_head() {
        let graph = Graph {
            n_layers: 2,
            n_heads: 2,
            n_key_value_heads: 2,
            mlps: false,
            parallel: false,
        };
        let circuit = [HeadId::new(0, 1), HeadId::new(1, 0)];
        let mut edges = vec![0.0; graph.writers() * graph.readers()];
        let mut set = |writer: usize, reader: usize, score: f64| {
            edges[writer * graph.readers() + reader] = score;
        };
        let from = graph.head_writer(circuit[0]);
        set(
            from,
            graph.port_reader(circuit[1], circuitscope_core::Port::Q),
            0.5,
        );
        set(
            from,
            graph.port_reader(circuit[1], circuitscope_core::Port::V),
            -2.0,
        );
        set(graph.head_writer(HeadId::new(0, 0)), graph.logits(), 9.0);
        set(graph.head_writer(circuit[1]), graph.logits(), 1.0);
        let scores = GraphScores {
            graph,
            nodes: None,
            edges: Some(edges),
        };
        let empty = ViewerGraph {
            slug: String::new(),
            scan: String::new(),
            description: String::new(),
            prompt: String::new(),
            prompt_tokens: Vec::new(),
            output: None,
            nodes: Vec::new(),
            links: Vec::new(),
        };
        let heads = [0.1, 0.2, 0.3, 0.4];
        let shown = empty
            .clone()
            .with_circuit(&graph, &circuit, &heads, Some(&scores), None);
        let [first, second] = circuit.map(Node::Head);
        assert_eq!(
            shown.links,
            [(first, second, -2.0), (second, Node::Logits, 1.0)]
        );
        assert_eq!(
            shown.nodes,
            [
                (first, Some(0.2)),
                (second, Some(0.3)),
                (Node::Logits, None)
            ]
        );

        let mut pairs = vec![0.0; 16];
        pairs[4 + 2] = 3.0;
        pairs[2] = 9.0;
        let shown = empty.with_circuit(&graph, &circuit, &heads, None, Some(&pairs));
        assert_eq!(shown.links, [(first, second, 3.0)]);
        assert_eq!(shown.nodes.len(), 2);
    }
}
