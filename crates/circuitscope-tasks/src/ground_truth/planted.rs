//! Files of heads and edges of several tasks in one model: `datasets/reference/ground_truth.json`, and what the
//! converter for `InterpBench` writes.

use std::collections::{BTreeMap, BTreeSet};

use circuitscope_core::{Edge, HeadGrid, HeadId, Node};
use serde::Deserialize;

use super::published::{check_groups, circuit};
use super::{GroundTruth, among};
use crate::Result;
use crate::data::DataFile;

/// What its circuits are called.
const VARIANT: &str = "planted";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    schema: u32,
    model: String,
    n_layers: usize,
    n_heads: usize,
    tasks: BTreeMap<String, Planted>,
    #[serde(default)]
    decoys: Vec<HeadId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Planted {
    source: String,
    groups: BTreeMap<String, Vec<HeadId>>,
    #[serde(default)]
    edges: BTreeSet<Edge>,
}

/// The circuit of `task` in `file`, or the only one that it holds.
pub(super) fn read(task: &str, file: DataFile<'_>) -> Result<Vec<GroundTruth>> {
    let mut record: Record = file.parse()?;
    file.check_schema(record.schema)?;
    let grid = HeadGrid::new(record.n_layers, record.n_heads);
    let only = record.tasks.len() == 1;
    let name = record.tasks.keys().find(|name| *name == task);
    let name = name.or_else(|| record.tasks.keys().next().filter(|_| only));
    let Some((name, planted)) = name
        .cloned()
        .and_then(|name| record.tasks.remove_entry(&name))
    else {
        return Err(file.error(format!("tasks: {}", among(task, record.tasks.keys()))));
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
                format!("{name}: the edge {edge} joins {node}, which is in no group")
            })?;
        }
    }
    for decoy in &record.decoys {
        file.require(grid.contains(*decoy) && !heads.contains(decoy), || {
            format!("{name}: the decoy {decoy} is in the circuit, or not in the model")
        })?;
    }
    Ok(vec![GroundTruth {
        task: task.to_owned(),
        model: record.model,
        variant: if name == task {
            VARIANT.to_owned()
        } else {
            name
        },
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
            r#"{{"schema": 1, "model": "m", "n_layers": 2, "n_heads": 2,
                "tasks": {{"case-3": {{"source": "s", "groups": {{"a": ["L0H1"], "b": ["L1H0"]}},
                "edges": ["{edge}"]}}}}, "decoys": ["{decoy}"]}}"#
        );
        let file = DataFile {
            name: "test.json",
            text: &text,
        };
        read("greater-than", file)
    }

    #[test]
    fn decoys_and_edges_may_be_left_out() {
        let text = r#"{"schema": 1, "model": "m", "n_layers": 2, "n_heads": 2,
            "tasks": {"own": {"source": "s", "groups": {"a": ["L0H1"]}}}}"#;
        let name = "test.json";
        let truths = read("own", DataFile { name, text }).unwrap();
        assert_eq!(truths[0].decoys, []);
        assert_eq!(truths[0].circuit.heads().count(), 1);
    }

    #[test]
    fn faults_are_named() {
        let truth = read_text("L0H0", "a0.h1->a1.h0").unwrap().remove(0);
        assert_eq!(truth.circuit.head_pairs().len(), 1);
        assert_eq!(truth.decoys, [HeadId::new(0, 0)]);
        assert_eq!(
            (truth.task.as_str(), truth.variant.as_str()),
            ("greater-than", "case-3")
        );
        let message = |decoy, edge| read_text(decoy, edge).unwrap_err().to_string();
        assert_eq!(
            message("L0H1", "a0.h1->a1.h0"),
            "test.json: case-3: the decoy L0H1 is in the circuit, or not in the model"
        );
        assert_eq!(
            message("L0H0", "a0.h0->a1.h0"),
            "test.json: case-3: the edge a0.h0->a1.h0 joins a0.h0, which is in no group"
        );
        assert!(message("L2H0", "a0.h1->a1.h0").contains("not in the model"));
    }
}
