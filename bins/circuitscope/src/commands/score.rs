//! `score`: codes in, scores of heads and of pairs of heads out.

use anyhow::{Context as _, Result};
use circuitscope::score::{
    CodeTable, EdgeScore, NodeScore, PairScores, amplitude_scores, node_scores, pair_scores,
};
use circuitscope::{HeadGrid, Polarity};
use serde::Serialize;

use crate::args::ScoreArgs;
use crate::output::{Printer, count, note, table};

/// What is printed. Heads run layer by layer in every list.
#[derive(Debug, Serialize)]
struct Scored {
    n_layers: usize,
    n_heads: usize,
    positives: usize,
    negatives: usize,
    paper_compatible: bool,
    nodes: Vec<NodeScore>,
    /// For each head the mean amplitude of the codes that it has on positives only; `null` without amplitudes.
    amplitude_scores: Option<Vec<f64>>,
    /// `[heads][heads]`: code pairs seen on positives and never on negatives.
    edges: Vec<Vec<u32>>,
    /// The same divided by the number of code pairs seen at all.
    edges_normalised: Vec<Vec<f64>>,
    paper_edge_head_counts: Vec<u32>,
}

pub(crate) fn run(args: &ScoreArgs, printer: Printer) -> Result<()> {
    let codes = CodeTable::read(&args.codes)?;
    let codes = if args.paper_compatible {
        codes.paper_compatible()
    } else {
        codes
    };
    let of_file = || args.codes.display().to_string();
    let nodes = node_scores(&codes).with_context(of_file)?;
    let pairs = pair_scores(&codes).with_context(of_file)?;
    let amplitudes = codes.amplitudes().map(|_| amplitude_scores(&codes));
    let amplitudes = amplitudes.transpose().with_context(of_file)?;
    if amplitudes.is_none() {
        note(&format!(
            "note: {}: no amplitudes, so that codes are counted and not weighed: `encode` writes them",
            args.codes.display()
        ));
    }
    let scored = Scored::new(&codes, nodes, amplitudes, &pairs, args.paper_compatible);
    printer.print(&scored, || scored.text(&pairs, args.top))
}

impl Scored {
    fn new(
        codes: &CodeTable,
        nodes: Vec<NodeScore>,
        amplitude_scores: Option<Vec<f64>>,
        pairs: &PairScores,
        paper_compatible: bool,
    ) -> Self {
        let HeadGrid { n_layers, n_heads } = codes.grid();
        let heads = codes.grid().len();
        let labels = codes.labels().iter();
        let positives = labels.filter(|label| **label == Polarity::Positive).count();
        let normalised = pairs.normalised();
        Self {
            n_layers,
            n_heads,
            positives,
            negatives: codes.examples() - positives,
            paper_compatible,
            nodes,
            amplitude_scores,
            edges: pairs.unique().chunks(heads).map(<[_]>::to_vec).collect(),
            edges_normalised: normalised.chunks(heads).map(<[_]>::to_vec).collect(),
            paper_edge_head_counts: pairs.paper_head_counts(None),
        }
    }

    fn text(&self, pairs: &PairScores, top: usize) -> String {
        let mut nodes: Vec<&NodeScore> = self.nodes.iter().collect();
        nodes.sort_by(|a, b| b.unique.cmp(&a.unique).then(a.head.cmp(&b.head)));
        let rows: Vec<Vec<String>> = nodes
            .into_iter()
            .take(top)
            .map(|score| {
                let amplitude = || {
                    let at = HeadGrid::new(self.n_layers, self.n_heads).index(score.head)?;
                    self.amplitude_scores.as_ref()?.get(at)
                };
                vec![
                    score.head.to_string(),
                    score.unique.to_string(),
                    score.union.to_string(),
                    format!("{:.3}", score.normalised),
                    amplitude().map_or_else(|| "–".to_owned(), |score| format!("{score:.4}")),
                ]
            })
            .collect();
        let heads = table(
            &["head", "unique", "codes", "normalised", "amplitude"],
            &rows,
        );
        let mut edges: Vec<EdgeScore> = pairs.directed();
        // Stable: equal scores stay in order of the writer, then of the reader.
        edges.sort_by_key(|edge| core::cmp::Reverse(edge.unique));
        let rows: Vec<Vec<String>> = edges
            .iter()
            .take(top)
            .map(|edge| {
                vec![
                    format!("{}->{}", edge.source, edge.destination),
                    edge.unique.to_string(),
                    edge.union.to_string(),
                    format!("{:.3}", edge.normalised),
                ]
            })
            .collect();
        let examples = format!(
            "{} and {}, {} layers of {}",
            count(self.positives, "positive example"),
            count(self.negatives, "negative one"),
            self.n_layers,
            count(self.n_heads, "head")
        );
        let edges = if rows.is_empty() {
            String::new()
        } else {
            let edges = table(&["edge", "unique", "pairs", "normalised"], &rows);
            format!("\nEdges, by code pairs seen on positives only:\n{edges}")
        };
        format!("{examples}\n\nHeads, by codes seen on positives only:\n{heads}{edges}")
    }
}
