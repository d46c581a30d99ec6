//! What `discover` found, in the forms of other tools.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Result;
use circuitscope::files;
use circuitscope::measures::GraphScores;
use circuitscope::measures::formats::{GraphFile, ViewerGraph};
use circuitscope::{Graph, Node, SeenPrompt};

use super::found::Found;
use super::kept::DISCOVERY_FILE;

/// Scores and circuit in the form of EAP-IG and of MIB's circuit track.
pub(super) const IMPORTANCES_FILE: &str = "importances.json";
/// The circuit as a graph that Neuronpedia shows.
pub(super) const VIEWER_FILE: &str = "neuronpedia.json";

/// The prompts, as `--pairs` reads them.
pub(super) const PROMPTS_FILE: &str = "prompts.jsonl";
/// Scores of heads as a table.
pub(super) const SCORES_FILE: &str = "scores.csv";

/// Removes what an earlier run wrote.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    for name in [IMPORTANCES_FILE, VIEWER_FILE, PROMPTS_FILE, SCORES_FILE] {
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

/// The files that lie in an output folder, and what they hold.
pub(super) fn beside(folder: &Path) -> Vec<(&'static str, &'static str)> {
    let all = [
        (DISCOVERY_FILE, "everything on this page, and more"),
        (SCORES_FILE, "scores of all heads as a table"),
        (PROMPTS_FILE, "the prompts, as --pairs reads them"),
        (IMPORTANCES_FILE, "scores in the form of EAP-IG and MIB"),
        (
            VIEWER_FILE,
            "the circuit for Neuronpedia's viewer of graphs",
        ),
    ];
    let there = all.into_iter();
    there
        .filter(|(name, _)| folder.join(name).is_file())
        .collect()
}

/// Writes what needs no model: the prompts and a table of scores.
pub(crate) fn write_tables(folder: &Path, found: &Found, pairs: Option<&str>) -> Result<()> {
    if let Some(pairs) = pairs {
        files::write_atomic(&folder.join(PROMPTS_FILE), |out| {
            out.write_all(pairs.as_bytes())
        })?;
    }
    let table = scores_table(found);
    files::write_atomic(&folder.join(SCORES_FILE), |out| {
        out.write_all(table.as_bytes())
    })?;
    Ok(())
}

/// One line a head, from the highest score to the lowest; empty where a value is not known.
fn scores_table(found: &Found) -> String {
    let effects = found.cards.as_ref().map(|cards| cards.effects.as_slice());
    let grid = found.grid();
    let figure = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let header = "rank,head,layer,index,score,signed,differs,used,effect,norm,selected".to_owned();
    let rows = found.heads.iter().enumerate().map(|(at, ranked)| {
        let head = ranked.head;
        let effect = grid
            .index(head)
            .and_then(|index| effects?.get(index).copied());
        let cells = [
            (at + 1).to_string(),
            head.to_string(),
            head.layer.to_string(),
            head.head.to_string(),
            ranked.score.to_string(),
            figure(ranked.signed),
            figure(ranked.differs),
            figure(ranked.used),
            figure(effect),
            figure(ranked.norm),
            ranked.selected.to_string(),
        ];
        cells.join(",")
    });
    let mut lines: Vec<String> = vec![header];
    lines.extend(rows);
    lines.join("\n") + "\n"
}

/// Scores of edges that were measured for the cards, where the method has none of its own.
fn linked(found: &Found, graph: &Graph) -> Option<GraphScores> {
    let cards = found.cards.as_ref()?;
    let mut edges = vec![0.0; graph.writers() * graph.readers()];
    for link in &cards.links {
        let writer = graph.writer_index(link.writer)?;
        let readers = graph.readers_of(link.reader);
        let reader = match (link.port, readers.as_slice()) {
            (Some(port), _) => match link.reader {
                Node::Head(head) => graph.port_reader(head, port),
                _ => continue,
            },
            (None, [reader]) => *reader,
            _ => continue,
        };
        edges[writer * graph.readers() + reader] = link.weight;
    }
    let nodes = found.graph.as_ref().and_then(|graph| graph.nodes.clone());
    Some(GraphScores {
        graph: *graph,
        nodes,
        edges: Some(edges),
    })
}

fn importances(found: &Found, graph: &Graph, d_model: usize) -> GraphFile {
    let circuit = found.chosen.as_ref().map(|chosen| &chosen.circuit);
    if let Some(scores) = &found.graph {
        let (nodes, edges) = (scores.nodes.as_deref(), scores.edges.as_deref());
        return GraphFile::of_scores(graph, d_model, nodes, edges, circuit);
    }
    GraphFile::of_heads(graph, d_model, &found.nodes, circuit)
}

fn viewer(found: &Found, graph: &Graph, shown: &SeenPrompt) -> ViewerGraph {
    let letters = |text: &str| -> String {
        let kept = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
        kept.collect::<String>().to_lowercase()
    };
    let viewer = ViewerGraph {
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
        nodes: Vec::new(),
        links: Vec::new(),
    };
    let pairs = found.edges.as_ref().map(|pairs| pairs.scores.as_slice());
    let scored = found.graph.as_ref();
    let own = scored.filter(|scores| scores.edges.is_some());
    let linked = if own.is_none() && pairs.is_none() {
        linked(found, graph)
    } else {
        None
    };
    let scores = own.or(linked.as_ref()).or(scored);
    viewer.with_circuit(graph, &found.circuit(), &found.nodes, scores, pairs)
}
