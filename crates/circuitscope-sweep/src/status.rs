use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::worker::{
    ClaimRecord, Holder, WorkerRecord, attempt_name, attempt_of, cell_name, holder,
};
use crate::{Cell, Failure, Plan, Result, Store};

/// Where a cell is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
#[non_exhaustive]
pub enum CellState {
    /// Its result is there.
    Done,
    /// A worker that lives has it.
    Running {
        /// The worker.
        worker: String,
    },
    /// It could not be run, and is not tried again unless somebody asks for it.
    Failed {
        /// Why.
        error: String,
        /// At which attempt.
        attempt: u32,
    },
    /// Nobody has it. Where somebody had, the worker ended or was silent for longer than its lease.
    Open,
}

/// A worker as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WorkerState {
    /// Its name.
    pub worker: String,
    /// Name of its machine.
    pub host: String,
    /// When it began.
    pub started: String,
    /// When it spoke last, by the store's clock.
    pub heard: String,
    /// `alive`, `ended`, or `silent` for longer than its lease.
    pub state: &'static str,
}

/// How far a sweep is.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Cells of the plan with their states, in its order.
    pub cells: Vec<(Cell, CellState)>,
    /// Workers, those that spoke last first.
    pub workers: Vec<WorkerState>,
}

impl Status {
    /// Looks at a store. `now` is what its clock shows; the clock of this machine will do where both are about right.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store) and [`Error::Object`](crate::Error::Object).
    pub fn of(store: &Store, plan: &Plan, now: DateTime<Utc>) -> Result<Self> {
        let done = store.list("cells")?;
        let last = last_attempts(store, "claims")?;
        let failed = last_attempts(store, "failures")?;
        let mut cells = Vec::new();
        // Many cells have one worker.
        let mut holders: BTreeMap<String, Holder> = BTreeMap::new();
        for cell in &plan.cells {
            let name = cell_name(&cell.key);
            let state = if done.binary_search_by(|one| one.name.cmp(&name)).is_ok() {
                CellState::Done
            } else {
                let attempt = last.get(&cell.key).copied();
                unfinished(
                    store,
                    cell,
                    attempt,
                    failed.get(&cell.key).copied(),
                    now,
                    &mut holders,
                )?
            };
            cells.push((cell.clone(), state));
        }
        let mut workers = Vec::new();
        for listed in store.list("workers")? {
            let Some((record, heard)) = store.json::<WorkerRecord>(&listed.name)? else {
                continue;
            };
            let state = match (
                record.ended,
                (now - heard).num_seconds() > record.lease as i64,
            ) {
                (true, _) => "ended",
                (false, true) => "silent",
                (false, false) => "alive",
            };
            workers.push((
                heard,
                WorkerState {
                    worker: record.worker,
                    host: record.host,
                    started: record.started,
                    heard: crate::Made::time(heard.into()),
                    state,
                },
            ));
        }
        workers.sort_by_key(|(heard, _)| core::cmp::Reverse(*heard));
        Ok(Self {
            cells,
            workers: workers.into_iter().map(|(_, worker)| worker).collect(),
        })
    }

    /// Cells that failed, with the reason, in the order of the plan.
    pub fn failures(&self) -> impl Iterator<Item = (&Cell, &str)> {
        self.cells.iter().filter_map(|(cell, state)| match state {
            CellState::Failed { error, .. } => Some((cell, error.as_str())),
            _ => None,
        })
    }

    /// How many cells are done, running, failed and open.
    #[must_use]
    pub fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for (_, state) in &self.cells {
            let at = match state {
                CellState::Done => 0,
                CellState::Running { .. } => 1,
                CellState::Failed { .. } => 2,
                CellState::Open => 3,
            };
            counts[at] += 1;
        }
        counts
    }
}

fn unfinished(
    store: &Store,
    cell: &Cell,
    claimed: Option<u32>,
    failed: Option<u32>,
    now: DateTime<Utc>,
    holders: &mut BTreeMap<String, Holder>,
) -> Result<CellState> {
    let Some(attempt) = claimed else {
        return Ok(CellState::Open);
    };
    if failed == Some(attempt) {
        let name = attempt_name("failures", &cell.key, attempt);
        let failure = store.json::<Failure>(&name)?;
        let error = failure.map_or_else(String::new, |(failure, _)| failure.error);
        return Ok(CellState::Failed { error, attempt });
    }
    let name = attempt_name("claims", &cell.key, attempt);
    let Some((claim, _)) = store.json::<ClaimRecord>(&name)? else {
        return Ok(CellState::Open);
    };
    if !holders.contains_key(&claim.worker) {
        let found = holder(store, &claim.worker, now)?;
        holders.insert(claim.worker.clone(), found);
    }
    Ok(match holders.get(&claim.worker) {
        Some(Holder::Alive(_)) => CellState::Running {
            worker: claim.worker,
        },
        _ => CellState::Open,
    })
}

/// The last attempt at each cell that has a claim, or a failure, by its key.
///
/// # Errors
/// [`Error::Store`](crate::Error::Store).
pub fn last_attempts(store: &Store, folder: &str) -> Result<BTreeMap<String, u32>> {
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    for object in store.list(folder)? {
        let key = object.name.split('/').nth(1).unwrap_or_default();
        if let Some(attempt) = attempt_of(&object.name) {
            let most = last.entry(key.to_owned()).or_default();
            *most = attempt.max(*most);
        }
    }
    Ok(last)
}
