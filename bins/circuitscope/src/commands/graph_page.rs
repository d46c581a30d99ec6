//! What `graph` prints and draws.

use circuitscope::measures::cards::quoted;
use circuitscope::report::{GraphLine, GraphMark, GraphPage, GraphTable, MarkKind};
use serde_json::json;

use super::graph_report::{Ablated, Counts, Node, Report};
use crate::output::{indented, table};

/// Heads that the control names.
const FIRST: usize = 3;

impl Report {
    /// What is explained, in a sentence.
    pub(super) fn lead(&self) -> String {
        let names = self.targets.iter().map(|target| {
            let value = if target.tokens.len() == 1 {
                format!("{:.1} %", 100.0 * target.weight)
            } else {
                format!("{:.3} nats", target.value)
            };
            format!("{} ({value})", target.name)
        });
        let names: Vec<String> = names.collect();
        let against = self.against.as_ref();
        let against = against.map_or_else(String::new, |text| {
            format!(", against {}", quoted(&text.text))
        });
        format!(
            "Explained after {}{against}: {}",
            quoted(&self.prompt.text),
            names.join(", ")
        )
    }

    /// How far to trust it, a sentence each.
    fn sentences(&self) -> Vec<String> {
        let share = |value: f64| format!("{:.1} %", 100.0 * value);
        let layers: Vec<String> = self
            .transcoders
            .iter()
            .map(|one| one.layer.to_string())
            .collect();
        let through = match (layers.is_empty(), self.settings.neurons) {
            (true, _) => "through neurons".to_owned(),
            (false, neurons) => format!(
                "through transcoders of layers {}{}",
                layers.join(", "),
                if neurons && layers.len() < self.layers {
                    ", neurons of the others"
                } else {
                    ""
                }
            ),
        };
        let Counts {
            active_features,
            features,
            nodes,
            edges,
            kept_nodes,
            kept_edges,
        } = self.counts;
        let error = self.largest_error.as_ref().map_or_else(
            || "no errors: features account for all of it".to_owned(),
            |error| {
                format!(
                    "largest error: {} of what reaches the targets starts in what features of layer {} leave over at {} (position {})",
                    share(error.share),
                    error.layer,
                    quoted(&self.prompt.words[error.position]),
                    error.position
                )
            },
        );
        let mut said = vec![
            format!("{through}: {active_features} active, {features} of them nodes"),
            format!(
                "replacement {}: of the influence that starts in the prompt or in errors, the share of the prompt",
                share(self.scores.replacement)
            ),
            format!(
                "completeness {}: of what enters nodes, weighted by their influence, the share that is no error",
                share(self.scores.completeness)
            ),
            error,
            format!(
                "kept: {kept_nodes} of {nodes} nodes and {kept_edges} of {edges} edges (--nodes {} --edges {})",
                self.settings.nodes, self.settings.edges
            ),
            format!(
                "check: edges into a node sum to its activation or logit within {:.1e}, {:.1e} of their sizes",
                self.check.largest_deviation, self.check.relative
            ),
        ];
        if self.settings.first_position > 0 && !self.transcoders.is_empty() {
            said.push(format!(
                "what MLPs write before position {} is error: the transcoders were trained without",
                self.settings.first_position
            ));
        }
        let Ablated {
            features,
            pearson,
            spearman,
            same_sign,
            ..
        } = &self.ablated;
        if *features > 0 {
            let figure = |value: &Option<f64>| {
                value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"))
            };
            said.push(format!(
                "check: the {features} most influential features taken away one by one with nothing held: r {} and rank correlation {} with what the graph says, the same sign of {same_sign}",
                figure(pearson),
                figure(spearman)
            ));
        }
        if let Some(control) = &self.control {
            let heads: Vec<String> = control
                .heads
                .iter()
                .take(FIRST)
                .map(|one| one.head.to_string())
                .collect();
            said.push(format!(
                "control, neurons in place of transcoders ({} at most): replacement {}, completeness {}, first heads {}",
                control.max_features,
                share(control.scores.replacement),
                share(control.scores.completeness),
                heads.join(" ")
            ));
        }
        said
    }

    fn feature_table(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let rows = self.features.iter().take(self.settings.rows).map(|row| {
            vec![
                row.layer.to_string(),
                row.feature.to_string(),
                quoted(&row.token),
                row.position.to_string(),
                format!("{:.3}", row.activation),
                format!("{:.2} %", 100.0 * row.influence),
                format!("{:.4}", row.adds),
                row.exact
                    .map_or_else(|| "–".to_owned(), |exact| format!("{exact:.4}")),
            ]
        });
        let header = vec![
            "layer",
            "feature",
            "token",
            "position",
            "activation",
            "influence",
            "adds",
            "exactly",
        ];
        (header, rows.collect())
    }

