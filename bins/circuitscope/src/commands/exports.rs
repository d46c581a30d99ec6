//! What `discover` found, in the forms of other tools.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Result;
use circuitscope::SeenPrompt;
use circuitscope::core::{Graph, HeadGrid, Node};
use circuitscope::measures::GraphScores;
use circuitscope::measures::formats::{GraphFile, ViewerGraph};

use super::found::Found;

/// Scores and circuit in the form of EAP-IG and of MIB's circuit track.
pub(super) const IMPORTANCES_FILE: &str = "importances.json";
/// The circuit as a graph that Neuronpedia shows.
pub(super) const VIEWER_FILE: &str = "neuronpedia.json";
/// Links of that graph: those of the largest weight.
const LINKS: usize = 400;

/// Removes what an earlier run wrote.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    for name in [IMPORTANCES_FILE, VIEWER_FILE] {
        remove_file(&folder.join(name))?;
    }
    Ok(())
}

/// Removes a file if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes both files into the output folder; `shown` is a prompt that shows the behaviour.
pub(crate) fn write(
    folder: &Path,
    found: &Found,
    graph: &Graph,
    d_model: usize,
    shown: &SeenPrompt,
) -> Result<()> {
    importances(found, graph, d_model).write(&folder.join(IMPORTANCES_FILE))?;
    viewer(found, graph, shown).write(graph, &folder.join(VIEWER_FILE))?;
    Ok(())
}

fn importances(found: &Found, graph: &Graph, d_model: usize) -> GraphFile {
    let circuit = found.chosen.as_ref().map(|chosen| &chosen.circuit);
    if let Some(scores) = &found.graph {
        let (nodes, edges) = (scores.nodes.as_deref(), scores.edges.as_deref());
        return GraphFile::of_scores(graph, d_model, nodes, edges, circuit);
    }
    GraphFile::of_heads(
        graph,
        d_model,
        &found.scores_by_index(graph.grid()),
        circuit,
    )
}

fn viewer(found: &Found, graph: &Graph, shown: &SeenPrompt) -> ViewerGraph {
    let grid = graph.grid();
    let scores = found.scores_by_index(grid);
    let circuit: Vec<Node> = found.circuit().into_iter().map(Node::from).collect();
    let mut links = match &found.graph {
        Some(scores) => of_graph(scores, graph, &circuit),
        None => of_pairs(found, grid, &circuit),
    };
    links.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
    links.truncate(LINKS);
    // Everything that a link joins, and all of the circuit, in forward order.
    let ends = |node: &Node| links.iter().any(|link| link.0 == *node || link.1 == *node);
    let writers = (0..graph.writers()).map(|at| graph.writer(at));
    let nodes = writers
        .chain([Node::Logits])
        .filter(|node| circuit.contains(node) || ends(node));
    let score = |node: Node| match node {
        Node::Head(head) => grid.index(head).map(|at| scores[at]),
        _ => None,
    };
    let letters = |text: &str| -> String {
        let kept = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
        kept.collect::<String>().to_lowercase()
    };
    ViewerGraph {
        slug: letters(&format!("{}-{}", found.examples, found.method)),
        scan: found
            .model
            .as_ref()
            .map_or_else(String::new, |model| letters(&model.name)),
        description: format!(
            "Heads and MLPs of the circuit for {} by method {}; each stands for all positions",
            found.examples, found.method
        ),
        prompt: shown.text.clone(),
        prompt_tokens: shown.tokens.clone(),
        output: shown.next.first().cloned(),
        nodes: nodes.map(|node| (node, score(node))).collect(),
        links,
    }
}

/// Edges between heads of the circuit and everything that is no head; of several ports the strongest.
fn of_graph(scores: &GraphScores, graph: &Graph, circuit: &[Node]) -> Vec<(Node, Node, f64)> {
    let shown = |node: Node| !matches!(node, Node::Head(_)) || circuit.contains(&node);
    let mut links: Vec<(Node, Node, f64)> = Vec::new();
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
            match links
                .iter_mut()
                .find(|link| link.0 == source && link.1 == target)
            {
                Some(link) if link.2.abs() < weight.abs() => link.2 = weight,
                Some(_) => {}
                None => links.push((source, target, weight)),
            }
        }
    }
    links
}

/// Pairs of heads of the circuit, where the method scores pairs.
fn of_pairs(found: &Found, grid: HeadGrid, circuit: &[Node]) -> Vec<(Node, Node, f64)> {
    let Some(edges) = &found.edges else {
        return Vec::new();
    };
    let index = |node: &Node| match node {
        Node::Head(head) => grid.index(*head),
        _ => None,
    };
    let mut links = Vec::new();
    for source in circuit {
        for target in circuit {
            if let (Some(from), Some(to)) = (index(source), index(target)) {
                let weight = edges[from][to];
                if weight != 0.0 {
                    links.push((*source, *target, weight));
                }
            }
        }
    }
    links
}
