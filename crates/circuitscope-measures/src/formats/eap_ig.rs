use core::fmt;
use std::path::{Path, PathBuf};

use circuitscope_core::{Circuit, Edge, Graph, Node};
use circuitscope_files::{FileError, read_to_string, write_atomic};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::python_json;
use super::strict::{self, Name, Named, Object};

/// A circuit with scores as EAP-IG writes it and MIB's circuit track takes it (`importances.json`):
/// an object of `cfg`, `nodes` and `edges`.
///
/// - `cfg`: `n_layers`, `n_heads`, `parallel_attn_mlp`, `d_model`;
/// - `nodes`: by name (`input`, `a0.h0`, `m0`, `logits`), each `in_graph` and, where it has one, a
///   `score`; a node without a score is kept in every circuit;
/// - `edges`: by name (`a0.h0->m1`, `input->a0.h0<q>`), each `score` and `in_graph`. Empty for scores
///   of nodes alone, as MIB accepts them.
///
/// # Examples
/// ```
/// use circuitscope_core::Graph;
/// use circuitscope_measures::formats::GraphFile;
///
/// let graph = Graph { n_layers: 1, n_heads: 2, n_key_value_heads: 2, mlps: true, parallel: false };
/// // Heads alone: the input, the MLP and the logits have no score.
/// let file = GraphFile::of_heads(&graph, 8, &[0.5, -2.0], None);
/// let text = file.to_json().to_string();
/// assert!(text.contains(r#""a0.h1":{"in_graph":false,"score":-2.0}"#));
/// assert!(text.contains(r#""m0":{"in_graph":true}"#));
/// assert!(text.ends_with(r#""edges":{}}"#));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GraphFile {
    /// Number of layers.
    pub n_layers: usize,
    /// Heads of each layer.
    pub n_heads: usize,
    /// Whether attention and MLP read the same stream.
    pub parallel_attn_mlp: bool,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Nodes, in forward order.
    pub nodes: Vec<(Node, NodeEntry)>,
    /// Edges, reader by reader in forward order; those into heads carry their port.
    pub edges: Vec<(Edge, EdgeEntry)>,
    /// What was assumed in reading, one sentence each.
    pub notes: Vec<String>,
}

/// What a file says of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct NodeEntry {
    /// Whether the circuit holds it.
    pub in_graph: bool,
    /// Its score, if it has one.
    pub score: Option<f64>,
}

/// What a file says of an edge.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct EdgeEntry {
    /// Its score.
    pub score: f64,
    /// Whether the circuit holds it.
    pub in_graph: bool,
}

/// Scores of a file, on a computation graph.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FileScores {
    /// `[writers]`; 0 for what has no score. `None` if no node has one.
    pub nodes: Option<Vec<f64>>,
    /// `[writers * readers]`. `None` if the file lists no edges.
    pub edges: Option<Vec<f64>>,
}

/// Why a file is not of this form.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// It could not be read or written.
    #[error(transparent)]
    Io(#[from] FileError),

    /// It is no JSON.
    #[error("{}: not JSON: {reason}", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },

    /// A field is missing or wrong.
    #[error("{}: {field}: found {found}, expected {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, such as `nodes.a0.h1.score`.
        field: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
}

impl GraphFile {
    /// Scores of nodes and edges, and which of them a circuit holds.
    ///
    /// Where heads share keys and values, the edge of every head of a group is listed, with the score of
    /// the reader they share. A circuit that names nodes alone holds the edges between them.
    ///
    /// # Shapes
    /// - `nodes`: `[writers]`, in the order of [`Graph::writer`]
    /// - `edges`: `[writers * readers]`
    ///
    /// # Panics
    /// If there is another number of scores.
    #[must_use]
    pub fn of_scores(
        graph: &Graph,
        d_model: usize,
        nodes: Option<&[f64]>,
        edges: Option<&[f64]>,
        circuit: Option<&Circuit>,
    ) -> Self {
        let score_of = |node: Node| Some(nodes?[graph.writer_index(node)?]);
        let mut file = Self::with_nodes(graph, d_model, &score_of, circuit);
        let Some(scores) = edges else { return file };
        assert_eq!(scores.len(), graph.writers() * graph.readers());
        let named = circuit.is_some_and(|circuit| !circuit.edges.is_empty());
        let holds = |edge: &Edge| match circuit {
            None => false,
            Some(circuit) if named => {
                let open = Edge::new(edge.source, edge.destination);
                circuit.edges.contains(edge) || circuit.edges.contains(&open)
            }
            Some(circuit) => [edge.source, edge.destination]
                .iter()
                .all(|node| kept(*node, Some(circuit))),
        };
        for (writer, reader) in graph.edges() {
            let score = scores[writer * graph.readers() + reader];
            for edge in graph.edges_between(writer, reader) {
                let in_graph = holds(&edge);
                file.edges.push((edge, EdgeEntry { score, in_graph }));
            }
        }
        file
    }

