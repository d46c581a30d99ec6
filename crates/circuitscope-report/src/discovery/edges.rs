//! Edges of the graph: links of cards or, without cards, what the method scores.

use circuitscope_core::{Node, Port};
use circuitscope_measures::cards::Link;
use circuitscope_measures::directed_pairs;

use crate::number;

use super::CircuitPage;

/// Edges drawn, of those with the largest weights of either sign.
pub(super) const EDGES: usize = 50;

/// Edges that are drawn, strongest first, and how many there are in all.
pub(super) struct Edges {
    pub(super) drawn: Vec<Link>,
    pub(super) all: usize,
    /// Whether weights are those of cards, with what two gradients say of signs.
    pub(super) linear: bool,
}

impl Edges {
    pub(super) fn of(page: &CircuitPage<'_>) -> Self {
        let (mut drawn, linear) = match page.cards {
            Some(cards) => (cards.links.clone(), true),
            None => (scored(page), false),
        };
        drawn.retain(|link| link.weight.is_finite() && link.weight != 0.0);
        let all = drawn.len();
        // The sort is stable: of equal ones the first.
        drawn.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
        drawn.truncate(EDGES);
        Self { drawn, all, linear }
    }

    pub(super) fn largest(&self) -> f64 {
        let first = self.drawn.first();
        first.map_or(1.0, |link| link.weight.abs())
    }
}

/// Scores of edges, or of pairs of heads.
fn scored(page: &CircuitPage<'_>) -> Vec<Link> {
    let Some(method) = page.task.methods.first() else {
        return Vec::new();
    };
    let link = |writer, reader, port, weight| Link {
        writer,
        reader,
        port,
        weight,
        agrees: true,
    };
    if let Some(scores) = &method.graph {
        let graph = scores.graph;
        let edges = graph.edges().filter_map(|(writer, reader)| {
            let weight = scores.edge(writer, reader)?;
            let (to, port) = graph.reader(reader);
            Some(link(graph.writer(writer), to, port, weight))
        });
        return edges.collect();
    }
    let grid = page.task.grid;
    let pairs = method.pairs.iter().flat_map(|pairs| {
        directed_pairs(grid).filter_map(move |(writer, reader)| {
            let weight = *pairs.get(writer * grid.len() + reader)?;
            Some(link(
                Node::Head(grid.head(writer)),
                Node::Head(grid.head(reader)),
                None,
                weight,
            ))
        })
    });
    pairs.collect()
}

/// A node as pages name it: heads as everywhere, others as in graphs.
pub(super) fn name(node: Node) -> String {
    match node {
        Node::Head(head) => head.to_string(),
        Node::Mlp(layer) => format!("MLP {layer}"),
        Node::Input => "input".to_owned(),
        Node::Logits => "logits".to_owned(),
    }
}

/// What is said of an edge where the pointer is.
pub(super) fn hint(link: &Link, linear: bool) -> String {
    let port = link.port.map(|port: Port| format!(" ({})", port.name()));
    let agrees = match (linear, link.agrees) {
        (false, _) => "",
        (true, true) => ", both gradients agree in sign",
        (true, false) => ", two gradients disagree in sign",
    };
    format!(
        "{} → {}{}: {}{agrees}",
        name(link.writer),
        name(link.reader),
        port.unwrap_or_default(),
        number(link.weight)
    )
}