    fn head_rows(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let contrasted = self.heads.iter().all(|row| row.contrast.is_some());
        let rows = self.heads.iter().take(self.settings.rows).map(|row| {
            let contrast = row.contrast.map(|contrast| format!("{contrast:.4}"));
            let rest = [format!("{:.4}", row.influence), format!("{:.4}", row.total)];
            [row.head.to_string()]
                .into_iter()
                .chain(contrast)
                .chain(rest)
                .collect()
        });
        let mut header = vec!["head", "influence", "total"];
        if contrasted {
            header.insert(1, "contrast");
        }
        (header, rows.collect())
    }

    const FEATURES: &str = "influence: share of all nodes' influence, over all paths to the targets; adds: to what is explained, in nats, with patterns, norms \
         and gates held; exactly: what is lost without the feature when nothing is held";
    /// What the columns of heads mean.
    fn heads_note(&self) -> String {
        let contrast = if self.against.is_some() {
            "contrast: what the head moves because of what differs from the prompt of --against, in nats; "
        } else {
            ""
        };
        format!(
            "{contrast}influence: what goes through the head into nodes, relative to all that does, weighted by their influence; total: what \
             the head moves in all, in nats.\nPatterns are held: heads that only tell others where to look do not show"
        )
    }

    pub(super) fn said(&self) -> String {
        let words: Vec<String> = self.prompt.words.iter().map(|word| quoted(word)).collect();
        let mut text = format!("{}\n{}\n\n", self.lead(), words.join(" "));
        text.push_str(&indented(&self.sentences()));
        let (header, rows) = self.feature_table();
        if !rows.is_empty() {
            let features = [table(&header, &rows), Self::FEATURES.to_owned()];
            text.extend(["\n", &features.concat(), "\n"]);
        }
        let (header, rows) = self.head_rows();
        let heads = [table(&header, &rows), self.heads_note()];
        text.extend(["\n", &heads.concat(), "\n"]);
        text
    }

    pub(super) fn page(&self) -> GraphPage {
        let place = |id: usize| self.nodes.iter().position(|node| node.id == id);
        let tables = [
            (
                "The strongest features",
                self.feature_table(),
                Self::FEATURES,
            ),
            ("Heads", self.head_rows(), &self.heads_note()),
        ];
        GraphPage {
            title: "Attribution graph".to_owned(),
            lead: self.lead(),
            said: self.sentences(),
            tokens: self.prompt.words.clone(),
            layers: self.layers,
            nodes: self.nodes.iter().map(|node| self.mark(node)).collect(),
            edges: self
                .edges
                .iter()
                .filter_map(|edge| {
                    Some(GraphLine {
                        source: place(edge.source)?,
                        target: place(edge.target)?,
                        effect: edge.effect,
                    })
                })
                .collect(),
            tables: tables
                .into_iter()
                .map(|(heading, (columns, rows), note)| GraphTable {
                    heading: heading.to_owned(),
                    columns: columns.into_iter().map(str::to_owned).collect(),
                    rows,
                    note: format!("{note}."),
                })
                .collect(),
            provenance: json!(self.provenance),
        }
    }

    fn mark(&self, node: &Node) -> GraphMark {
        let position = node.position.unwrap_or(self.prompt.tokens.len() - 1);
        let layer = node.layer.unwrap_or(0);
        let at = format!("{} ({position})", quoted(&self.prompt.words[position]));
        let influence = format!("influence {:.2} %", 100.0 * node.influence);
        let (kind, label, hint) = match node.kind {
            "feature" => (
                MarkKind::Feature { layer, position },
                String::new(),
                format!(
                    "layer {layer}, feature {} at {at}: activation {:.3}, {influence}",
                    node.feature.unwrap_or(0),
                    node.value
                ),
            ),
            "error" => (
                MarkKind::Error { layer, position },
                String::new(),
                format!("error of layer {layer} at {at}, {influence}"),
            ),
            "token" => (
                MarkKind::Token { position },
                String::new(),
                format!("token {at}, {influence}"),
            ),
            "position" => (
                MarkKind::Position { position },
                String::new(),
                format!("position {position}, {influence}"),
            ),
            _ => {
                let target = node.target.and_then(|target| self.targets.get(target));
                let name = target.map_or_else(String::new, |target| target.name.clone());
                let label = name.trim_matches('`').to_owned();
                let hint = format!("{name}: {:.3} nats", node.value);
                (MarkKind::Logit { position }, label, hint)
            }
        };
        GraphMark {
            kind,
            influence: node.influence,
            label,
            hint,
        }
    }
}
