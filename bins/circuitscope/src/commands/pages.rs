//! Pictures and pages in an output folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use circuitscope::eval::Choice;
use circuitscope::eval::methods::{FromFile, about};
use circuitscope::measures::RunRecord;
use circuitscope::report::{MethodReport, Passage, ReportInput, TaskReport, render};
use circuitscope::tasks::{GroundTruth, Task, ground_truths};
use circuitscope::{FailingPrompt, PromptBehaviour};
use serde_json::{Value, json};

use super::eval::Results;
use super::exports::remove_file;
use super::found::Found;
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
    let summaries = summaries(records);
    let mut tasks = TaskReport::of_runs(
        records,
        |task| truths.get(task),
        |method| summaries.get(method).cloned().unwrap_or_default(),
    )?;
    for task in &mut tasks {
        if let Some(behaviour) = results.behaviour.get(&task.task) {
            task.passages = vec![behaviour_passage(behaviour, behaviour.sentences())];
        }
    }
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
    if let (Some(of), Some(why)) = (
        settings["circuits"].as_str(),
        settings["circuits_why"].as_str(),
    ) {
        facts.insert(
            1,
            ("known circuits".to_owned(), format!("those of {of}: {why}")),
        );
    }
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

/// Removes the page of an earlier run; its pictures are those that the page names.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    remove_file(&folder.join("report.html"))
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
            ..MethodReport::of_scores(&found.method, summary, found.scores_by_index(grid))
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
    if let Some(model) = &found.model {
        let processing = json!(model.processing);
        facts.push(("model".to_owned(), model_name(&json!(model))));
        facts.push(("weights".to_owned(), text(&processing)));
    }
    facts.push(("method".to_owned(), found.method.clone()));
    if let Some(chosen) = &found.chosen {
        facts.push(("rule".to_owned(), rule(chosen.selection)));
    }
    if let Some(metric) = &found.metric {
        facts.push(("metric".to_owned(), metric.metric.to_string()));
    }
    if let Some(ablation) = &found.ablation {
        facts.push(("ablation".to_owned(), ablation.to_string()));
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
        passages.push(behaviour_passage(behaviour, found.behaviour_sentences()));
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
    passages
}

fn behaviour_passage(behaviour: &PromptBehaviour, sentences: Vec<String>) -> Passage {
    let mut passage = Passage::new("What the model makes of the prompts", sentences);
    if !behaviour.failing.is_empty() {
        let title = format!(
            "{} with a wrong answer",
            count(behaviour.failing.len(), "prompt")
        );
        let lines = behaviour.failing.iter().map(FailingPrompt::line);
        passage.list = Some((title, lines.collect()));
    }
    passage
}

/// A rule as `--select` has it.
fn rule(choice: Choice) -> String {
    match json!(choice) {
        Value::String(name) => name,
        Value::Object(rule) => {
            let parts = rule.iter().map(|(name, value)| format!("{name}:{value}"));
            parts.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// What each method's score is, in a sentence.
fn summaries(records: &[RunRecord]) -> BTreeMap<String, String> {
    let mut summaries = BTreeMap::new();
    for record in records {
        if !summaries.contains_key(&record.method) {
            // What is none of our methods came from a file.
            let summary = about(&record.method).map_or(FromFile::SUMMARY, |about| &about.summary);
            summaries.insert(record.method.clone(), summary.to_owned());
        }
    }
    summaries
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
