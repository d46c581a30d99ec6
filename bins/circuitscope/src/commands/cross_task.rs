//! `eval --cross-task`: what the circuits of each task keep of every other.

use anyhow::{Result, anyhow};
use circuitscope::measures::{CrossTask, RunRecord};
use circuitscope::model::Loaded;
use circuitscope::tasks::TaskSpec;
use circuitscope::{CrossSettings, JudgedBy, PrepareSettings, Seed, cross_tasks, two_tasks};

use super::inputs;
use crate::args::EvalArgs;
use crate::device::{B, Device};
use crate::output::{count, table};
use crate::progress::Terminal;

/// So many ways of choosing circuits are printed whole.
const WHOLE: usize = 3;

/// Fails where there are no two tasks to compare.
pub(super) fn check(args: &EvalArgs, tasks: usize) -> Result<()> {
    if args.cross_task {
        two_tasks(tasks).map_err(|error| anyhow!("--cross-task: {error}"))?;
    }
    Ok(())
}

/// [`cross_tasks`] as asked for.
pub(super) fn run(
    args: &EvalArgs,
    tasks: &[(TaskSpec, JudgedBy)],
    records: &[RunRecord],
    loaded: &Loaded<B>,
    device: &Device,
    progress: &Terminal,
) -> Result<Vec<CrossTask>> {
    let settings = CrossSettings {
        prepare: PrepareSettings::default()
            .with_metric(args.patching.metric)
            .with_prepend_bos(args.model.prepend_bos),
        capture: inputs::capture_settings(&args.model, device)
            .with_ablation(args.patching.ablation)
            .with_seed(Seed::new(args.seed.seed)),
        pairs: args.patching.patch_pairs as usize,
    };
    let device = device.plain();
    Ok(cross_tasks(
        loaded, tasks, records, settings, device, progress,
    )?)
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
