//! What `discover` found, in the forms of other tools.

use std::path::{Path, PathBuf};

use circuitscope_core::{Graph, Node};
use circuitscope_files as files;
use circuitscope_measures::formats::{GraphFile, ViewerGraph};
use circuitscope_measures::{DISCOVERY_FILE, GraphScores, write_json};
use circuitscope_report::PAGE_FILE;

use super::{Found, page};
use crate::{Result, SeenPrompt};

/// Scores and circuit in the form of EAP-IG and of MIB's circuit track.
pub const IMPORTANCES_FILE: &str = "importances.json";
/// The circuit as a graph that Neuronpedia shows.
pub const VIEWER_FILE: &str = "neuronpedia.json";

/// The prompts, as files of pairs have them.
pub const PROMPTS_FILE: &str = "prompts.jsonl";
/// Scores of heads as a table.
pub const SCORES_FILE: &str = "scores.csv";

/// What files of other tools need to know of the model.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// Its computation graph.
    pub graph: &'a Graph,
    /// Width of its residual stream.
    pub d_model: usize,
}

impl Found {
    /// Writes [`DISCOVERY_FILE`] into a folder, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        Ok(write_json(&folder.join(DISCOVERY_FILE), self)?)
    }

    /// Writes what lies beside [`DISCOVERY_FILE`]: a table of scores, the prompts (`pairs`, as files of pairs have them), the
    /// files of other tools where a model was run on prompts, and the page, whose path is returned.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn write_beside(
        &self,
        folder: &Path,
        shape: Option<Shape<'_>>,
        pairs: Option<&str>,
    ) -> Result<PathBuf> {
        let text = |name: &str, text: &str| {
            files::write_atomic(&folder.join(name), |out| out.write_all(text.as_bytes()))
                .map_err(circuitscope_measures::Error::from)
        };
        if let Some(pairs) = pairs {
            text(PROMPTS_FILE, pairs)?;
        }
        text(SCORES_FILE, &self.table())?;
        if let (Some(Shape { graph, d_model }), Some(behaviour)) = (shape, &self.behaviour) {
            self.importances(graph, d_model)
                .write(&folder.join(IMPORTANCES_FILE))?;
            viewer(self, graph, &behaviour.positive).write(graph, &folder.join(VIEWER_FILE))?;
        }
        page::write(folder, self, &beside(folder))
    }

    /// Removes what an earlier run left beside [`DISCOVERY_FILE`]; the pictures are those that its page names.
    ///
    /// # Errors
    /// If something that is there cannot be removed.
    pub fn remove_beside(folder: &Path) -> Result<()> {
        for name in [
            IMPORTANCES_FILE,
            VIEWER_FILE,
            PROMPTS_FILE,
            SCORES_FILE,
            PAGE_FILE,
        ] {
            files::remove(&folder.join(name)).map_err(circuitscope_measures::Error::from)?;
        }
        Ok(())
    }

    /// Scores and circuit in the form of EAP-IG and of MIB's circuit track.
    #[must_use]
    pub fn importances(&self, graph: &Graph, d_model: usize) -> GraphFile {
        let circuit = self.chosen.as_ref().map(|chosen| &chosen.circuit);
        if let Some(scores) = &self.graph {
            let (nodes, edges) = (scores.nodes.as_deref(), scores.edges.as_deref());
            return GraphFile::of_scores(graph, d_model, nodes, edges, circuit);
        }
        GraphFile::of_heads(graph, d_model, &self.nodes, circuit)
    }

    /// One line a head, from the highest score to the lowest, with commas between values; empty where a value is not known.
    #[must_use]
    pub fn table(&self) -> String {
        scores_table(self)
    }
}

/// The files that lie in an output folder, and what they hold.
fn beside(folder: &Path) -> Vec<(&'static str, &'static str)> {
    let all = [
        (DISCOVERY_FILE, "everything on this page, and more"),
        (SCORES_FILE, "scores of all heads as a table"),
        (PROMPTS_FILE, "the prompts, as files of pairs have them"),
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
