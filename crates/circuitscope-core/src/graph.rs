use core::ops::Range;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Edge, HeadGrid, HeadId, Node, Port};

/// The computation graph of a decoder: who writes to the residual stream, and who reads it.
///
/// Every reader sees the sum of all earlier writers, so an edge is a pair (writer, reader) and the
/// edges into one reader are a prefix of the writers in forward order (Elhage et al. 2021, *A
/// mathematical framework for transformer circuits*; edges as in ACDC, arXiv 2304.14997, and EAP,
/// arXiv 2310.10348).
///
/// - Writers: [`Node::Input`] (token plus position embedding), then layer by layer the heads and the
///   MLP.
/// - Readers: layer by layer the q inputs of all heads, their k inputs, their v inputs and the MLP's
///   input; [`Node::Logits`] last.
///
/// # Grouped queries
/// Where query heads share keys and values, the group has one k and one v reader. It carries the name
/// of the group's first head; [`Graph::edges_between`] names the edge of every head of the group.
///
/// # Examples
/// ```
/// use circuitscope_core::{Graph, HeadId, Node};
///
/// // The edge counts of the literature are those of this graph: GPT-2 small has 32,491.
/// let gpt2 = Graph { n_layers: 12, n_heads: 12, n_key_value_heads: 12, mlps: true, parallel: false };
/// assert_eq!((gpt2.writers(), gpt2.readers()), (157, 445));
/// assert_eq!(gpt2.n_edges(), 32_491);
///
/// // Two layers of one head without MLPs.
/// let tiny = Graph { n_layers: 2, n_heads: 1, n_key_value_heads: 1, mlps: false, parallel: false };
/// let into_logits: Vec<_> = (0..tiny.visible(tiny.logits())).map(|w| tiny.writer(w)).collect();
/// assert_eq!(into_logits, [Node::Input, HeadId::new(0, 0).into(), HeadId::new(1, 0).into()]);
/// let edge = tiny.edges_between(1, 4).remove(0);
/// assert_eq!(edge.to_string(), "a0.h0->a1.h0<k>");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct Graph {
    /// Number of layers.
    pub n_layers: usize,
    /// Heads of each layer.
    pub n_heads: usize,
    /// Key/value heads of each layer; divides `n_heads`.
    pub n_key_value_heads: usize,
    /// Whether layers have an MLP.
    pub mlps: bool,
    /// Whether a layer's MLP reads the stream before its attention has written.
    pub parallel: bool,
}

impl Serialize for Graph {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Graph {
    /// Refuses what is no graph ([`Graph::check`]).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let graph = Self::deserialize(deserializer)?;
        graph.check().map_err(D::Error::custom)?;
        Ok(graph)
    }
}

impl Graph {
    /// Whether it is the graph of a model at all: what other functions rely on.
    ///
    /// # Errors
    /// The field that is wrong, what was found and what was expected.
    ///
    /// ```
    /// use circuitscope_core::Graph;
    ///
    /// let graph = Graph { n_layers: 2, n_heads: 4, n_key_value_heads: 3, mlps: true, parallel: false };
    /// let error = "n_key_value_heads: found 3, expected a divisor of the 4 heads";
    /// assert_eq!(graph.check().unwrap_err(), error);
    /// let text = serde_json::json!({"n_layers": 2, "n_heads": 4, "n_key_value_heads": 0, "mlps": true, "parallel": false});
    /// assert!(serde_json::from_value::<Graph>(text).is_err());
    /// ```
    pub fn check(&self) -> Result<(), String> {
        for (name, found) in [("n_layers", self.n_layers), ("n_heads", self.n_heads)] {
            if found == 0 {
                return Err(format!("{name}: found 0, expected at least 1"));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_key_value_heads) {
            return Err(format!(
                "n_key_value_heads: found {}, expected a divisor of the {} heads",
                self.n_key_value_heads, self.n_heads
            ));
        }
        // Three readers a head and one for the MLP.
        let readers = self.n_heads.checked_mul(3).and_then(|n| n.checked_add(1));
        let readers = readers.and_then(|n| n.checked_mul(self.n_layers));
        match readers.and_then(|n| n.checked_add(1)) {
            Some(_) => Ok(()),
            None => Err(format!(
                "n_heads: found {} in {} layers, expected a number of heads",
                self.n_heads, self.n_layers
            )),
        }
    }

    /// Heads as a grid.
    #[must_use]
    pub const fn grid(&self) -> HeadGrid {
        HeadGrid::new(self.n_layers, self.n_heads)
    }

    /// Writers of one layer.
    const fn layer_writers(&self) -> usize {
        self.n_heads + self.mlps as usize
    }

    /// Readers of one layer.
    const fn layer_readers(&self) -> usize {
        self.n_heads + 2 * self.n_key_value_heads + self.mlps as usize
    }

    /// Number of writers.
    #[must_use]
    pub const fn writers(&self) -> usize {
        1 + self.n_layers * self.layer_writers()
    }

    /// Number of readers.
    #[must_use]
    pub const fn readers(&self) -> usize {
        self.n_layers * self.layer_readers() + 1
    }

    /// The writer of index `at`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn writer(&self, at: usize) -> Node {
        assert!(at < self.writers(), "writer {at} of {}", self.writers());
        let Some(at) = at.checked_sub(1) else {
            return Node::Input;
        };
        let (layer, within) = (at / self.layer_writers(), at % self.layer_writers());
        if within < self.n_heads {
            Node::Head(HeadId::new(layer, within))
        } else {
            Node::Mlp(layer)
        }
    }

