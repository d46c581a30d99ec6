//! Pages of a sweep: one of all models, and one of each set of settings and model, as `eval` makes it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use circuitscope::report::{SweepModel, SweepPage, SweepTable, render_sweep};
use circuitscope::{EvalProvenance, Progress, RESULTS_FILE, Results};
use circuitscope_sweep::{Cell, Row, read_cell};
use serde_json::json;

use super::tables::{check_output, figure, missing_text, write};
use super::{Context, context_name, existing, program};
use crate::args::SweepReportArgs;
use crate::commands::pages;
use crate::output::{Printer, count};

pub(super) fn run(args: &SweepReportArgs, printer: Printer, progress: &dyn Progress) -> Result<()> {
    let (_, store, plan) = existing(&args.plan)?;
    check_output(&args.output, &store)?;
    let tables = circuitscope_sweep::merge(&store, &plan, args.partial)?;
    let rows = tables.rows()?;
    let done = circuitscope_sweep::done(&store, &plan)?;
    let mut models: Vec<(&str, &str, Vec<&Cell>)> = Vec::new();
    for cell in &done {
        match models.last_mut() {
            Some((settings, model, cells))
                if *settings == cell.settings && *model == cell.model =>
            {
                cells.push(cell);
            }
            _ => models.push((&cell.settings, &cell.model, vec![cell])),
        }
    }
    let stage = progress.stage("pages", models.len() as u64);
    let mut shown: Vec<SweepModel> = Vec::new();
    for (at, (settings, model, cells)) in models.iter().enumerate() {
        if progress.cancelled() {
            bail!("interrupted before the page of {model}");
        }
        let mut records = Vec::new();
        let mut devices: Vec<String> = Vec::new();
        let (mut behaviours, mut judged) = (BTreeMap::new(), BTreeMap::new());
        let mut common = None;
        for cell in cells {
            let done = read_cell(&store, cell)?;
            if !devices.contains(&done.made.device) {
                devices.push(done.made.device);
            }
            records.push(done.record);
            if !judged.contains_key(&cell.task) {
                let name = context_name(&plan, cell);
                let name = name.with_context(|| format!("{cell}: not in the plan"))?;
                let (context, _) = store.json::<Context>(&name)?.with_context(|| {
                    format!(
                        "{}: found nothing, expected what {cell} was made with",
                        store.address(&name)
                    )
                })?;
                behaviours.insert(cell.task.clone(), context.behaviour);
                judged.insert(cell.task.clone(), context.judged_by);
                common.get_or_insert(context.settings);
            }
        }
        let Some(common) = common else {
            continue;
        };
        let mut provenance = EvalProvenance::unfinished(common);
        provenance.program = Some(program());
        provenance.device = Some(devices.join("; "));
        let results = Results::new(behaviours, &records, provenance);
        // Names of models are paths at times; a number keeps them apart.
        let folder_name = format!("{at:04}-{}", file_name(&format!("{settings}-{model}")));
        let folder = args.output.join(&folder_name);
        results.write(&folder.join(RESULTS_FILE))?;
        let page = pages::evaluation(&folder, &records, &results, &judged)?;
        let page_name = page
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        shown.push(SweepModel {
            name: (*model).to_owned(),
            settings: (*settings).to_owned(),
            page: format!("{folder_name}/{page_name}"),
        });
        progress.advance(1);
    }
    drop(stage);
    write(&args.output, &tables)?;
    let missing = missing_text(&store, &plan, plan.cells.len() - done.len())?;
    let mut cells = format!("{} of {} done", done.len(), plan.cells.len());
    if let Some(missing) = &missing {
        cells.extend(["; ", missing]);
    }
    let page = SweepPage {
        title: format!("Sweep of {}", count(plan.models.len(), "model")),
        lead: "Node AUC of each method on each task, mean over seeds and 95 % interval; the name of a model leads to its page.".to_owned(),
        facts: vec![
            ("cells".to_owned(), cells),
            ("store".to_owned(), store.location().to_owned()),
            ("program".to_owned(), program()),
            ("device".to_owned(), plan.device.clone()),
        ],
        tables: sweep_tables(&rows, &shown),
        provenance: json!({ "plan": plan }),
    };
    let path = render_sweep(&page).write(&args.output)?;
    let value =
        json!({ "page": path, "pages": shown.iter().map(|model| &model.page).collect::<Vec<_>>() });
    printer.print(&value, || {
        let pages = count(shown.len(), "page");
        let mut text = format!("{} and {pages} below it", path.display());
        if let Some(missing) = missing {
            text.extend(["\n", &missing]);
        }
        text
    })
}

/// A text as part of the name of a file.
fn file_name(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || ".-_@".contains(c) {
            c
        } else {
            '-'
        }
    };
    text.chars().map(plain).take(80).collect()
}

/// A table for each task: models in rows, methods in columns.
fn sweep_tables(rows: &[Row], models: &[SweepModel]) -> Vec<SweepTable> {
    let mut tasks: Vec<&str> = Vec::new();
    let mut methods: Vec<(&str, bool)> = Vec::new();
    for row in rows {
        let [_, _, task, method] = &row.of;
        if !tasks.contains(&task.as_str()) {
            tasks.push(task);
        }
        if !methods.iter().any(|(name, _)| name == method) {
            methods.push((method, row.control));
        }
    }
    let table = |task: &&str| {
        let of_model = |model: &SweepModel| {
            let cells = methods.iter().map(|(method, _)| {
                let names = [&model.settings, &model.name, *task, *method];
                let row = rows
                    .iter()
                    .find(|row| row.of.iter().zip(names).all(|(a, b)| a == b));
                row.map_or_else(
                    || "–".to_owned(),
                    |row| figure(row.node_auc.0, row.node_auc.1),
                )
            });
            (model.clone(), cells.collect())
        };
        let named = |(name, control): &(&str, bool)| {
            if *control {
                format!("{name} (control)")
            } else {
                (*name).to_owned()
            }
        };
        SweepTable {
            task: (*task).to_owned(),
            methods: methods.iter().map(named).collect(),
            rows: models.iter().map(of_model).collect(),
        }
    };
    tasks.iter().map(table).collect()
}
