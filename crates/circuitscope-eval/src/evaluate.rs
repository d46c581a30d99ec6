use std::collections::BTreeSet;
use std::time::Instant;

use burn::tensor::backend::{AutodiffBackend, Backend};
use circuitscope_core::{Progress, Seed};
use circuitscope_score::stats::{Interval, PairedComparison, bootstrap, mean_pairwise_jaccard};
use circuitscope_tasks::GroundTruth;
use serde::{Deserialize, Serialize};

use crate::judge::{Judgement, Spread, judge};
use crate::methods::BoxedMethod;
use crate::store::{RunKey, RunStore};
use crate::{
    Discover, Error, Evidence, Faithfulness, Measured, Result, Scores, Selection,
    measure_faithfulness,
};

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
    /// The same measures on bootstrap resamples of the prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resampled: Option<Resampled>,
    /// What circuits taken from the ranking keep of the behaviour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faithfulness: Option<Faithfulness>,
    /// What was judged.
    pub scores: Scores,
}

/// Measures on bootstrap resamples of the prompts, resample by resample. All methods see the same
/// resamples of a task and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resampled {
    /// See [`Judgement::node_auc`].
    pub node_auc: Vec<f64>,
    /// See [`Judgement::edge_auc`]; empty where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edge_auc: Vec<f64>,
    /// How alike the circuits are that [`Selection::Otsu`] chooses on two resamples: mean pairwise
    /// Jaccard index. arXiv 2510.00845 asks for 0.8.
    pub jaccard: f64,
    /// Wall time of scoring all of them, in seconds.
    pub seconds: f64,
}

/// What an evaluation does besides judging scores on all prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluateSettings {
    /// Bootstrap resamples of the prompts for each run, at most; methods that have to run the model
    /// again for each take none ([`About::resamples`](crate::About::resamples)). Default 100.
    pub resamples: usize,
    /// Pairs of prompts on which circuits of growing size are run, for the first seed of each method;
    /// 0 (the default) for none.
    pub faithfulness_pairs: usize,
}

impl Default for EvaluateSettings {
    fn default() -> Self {
        Self {
            resamples: 100,
            faithfulness_pairs: 0,
        }
    }
}

/// Runs one method and judges it.
///
/// # Errors
/// Those of the method and of [`judge`]; with `settings.faithfulness_pairs`, evidence without a model.
pub fn run<B: Backend>(
    method: &dyn Discover<B>,
    task: &JudgedTask<B>,
    seed: Seed,
    settings: EvaluateSettings,
    progress: &dyn Progress,
) -> Result<RunRecord> {
    let done = Done::new(method, task, seed, progress)?;
    record(method, task, &done, seed, settings, progress)
}

/// A method that has measured.
struct Done<'a> {
    measured: Box<dyn Measured + 'a>,
    scores: Scores,
    seconds: f64,
}

