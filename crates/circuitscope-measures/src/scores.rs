use circuitscope_core::{Graph, HeadGrid, HeadId, Port};
use serde::{Deserialize, Serialize};

/// What a method says of a model's heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Shape of the model.
    pub grid: HeadGrid,
    /// One score for each head, in index order.
    pub nodes: Vec<f64>,
    /// `[heads, heads]`, row = writer, column = reader: a score for each pair of heads of which the
    /// first sits in an earlier layer; other entries are 0 and never judged.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub edges: Option<Vec<f64>>,
    /// The head-level count that the authors' code calls an edge score, one for each head.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paper_edge_head_counts: Option<Vec<u32>>,
    /// What the dictionary did, for methods that have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dictionary: Option<DictionaryReport>,
    /// Signed scores on the whole computation graph, for methods that have them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub graph: Option<GraphScores>,
    /// What the scores of method `recommended` are made of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub contrast: Option<ContrastScores>,
}

/// How much of what the model's predictions after the two prompts of a pair are apart a head carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContrastScores {
    /// Jeffreys divergence between the predictions after the two prompts of a pair, in nats, mean over
    /// pairs.
    pub total: f64,
    /// For each head, mean size of its effect where its output on the negative prompt takes its place, in
    /// nats: what it does differently on the two prompts.
    pub differs: Vec<f64>,
    /// The same where its mean output takes its place: what it does on either prompt, too.
    pub used: Vec<f64>,
}

/// Signed scores of the nodes and edges of a computation graph, MLPs and ports included.
///
/// Positive means that the node or edge raises the metric. Causal methods have them; what a
/// [`Scores`] ranks heads and pairs by is made of them by [`Scores::of_graph`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphScores {
    /// The graph.
    pub graph: Graph,
    /// One score for each writer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nodes: Option<Vec<f64>>,
    /// `[writers, readers]`; 0 where the reader does not see the writer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub edges: Option<Vec<f64>>,
}

impl GraphScores {
    /// One score with its sign for each head, in index order: that of its node or, where only edges are scored, of
    /// the largest of its outgoing edges; below 0 for a head that works against the behaviour.
    #[must_use]
    pub fn signed_heads(&self) -> Vec<f64> {
        let graph = self.graph;
        let largest = |writer: usize| {
            let edges = (0..graph.readers()).filter_map(|reader| self.edge(writer, reader));
            edges.fold(
                0.0f64,
                |best, edge| {
                    if edge.abs() > best.abs() { edge } else { best }
                },
            )
        };
        let score = |writer: usize| match &self.nodes {
            Some(nodes) => nodes[writer],
            None => largest(writer),
        };
        let heads = graph.grid().heads();
        heads.map(|head| score(graph.head_writer(head))).collect()
    }

    /// The score of an edge; `None` without edge scores.
    #[must_use]
    pub fn edge(&self, writer: usize, reader: usize) -> Option<f64> {
        let edges = self.edges.as_ref()?;
        edges.get(writer * self.graph.readers() + reader).copied()
    }
}

impl Scores {
    /// Scores of heads alone.
    ///
    /// # Panics
    /// Unless there is one score for each head.
    #[must_use]
    pub fn of_nodes(grid: HeadGrid, nodes: Vec<f64>) -> Self {
        assert_eq!(nodes.len(), grid.len(), "one score for each head");
        Self {
            grid,
            nodes,
            edges: None,
            paper_edge_head_counts: None,
            dictionary: None,
            graph: None,
            contrast: None,
        }
    }

