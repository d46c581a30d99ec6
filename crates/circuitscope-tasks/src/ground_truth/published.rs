//! The published circuits, read from `datasets/*/ground_truth.json`.

use std::collections::{BTreeMap, BTreeSet};

use circuitscope_core::{Circuit, Edge, HeadGrid, HeadId};
use serde::Deserialize;

use super::GroundTruth;
use super::rules::{EdgeRule, InternalRule, Selectors};
use crate::data::DataFile;
use crate::{Result, Task};

/// A file of published circuits.
pub(super) struct Published(DataFile);

pub(super) const IOI: Published = Published(DataFile {
    name: "ioi/ground_truth.json",
    text: include_str!("../../data/ioi/ground_truth.json"),
});
pub(super) const GREATER_THAN: Published = Published(DataFile {
    name: "greater-than/ground_truth.json",
    text: include_str!("../../data/greater-than/ground_truth.json"),
});
pub(super) const DOCSTRING: Published = Published(DataFile {
    name: "docstring/ground_truth.json",
    text: include_str!("../../data/docstring/ground_truth.json"),
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    schema: u32,
    task: Task,
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

impl Published {
    pub(super) fn read(&self) -> Result<Vec<GroundTruth>> {
        let file = self.0;
        let record: Record = file.parse()?;
        file.check_schema(record.schema)?;
        file.require(!record.variants.is_empty(), || "no variants".to_owned())?;
        let variants = record.variants.iter();
        variants
            .map(|variant| record.variant(file, variant))
            .collect()
    }
}

impl Record {
    fn variant(&self, file: DataFile, variant: &Variant) -> Result<GroundTruth> {
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
            task: self.task,
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
    file: DataFile,
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