impl<'a> Done<'a> {
    fn new<B: Backend>(
        method: &'a dyn Discover<B>,
        task: &'a JudgedTask<B>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let start = Instant::now();
        let measured = method.measure(&task.evidence, seed, progress)?;
        let scores = measured.scores(None)?;
        Ok(Self {
            measured,
            scores,
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}

fn record<B: Backend>(
    method: &dyn Discover<B>,
    task: &JudgedTask<B>,
    done: &Done<'_>,
    seed: Seed,
    settings: EvaluateSettings,
    progress: &dyn Progress,
) -> Result<RunRecord> {
    let Done {
        measured,
        scores,
        seconds,
    } = done;
    let mut judgements = task
        .truths
        .iter()
        .map(|truth| judge(scores, truth))
        .collect::<Result<Vec<_>>>()?;
    let Some(truth) = task.truths.first() else {
        return Err(Error::Shape {
            what: "known circuits",
            found: 0,
            expected: 1,
        });
    };
    let judgement = judgements.remove(0);
    let count = settings.resamples.min(method.about().resamples);
    let resampled = if count > 0 {
        let measured = measured.as_ref();
        Some(resample(task, truth, measured, count, seed, progress)?)
    } else {
        None
    };
    let faithfulness = if settings.faithfulness_pairs > 0 {
        let causal = task.evidence.causal(method.name())?;
        let pairs = settings.faithfulness_pairs;
        Some(measure_faithfulness(causal, scores, pairs, progress)?)
    } else {
        None
    };
    Ok(RunRecord {
        task: task.task.clone(),
        method: method.name().to_owned(),
        control: method.about().control,
        seed: seed.value(),
        judgement,
        other_truths: judgements,
        seconds: *seconds,
        resampled,
        faithfulness,
        scores: scores.clone(),
    })
}

fn resample<B: Backend>(
    task: &JudgedTask<B>,
    truth: &GroundTruth,
    measured: &dyn Measured,
    count: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Resampled> {
    let start = Instant::now();
    let (labels, pairs) = (task.evidence.labels(), task.evidence.pairs());
    let (mut node_auc, mut edge_auc, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
    for resample in bootstrap(labels, pairs, count, seed)? {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let scores = measured.scores(Some(resample.rows()))?;
        let judgement = judge(&scores, truth)?;
        node_auc.push(judgement.node_auc);
        edge_auc.extend(judgement.edge_auc);
        let circuit = Selection::Otsu.circuit(&scores);
        chosen.push(circuit.heads().collect::<BTreeSet<_>>());
    }
    Ok(Resampled {
        node_auc,
        edge_auc,
        jaccard: mean_pairwise_jaccard(&chosen).unwrap_or(1.0),
        seconds: start.elapsed().as_secs_f64(),
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
    settings: EvaluateSettings,
    store: &mut dyn RunStore,
    progress: &dyn Progress,
) -> Result<Vec<RunRecord>> {
    let total = tasks.len() * methods.len() * seeds.len();
    let mut records = Vec::with_capacity(total);
    progress.begin("evaluating", total as u64);
    for task in tasks {
        for method in methods {
            let mut done: Option<Done<'_>> = None;
            for (at, &seed) in seeds.iter().enumerate() {
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
                    // Curves are slow to measure and differ little between seeds.
                    let settings = EvaluateSettings {
                        faithfulness_pairs: if at == 0 {
                            settings.faithfulness_pairs
                        } else {
                            0
                        },
                        ..settings
                    };
                    let again = match done.take().filter(|_| !method.about().uses_seed) {
                        Some(done) => done,
                        None => Done::new(method.as_ref(), task, seed, progress)
                            .map_err(|error| error.of_task(&task.task))?,
                    };
                    let record = record(method.as_ref(), task, &again, seed, settings, progress)
                        .map_err(|error| error.of_task(&task.task))?;
                    done = Some(again);
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
    /// The middle 95 % of the node AUC over bootstrap resamples of the prompts, of all seeds together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_interval: Option<Interval>,
    /// The same of the edge AUC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge_interval: Option<Interval>,
    /// See [`Resampled::jaccard`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jaccard: Option<Spread>,
    /// See [`Curve::cpr`](crate::Curve::cpr), of heads, on the first seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_cpr: Option<f64>,
    /// See [`Curve::cmd`](crate::Curve::cmd), of heads, on the first seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_cmd: Option<f64>,
    /// For a method: its node AUC less that of each control of the task, on the same resamples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<Against>,
    /// For a method: the controls that it is not clearly above: those whose mean node AUC it does not
    /// exceed, those from which the interval of the paired difference reaches down to 0, and, where a method is
    /// not run on resamples, all of them: nothing says how far its lead would last.
    pub not_above: Vec<String>,
}

/// Middle share of resamples that every interval holds.
const LEVEL: f64 = 0.95;

/// A method compared with a control on the same prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// The control.
    pub control: String,
    /// The method's node AUC less the control's, resample by resample.
    #[serde(flatten)]
    pub comparison: PairedComparison,
}

/// Node AUCs of a method and of a control on the same resamples, seed by seed.
fn paired(records: &[RunRecord], task: &str, method: &str, control: &str) -> (Vec<f64>, Vec<f64>) {
    let of = |name: &str, seed: u64| {
        let run = records
            .iter()
            .find(|run| run.task == task && run.method == name && run.seed == seed)?;
        Some(&run.resampled.as_ref()?.node_auc)
    };
    let runs = records
        .iter()
        .filter(|run| run.task == task && run.method == method);
    let both = runs.filter_map(|run| Some((of(method, run.seed)?, of(control, run.seed)?)));
    // Methods may take different numbers of resamples: the first ones are the same.
    let pairs = both.flat_map(|(a, b)| a.iter().copied().zip(b.iter().copied()));
    pairs.unzip()
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
                node_interval: Interval::percentile(
                    &pooled(&runs, |resampled| &resampled.node_auc),
                    LEVEL,
                )
                .ok(),
                edge_interval: Interval::percentile(
                    &pooled(&runs, |resampled| &resampled.edge_auc),
                    LEVEL,
                )
                .ok(),
                jaccard: Spread::of(
                    runs.iter()
                        .filter_map(|run| Some(run.resampled.as_ref()?.jaccard)),
                ),
                node_cpr: runs
                    .iter()
                    .find_map(|run| Some(run.faithfulness.as_ref()?.nodes.cpr)),
                node_cmd: runs
                    .iter()
                    .find_map(|run| Some(run.faithfulness.as_ref()?.nodes.cmd)),
                against: Vec::new(),
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
        for (_, control, mean) in controls.iter().filter(|(task, ..)| *task == row.task) {
            let (values, theirs) = paired(records, &row.task, &row.method, control);
            let comparison = PairedComparison::new(&values, &theirs, LEVEL).ok();
            let unclear = comparison.is_none_or(|comparison| !comparison.is_ahead());
            if *mean >= row.node_auc.mean || unclear {
                row.not_above.push(control.clone());
            }
            row.against.extend(comparison.map(|comparison| Against {
                control: control.clone(),
                comparison,
            }));
        }
    }
    rows
}

/// Values of all resamples of some runs.
fn pooled(runs: &[&RunRecord], of: fn(&Resampled) -> &Vec<f64>) -> Vec<f64> {
    let resampled = runs.iter().filter_map(|run| run.resampled.as_ref());
    resampled
        .flat_map(|resampled| of(resampled).clone())
        .collect()
}
