//! `eval --scores --circuit FILE` without a task: scores of other tools, judged by a circuit in a file. No model runs.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use circuitscope::eval::methods::FromFile;
use circuitscope::measures::formats::GraphFile;
use circuitscope::measures::{Judgement, judge};
use circuitscope::tasks::GroundTruth;
use circuitscope::{CircuitChoice, Graph, HeadId, Node, read_circuits};
use serde::Serialize;

use crate::args::EvalArgs;
use crate::output::{Printer, note, table};
use crate::provenance::{self, Provenance};

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    circuit: String,
    heads: usize,
    files: Vec<Row>,
    provenance: Provenance,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    file: String,
    #[serde(flatten)]
    judgement: Judgement,
}

pub(super) fn run(args: &EvalArgs, printer: Printer) -> Result<()> {
    let mut provenance = provenance::start();
    let Some(CircuitChoice::File(circuit)) = &args.circuit else {
        bail!(
            "--scores: found no --task, expected the one --task that the scores are for, or --circuit FILE, by which they \
             are judged without a model"
        );
    };
    let given = args.given.iter().map(String::as_str);
    let unread = given.filter(|option| !["scores", "circuit"].contains(option));
    let unread: Vec<String> = unread.map(|option| format!("--{option}")).collect();
    if !unread.is_empty() {
        bail!(
            "--scores: found {} without --task: scores that are judged by --circuit {} alone run no model; leave {} out, or name the \
             --task",
            unread.join(", "),
            circuit.display(),
            if unread.len() == 1 { "it" } else { "them" }
        );
    }
    provenance.input(circuit)?;
    let mut names = Vec::new();
    let mut rows = Vec::new();
    let mut known: Option<(Graph, GroundTruth)> = None;
    for path in &args.scores {
        let name = FromFile::row_name(path, &names).map_err(|error| anyhow!("--scores {error}"))?;
        names.push(name.clone());
        let file = GraphFile::read(path)?;
        let graph = graph(path, &file)?;
        let file = FromFile::of(&name, path, file, graph)?;
        provenance.input(path)?;
        for said in file.notes() {
            note(&format!("note: {}: {said}", path.display()));
        }
        // Files of one model are judged by one circuit, read once.
        if known.as_ref().is_none_or(|(of, _)| *of != graph) {
            let truth = read_circuits(circuit, "scores", &graph)?.swap_remove(0);
            known = Some((graph, truth));
        }
        let Some((_, truth)) = &known else {
            unreachable!("read above")
        };
        rows.push(Row {
            name,
            file: path.display().to_string(),
            judgement: judge(&file.scores(), truth)?,
        });
    }
    let report = Report {
        circuit: circuit.display().to_string(),
        heads: known.map_or(0, |(_, truth)| truth.circuit.heads().count()),
        files: rows,
        provenance: provenance.now(),
    };
    printer.print(&report, || text(&report))
}

/// The graph of the model that a file speaks of; queries, keys and values of a head are its own. Without a model the file has
/// to name every head that it says there are.
fn graph(path: &Path, file: &GraphFile) -> Result<Graph> {
    let named = file.nodes.iter().map(|(node, _)| *node);
    let ends = file
        .edges
        .iter()
        .flat_map(|(edge, _)| [edge.source, edge.destination]);
    let heads: BTreeSet<HeadId> = named
        .chain(ends)
        .filter_map(|node| match node {
            Node::Head(head) => Some(head),
            _ => None,
        })
        .collect();
    let said = file.n_layers.checked_mul(file.n_heads);
    if said != Some(heads.len()) {
        bail!(
            "{}: cfg: found {} layers of {} heads and {} heads among the nodes, expected all of them to be there",
            path.display(),
            file.n_layers,
            file.n_heads,
            heads.len()
        );
    }
    let nodes = file.nodes.iter().map(|(node, _)| *node);
    let ends = file.edges.iter().map(|(edge, _)| edge.source);
    Ok(Graph {
        n_layers: file.n_layers,
        n_heads: file.n_heads,
        n_key_value_heads: file.n_heads,
        mlps: nodes.chain(ends).any(|node| matches!(node, Node::Mlp(_))),
        parallel: file.parallel_attn_mlp,
    })
}

fn text(report: &Report) -> String {
    let figure = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |x| format!("{x:.4}"));
    let rows: Vec<Vec<String>> = report
        .files
        .iter()
        .map(|row| {
            let found = &row.judgement;
            vec![
                row.name.clone(),
                figure(Some(found.node_auc)),
                figure(Some(found.node_average_precision)),
                figure(Some(found.best_f1)),
                figure(found.edge_auc),
                figure(found.graph_edge_auc),
            ]
        })
        .collect();
    let header = [
        "scores",
        "node AUC",
        "average precision",
        "best F1",
        "edge AUC",
        "graph edge AUC",
    ];
    format!(
        "{}by the {} heads of {}; edge AUC: of pairs of heads; graph edge AUC: of all edges of the graph, ports apart\n",
        table(&header, &rows),
        report.heads,
        report.circuit
    )
}