    /// Index of a writer; `None` for logits and for nodes the model does not have.
    #[must_use]
    pub fn writer_index(&self, node: Node) -> Option<usize> {
        let in_layer = |layer: usize, within: usize| {
            (layer < self.n_layers).then(|| 1 + layer * self.layer_writers() + within)
        };
        match node {
            Node::Input => Some(0),
            Node::Head(head) if head.head < self.n_heads => in_layer(head.layer, head.head),
            Node::Mlp(layer) if self.mlps => in_layer(layer, self.n_heads),
            _ => None,
        }
    }

    /// Indices of the heads of a layer among the writers.
    #[must_use]
    pub const fn head_writers(&self, layer: usize) -> Range<usize> {
        let start = 1 + layer * self.layer_writers();
        start..start + self.n_heads
    }

    /// Index of a head among the writers.
    ///
    /// The head must be one of the model's.
    #[must_use]
    pub const fn head_writer(&self, head: HeadId) -> usize {
        self.head_writers(head.layer).start + head.head
    }

    /// Index of the MLP of a layer among the writers, in a model that has MLPs.
    #[must_use]
    pub const fn mlp_writer(&self, layer: usize) -> usize {
        self.head_writers(layer).end
    }

    /// Indices of the readers of one port of a layer: one for each head, or key/value head.
    #[must_use]
    pub const fn port_readers(&self, layer: usize, port: Port) -> Range<usize> {
        let start = layer * self.layer_readers();
        let (heads, shared) = (self.n_heads, self.n_key_value_heads);
        match port {
            Port::Q => start..start + heads,
            Port::K => start + heads..start + heads + shared,
            Port::V => start + heads + shared..start + heads + 2 * shared,
        }
    }

    /// Index of the reader that is the MLP of a layer.
    ///
    /// # Panics
    /// If the model has no MLPs.
    #[must_use]
    pub fn mlp_reader(&self, layer: usize) -> usize {
        assert!(self.mlps, "the model has no MLPs");
        (layer + 1) * self.layer_readers() - 1
    }

    /// Index of the reader that is the unembedding.
    #[must_use]
    pub const fn logits(&self) -> usize {
        self.readers() - 1
    }

