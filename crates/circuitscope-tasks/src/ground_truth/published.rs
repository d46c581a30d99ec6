//! Files of one task's circuits as groups and rules, in several variants: `datasets/*/ground_truth.json`.

use std::collections::{BTreeMap, BTreeSet};

use circuitscope_core::{Circuit, Edge, HeadGrid, HeadId};
use serde::Deserialize;

use super::rules::{EdgeRule, InternalRule, Selectors};
use super::{GroundTruth, among};
use crate::Result;
use crate::data::DataFile;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    schema: u32,
    task: String,
    model: String,
    n_layers: usize,
    n_heads: usize,
    internal: Vec<InternalRule>,
    edges: Vec<EdgeRule>,
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    source: String,
    groups: BTreeMap<String, Vec<HeadId>>,
    #[serde(default)]
    mlps: BTreeMap<String, Vec<usize>>,
    edges: Edges,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Edges {
    /// The file's rules, applied to the variant's groups.
    ByRule,
    /// None were published.
    None,
}

/// The variants of `file`, which must be of `task`.
pub(super) fn read(task: &str, file: DataFile<'_>) -> Result<Vec<GroundTruth>> {
    let record: Record = file.parse()?;
    file.check_schema(record.schema)?;
    file.require(record.task == task, || {
        format!("task: {}", among(task, [&record.task].into_iter()))
    })?;
    file.require(!record.variants.is_empty(), || {
        "variants: found none, expected at least one".to_owned()
    })?;
    let variants = record.variants.iter();
    variants
        .map(|variant| record.variant(file, variant))
        .collect()
}

impl Record {
    fn variant(&self, file: DataFile<'_>, variant: &Variant) -> Result<GroundTruth> {
        let grid = HeadGrid::new(self.n_layers, self.n_heads);
        check_groups(file, grid, &variant.groups)?;
        let selectors = Selectors {
            file,
            grid,
            groups: &variant.groups,
            mlps: &variant.mlps,
        };
        let acdc_edges = match variant.edges {
            Edges::ByRule => selectors.expand(&self.edges, &self.internal)?,
            Edges::None => BTreeSet::new(),
        };
        let edges = acdc_edges.iter().filter_map(|edge| edge.residual());
        Ok(GroundTruth {
            task: self.task.clone(),
            model: self.model.clone(),
            variant: variant.name.clone(),
            source: variant.source.clone(),
            circuit: circuit(grid, &variant.groups, edges),
            groups: variant.groups.clone(),
            decoys: Vec::new(),
            acdc_edges,
        })
    }
}

/// Heads must exist in the model, and be in one group only.
pub(super) fn check_groups(
    file: DataFile<'_>,
    grid: HeadGrid,
    groups: &BTreeMap<String, Vec<HeadId>>,
) -> Result<()> {
    let mut seen = BTreeMap::new();
    for (group, heads) in groups {
        for head in heads {
            file.require(grid.contains(*head), || {
                format!(
                    "group {group:?}: {head}, but the model has {} layers of {} heads",
                    grid.n_layers, grid.n_heads
                )
            })?;
            if let Some(other) = seen.insert(*head, group) {
                return Err(file.error(format!("{head} is in {other:?} and in {group:?}")));
            }
        }
    }
    file.require(!seen.is_empty(), || "no heads".to_owned())
}

/// The heads of the groups, the edges, and every node that an edge joins.
pub(super) fn circuit(
    grid: HeadGrid,
    groups: &BTreeMap<String, Vec<HeadId>>,
    edges: impl Iterator<Item = Edge>,
) -> Circuit {
    let mut circuit = Circuit::from_heads(grid, groups.values().flatten().copied());
    circuit.edges = edges.collect();
    for edge in &circuit.edges {
        circuit.nodes.extend([edge.source, edge.destination]);
    }
    circuit
}
