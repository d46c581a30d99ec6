use std::time::Instant;

use burn::tensor::backend::{AutodiffBackend, Backend};
use circuitscope_core::{Progress, Seed};
use circuitscope_tasks::GroundTruth;
use serde::{Deserialize, Serialize};

use crate::judge::{Judgement, Spread, judge};
use crate::methods::BoxedMethod;
use crate::store::{RunKey, RunStore};
use crate::{Discover, Error, Evidence, Result, Scores};

/// A task ready to be judged: evidence, and one or more accounts of the true circuit.
#[derive(Debug, Clone)]
pub struct JudgedTask<B: Backend> {
    /// Name of the task.
    pub task: String,
    /// Head outputs on its prompts.
    pub evidence: Evidence<B>,
    /// Known circuits, the one that tables quote first.
    pub truths: Vec<GroundTruth>,
}

/// One method, on one task, with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Name of the task.
    pub task: String,
    /// Name of the method.
    pub method: String,
    /// Whether the method is a control.
    pub control: bool,
    /// The seed.
    pub seed: u64,
    /// Measures against the first known circuit.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// Measures against the other accounts of the circuit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_truths: Vec<Judgement>,
    /// Wall time of the method, capture excluded, in seconds. Where two methods use one dictionary,
    /// the one that ran first trained it and carries the time.
    pub seconds: f64,
    /// What was judged.
    pub scores: Scores,
}

/// Runs one method and judges it.
///
/// # Errors
/// Those of the method and of [`judge`].
pub fn run<B: Backend>(
    method: &dyn Discover<B>,
    task: &JudgedTask<B>,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<RunRecord> {
    let start = Instant::now();
    let scores = method.scores(&task.evidence, seed, progress)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut judgements = task
        .truths
        .iter()
        .map(|truth| judge(&scores, truth))
        .collect::<Result<Vec<_>>>()?;
    if judgements.is_empty() {
        return Err(Error::Shape {
            what: "known circuits",
            found: 0,
            expected: 1,
        });
    }
    let judgement = judgements.remove(0);
    Ok(RunRecord {
        task: task.task.clone(),
        method: method.name().to_owned(),
        control: method.is_control(),
        seed: seed.value(),
        judgement,
        other_truths: judgements,
        seconds,
        scores,
    })
}

/// Runs every method on every task with every seed, in that order of nesting, and keeps each result
/// in `store` as soon as it is there. What the store already has is not run again.
///
/// # Errors
/// The first error of a run or of the store; [`Error::Cancelled`] if `progress` asks to stop. Runs
/// finished before stay in the store.
pub fn evaluate<B: AutodiffBackend>(
    tasks: &[JudgedTask<B::InnerBackend>],
    methods: &[BoxedMethod<B>],
    seeds: &[Seed],
    store: &mut dyn RunStore,
    progress: &dyn Progress,
) -> Result<Vec<RunRecord>> {
    let total = tasks.len() * methods.len() * seeds.len();
    let mut records = Vec::with_capacity(total);
    progress.begin("evaluating", total as u64);
    for task in tasks {
        for method in methods {
            for &seed in seeds {
                let key = RunKey {
                    task: task.task.clone(),
                    method: method.name().to_owned(),
                    seed: seed.value(),
                };
                let record = if let Some(record) = store.load(&key)? {
                    record
                } else {
                    if progress.cancelled() {
                        return Err(Error::Cancelled);
                    }
                    let record = run(method.as_ref(), task, seed, progress)?;
                    store.save(&key, &record)?;
                    record
                };
                records.push(record);
                progress.advance(1);
            }
        }
    }
    progress.end();
    Ok(records)
}

/// One row of the table: a method on a task, over seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// Name of the task.
    pub task: String,
    /// Name of the method.
    pub method: String,
    /// Whether the method is a control.
    pub control: bool,
    /// Number of seeds.
    pub seeds: usize,
    /// See [`Judgement::node_auc`].
    pub node_auc: Spread,
    /// See [`Judgement::node_auc_pessimistic`].
    pub node_auc_pessimistic: Spread,
    /// See [`Judgement::node_average_precision`].
    pub node_average_precision: Spread,
    /// See [`Judgement::precision_at_size`].
    pub precision_at_size: Spread,
    /// See [`Judgement::edge_auc`].
    pub edge_auc: Option<Spread>,
    /// See [`Judgement::paper_edge_auc`].
    pub paper_edge_auc: Option<Spread>,
    /// See [`Judgement::best_f1`].
    pub best_f1: Spread,
    /// See [`Judgement::paper_f1`].
    pub paper_f1: Spread,
    /// See [`RunRecord::seconds`].
    pub seconds: Spread,
    /// For a method: the controls of the same task whose mean node AUC it does not exceed.
    pub not_above: Vec<String>,
}

/// Means and standard deviations over seeds, one row for each (task, method) in order of first
/// appearance.
#[must_use]
pub fn summarise(records: &[RunRecord]) -> Vec<SummaryRow> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    for record in records {
        let key = (record.task.as_str(), record.method.as_str());
        if !order.contains(&key) {
            order.push(key);
        }
    }
    let mut rows: Vec<SummaryRow> = order
        .into_iter()
        .filter_map(|(task, method)| {
            let runs: Vec<&RunRecord> = records
                .iter()
                .filter(|run| run.task == task && run.method == method)
                .collect();
            let of = |value: fn(&Judgement) -> f64| {
                Spread::of(runs.iter().map(|run| value(&run.judgement)))
            };
            let of_some = |value: fn(&Judgement) -> Option<f64>| {
                Spread::of(runs.iter().filter_map(|run| value(&run.judgement)))
            };
            Some(SummaryRow {
                task: task.to_owned(),
                method: method.to_owned(),
                control: runs.first()?.control,
                seeds: runs.len(),
                node_auc: of(|j| j.node_auc)?,
                node_auc_pessimistic: of(|j| j.node_auc_pessimistic)?,
                node_average_precision: of(|j| j.node_average_precision)?,
                precision_at_size: of(|j| j.precision_at_size)?,
                edge_auc: of_some(|j| j.edge_auc),
                paper_edge_auc: of_some(|j| j.paper_edge_auc),
                best_f1: of(|j| j.best_f1)?,
                paper_f1: of(|j| j.paper_f1)?,
                seconds: Spread::of(runs.iter().map(|run| run.seconds))?,
                not_above: Vec::new(),
            })
        })
        .collect();
    let controls: Vec<(String, String, f64)> = rows
        .iter()
        .filter(|row| row.control)
        .map(|row| (row.task.clone(), row.method.clone(), row.node_auc.mean))
        .collect();
    for row in rows.iter_mut().filter(|row| !row.control) {
        row.not_above = controls
            .iter()
            .filter(|(task, _, mean)| *task == row.task && *mean >= row.node_auc.mean)
            .map(|(_, method, _)| method.clone())
            .collect();
    }
    rows
}
