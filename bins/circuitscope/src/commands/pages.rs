//! Pictures and pages in an output folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use circuitscope::core::{HeadGrid, HeadId};
use circuitscope::eval::RunRecord;
use circuitscope::eval::methods::{FromFile, MethodSettings, method};
use circuitscope::eval::report::{MethodReport, ReportInput, TaskReport, render};
use circuitscope::tasks::{GroundTruth, Task, ground_truths};
use serde_json::{Value, json};

use super::discover::Found;
use super::eval::Results;
use crate::device::{B, DeviceName};
use crate::output::count;

/// The page of an evaluation.
pub(crate) fn evaluation(
    folder: &Path,
    records: &[RunRecord],
    results: &Results,
) -> Result<PathBuf> {
    let provenance = &results.provenance;
    let settings = &provenance["settings"];
    let mut truths: BTreeMap<String, GroundTruth> = BTreeMap::new();
    for record in records {
        let task: Task = record.task.parse()?;
        let model = settings["circuits"].as_str().unwrap_or_default();
        if let Some(truth) = ground_truths(task, model)?.into_iter().next() {
            truths.insert(record.task.clone(), truth);
        }
    }
    let summaries = summaries(records)?;
    let tasks = TaskReport::of_runs(
        records,
        |task| truths.get(task),
        |method| summaries.get(method).cloned().unwrap_or_default(),
    )?;
    let seeds = results.summary.iter().map(|row| row.seeds).max();
    let mut facts = vec![
        ("model".to_owned(), model_name(&provenance["model"])),
        (
            "weights".to_owned(),
            text(&provenance["model"]["processing"]),
        ),
        (
            "prompts".to_owned(),
            format!(
                "{} pairs for each task, {} before each",
                settings["examples"],
                bos(&settings["prepend_bos"]["done"])
            ),
        ),
        (
            "dictionary".to_owned(),
            format!(
                "{} features, trained on {} examples for {} steps",
                settings["codes"], settings["train_examples"], settings["steps"]
            ),
        ),
        ("seeds".to_owned(), seeds.unwrap_or(0).to_string()),
        ("device".to_owned(), text(&settings["device"])),
    ];
    if let Some(seconds) = provenance["seconds"].as_f64() {
        facts.push(("time".to_owned(), format!("{seconds:.1} s")));
    }
    let input = ReportInput {
        title: "Known circuits, methods and controls".to_owned(),
        lead: "How well each method ranks the heads of circuits that are known, beside controls \
               that any method should beat."
            .to_owned(),
        facts,
        tasks,
        provenance: provenance.clone(),
    };
    Ok(render(&input)?.write(folder)?)
}

/// The page of a discovery.
pub(crate) fn discovery(
    folder: &Path,
    found: &Found,
    truth: Option<&GroundTruth>,
) -> Result<PathBuf> {
    let grid = HeadGrid::new(found.n_layers, found.n_heads);
    let mut scores = vec![0.0; grid.len()];
    for head in &found.heads {
        if let Some(at) = grid.index(head.head) {
            scores[at] = head.score;
        }
    }
    let settings = MethodSettings::default();
    let device = DeviceName::default().open()?;
    let summary = method::<B>(&found.method, &settings, &device.training())?.summary();
    let chosen: Vec<HeadId> = found.chosen.circuit.heads().collect();
    let (marked, heads, truth_name) = match truth {
        Some(truth) => (
            "in the known circuit",
            truth.circuit.heads().collect(),
            truth.variant.clone(),
        ),
        None => ("chosen", chosen.clone(), String::new()),
    };
    let names: Vec<String> = chosen.iter().map(ToString::to_string).collect();
    let lead = if names.is_empty() {
        "No head stands out.".to_owned()
    } else {
        format!(
            "{} stand out: {}. The choice says which scores part from the others, not how sure one \
             may be.",
            count(names.len(), "head"),
            names.join(", ")
        )
    };
    let mut facts = vec![(
        "examples".to_owned(),
        format!("{} positive, {} negative", found.positives, found.negatives),
    )];
    if let Some(model) = &found.model {
        let processing = json!(model.processing);
        facts.push(("model".to_owned(), model_name(&json!(model))));
        facts.push(("weights".to_owned(), text(&processing)));
    }
    if let Some(device) = &found.provenance.device {
        facts.push(("device".to_owned(), device.clone()));
    }
    facts.push((
        "time".to_owned(),
        format!("{:.1} s", found.provenance.seconds),
    ));
    let input = ReportInput {
        title: "Heads that take part".to_owned(),
        lead,
        facts,
        tasks: vec![TaskReport {
            task: found.behaviour.clone(),
            grid,
            truth: Some(heads),
            truth_name,
            marked: marked.to_owned(),
            methods: vec![MethodReport::of_scores(&found.method, summary, scores)],
        }],
        provenance: json!({
            "provenance": found.provenance,
            "settings": found.settings,
            "model": found.model,
        }),
    };
    Ok(render(&input)?.write(folder)?)
}

/// What each method's score is, in a sentence.
fn summaries(records: &[RunRecord]) -> Result<BTreeMap<String, String>> {
    let device = DeviceName::default().open()?;
    let mut summaries = BTreeMap::new();
    for record in records {
        if !summaries.contains_key(&record.method) {
            let settings = MethodSettings::default();
            // What is none of our methods came from a file.
            let summary = match method::<B>(&record.method, &settings, &device.training()) {
                Ok(method) => method.summary(),
                Err(_) => FromFile::SUMMARY,
            };
            summaries.insert(record.method.clone(), summary.to_owned());
        }
    }
    Ok(summaries)
}

fn model_name(model: &Value) -> String {
    format!("{} ({})", text(&model["name"]), text(&model["family"]))
}

fn bos(prepended: &Value) -> &'static str {
    if prepended == &Value::Bool(true) {
        "a beginning-of-sequence token"
    } else {
        "nothing"
    }
}

/// A string without its quotes, anything else as JSON.
fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
