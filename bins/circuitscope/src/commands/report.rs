//! `report`: the table and the pages of an evaluation, made anew from its finished runs.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, bail};
use circuitscope::files;
use circuitscope::measures::{RunRecord, SETTINGS_FILE};
use circuitscope::{EvalProvenance, EvalSettings, JudgedBy, RESULTS_FILE, Results};

use super::eval::behaviour;
use super::eval_text::results_text;
use super::{inputs, pages};
use crate::args::ReportArgs;
use crate::output::Printer;

pub(crate) fn run(args: &ReportArgs, printer: Printer) -> Result<()> {
    let folder = &args.folder;
    let settings = folder.join(SETTINGS_FILE);
    if !settings.is_file() {
        bail!(
            "{}: no {SETTINGS_FILE} here, expected the output folder of `circuitscope eval`",
            folder.display()
        );
    }
    let settings = EvalSettings::read(&settings)?;
    let records = records(args)?;
    let judged = JudgedBy::of_runs(folder, &records)?;
    inputs::writable_folder(folder)?;
    // What an evaluation that ended wrote about itself is kept.
    let finished = folder.join(RESULTS_FILE);
    let (provenance, cross_task) = if finished.is_file() {
        let results = Results::read(&finished);
        let results = results.map_err(|error| anyhow!("{error}; delete it to make it again"))?;
        (results.provenance, results.cross_task)
    } else {
        (EvalProvenance::unfinished(settings), Vec::new())
    };
    let mut behaviours = BTreeMap::new();
    for record in &records {
        if let Some(behaviour) = behaviour(folder, &record.task)? {
            behaviours.insert(record.task.clone(), behaviour);
        }
    }
    let mut results = Results::new(behaviours, &records, provenance);
    results.cross_task = cross_task;
    results.write(&finished)?;
    let page = pages::evaluation(folder, &records, &results, &judged)?;
    printer.print(&results, || results_text(&results, &page))
}

/// All finished runs, tasks and methods in the order of tables.
fn records(args: &ReportArgs) -> Result<Vec<RunRecord>> {
    use circuitscope::eval::methods;
    use circuitscope::tasks::TASKS;

    let runs = args.folder.join("runs");
    let settings = files::sha256(&args.folder.join(SETTINGS_FILE))?;
    let mut records: Vec<RunRecord> = Vec::new();
    if runs.is_dir() {
        for entry in fs_err::read_dir(&runs)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                records.push(RunRecord::read(&path, &settings)?);
            }
        }
    }
    if records.is_empty() {
        bail!("{}: found no finished run", runs.display());
    }
    let place = |record: &RunRecord| {
        let task = TASKS.iter().position(|task| task.name == record.task);
        let method = methods::names().position(|name| name == record.method);
        // Tasks of the user's own come last, by name.
        (
            task.unwrap_or(TASKS.len()),
            record.task.clone(),
            method,
            record.seed,
        )
    };
    records.sort_by_cached_key(place);
    Ok(records)
}