    /// Scores of heads alone, in index order; all other nodes are kept.
    ///
    /// # Panics
    /// Unless there is one score for each head.
    #[must_use]
    pub fn of_heads(
        graph: &Graph,
        d_model: usize,
        heads: &[f64],
        circuit: Option<&Circuit>,
    ) -> Self {
        let grid = graph.grid();
        assert_eq!(heads.len(), grid.len(), "one score for each head");
        let score_of = |node: Node| match node {
            Node::Head(head) => grid.index(head).map(|at| heads[at]),
            _ => None,
        };
        Self::with_nodes(graph, d_model, &score_of, circuit)
    }

    fn with_nodes(
        graph: &Graph,
        d_model: usize,
        score_of: &dyn Fn(Node) -> Option<f64>,
        circuit: Option<&Circuit>,
    ) -> Self {
        let writers = (0..graph.writers()).map(|at| graph.writer(at));
        let nodes = writers.chain([Node::Logits]).map(|node| {
            let entry = NodeEntry {
                in_graph: kept(node, circuit),
                score: score_of(node),
            };
            (node, entry)
        });
        Self {
            n_layers: graph.n_layers,
            n_heads: graph.n_heads,
            parallel_attn_mlp: graph.parallel,
            d_model,
            nodes: nodes.collect(),
            edges: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The file's content.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let nodes = self.nodes.iter().map(|(node, entry)| {
            let mut value = json!({ "in_graph": entry.in_graph });
            if let Some(score) = entry.score {
                value["score"] = json!(score);
            }
            (node.to_string(), value)
        });
        let edges = self.edges.iter().map(|(edge, entry)| {
            let value = json!({ "score": entry.score, "in_graph": entry.in_graph });
            (edge.to_string(), value)
        });
        json!({
            "cfg": {
                "n_layers": self.n_layers,
                "n_heads": self.n_heads,
                "parallel_attn_mlp": self.parallel_attn_mlp,
                "d_model": self.d_model,
            },
            "nodes": nodes.collect::<Map<String, Value>>(),
            "edges": edges.collect::<Map<String, Value>>(),
        })
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), FormatError> {
        let text = self.to_json().to_string();
        Ok(write_atomic(path, |out| out.write_all(text.as_bytes()))?)
    }

    /// Reads a file that this or another tool wrote. Keys beside those of the form (`neurons`,
    /// `neurons_scores`) are left out. Older files say of a node only whether it is in the circuit, as a
    /// bare boolean: such nodes have no score. `NaN` and `null` are no score either (an edge without one
    /// scores 0), `Infinity` and `-Infinity` are scores.
    ///
    /// # Errors
    /// [`FormatError`], which names the file and the field.
    pub fn read(path: &Path) -> Result<Self, FormatError> {
        let text = read_to_string(path)?;
        let value = python_json::parse(&text).map_err(|error| FormatError::NotJson {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let parts = ["cfg", "nodes", "edges"];
        if !parts.iter().any(|name| value.get(name).is_some()) {
            return Err(FormatError::Field {
                path: path.to_owned(),
                field: "the file".to_owned(),
                found: circuitscope_files::shown(&value),
                expected: "an object of `cfg`, `nodes` and `edges`, as EAP-IG writes".to_owned(),
            });
        }
        let Content { cfg, nodes, edges } = strict::read(path, &value)?;
        let cfg = cfg.0;
        let nodes: Vec<(Node, NodeEntry)> = nodes.0;
        let unscored = edges.0.iter().filter(|(_, entry)| entry.0.score.is_none());
        let unscored = unscored.count();
        let edges = edges.0.into_iter().map(|(edge, entry)| {
            let EdgeForm { score, in_graph } = entry.0;
            let score = score.unwrap_or_default();
            (edge, EdgeEntry { score, in_graph })
        });
        let edges: Vec<(Edge, EdgeEntry)> = edges.collect();
        let scores = nodes.iter().filter_map(|(_, entry)| entry.score);
        let scores = scores.chain(edges.iter().map(|(_, entry)| entry.score));
        let infinite = scores.filter(|score| score.is_infinite()).count();
        let mut notes = Vec::new();
        if unscored > 0 {
            notes.push(format!("edges without a score count 0: {unscored}"));
        }
        if infinite > 0 {
            notes.push(format!(
                "infinite scores count as beyond every finite one: {infinite}"
            ));
        }
        Ok(Self {
            n_layers: cfg.n_layers,
            n_heads: cfg.n_heads,
            parallel_attn_mlp: cfg.parallel_attn_mlp,
            d_model: cfg.d_model,
            nodes,
            edges,
            notes,
        })
    }
}

impl GraphFile {
    /// The scores that the file at `path` holds for a model of this graph.
    ///
    /// Edges that are not listed score 0. Where heads share keys and values, their reader scores the
    /// mean of the edges listed for it. Infinite scores become twice the largest finite one, and at least
    /// 1.
    ///
    /// # Errors
    /// [`FormatError::Field`] if the file is of a model of another shape, names a node that the model
    /// does not have, gives scores to some heads and not to others, or has no scores at all.
    pub fn scores(&self, path: &Path, graph: &Graph) -> Result<FileScores, FormatError> {
        let wrong = |field: String, found: String, expected: String| FormatError::Field {
            path: path.to_owned(),
            field,
            found,
            expected,
        };
        for (field, found, expected) in [
            ("cfg.n_layers", self.n_layers, graph.n_layers),
            ("cfg.n_heads", self.n_heads, graph.n_heads),
        ] {
            if found != expected {
                let expected = format!("{expected}, as the model has");
                return Err(wrong(field.to_owned(), found.to_string(), expected));
            }
        }
        let unknown = |place: &str, name: String| {
            let expected = "nodes and edges of the model".to_owned();
            wrong(place.to_owned(), name, expected)
        };
        let all = self.nodes.iter().filter_map(|(_, entry)| entry.score);
        let all = all.chain(self.edges.iter().map(|(_, entry)| entry.score));
        let finite = all.filter(|score| score.is_finite()).map(f64::abs);
        let beyond = (2.0 * finite.fold(0.0, f64::max)).max(1.0);
        let finite = |score: f64| score.clamp(-beyond, beyond);
        let mut nodes = vec![None; graph.writers()];
        for (node, entry) in self.nodes.iter().filter(|(node, _)| *node != Node::Logits) {
            let at = graph.writer_index(*node);
            let at = at.ok_or_else(|| unknown("nodes", node.to_string()))?;
            nodes[at] = entry.score.map(finite);
        }
        let of_nodes = nodes.iter().any(Option::is_some);
        let heads = (0..graph.n_layers).flat_map(|layer| graph.head_writers(layer));
        if let Some(head) = heads
            .into_iter()
            .find(|head| of_nodes && nodes[*head].is_none())
        {
            let field = format!("nodes.{}", graph.writer(head));
            let expected = "a score, as other nodes have".to_owned();
            return Err(wrong(field, "no score".to_owned(), expected));
        }
        let mut edges = vec![(0.0, 0.0); graph.writers() * graph.readers()];
        for (edge, entry) in &self.edges {
            let [(writer, reader)] = graph.edge_indices(*edge)[..] else {
                return Err(unknown("edges", edge.to_string()));
            };
            let (sum, count) = &mut edges[writer * graph.readers() + reader];
            *sum += finite(entry.score);
            *count += 1.0;
        }
        if !of_nodes && self.edges.is_empty() {
            let expected = "scores of nodes or edges".to_owned();
            return Err(wrong("nodes".to_owned(), "no score".to_owned(), expected));
        }
        let mean = |(sum, count): (f64, f64)| if count > 0.0 { sum / count } else { 0.0 };
        Ok(FileScores {
            nodes: of_nodes.then(|| nodes.into_iter().map(Option::unwrap_or_default).collect()),
            edges: (!self.edges.is_empty()).then(|| edges.into_iter().map(mean).collect()),
        })
    }
}

/// Everything but heads is kept; a head is where the circuit holds it.
fn kept(node: Node, circuit: Option<&Circuit>) -> bool {
    match node {
        Node::Head(_) => circuit.is_some_and(|circuit| circuit.nodes.contains(&node)),
        _ => true,
    }
}

/// What a file holds.
#[derive(Deserialize)]
struct Content {
    cfg: Object<Cfg>,
    nodes: Named<Node, NodeEntry>,
    edges: Named<Edge, Object<EdgeForm>>,
}

#[derive(Deserialize)]
struct Cfg {
    n_layers: usize,
    n_heads: usize,
    parallel_attn_mlp: bool,
    d_model: usize,
}

#[derive(Deserialize)]
struct NodeForm {
    #[serde(default, deserialize_with = "strict::score")]
    score: Option<f64>,
    in_graph: bool,
}

#[derive(Deserialize)]
struct EdgeForm {
    #[serde(deserialize_with = "strict::score")]
    score: Option<f64>,
    in_graph: bool,
}

impl Name for Node {
    const FORM: &'static str = "`input`, `a0.h0`, `m0` or `logits`";
}

impl Name for Edge {
    const FORM: &'static str = "a name like `a0.h0->a1.h1<q>`";

    fn lacks(&self, name: &str) -> Option<String> {
        let open = matches!(self.destination, Node::Head(_)) && self.port.is_none();
        open.then(|| format!("a port, such as `{name}<q>`"))
    }
}

impl<'de> Deserialize<'de> for NodeEntry {
    /// An object, or whether the circuit holds the node.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = NodeEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_bool<E>(self, in_graph: bool) -> Result<NodeEntry, E> {
                let score = None;
                Ok(NodeEntry { in_graph, score })
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<NodeEntry, M::Error> {
                let entry = NodeForm::deserialize(MapAccessDeserializer::new(map))?;
                let NodeForm { score, in_graph } = entry;
                Ok(NodeEntry { in_graph, score })
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

#[cfg(test)]
mod tests;
