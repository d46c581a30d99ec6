use circuitscope_score::stats::{Interval, PairedComparison};
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
