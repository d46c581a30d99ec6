//! Whose circuits are known.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use circuitscope_core::{Circuit, Edge, Graph, HeadGrid, HeadId, Node};
use circuitscope_files as files;
use circuitscope_measures::formats::GraphFile;
use circuitscope_model::{Loaded, ModelProvenance};
use circuitscope_tasks::{
    self as tasks, GroundTruth, KNOWN_MODELS, KnownModel, OwnCircuit, TaskSpec, ground_truths,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Whose circuits are taken for known, whatever the model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CircuitChoice {
    /// Those of this model, one of [`circuitscope_tasks::MODELS`].
    Of(String),
    /// Those of this file ([`read_circuits`]).
    File(PathBuf),
}

/// Whose circuits count as those of a model, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KnownAs {
    /// One of [`circuitscope_tasks::MODELS`], or what a file calls the model.
    pub model: String,
    /// Why, as the end of a sentence.
    pub why: String,
    /// The file that holds them, where that is none of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Its SHA-256, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// The circuits known for a task in a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KnownCircuits {
    /// Whose they are.
    pub known: KnownAs,
    /// The variant that tables quote first; at least one.
    pub truths: Vec<GroundTruth>,
}

impl KnownAs {
    fn published(model: KnownModel, why: String) -> Self {
        Self {
            model: model.name.to_owned(),
            why,
            file: None,
            sha256: None,
        }
    }

    /// Of the circuits in `file`, which calls the model `model`.
    fn of_file(file: &Path, model: String, why: String) -> Result<Self> {
        let sha256 = files::sha256(file).map_err(tasks::Error::from)?;
        Ok(Self {
            model,
            why,
            file: Some(file.to_owned()),
            sha256: Some(sha256),
        })
    }
}

/// Whose circuits this program takes for those of a model: of the model `named`, if that was asked for;
/// else of the known model that has its name on the hub, or its weights.
///
/// # Errors
/// [`circuitscope_tasks::Error::UnknownModel`] for another name.
pub fn known_as(provenance: &ModelProvenance, named: Option<&str>) -> Result<Option<KnownAs>> {
    if let Some(name) = named {
        let why = "as asked for".to_owned();
        return Ok(Some(KnownAs::published(KnownModel::named(name)?, why)));
    }
    let mut models = KNOWN_MODELS.into_iter();
    Ok(models.find_map(|model| Some(KnownAs::published(model, recognised(provenance, model)?))))
}

/// Why a model is a known one, if it is.
fn recognised(provenance: &ModelProvenance, model: KnownModel) -> Option<String> {
    let hub = provenance.hub.as_ref().map(|origin| origin.repo.as_str());
    if let Some(repo) = hub.filter(|repo| model.hub.contains(repo)) {
        return Some(by_name(repo));
    }
    let hashes = provenance.files.iter().map(|file| file.sha256.as_str());
    model.has_weights(hashes).then(by_hash)
}

fn by_name(repo: &str) -> String {
    format!("by its name {repo} on the hub")
}

fn by_hash() -> String {
    "by the hash of its weights".to_owned()
}

/// Why a circuit of a task's folder is of this model, if it is.
fn owned(provenance: &ModelProvenance, circuit: &OwnCircuit) -> Option<String> {
    let hub = provenance.hub.as_ref().map(|origin| origin.repo.as_str());
    circuit.models.iter().find_map(|model| {
        if let Some(hash) = model.strip_prefix("sha256:") {
            let mut files = provenance.files.iter();
            return files.any(|file| file.sha256 == hash).then(by_hash);
        }
        match KnownModel::named(model) {
            Ok(known) => recognised(provenance, known),
            Err(_) => (hub == Some(model)).then(|| by_name(model)),
        }
    })
}

/// Whose circuits an evaluation judges by where no task has its own, and why: what is `asked` for, else those of [`known_as`].
///
/// # Errors
/// As [`known_as`].
pub fn judged_as(
    provenance: &ModelProvenance,
    asked: Option<&CircuitChoice>,
) -> Result<(Option<String>, Option<String>)> {
    let named = match asked {
        // The file is among what each task is judged by.
        Some(CircuitChoice::File(file)) => {
            let why = "as asked for".to_owned();
            return Ok((Some(file.display().to_string()), Some(why)));
        }
        Some(CircuitChoice::Of(name)) => Some(name.as_str()),
        None => None,
    };
    let known = known_as(provenance, named)?;
    Ok(known.map(|known| (known.model, known.why)).unzip())
}

