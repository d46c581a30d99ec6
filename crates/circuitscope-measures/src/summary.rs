use circuitscope_score::stats::{Deviations, Interval, PairedComparison};
use serde::{Deserialize, Serialize};

use crate::{Judgement, Resampled, RunRecord, Spread};

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
    /// The 95 % interval of the node AUC of one seed on as many prompts ([`Deviations`] over half samples of the
    /// prompts, of all seeds together), as far as it lies between 0 and 1. It holds the mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_interval: Option<Interval>,
    /// The same of the edge AUC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge_interval: Option<Interval>,
    /// See [`Resampled::jaccard`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jaccard: Option<Spread>,
    /// See [`Resampled::jaccard_by_chance`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jaccard_by_chance: Option<Spread>,
    /// See [`Curve::cpr`](crate::Curve::cpr), of heads, on the first seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_cpr: Option<f64>,
    /// See [`Curve::cmd`](crate::Curve::cmd), of heads, on the first seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_cmd: Option<f64>,
    /// See [`Curve::accuracy_area`](crate::Curve::accuracy_area), of heads, on the first seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_accuracy_area: Option<f64>,
    /// For a method: its node AUC less that of each control of the task, on the same half samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<Against>,
    /// For a method: the controls that it is not clearly above: those whose mean node AUC it does not
    /// exceed, those from which the interval of the paired difference reaches down to 0, and, where a method is
    /// not run on half samples, all of them: nothing says how far its lead would last.
    pub not_above: Vec<String>,
}

impl SummaryRow {
    /// The Jaccard index and, in brackets, that of chance: `0.82 (0.05)`.
    #[must_use]
    pub fn jaccard_text(&self) -> Option<String> {
        let chance = |chance: Spread| format!(" ({:.2})", chance.mean);
        let chance = self.jaccard_by_chance.map_or_else(String::new, chance);
        self.jaccard
            .map(|jaccard| format!("{:.2}{chance}", jaccard.mean))
    }
}

/// The level of every interval.
const LEVEL: f64 = 0.95;

/// A method compared with a control on the same prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// The control.
    pub control: String,
    /// The method's node AUC less the control's, sample by sample.
    #[serde(flatten)]
    pub comparison: PairedComparison,
}

/// The node AUC of a method less that of a control, of the seeds that both ran with.
fn paired(
    records: &[RunRecord],
    task: &str,
    method: &str,
    control: &str,
) -> Option<PairedComparison> {
    let runs = |name| {
        records
            .iter()
            .filter(move |run| run.task == task && run.method == name)
    };
    let of_seed = |run: &RunRecord| {
        let other = runs(control).find(|other| other.seed == run.seed)?;
        let (ours, theirs) = (run.resampled.as_ref()?, other.resampled.as_ref()?);
        // Methods may take different numbers of samples: the first ones are the same.
        let both = ours.node_auc.iter().zip(&theirs.node_auc);
        let differences: Vec<f64> = both.map(|(a, b)| a - b).collect();
        let difference = run.judgement.node_auc - other.judgement.node_auc;
        Deviations::new(difference, &differences, ours.scale).ok()
    };
    let seeds: Vec<Deviations> = runs(method).filter_map(of_seed).collect();
    PairedComparison::new(&Deviations::pooled(&seeds)?, LEVEL).ok()
}

/// The interval of a measure, of all seeds together; `None` unless all of them ran on half samples.
fn interval(
    runs: &[&RunRecord],
    measure: fn(&Judgement) -> Option<f64>,
    samples: fn(&Resampled) -> &Vec<f64>,
) -> Option<Interval> {
    let of_seed = |run: &&RunRecord| {
        let resampled = run.resampled.as_ref()?;
        Deviations::new(
            measure(&run.judgement)?,
            samples(resampled),
            resampled.scale,
        )
        .ok()
    };
    let seeds = runs.iter().map(of_seed).collect::<Option<Vec<_>>>()?;
    let interval = Deviations::pooled(&seeds)?.interval(LEVEL).ok()?;
    Some(interval.within(0.0, 1.0))
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
                node_interval: interval(
                    &runs,
                    |judgement| Some(judgement.node_auc),
                    |resampled| &resampled.node_auc,
                ),
                edge_interval: interval(
                    &runs,
                    |judgement| judgement.edge_auc,
                    |resampled| &resampled.edge_auc,
                ),
                jaccard: Spread::of(
                    runs.iter()
                        .filter_map(|run| Some(run.resampled.as_ref()?.jaccard)),
                ),
                jaccard_by_chance: Spread::of(
                    runs.iter()
                        .filter_map(|run| Some(run.resampled.as_ref()?.jaccard_by_chance)),
                ),
                node_cpr: runs
                    .iter()
                    .find_map(|run| Some(run.faithfulness.as_ref()?.nodes.cpr)),
                node_cmd: runs
                    .iter()
                    .find_map(|run| Some(run.faithfulness.as_ref()?.nodes.cmd)),
                node_accuracy_area: runs
                    .iter()
                    .find_map(|run| run.faithfulness.as_ref()?.nodes.accuracy_area),
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
            let comparison = paired(records, &row.task, &row.method, control);
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
