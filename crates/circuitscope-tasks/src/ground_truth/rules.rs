//! Edge sets written as rules between groups of nodes.
//!
//! A published circuit of a thousand edges is a dozen rules, such as "the S-inhibition heads feed
//! the queries of the name movers". A rule joins every node of `from` to every node of `to` that
//! comes later in the forward pass; rules may overlap.

use std::collections::{BTreeMap, BTreeSet};

use circuitscope_core::{Edge, HeadGrid, HeadId, Node, Port, did_you_mean, nearest};
use serde::Deserialize;

use super::AcdcEdge;
use crate::Result;
use crate::data::DataFile;

/// Edges from each node of `from` to each later node of `to`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EdgeRule {
    /// Selectors: `input`, `logits`, `mlps` and `heads` (all of them), a group, or a node.
    from: Vec<String>,
    /// Selectors, as above.
    to: Vec<String>,
    /// Reading ports of heads, such as `kv`; exactly where the destinations are heads.
    #[serde(default)]
    ports: String,
}

/// Steps inside each of some heads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InternalRule {
    step: Step,
    /// Selectors of heads.
    heads: Vec<String>,
    ports: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Step {
    Input,
    Output,
}

/// What the selectors of a circuit stand for.
pub(super) struct Selectors<'a> {
    pub(super) file: DataFile<'a>,
    pub(super) grid: HeadGrid,
    /// Groups of heads.
    pub(super) groups: &'a BTreeMap<String, Vec<HeadId>>,
    /// Groups of MLPs, by layer.
    pub(super) mlps: &'a BTreeMap<String, Vec<usize>>,
}

