//! Circuits known for a task, published or planted.

mod acdc_edge;
mod planted;
mod published;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use circuitscope_core::{Circuit, HeadId, nearest};
use circuitscope_files as files;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use acdc_edge::AcdcEdge;

use crate::data::DataFile;
use crate::{KnownModel, Result, TaskSpec};

/// A circuit that is known, and who says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
#[serde(deny_unknown_fields)]
pub struct GroundTruth {
    /// Name of the task.
    pub task: String,
    /// The model, as the file calls it: of published circuits one of [`MODELS`](crate::MODELS).
    pub model: String,
    /// Which of several published versions this is, such as `acdc` or `authors`.
    pub variant: String,
    /// Where it was published, and what was taken over or changed.
    pub source: String,
    /// The heads by role. Every head of the circuit is in at least one group.
    pub groups: BTreeMap<String, Vec<HeadId>>,
    /// Heads planted so as to look involved without being so; empty for published circuits.
    pub decoys: Vec<HeadId>,
    /// Its heads and, where edges were published or planted, all nodes that they join. Edges are
    /// those of the residual stream, from writer to reader; without ports where none are known.
    pub circuit: Circuit,
    /// The published edge set in ACDC's finer graph, which also counts the steps inside a head;
    /// empty where no edges were published. Its residual-stream part is `circuit.edges`.
    pub acdc_edges: BTreeSet<AcdcEdge>,
}

impl GroundTruth {
    /// A circuit in one group, `circuit`, without decoys; `source` says where it is from.
    #[must_use]
    pub fn new(task: &str, model: &str, source: &str, circuit: Circuit) -> Self {
        let heads = circuit.heads().collect();
        Self {
            task: task.to_owned(),
            model: model.to_owned(),
            variant: model.to_owned(),
            source: source.to_owned(),
            groups: BTreeMap::from([("circuit".to_owned(), heads)]),
            decoys: Vec::new(),
            circuit,
            acdc_edges: BTreeSet::new(),
        }
    }
}

/// The circuits that this crate knows for `task` in `model` (one of [`MODELS`](crate::MODELS)), the default
/// variant first; empty where that model has none for this task.
///
/// | task | model | variants |
/// |---|---|---|
/// | `ioi` | `gpt2-small` | `acdc` (26 heads, 1041 edges), `authors` (L11H3 in place of L9H0) |
/// | `greater-than` | `gpt2-small` | `acdc` (9 heads, 262 edges), `cd-t` (8 heads) |
/// | `docstring` | `attn-only-4l` | `acdc` (6 heads, 37 edges), `authors` (L1H0 in place of L1H2), `hj-8`, `hj-11` |
/// | all four | `reference` | `planted` (in greater-than, no head reads another: no edges) |
///
/// # Errors
/// [`Error::UnknownModel`](crate::Error::UnknownModel) for another model, and
/// [`Error::Data`](crate::Error::Data) if a data file breaks its rules.
///
/// # Examples
/// ```
/// use circuitscope_tasks::{DOCSTRING, IOI, ground_truths};
///
/// # fn main() -> Result<(), circuitscope_tasks::Error> {
/// let truths = ground_truths(&IOI, "gpt2-small")?;
/// assert_eq!(truths[0].variant, "acdc");
/// assert_eq!(truths[0].circuit.heads().count(), 26);
/// assert_eq!(truths[0].acdc_edges.len(), 1041);
/// assert_eq!(truths[0].circuit.head_pairs().len(), 88);
/// assert!(ground_truths(&DOCSTRING, "gpt2-small")?.is_empty());
/// # Ok(())
/// # }
/// ```
pub fn ground_truths(task: &TaskSpec, model: &str) -> Result<Vec<GroundTruth>> {
    let model = KnownModel::named(model)?.name;
    let mut published = task.published.iter();
    let Some(published) = published.find(|published| published.model == model) else {
        return Ok(Vec::new());
    };
    let file = published.file;
    let truths = parse(file, &task.name)?;
    let mut others = truths.iter().filter(|truth| truth.model != model);
    match others.next() {
        None => Ok(truths),
        Some(other) => Err(file.error(format!(
            "model: found {:?}, expected {model:?}",
            other.model
        ))),
    }
}

/// The circuits of `task` in a file of one of this project's forms: that of `datasets/*/ground_truth.json`, groups of
/// heads and rules for edges in several variants, or that of `datasets/reference/ground_truth.json`, heads and
/// edges of several tasks, which the converter for `InterpBench` writes, too. Nothing if the file has another
/// form, whatever that is.
///
/// Where a file of the second form holds a single task, it may have another name there: files of `InterpBench`
/// name their cases.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io); [`Error::Data`](crate::Error::Data), which names the file and what is wrong
/// with it, if it holds no circuit of `task`, or breaks the rules of its form.
pub fn read_circuits(path: &Path, task: &str) -> Result<Option<Vec<GroundTruth>>> {
    let text = files::read_to_string(path)?;
    let name = path.display().to_string();
    let file = DataFile {
        name: &name,
        text: &text,
    };
    let Ok(fields) = serde_json::from_str::<Map<String, Value>>(&text) else {
        return Ok(None);
    };
    if ["variants", "tasks"]
        .iter()
        .any(|key| fields.contains_key(*key))
    {
        return parse(file, task).map(Some);
    }
    Ok(None)
}

/// Reads a file of either form.
fn parse(file: DataFile<'_>, task: &str) -> Result<Vec<GroundTruth>> {
    let fields: Map<String, Value> = file.parse()?;
    let schema = fields.get("schema").unwrap_or(&Value::Null);
    file.require(schema.is_u64(), || {
        format!("schema: found {schema}, expected {}", crate::data::SCHEMA)
    })?;
    if fields.contains_key("tasks") {
        planted::read(task, file)
    } else {
        published::read(task, file)
    }
}

/// The name most like `task` among `names`, and all of them, for errors.
fn among<'a>(task: &str, names: impl Iterator<Item = &'a String> + Clone) -> String {
    let hint = circuitscope_core::did_you_mean(nearest(task, names.clone().map(String::as_str)));
    let names: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    format!("found {}, expected {task:?}{hint}", names.join(", "))
}
