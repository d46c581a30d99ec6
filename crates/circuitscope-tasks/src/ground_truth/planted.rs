//! The circuits that training planted in the reference model.

use std::collections::{BTreeMap, BTreeSet};

use circuitscope_core::{Edge, HeadGrid, HeadId, Node};
use serde::Deserialize;

use super::published::{check_groups, circuit};
use super::{GroundTruth, REFERENCE};
use crate::data::DataFile;
use crate::{Result, Task};

pub(super) const FILE: DataFile = DataFile {
    name: "reference/ground_truth.json",
    text: include_str!("../../data/reference/ground_truth.json"),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    schema: u32,
    model: String,
    n_layers: usize,
    n_heads: usize,
    tasks: BTreeMap<Task, Planted>,
    decoys: Vec<HeadId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Planted {
    source: String,
    groups: BTreeMap<String, Vec<HeadId>>,
    edges: BTreeSet<Edge>,
}

/// The circuit of `task` in `file`, as a list of at most one.
pub(super) fn read(task: Task, file: DataFile) -> Result<Vec<GroundTruth>> {
    let mut record: Record = file.parse()?;
    file.check_schema(record.schema)?;
    file.require(record.model == REFERENCE, || {
        format!("model {:?}, expected {REFERENCE:?}", record.model)
    })?;
    let grid = HeadGrid::new(record.n_layers, record.n_heads);
    let Some(planted) = record.tasks.remove(&task) else {
        return Ok(Vec::new());
    };
    check_groups(file, grid, &planted.groups)?;
    let heads: BTreeSet<HeadId> = planted.groups.values().flatten().copied().collect();
    for edge in &planted.edges {
        for node in [edge.source, edge.destination] {
            let known = match node {
                Node::Head(head) => heads.contains(&head),
                Node::Mlp(layer) => layer < grid.n_layers,
                Node::Input | Node::Logits => true,
            };
            file.require(known, || {
                format!("{task}: the edge {edge} joins {node}, which is in no group")
            })?;
        }
    }
    for decoy in &record.decoys {
        file.require(grid.contains(*decoy) && !heads.contains(decoy), || {
            format!("{task}: the decoy {decoy} is in the circuit, or not in the model")
        })?;
    }
    Ok(vec![GroundTruth {
        task,
        model: record.model,
        variant: "planted".to_owned(),
        source: planted.source,
        circuit: circuit(grid, &planted.groups, planted.edges.iter().copied()),
        groups: planted.groups,
        decoys: record.decoys,
        acdc_edges: BTreeSet::new(),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(decoy: &str, edge: &str) -> Result<Vec<GroundTruth>> {
        let text = format!(
            r#"{{"schema": 1, "model": "reference", "n_layers": 2, "n_heads": 2,
                "tasks": {{"greater-than": {{"source": "s", "groups": {{"a": ["L0H1"], "b": ["L1H0"]}},
                "edges": ["{edge}"]}}}}, "decoys": ["{decoy}"]}}"#
        );
        let file = DataFile {
            name: "test.json",
            text: text.leak(),
        };
        read(Task::GreaterThan, file)
    }

    #[test]
    fn faults_are_named() {
        let truth = read_text("L0H0", "a0.h1->a1.h0").unwrap().remove(0);
        assert_eq!(truth.circuit.head_pairs().len(), 1);
        assert_eq!(truth.decoys, [HeadId::new(0, 0)]);
        let message = |decoy, edge| read_text(decoy, edge).unwrap_err().to_string();
        assert_eq!(
            message("L0H1", "a0.h1->a1.h0"),
            "datasets/test.json: greater-than: the decoy L0H1 is in the circuit, or not in the model"
        );
        assert_eq!(
            message("L0H0", "a0.h0->a1.h0"),
            "datasets/test.json: greater-than: the edge a0.h0->a1.h0 joins a0.h0, which is in no \
             group"
        );
        assert!(message("L2H0", "a0.h1->a1.h0").contains("not in the model"));
    }
}
