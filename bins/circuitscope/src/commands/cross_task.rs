//! `eval --cross-task`: what the circuits of each task keep of every other.

use anyhow::{Result, bail};
use circuitscope::eval::kept_shares;
use circuitscope::measures::{CrossTask, KeptShare, RunRecord, Selection};
use circuitscope::model::Loaded;
use circuitscope::tasks::TaskSpec;
use circuitscope::{
    HeadId, JudgedBy, Metric, PrepareSettings, Seed, causal_evidence, prepare_task,
};

use super::inputs;
use crate::args::EvalArgs;
use crate::device::{B, Device};
use crate::output::{count, table};
use crate::progress::Terminal;

/// What chose the circuits that are known.
const KNOWN: &str = "known circuit";

/// So many ways of choosing circuits are printed whole.
const WHOLE: usize = 3;

/// Fails where there are no two tasks to compare.
pub(super) fn check(args: &EvalArgs, tasks: usize) -> Result<()> {
    if args.cross_task && tasks < 2 {
        bail!(
            "--cross-task: found {}, expected at least 2",
            count(tasks, "task")
        );
    }
    Ok(())
}

/// Runs, on each task, the circuits of all: those known, and those that Otsu's rule takes from the scores of each method with
/// the first seed.
pub(super) fn run(
    args: &EvalArgs,
    tasks: &[(TaskSpec, JudgedBy)],
    records: &[RunRecord],
    loaded: &Loaded<B>,
    device: &Device,
    progress: &Terminal,
) -> Result<Vec<CrossTask>> {
    let seed = Seed::new(args.seed.seed);
    let mut by: Vec<&str> = vec![KNOWN];
    for record in records {
        if !by.contains(&record.method.as_str()) {
            by.push(&record.method);
        }
    }
    let circuit = |by: &str, task: &(TaskSpec, JudgedBy)| -> Vec<HeadId> {
        if by == KNOWN {
            let truth = task.1.circuits.truths.first();
            return truth.map_or_else(Vec::new, |truth| truth.circuit.heads().collect());
        }
        let of = |record: &&RunRecord| record.method == by && record.task == task.0.name;
        let record = records.iter().find(of);
        record.map_or_else(Vec::new, |record| {
            Selection::Otsu.circuit(&record.scores).heads().collect()
        })
    };
    let circuits: Vec<Vec<HeadId>> = by
        .iter()
        .flat_map(|by| tasks.iter().map(move |task| circuit(by, task)))
        .collect();
    let mut rows: Vec<Vec<Option<KeptShare>>> = Vec::new();
    for (task, judged) in tasks {
        let how = PrepareSettings::default()
            .with_metric(Some(args.patching.metric.unwrap_or(Metric::Contrast)))
            .with_prepend_bos(args.model.prepend_bos);
        let prompts = prepare_task(loaded, task, judged.pairs, seed, how)?;
        let settings = inputs::capture_settings(&args.model, device)
            .with_ablation(args.patching.ablation)
            .with_seed(seed);
        let causal = causal_evidence(loaded, &prompts, settings, device.plain())?;
        let pairs = args.patching.patch_pairs as usize;
        rows.push(kept_shares(&causal, &circuits, pairs, seed, progress)?);
    }
    let names: Vec<String> = tasks
        .iter()
        .map(|(task, _)| task.name.to_string())
        .collect();
    let count = tasks.len();
    let cross = by.iter().enumerate().map(|(at, by)| {
        let columns = at * count..(at + 1) * count;
        let sizes = circuits[columns.clone()].iter().map(Vec::len).collect();
        let kept = rows
            .iter()
            .map(|row| row[columns.clone()].to_vec())
            .collect();
        CrossTask::new(by, names.clone(), sizes, kept)
    });
    Ok(cross.collect())
}

/// Tables for the terminal.
pub(super) fn text(cross: &[CrossTask]) -> String {
    let mut text = String::new();
    for one in cross.iter().take(WHOLE) {
        let rows = one.tasks.iter().enumerate();
        let rows: Vec<Vec<String>> = rows
            .map(|(at, task)| [vec![task.clone()], one.cells(at)].concat())
            .collect();
        let circuits = one.tasks.iter().zip(&one.sizes);
        let circuits = circuits.map(|(task, size)| format!("{task} ({})", count(*size, "head")));
        let header: Vec<String> = ["task run".to_owned()]
            .into_iter()
            .chain(circuits)
            .collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let title = format!(
            "\ncircuits of each task by {}, specificity {}\n\n",
            one.by,
            one.specificity_text()
        );
        text.extend([title, table(&header, &rows)]);
    }
    if cross.len() > WHOLE {
        let rows: Vec<Vec<String>> = cross[WHOLE..]
            .iter()
            .map(|one| vec![one.by.clone(), one.specificity_text()])
            .collect();
        text.push_str("\nthe others, whose tables are in the JSON and on the page\n\n");
        text.push_str(&table(&["circuits by", "specificity"], &rows));
    }
    if !text.is_empty() {
        text.push_str(
            "share of what all heads do for the task that is run, with the circuit in the column kept and all other heads \
             ablated, 95 % in brackets; specificity: what own circuits keep on average less what those of other tasks keep; –: ablating all heads hardly lowers the \
             metric (contrast unless --metric says otherwise)\n",
        );
    }
    text
}
