//! `sweep`: plans, workers, one table.

mod options;
mod plan;
mod report;
mod run;
mod tables;

use anyhow::{Result, bail};
use circuitscope::EvalSettings;
use circuitscope::{JudgedBy, PromptBehaviour};
use circuitscope_sweep::{Cell, Plan, PlanFile, SHARD_VARIABLES, STORE_VARIABLES, Store};
use serde::{Deserialize, Serialize};

use crate::args::{SweepArgs, SweepChore};
use crate::output::Printer;
use crate::progress::Terminal;
use crate::version::VERSION;

pub(crate) fn run(args: &SweepArgs, printer: Printer, progress: &Terminal) -> Result<()> {
    match (&args.chore, &args.plan) {
        (Some(SweepChore::Run(args)), _) => run::run(args, printer, progress),
        (Some(SweepChore::Status(args)), _) => tables::status(args, printer),
        (Some(SweepChore::Merge(args)), _) => tables::merge(args, printer),
        (Some(SweepChore::Report(args)), _) => report::run(args, printer, progress),
        (None, Some(path)) => plan::run(path, printer, progress),
        (None, None) => bail!("found no plan, expected a file"),
    }
}

/// What the cells of one model, task and set of settings have in common, kept once: what pages are made with.
#[derive(Debug, Serialize, Deserialize)]
struct Context {
    settings: EvalSettings,
    judged_by: JudgedBy,
    behaviour: PromptBehaviour,
}

/// The name of its object.
fn context_name(plan: &Plan, cell: &Cell) -> Option<String> {
    Some(format!("contexts/{}.json", plan.context(cell)?))
}

/// Program and version, as plans have it.
fn program() -> String {
    format!("circuitscope {VERSION}")
}

/// The store of a plan; credentials are in the environment.
fn open(file: &PlanFile, make: bool) -> Result<Store> {
    let ours = |name: &str| STORE_VARIABLES.iter().any(|start| name.starts_with(start));
    let options = std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        ours(&name).then_some((name, value))
    });
    let options: Vec<(String, String)> = options.collect();
    Ok(Store::open(&file.location(), &options, make)?)
}

/// A variable of the environment by which a scheduler says which part of the work this is.
fn variable(name: &str) -> Option<String> {
    let known = SHARD_VARIABLES.contains(&name);
    let value = known.then(|| std::env::var_os(name)).flatten()?;
    Some(value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

/// The plan of a store, which has to be that of the file and of this program.
fn planned(store: &Store, file: &PlanFile) -> Result<Option<Plan>> {
    let Some(plan) = Plan::read(store)? else {
        return Ok(None);
    };
    let again = format!(
        "make it anew with `circuitscope sweep {}`",
        file.path.display()
    );
    if plan.program != program() {
        bail!(
            "{}: found a plan of {}, expected one of {}: {again}",
            store.address("plan.json"),
            plan.program,
            program()
        );
    }
    if plan.plan_toml != file.hash {
        bail!(
            "{}: found the plan of another {}, which has changed since: {again}",
            store.address("plan.json"),
            file.path.display()
        );
    }
    Ok(Some(plan))
}

/// The plan of a store that has one.
fn existing(path: &std::path::Path) -> Result<(PlanFile, Store, Plan)> {
    let file = PlanFile::read(path)?;
    let store = open(&file, false)?;
    let plan = planned(&store, &file)?;
    let plan = plan.ok_or_else(|| circuitscope_sweep::Error::NoPlan {
        place: store.location().to_owned(),
    })?;
    Ok((file, store, plan))
}
