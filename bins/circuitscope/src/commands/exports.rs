//! What `discover` found, in the forms of other tools.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Result;
use circuitscope::Graph;
use circuitscope::SeenPrompt;
use circuitscope::measures::formats::{GraphFile, ViewerGraph};

use super::found::Found;

/// Scores and circuit in the form of EAP-IG and of MIB's circuit track.
pub(super) const IMPORTANCES_FILE: &str = "importances.json";
/// The circuit as a graph that Neuronpedia shows.
pub(super) const VIEWER_FILE: &str = "neuronpedia.json";

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
    viewer.with_circuit(
        graph,
        &found.circuit(),
        &found.nodes,
        found.graph.as_ref(),
        pairs,
    )
}