/// Whether a model is the one that the crate carries, by the hash of its weights.
#[must_use]
pub fn is_reference(provenance: &ModelProvenance) -> bool {
    let hashes = provenance.files.iter().map(|file| file.sha256.as_str());
    KnownModel::REFERENCE.has_weights(hashes)
}

/// [`known_circuits`], or nothing where none is known.
///
/// # Errors
/// As [`known_circuits`], but for [`Error::NoKnownCircuit`] and [`Error::NoOwnCircuit`].
pub fn circuits_if_known<B: Backend>(
    loaded: &Loaded<B>,
    task: &TaskSpec,
    asked: Option<&CircuitChoice>,
) -> Result<Option<KnownCircuits>> {
    match known_circuits(loaded, task, asked) {
        Ok(known) => Ok(Some(known)),
        Err(Error::NoKnownCircuit { .. } | Error::NoOwnCircuit { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The circuits known for a task in a model: those `asked` for; else those of the task's folder that are of
/// this model; else those that this program carries. Whose they are is decided by names on the hub and
/// hashes of weights, never by shape ([`known_as`]).
///
/// # Errors
/// [`Error::NoKnownCircuit`] and [`Error::NoOwnCircuit`]; with a name that was asked for, an unknown one, and
/// [`Error::NoCircuitIn`]; [`Error::CircuitShape`] if the model has another shape; those of
/// [`read_circuits`].
pub fn known_circuits<B: Backend>(
    loaded: &Loaded<B>,
    task: &TaskSpec,
    asked: Option<&CircuitChoice>,
) -> Result<KnownCircuits> {
    let graph = loaded.model.config().graph();
    let provenance = &loaded.provenance;
    let named = match asked {
        Some(CircuitChoice::File(file)) => {
            return of_file(file, task, &graph, "as asked for".to_owned());
        }
        Some(CircuitChoice::Of(name)) => Some(name.as_str()),
        None => {
            let mut own = task.circuits.iter();
            let own = own.find_map(|circuit| Some((circuit, owned(provenance, circuit)?)));
            if let Some((circuit, why)) = own {
                return of_file(&circuit.file, task, &graph, why);
            }
            None
        }
    };
    let none = || match task.files.first() {
        None => Error::NoKnownCircuit {
            task: task.name.clone().into_owned(),
            model: provenance.name.clone(),
        },
        Some(file) => Error::NoOwnCircuit {
            task: task.name.clone().into_owned(),
            model: provenance.name.clone(),
            file: file.clone(),
            models: task
                .circuits
                .iter()
                .flat_map(|own| own.models.clone())
                .collect(),
        },
    };
    let known = known_as(provenance, named)?.ok_or_else(none)?;
    let truths = ground_truths(task, &known.model)?;
    match truths.first() {
        None if named.is_some() => Err(Error::NoCircuitIn {
            task: task.name.clone().into_owned(),
            circuit: known.model,
        }),
        None => Err(none()),
        Some(_) => {
            fits(&known.model, &truths, &graph)?;
            Ok(KnownCircuits { known, truths })
        }
    }
}

fn of_file(file: &Path, task: &TaskSpec, graph: &Graph, why: String) -> Result<KnownCircuits> {
    let truths = read_circuits(file, &task.name, graph)?;
    let model = truths.first().ok_or(Error::NoTruths)?.model.clone();
    Ok(KnownCircuits {
        known: KnownAs::of_file(file, model, why)?,
        truths,
    })
}

/// The circuits of `task` that a file holds, for a model of this graph; at least one. Forms are those of
/// [`circuitscope_tasks::read_circuits`], a plain list (`{"heads": ["L0H1", "L2H3"]}`, with `edges` and
/// `source` if they are known), and `importances.json` of EAP-IG and MIB, of which nodes and
/// edges count that are marked `in_graph`. Queries, keys and values that share a reader count as that
/// reader's.
///
/// # Errors
/// What cannot be read, which names file and field; [`Error::CircuitShape`] for a model of another shape;
/// [`Error::CircuitFile`] for nodes that the model has not, for a circuit without heads, and for one of all
/// heads, which tells none apart.
pub fn read_circuits(file: &Path, task: &str, graph: &Graph) -> Result<Vec<GroundTruth>> {
    let truths = match tasks::read_circuits(file, task)? {
        Some(truths) => truths,
        None => match listed(file, task, graph)? {
            Some(truth) => vec![truth],
            None => vec![marked(file, task)?],
        },
    };
    let name = file.display().to_string();
    fits(&name, &truths, graph)?;
    for truth in &truths {
        check(truth, graph).map_err(|problem| Error::CircuitFile {
            file: file.to_owned(),
            problem,
        })?;
    }
    Ok(truths)
}

/// A plain list, which says nothing of the model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    heads: Vec<HeadId>,
    #[serde(default)]
    edges: BTreeSet<Edge>,
    #[serde(default)]
    source: Option<String>,
}

/// The circuit of a plain list, if the file holds one.
fn listed(file: &Path, task: &str, graph: &Graph) -> Result<Option<GroundTruth>> {
    let text = files::read_to_string(file).map_err(tasks::Error::from)?;
    let fields = serde_json::from_str::<Map<String, Value>>(&text);
    if !fields.is_ok_and(|fields| fields.contains_key("heads")) {
        return Ok(None);
    }
    let list: List = serde_json::from_str(&text).map_err(|error| Error::CircuitFile {
        file: file.to_owned(),
        problem: error.to_string(),
    })?;
    let mut circuit = Circuit::from_heads(graph.grid(), list.heads);
    for edge in &list.edges {
        circuit.nodes.extend([edge.source, edge.destination]);
    }
    circuit.edges = list.edges;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let source = list.source.as_deref().unwrap_or("a list of heads");
    Ok(Some(GroundTruth::new(task, &stem, source, circuit)))
}

/// Nodes and edges that an `importances.json` marks.
fn marked(file: &Path, task: &str) -> Result<GroundTruth> {
    let read = GraphFile::read(file)?;
    let grid = HeadGrid::new(read.n_layers, read.n_heads);
    let nodes = read.nodes.iter().filter(|(_, entry)| entry.in_graph);
    let edges = read.edges.iter().filter(|(_, entry)| entry.in_graph);
    let edges: BTreeSet<Edge> = edges.map(|(edge, _)| *edge).collect();
    let ends = edges
        .iter()
        .flat_map(|edge| [edge.source, edge.destination]);
    let nodes: BTreeSet<Node> = nodes.map(|(node, _)| *node).chain(ends).collect();
    let circuit = Circuit { grid, nodes, edges };
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let source = "nodes and edges marked as in_graph";
    Ok(GroundTruth::new(task, &stem, source, circuit))
}

/// Circuits are of the shape of the model.
fn fits(circuit: &str, truths: &[GroundTruth], graph: &Graph) -> Result<()> {
    let mut grids = truths.iter().map(|truth| truth.circuit.grid);
    match grids.find(|grid| *grid != graph.grid()) {
        None => Ok(()),
        Some(expected) => Err(Error::CircuitShape {
            circuit: circuit.to_owned(),
            expected,
            found: graph.grid(),
        }),
    }
}

/// What makes a circuit useless for judging heads of this model.
fn check(truth: &GroundTruth, graph: &Graph) -> Result<(), String> {
    let of = &truth.variant;
    let exists = |node: &&Node| **node == Node::Logits || graph.writer_index(**node).is_some();
    if let Some(node) = truth.circuit.nodes.iter().find(|node| !exists(node)) {
        return Err(format!("{of}: found {node}, expected nodes of the model"));
    }
    let joins = |edge: &&Edge| !graph.edge_indices(**edge).is_empty();
    if let Some(edge) = truth.circuit.edges.iter().find(|edge| !joins(edge)) {
        return Err(format!(
            "{of}: found the edge {edge}, expected edges of the model"
        ));
    }
    match truth.circuit.heads().count() {
        0 => Err(format!(
            "{of}: found no head in the circuit, expected at least one"
        )),
        all if all == graph.grid().len() => Err(format!(
            "{of}: found all {all} heads in the circuit, expected some of them: a circuit of all heads tells none \
             apart"
        )),
        _ => Ok(()),
    }
}