    /// Ranks heads and pairs of heads by signed scores of a graph.
    ///
    /// A head scores the size of its node score or, where only edges are scored, of the largest of
    /// its outgoing edges. A pair scores the size of the largest of its edges, through whatever port.
    ///
    /// # Panics
    /// If there are neither node nor edge scores, or not as many as the graph has.
    #[must_use]
    pub fn of_graph(graph: GraphScores) -> Self {
        let shape = graph.graph;
        let largest = |writer: usize, readers: &mut dyn Iterator<Item = usize>| {
            let sizes = readers.filter_map(|reader| graph.edge(writer, reader));
            sizes.map(f64::abs).fold(0.0, f64::max)
        };
        let heads = shape.grid().heads();
        let nodes = match (&graph.nodes, &graph.edges) {
            (Some(nodes), _) => {
                assert_eq!(nodes.len(), shape.writers(), "one score for each writer");
                heads
                    .map(|head| nodes[shape.head_writer(head)].abs())
                    .collect()
            }
            (None, Some(edges)) => {
                assert_eq!(edges.len(), shape.writers() * shape.readers());
                let outgoing = |head| largest(shape.head_writer(head), &mut (0..shape.readers()));
                heads.map(outgoing).collect()
            }
            (None, None) => panic!("a graph without any scores"),
        };
        let mut scores = Self::of_nodes(shape.grid(), nodes);
        if graph.edges.is_some() {
            let grid = shape.grid();
            scores = scores.with_edges(|source, destination| {
                let ports = Port::ALL
                    .into_iter()
                    .map(|port| shape.port_reader(grid.head(destination), port));
                largest(shape.head_writer(grid.head(source)), &mut ports.into_iter())
            });
        }
        scores.graph = Some(graph);
        scores
    }

    /// Adds the scores of directed pairs, given as a function of (writer, reader).
    #[must_use]
    pub fn with_edges(mut self, score: impl Fn(usize, usize) -> f64) -> Self {
        let heads = self.grid.len();
        let mut edges = vec![0.0; heads * heads];
        for (source, destination) in directed_pairs(self.grid) {
            edges[source * heads + destination] = score(source, destination);
        }
        self.edges = Some(edges);
        self
    }

    /// Scores each directed pair with the product of its heads' scores: what a control does that knows
    /// nothing of how heads interact.
    #[must_use]
    pub fn with_products(self) -> Self {
        let ends = self.nodes.clone();
        self.with_edges(|source, destination| ends[source] * ends[destination])
    }

    /// Heads from the highest score to the lowest; equal scores in index order.
    #[must_use]
    pub fn ranking(&self) -> Vec<(HeadId, f64)> {
        let mut ranking: Vec<_> = self.grid.heads().zip(self.nodes.iter().copied()).collect();
        ranking.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranking
    }
}

/// Index pairs (writer, reader) of a model, the writer in an earlier layer: what edge scores are
/// judged on. In index order of the writer, then of the reader.
pub fn directed_pairs(grid: HeadGrid) -> impl Iterator<Item = (usize, usize)> {
    let heads = grid.len();
    (0..heads).flat_map(move |source| {
        let next_layer = (source / grid.n_heads + 1) * grid.n_heads;
        (next_layer..heads).map(move |destination| (source, destination))
    })
}

/// What a dictionary looked like on the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DictionaryReport {
    /// Number of features.
    pub n_codes: usize,
    /// Features that are the arg-max of at least one vector of the evidence.
    pub codes_used: usize,
    /// Share of vectors on which no feature is active.
    pub inactive_share: f64,
    /// Heads with one and the same code on every example, which cannot score.
    #[serde(default)]
    pub constant_heads: usize,
    /// Last value of the training loss; absent without training.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss: Option<f64>,
    /// Mean number of active features on the training vectors at the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub l0: Option<f64>,
    /// Explained variance on the training vectors at the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub explained_variance: Option<f64>,
    /// Features active on none of the training vectors at the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dead: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directed_pairs_go_to_later_layers_only() {
        let pairs: Vec<_> = directed_pairs(HeadGrid::new(3, 2)).collect();
        let expected = [
            (0, 2),
            (0, 3),
            (0, 4),
            (0, 5),
            (1, 2),
            (1, 3),
            (1, 4),
            (1, 5),
            (2, 4),
            (2, 5),
            (3, 4),
            (3, 5),
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn ranking_breaks_ties_by_index() {
        let scores = Scores::of_nodes(HeadGrid::new(1, 4), vec![1.0, 3.0, 1.0, 3.0]);
        let heads: Vec<_> = scores
            .ranking()
            .into_iter()
            .map(|(head, _)| head.head)
            .collect();
        assert_eq!(heads, [1, 3, 0, 2]);
    }
}
