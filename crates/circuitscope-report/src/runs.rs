//! From the records of an evaluation to a report.

use circuitscope_core::HeadId;
use circuitscope_measures::{Ranking, Result, RocPoint, RunRecord, mean_roc, summarise};
use circuitscope_tasks::GroundTruth;

use crate::{MethodReport, TaskReport};

impl TaskReport {
    /// The sections of an evaluation: for each task in order of first appearance, each method with
    /// its scores and its ROC curve averaged over seeds (see [`mean_roc`]) and its row of
    /// [`summarise`].
    ///
    /// `truth` gives the known circuit of a task; tasks without one get no outline and no curves.
    /// `summary` says what a method's score is, in a sentence.
    ///
    /// # Errors
    /// [`circuitscope_measures::Error::OneClass`] if a circuit holds no head, or every head, or scores hold NaN.
    pub fn of_runs<'a>(
        records: &[RunRecord],
        truth: impl Fn(&str) -> Option<&'a GroundTruth>,
        summary: impl Fn(&str) -> String,
    ) -> Result<Vec<Self>> {
        let mut tasks: Vec<Self> = Vec::new();
        for row in summarise(records) {
            let runs: Vec<&RunRecord> = records
                .iter()
                .filter(|run| run.task == row.task && run.method == row.method)
                .collect();
            let Some(first) = runs.first() else { continue };
            let truth = truth(&row.task);
            let curve = match truth {
                Some(truth) => mean_roc(&curves(&runs, &truth.circuit.head_mask())?),
                None => Vec::new(),
            };
            let heads = first.scores.nodes.len();
            let scores = (0..heads)
                .map(|head| {
                    let sum: f64 = runs.iter().map(|run| run.scores.nodes[head]).sum();
                    sum / runs.len() as f64
                })
                .collect();
            let method = MethodReport {
                method: row.method.clone(),
                summary: summary(&row.method),
                control: row.control,
                scores,
                curve,
                row: Some(row.clone()),
                faithfulness: runs.iter().find_map(|run| run.faithfulness.clone()),
                graph: first.scores.graph.clone(),
                pairs: None,
            };
            if let Some(task) = tasks.iter_mut().find(|task| task.task == row.task) {
                task.methods.push(method);
                continue;
            }
            tasks.push(Self {
                task: row.task.clone(),
                grid: first.scores.grid,
                truth: truth.map(|truth| truth.circuit.heads().collect::<Vec<HeadId>>()),
                truth_name: truth.map_or_else(String::new, |truth| truth.variant.clone()),
                marked: "in the known circuit".to_owned(),
                chosen: Vec::new(),
                passages: Vec::new(),
                methods: vec![method],
            });
        }
        Ok(tasks)
    }
}

fn curves(runs: &[&RunRecord], truth: &[bool]) -> Result<Vec<Vec<RocPoint>>> {
    runs.iter()
        .map(|run| Ok(Ranking::new(truth, &run.scores.nodes)?.roc()))
        .collect()
}
