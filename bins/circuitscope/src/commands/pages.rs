//! Pictures and pages in an output folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use circuitscope::eval::methods::about;
use circuitscope::measures::RunRecord;
use circuitscope::report::{MethodReport, PAGE_FILE, Passage, ReportInput, TaskReport, render};
use circuitscope::{JudgedBy, Results, model_name, whose};
use serde_json::json;

use super::exports::remove_file;
use super::found::Found;
use crate::output::count;

/// The page of an evaluation.
pub(crate) fn evaluation(
    folder: &Path,
    records: &[RunRecord],
    results: &Results,
    judged: &BTreeMap<String, JudgedBy>,
) -> Result<PathBuf> {
    Ok(render(&results.page(records, judged)?)?.write(folder)?)
}

/// Removes the page of an earlier run; its pictures are those that the page names.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    remove_file(&folder.join(PAGE_FILE))
}

/// The page of a discovery.
pub(crate) fn discovery(folder: &Path, found: &Found) -> Result<PathBuf> {
    let grid = found.grid();
    let summary = &about(&found.method)?.summary;
    let chosen = found.circuit();
    let mut task = TaskReport {
        task: found.examples.clone(),
        grid,
        truth: Some(chosen.clone()),
        truth_name: String::new(),
        marked: "chosen".to_owned(),
        chosen: Vec::new(),
        passages: passages(found),
        methods: vec![MethodReport {
            graph: found.graph.clone(),
            pairs: found.edges.as_ref().map(|pairs| pairs.scores.clone()),
            ..MethodReport::of_scores(&found.method, summary, found.nodes.clone())
        }],
    };
    if let Some(known) = &found.known {
        "in the known circuit".clone_into(&mut task.marked);
        task.truth = Some(known.heads.clone());
        task.truth_name.clone_from(&known.variant);
        task.chosen.clone_from(&chosen);
    }
    let names: Vec<String> = chosen.iter().map(ToString::to_string).collect();
    let lead = if names.is_empty() {
        "No circuit is shown.".to_owned()
    } else {
        format!(
            "A circuit of {}: {}.",
            count(names.len(), "head"),
            names.join(", ")
        )
    };
    let mut facts = vec![(
        "examples".to_owned(),
        format!("{} positive, {} negative", found.positives, found.negatives),
    )];
    if let Some(summary) = &found.summary {
        facts.insert(
            0,
            ("task".to_owned(), format!("{}: {summary}", found.examples)),
        );
    }
    if let Some(known) = &found.known_circuit {
        facts.push(("known circuit".to_owned(), whose(known)));
    }
    if let Some(model) = &found.model {
        facts.push(("model".to_owned(), model_name(model)));
        facts.push(("weights".to_owned(), model.processing.to_string()));
    }
    facts.push(("method".to_owned(), found.method.clone()));
    if let Some(chosen) = &found.chosen {
        facts.push(("rule".to_owned(), chosen.selection.to_string()));
    }
    if let Some(metric) = &found.metric {
        facts.push(("metric".to_owned(), metric.metric.to_string()));
    }
    if let Some(ablation) = &found.ablation {
        facts.push(("reference".to_owned(), ablation.to_string()));
    }
    if let Some(device) = &found.provenance.device {
        facts.push(("device".to_owned(), device.clone()));
    }
    facts.push((
        "time".to_owned(),
        format!("{:.1} s", found.provenance.seconds),
    ));
    let input = ReportInput {
        title: format!("Heads that take part in {}", found.examples),
        lead,
        facts,
        tasks: vec![task],
        provenance: json!({
            "provenance": found.provenance,
            "settings": found.settings,
            "model": found.model,
        }),
    };
    Ok(render(&input)?.write(folder)?)
}

/// What is said before the figures.
fn passages(found: &Found) -> Vec<Passage> {
    let mut passages = Vec::new();
    if let Some(behaviour) = &found.behaviour {
        passages.push(Passage {
            sentences: found.behaviour_sentences(),
            ..behaviour.passage()
        });
    }
    let mut circuit = Passage::new("The circuit", found.circuit_sentences());
    if let Some(knee) = found
        .chosen
        .as_ref()
        .and_then(|chosen| chosen.knee.as_ref())
    {
        let rows = knee.sizes.iter().enumerate().map(|(at, size)| {
            let share = knee.head_shares.get(at);
            vec![
                size.to_string(),
                format!("{:.3}", knee.values[at]),
                share.map_or_else(|| "–".to_owned(), |share| format!("{share:.2}")),
            ]
        });
        let columns = [
            "best heads kept".to_owned(),
            format!("{} (whole model {:.3})", knee.metric, knee.full),
            "share of the whole effect".to_owned(),
        ];
        circuit.table = Some((columns.to_vec(), rows.collect()));
    }
    if !circuit.sentences.is_empty() || circuit.table.is_some() {
        passages.push(circuit);
    }
    if let Some(quality) = &found.quality {
        let mut kept = Passage::new("What it keeps", quality.sentences());
        let rows = quality.marginal.iter().map(|(head, lost)| {
            let ranked = found.heads.iter().find(|ranked| ranked.head == *head);
            let signed = ranked.and_then(|ranked| ranked.signed);
            vec![
                head.to_string(),
                format!("{lost:.3}"),
                signed.map_or_else(|| "–".to_owned(), |signed| format!("{signed:.3}")),
            ]
        });
        let columns = [
            "head".to_owned(),
            format!("{} lost without it", quality.metric),
            "score with its sign".to_owned(),
        ];
        if !quality.marginal.is_empty() {
            kept.table = Some((columns.to_vec(), rows.collect()));
        }
        passages.push(kept);
    }
    if let Some(tests) = &found.tests {
        passages.push(Passage::new("Tests of the circuit", tests.sentences()));
    }
    passages
}
