//! How far a sweep is, and the one table of all that it found.

use std::path::Path;
use std::slice;
use std::time::SystemTime;

use anyhow::{Result, bail};
use circuitscope::files::write_atomic;
use circuitscope::report::PAGE_FILE;
use circuitscope_sweep::{
    CellState, Plan, RecordBatch, Row, Status, Store, Tables, csv, json as rows_of, parquet,
};
use serde_json::json;

use super::existing;
use crate::args::{SweepMergeArgs, SweepStatusArgs};
use crate::commands::inputs;
use crate::output::{Printer, count, table};

/// Failures that are shown at most.
const FAILURES: usize = 20;

pub(super) fn status(args: &SweepStatusArgs, printer: Printer) -> Result<()> {
    let (_, store, plan) = existing(&args.plan)?;
    let status = Status::of(&store, &plan, SystemTime::now().into())?;
    let [done, running, failed, open] = status.counts();
    let cells = status.cells.iter().map(|(cell, state)| {
        let mut value = json!(cell);
        if let (Some(value), Ok(serde_json::Value::Object(state))) =
            (value.as_object_mut(), serde_json::to_value(state))
        {
            value.extend(state);
        }
        value
    });
    let value = json!({
        "store": store.location(),
        "cells": plan.cells.len(),
        "done": done,
        "running": running,
        "failed": failed,
        "open": open,
        "workers": status.workers,
        "states": cells.collect::<Vec<_>>(),
    });
    printer.print(&value, || {
        let mut text = format!(
            "{} in {}: {done} done, {running} running, {failed} failed, {open} open\n",
            count(plan.cells.len(), "cell"),
            store.location()
        );
        if !status.workers.is_empty() {
            let rows: Vec<Vec<String>> = status
                .workers
                .iter()
                .map(|worker| {
                    let running = |(_, state): &&(_, CellState)| {
                        matches!(state, CellState::Running { worker: name } if *name == worker.worker)
                    };
                    vec![
                        worker.worker.clone(),
                        worker.state.to_owned(),
                        status.cells.iter().filter(running).count().to_string(),
                        worker.started.clone(),
                        worker.heard.clone(),
                    ]
                })
                .collect();
            text.push('\n');
            text.push_str(&table(&["worker", "state", "running", "started", "heard"], &rows));
        }
        let failures = status.failures();
        let failures: Vec<String> = failures
            .map(|(cell, error)| format!("  {}  {cell}: {error}\n", &cell.key[..12]))
            .collect();
        if !failures.is_empty() {
            text.push_str("\nfailed (`sweep run --retry-failed` tries them again):\n");
            text.extend(failures.iter().take(FAILURES).cloned());
            if failures.len() > FAILURES {
                let more = failures.len() - FAILURES;
                text.extend([format!("  … {more} more, in --format json\n")]);
            }
        }
        text
    })
}

pub(super) fn merge(args: &SweepMergeArgs, printer: Printer) -> Result<()> {
    let (_, store, plan) = existing(&args.plan)?;
    if let Some(folder) = &args.output {
        check_output(folder, &store)?;
    }
    if let Some(sql) = &args.sql {
        let found = circuitscope_sweep::query(&store, &plan, args.partial, sql)?;
        let rows = rows_of(&found)?;
        return printer.print(&rows, || question_text(&found, &rows));
    }
    let tables = circuitscope_sweep::merge(&store, &plan, args.partial)?;
    if let Some(folder) = &args.output {
        write(folder, &tables)?;
    }
    let missing = plan.cells.len() - tables.cells.num_rows();
    let said = missing_text(&store, &plan, missing)?;
    let value = json!({
        "cells": tables.cells.num_rows(),
        "missing": missing,
        "summary": rows_of(slice::from_ref(&tables.summary))?,
    });
    let rows = tables.rows()?;
    printer.print(&value, || {
        let mut text = summary_text(&rows);
        text.extend([format!("\n{}", count(tables.cells.num_rows(), "cell"))]);
        if let Some(said) = said {
            text.extend([", ", &said]);
        }
        if let Some(folder) = &args.output {
            let folder = folder.display();
            text.extend([format!(
                ": cells, summary and provenance are in {folder} as Parquet and CSV"
            )]);
        }
        text.push('\n');
        text
    })
}

/// Fails where a folder of results cannot be written, holds something else, or is the store.
pub(super) fn check_output(folder: &Path, store: &Store) -> Result<()> {
    inputs::writable_folder(folder)?;
    if let (Ok(folder), Ok(store)) = (
        folder.canonicalize(),
        Path::new(store.location()).canonicalize(),
    ) && folder == store
    {
        bail!(
            "--output {}: found the store of the sweep, expected another folder",
            folder.display()
        );
    }
    inputs::own_folder(
        folder,
        "provenance.parquet",
        &[
            "cells.csv",
            "cells.parquet",
            "summary.csv",
            "summary.parquet",
            "provenance.csv",
            PAGE_FILE,
        ],
    )
}

/// How many cells are missing, and what the first that failed failed by; nothing where none is.
pub(super) fn missing_text(store: &Store, plan: &Plan, missing: usize) -> Result<Option<String>> {
    if missing == 0 {
        return Ok(None);
    }
    let status = Status::of(store, plan, SystemTime::now().into())?;
    let failed = status.failures().count();
    let mut text = format!("{missing} missing");
    if let Some((cell, error)) = status.failures().next() {
        text.extend([format!(
            ", of which {failed} failed, the first {cell}: {error}"
        )]);
    }
    Ok(Some(text))
}

/// Writes the tables into a folder.
pub(super) fn write(folder: &Path, tables: &Tables) -> Result<()> {
    // First what tells that the folder is a merge's, so that one that was interrupted can be run again.
    for (name, batch) in [
        ("provenance", &tables.provenance),
        ("cells", &tables.cells),
        ("summary", &tables.summary),
    ] {
        let (columns, lines) = (parquet(batch)?, csv(batch)?);
        write_atomic(&folder.join(format!("{name}.parquet")), |out| {
            out.write_all(&columns)
        })?;
        write_atomic(&folder.join(format!("{name}.csv")), |out| {
            out.write_all(&lines)
        })?;
    }
    Ok(())
}

/// A mean with its interval, as tables of evaluations have it.
pub(super) fn figure(mean: f64, interval: Option<(f64, f64)>) -> String {
    match interval {
        Some((low, high)) => format!("{mean:.3} ({low:.2}–{high:.2})"),
        None => format!("{mean:.3}"),
    }
}

fn summary_text(rows: &[Row]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let [settings, model, task, method] = row.of.clone();
            let edges = row
                .edge_auc
                .map_or_else(|| "–".to_owned(), |(mean, ends)| figure(mean, ends));
            vec![
                settings,
                model,
                task,
                if row.control {
                    format!("{method} (control)")
                } else {
                    method
                },
                row.seeds.to_string(),
                figure(row.node_auc.0, row.node_auc.1),
                edges,
            ]
        })
        .collect();
    table(
        &[
            "settings", "model", "task", "method", "seeds", "node AUC", "edge AUC",
        ],
        &rows,
    )
}

/// The answer to a question: a table of text.
fn question_text(batches: &[RecordBatch], rows: &serde_json::Value) -> String {
    let Some(first) = batches.first() else {
        return "no rows".to_owned();
    };
    let schema = first.schema();
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let cell = |name: &&str| match row.get(*name) {
                None | Some(serde_json::Value::Null) => "–".to_owned(),
                Some(serde_json::Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            names.iter().map(cell).collect()
        })
        .collect();
    table(&names, &rows)
}