impl Selectors<'_> {
    /// All edges of both kinds of rules.
    pub(super) fn expand(
        &self,
        edges: &[EdgeRule],
        internal: &[InternalRule],
    ) -> Result<BTreeSet<AcdcEdge>> {
        let mut all = BTreeSet::new();
        for rule in edges {
            all.extend(self.edge_rule(rule)?.into_iter().map(AcdcEdge::Residual));
        }
        for rule in internal {
            all.extend(self.internal_rule(rule)?);
        }
        Ok(all)
    }

    fn edge_rule(&self, rule: &EdgeRule) -> Result<Vec<Edge>> {
        let ports = self.ports(&rule.ports)?;
        let destinations = self.select(&rule.to)?;
        let mut edges = Vec::new();
        for source in self.select(&rule.from)? {
            for destination in &destinations {
                if !source.precedes(*destination) {
                    continue;
                }
                match *destination {
                    Node::Head(head) => edges.extend(
                        ports
                            .iter()
                            .map(|port| Edge::into_port(source, head, *port)),
                    ),
                    node => edges.push(Edge::new(source, node)),
                }
            }
        }
        let heads = destinations
            .iter()
            .any(|node| matches!(node, Node::Head(_)));
        self.file.require(heads != ports.is_empty(), || {
            format!("rule {rule:?}: ports are for heads, and heads need them")
        })?;
        self.file.require(!edges.is_empty(), || {
            format!("rule {rule:?} joins no nodes: readers must come after writers")
        })?;
        Ok(edges)
    }

    fn internal_rule(&self, rule: &InternalRule) -> Result<Vec<AcdcEdge>> {
        let ports = self.ports(&rule.ports)?;
        let mut edges = Vec::new();
        for node in self.select(&rule.heads)? {
            let Node::Head(head) = node else {
                return Err(self
                    .file
                    .error(format!("rule {rule:?}: {node} is not a head")));
            };
            edges.extend(ports.iter().map(|port| match rule.step {
                Step::Input => AcdcEdge::PortInput(head, *port),
                Step::Output => AcdcEdge::HeadOutput(head, *port),
            }));
        }
        self.file
            .require(!edges.is_empty(), || format!("rule {rule:?} adds nothing"))?;
        Ok(edges)
    }

    fn ports(&self, ports: &str) -> Result<Vec<Port>> {
        ports
            .chars()
            .map(|port| {
                port.to_string()
                    .parse()
                    .map_err(|error| self.file.error(format!("ports {ports:?}: {error}")))
            })
            .collect()
    }

    fn select(&self, names: &[String]) -> Result<BTreeSet<Node>> {
        let mut nodes = BTreeSet::new();
        for name in names {
            match name.as_str() {
                "mlps" => nodes.extend((0..self.grid.n_layers).map(Node::Mlp)),
                "heads" => nodes.extend(self.groups.values().flatten().copied().map(Node::Head)),
                _ => match (self.groups.get(name), self.mlps.get(name)) {
                    (Some(heads), None) => nodes.extend(heads.iter().copied().map(Node::Head)),
                    (None, Some(layers)) => nodes.extend(layers.iter().copied().map(Node::Mlp)),
                    (Some(_), Some(_)) => {
                        return Err(self.file.error(format!(
                            "{name:?} names both a group of heads and one of MLPs"
                        )));
                    }
                    (None, None) => {
                        nodes.insert(self.node(name)?);
                    }
                },
            }
        }
        match nodes.iter().find(|node| !self.exists(**node)) {
            Some(node) => Err(self.file.error(format!(
                "{node}: the model has {} layers of {} heads",
                self.grid.n_layers, self.grid.n_heads
            ))),
            None => Ok(nodes),
        }
    }

    /// A single node, by its own name or a head's.
    fn node(&self, name: &str) -> Result<Node> {
        let node = name.parse::<Node>().ok();
        let head = || name.parse::<HeadId>().ok().map(Node::Head);
        node.or_else(head).ok_or_else(|| {
            let groups = self.groups.keys().chain(self.mlps.keys());
            let known = ["input", "logits", "mlps", "heads"]
                .into_iter()
                .chain(groups.map(String::as_str));
            let hint = did_you_mean(nearest(name, known));
            self.file
                .error(format!("{name:?} is neither a group nor a node{hint}"))
        })
    }

    fn exists(&self, node: Node) -> bool {
        match node {
            Node::Head(head) => self.grid.contains(head),
            Node::Mlp(layer) => layer < self.grid.n_layers,
            Node::Input | Node::Logits => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: DataFile<'_> = DataFile {
        name: "test.json",
        text: "",
    };

    fn expand(rules: &str) -> Result<Vec<String>> {
        let groups = BTreeMap::from([
            (
                "early".to_owned(),
                vec![HeadId::new(0, 0), HeadId::new(1, 0)],
            ),
            ("late".to_owned(), vec![HeadId::new(1, 1)]),
        ]);
        let mlps = BTreeMap::from([("M0".to_owned(), vec![0])]);
        let rules: Vec<EdgeRule> = serde_json::from_str(rules).unwrap();
        let selectors = Selectors {
            file: FILE,
            grid: HeadGrid::new(2, 2),
            groups: &groups,
            mlps: &mlps,
        };
        let edges = selectors.expand(&rules, &[])?;
        Ok(edges.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn only_later_readers_are_joined() {
        let edges = expand(r#"[{"from": ["early"], "to": ["late"], "ports": "kv"}]"#).unwrap();
        assert_eq!(
            edges,
            ["a0.h0->a1.h1<k>", "a0.h0->a1.h1<v>"],
            "not from layer 1"
        );
        let edges = expand(r#"[{"from": ["heads"], "to": ["mlps"]}]"#).unwrap();
        assert_eq!(
            edges,
            ["a0.h0->m0", "a0.h0->m1", "a1.h0->m1", "a1.h1->m1"],
            "the MLP of a layer reads that layer's heads"
        );
        let edges = expand(r#"[{"from": ["M0", "input"], "to": ["L1H1"], "ports": "q"}]"#).unwrap();
        assert_eq!(edges, ["input->a1.h1<q>", "m0->a1.h1<q>"]);
    }

    #[test]
    fn rules_that_cannot_be_meant_are_refused() {
        let message = |rules: &str| expand(rules).unwrap_err().to_string();
        assert_eq!(
            message(r#"[{"from": ["erly"], "to": ["logits"]}]"#),
            "test.json: \"erly\" is neither a group nor a node (did you mean `early`?)"
        );
        assert_eq!(
            message(r#"[{"from": ["L2H0"], "to": ["logits"]}]"#),
            "test.json: a2.h0: the model has 2 layers of 2 heads"
        );
        assert!(message(r#"[{"from": ["early"], "to": ["late"]}]"#).contains("heads need them"));
        assert!(
            message(r#"[{"from": ["input"], "to": ["m0"], "ports": "q"}]"#)
                .contains("ports are for heads")
        );
        assert!(message(r#"[{"from": ["m1"], "to": ["m0"]}]"#).contains("joins no nodes"));
        assert!(
            message(r#"[{"from": ["input"], "to": ["late"], "ports": "x"}]"#)
                .contains("ports \"x\"")
        );
    }
}
