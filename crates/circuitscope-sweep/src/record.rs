//! What is kept of a cell.

use chrono::{DateTime, SecondsFormat, Utc};
use circuitscope_measures::RunRecord;
use serde::{Deserialize, Serialize};

use crate::Cell;

/// Who ran a cell, when, and on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The worker.
    pub worker: String,
    /// Name of its machine.
    pub host: String,
    /// Program and version.
    pub program: String,
    /// Backend and hardware.
    pub device: String,
    /// Which claim of the cell this was, counted from 1: more where workers died.
    pub attempt: u32,
    /// When it began, in UTC by the worker's clock.
    pub started: String,
    /// Wall time in seconds; of seeds that were run together, their share.
    pub seconds: f64,
}

impl Made {
    /// A time as [`started`](Self::started) has it.
    #[must_use]
    pub fn time(at: std::time::SystemTime) -> String {
        DateTime::<Utc>::from(at).to_rfc3339_opts(SecondsFormat::Secs, true)
    }
}

/// A cell that is done, kept as `cells/KEY.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellRecord {
    /// [`SCHEMA`](crate::SCHEMA).
    pub schema: u32,
    /// The cell, as the plan had it then.
    pub cell: Cell,
    /// Who ran it.
    pub made: Made,
    /// What came of it.
    pub record: RunRecord,
}

/// A cell that could not be run, kept as `failures/KEY/ATTEMPT.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// [`SCHEMA`](crate::SCHEMA).
    pub schema: u32,
    /// The cell.
    pub cell: Cell,
    /// Who tried.
    pub made: Made,
    /// Why it could not be run.
    pub error: String,
}
