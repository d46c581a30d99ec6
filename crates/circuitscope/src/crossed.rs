//! What the circuits of each task keep of every other task.

use burn::tensor::backend::Backend;
use circuitscope_core::{HeadId, Metric, Progress};
use circuitscope_eval::kept_shares;
use circuitscope_measures::{CrossTask, KeptShare, RunRecord, Selection};
use circuitscope_model::Loaded;
use circuitscope_tasks::TaskSpec;

use crate::{
    CaptureSettings, Error, JudgedBy, PrepareSettings, Result, causal_evidence, prepare_task,
};

/// What chose the circuits that are known.
const KNOWN: &str = "known circuit";

/// How [`cross_tasks`] runs the model.
#[derive(Debug, Clone, Copy)]
pub struct CrossSettings {
    /// How prompts are made ready. Without a metric, that is [`Metric::Contrast`], which every task has.
    pub prepare: PrepareSettings,
    /// How the model is run, what takes the place of an ablated output, and the seed of prompts and draws.
    pub capture: CaptureSettings,
    /// Pairs of prompts that circuits are run on, at most.
    pub pairs: usize,
}

/// Fails where there are no two tasks to compare, before anything runs.
///
/// # Errors
/// [`Error::OneTask`].
pub const fn two_tasks(found: usize) -> Result<()> {
    if found < 2 {
        return Err(Error::OneTask { found });
    }
    Ok(())
}

/// Runs, on each task, the circuits of all: those known, and those that Otsu's rule takes from the scores of each method with
/// the first seed. One table for each way of choosing, the known circuits first.
///
/// # Errors
/// As [`two_tasks`], [`prepare_task`] and [`causal_evidence`]; those of running the model.
pub fn cross_tasks<B: Backend>(
    loaded: &Loaded<B>,
    tasks: &[(TaskSpec, JudgedBy)],
    records: &[RunRecord],
    settings: CrossSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Vec<CrossTask>> {
    two_tasks(tasks.len())?;
    let seed = settings.capture.seed;
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
    let metric = settings.prepare.metric.unwrap_or(Metric::Contrast);
    let prepare = settings.prepare.with_metric(Some(metric));
    let mut rows: Vec<Vec<Option<KeptShare>>> = Vec::new();
    for (task, judged) in tasks {
        let prompts = prepare_task(loaded, task, judged.pairs, seed, prepare)?;
        let causal = causal_evidence(loaded, &prompts, settings.capture, device)?;
        let kept = kept_shares(&causal, &circuits, settings.pairs, seed, progress)?;
        rows.push(kept);
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