    /// The reader of index `at`: a node, and the port where it is a head.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn reader(&self, at: usize) -> (Node, Option<Port>) {
        assert!(at < self.readers(), "reader {at} of {}", self.readers());
        if at == self.logits() {
            return (Node::Logits, None);
        }
        let layer = at / self.layer_readers();
        let group = self.n_heads / self.n_key_value_heads;
        for port in Port::ALL {
            let readers = self.port_readers(layer, port);
            if readers.contains(&at) {
                let each = if port == Port::Q { 1 } else { group };
                let head = HeadId::new(layer, (at - readers.start) * each);
                return (head.into(), Some(port));
            }
        }
        (Node::Mlp(layer), None)
    }

    /// The readers of a node: three ports of a head, of which k and v may be shared; one of an MLP or
    /// the logits; none of the input.
    #[must_use]
    pub fn readers_of(&self, node: Node) -> Vec<usize> {
        match node {
            Node::Input => Vec::new(),
            Node::Mlp(layer) => vec![self.mlp_reader(layer)],
            Node::Logits => vec![self.logits()],
            Node::Head(head) => Port::ALL
                .into_iter()
                .map(|port| self.port_reader(head, port))
                .collect(),
        }
    }

    /// Index of the reader that is one port of a head.
    #[must_use]
    pub const fn port_reader(&self, head: HeadId, port: Port) -> usize {
        let group = match port {
            Port::Q => 1,
            Port::K | Port::V => self.n_heads / self.n_key_value_heads,
        };
        self.port_readers(head.layer, port).start + head.head / group
    }

    /// How many writers a reader sees: the writers `0..visible(reader)`.
    #[must_use]
    pub fn visible(&self, reader: usize) -> usize {
        if reader == self.logits() {
            return self.writers();
        }
        let layer = reader / self.layer_readers();
        let before = 1 + layer * self.layer_writers();
        let is_mlp = self.mlps && reader == self.mlp_reader(layer);
        if is_mlp && !self.parallel {
            before + self.n_heads
        } else {
            before
        }
    }

    /// Number of (writer, reader) pairs of which the reader sees the writer.
    #[must_use]
    pub fn n_edges(&self) -> usize {
        (0..self.readers()).map(|reader| self.visible(reader)).sum()
    }

    /// All edges as (writer, reader), reader by reader in forward order.
    pub fn edges(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.readers())
            .flat_map(|reader| (0..self.visible(reader)).map(move |writer| (writer, reader)))
    }

    /// The name of an edge; several where heads share a reader.
    ///
    /// # Panics
    /// If there is no such writer or reader.
    #[must_use]
    pub fn edges_between(&self, writer: usize, reader: usize) -> Vec<Edge> {
        let source = self.writer(writer);
        match self.reader(reader) {
            (Node::Head(head), Some(port)) => {
                let group = match port {
                    Port::Q => 1,
                    Port::K | Port::V => self.n_heads / self.n_key_value_heads,
                };
                (head.head..head.head + group)
                    .map(|within| Edge::into_port(source, HeadId::new(head.layer, within), port))
                    .collect()
            }
            (node, _) => vec![Edge::new(source, node)],
        }
    }

    /// The (writer, reader) pairs that an edge stands for: three where it leaves the port of a head
    /// open, none if the model has no such nodes or the reader comes first.
    #[must_use]
    pub fn edge_indices(&self, edge: Edge) -> Vec<(usize, usize)> {
        let fits = |node: Node| match node {
            Node::Input | Node::Logits => true,
            _ => self.writer_index(node).is_some(),
        };
        let Some(writer) = self.writer_index(edge.source) else {
            return Vec::new();
        };
        if !fits(edge.destination) {
            return Vec::new();
        }
        let readers = match (edge.destination, edge.port) {
            (Node::Head(head), Some(port)) => vec![self.port_reader(head, port)],
            (node, _) => self.readers_of(node),
        };
        readers
            .into_iter()
            .filter(|&reader| writer < self.visible(reader))
            .map(|reader| (writer, reader))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graphs() -> Vec<Graph> {
        let mut graphs = Vec::new();
        for (n_heads, n_key_value_heads) in [(4, 4), (4, 2), (3, 1)] {
            for (mlps, parallel) in [(true, false), (true, true), (false, false)] {
                graphs.push(Graph {
                    n_layers: 3,
                    n_heads,
                    n_key_value_heads,
                    mlps,
                    parallel,
                });
            }
        }
        graphs
    }

    #[test]
    fn indices_and_nodes_are_inverse() {
        for graph in graphs() {
            for at in 0..graph.writers() {
                assert_eq!(graph.writer_index(graph.writer(at)), Some(at));
            }
            for at in 0..graph.readers() {
                let (node, port) = graph.reader(at);
                let readers = graph.readers_of(node);
                assert!(readers.contains(&at), "{node} {port:?}");
                if let (Node::Head(head), Some(port)) = (node, port) {
                    assert_eq!(graph.port_reader(head, port), at);
                }
            }
            assert_eq!(graph.writer_index(Node::Logits), None);
            assert_eq!(graph.writer_index(Node::Mlp(3)), None);
            assert_eq!(graph.writer_index(HeadId::new(0, 4).into()), None);
        }
    }

    #[test]
    fn edges_go_forward_and_are_named_once() {
        for graph in graphs() {
            let mut named = std::collections::BTreeSet::new();
            for (writer, reader) in graph.edges() {
                for edge in graph.edges_between(writer, reader) {
                    let parallel_pair = graph.parallel
                        && matches!((edge.source, edge.destination),
                            (Node::Head(head), Node::Mlp(layer)) if head.layer == layer);
                    assert!(edge.source.precedes(edge.destination) && !parallel_pair);
                    assert_eq!(graph.edge_indices(edge), [(writer, reader)]);
                    assert!(named.insert(edge), "{edge} twice");
                }
            }
            assert_eq!(graph.edges().count(), graph.n_edges());
            let both_heads = |edge: &&Edge| edge.head_pair().is_some();
            let per_pair = named.iter().filter(both_heads).count();
            let heads = graph.n_heads;
            assert_eq!(
                per_pair,
                3 * (heads * heads) * 3,
                "3 ports of 3 layer pairs"
            );
        }
    }

    #[test]
    fn an_open_port_means_all_three() {
        let graph = graphs()[0];
        let edge = Edge::new(HeadId::new(0, 1), HeadId::new(2, 3));
        assert_eq!(graph.edge_indices(edge).len(), 3);
        let backwards = Edge::new(HeadId::new(1, 1), HeadId::new(0, 3));
        assert!(graph.edge_indices(backwards).is_empty());
    }
}
