//! Sweeps: many models, tasks, methods, seeds and settings, run by many workers that share nothing but a store.
//!
//! A [`PlanFile`] is what somebody wrote; a [`Plan`] has a [`Cell`] for each combination, with the hash of all that its result
//! depends on as its key. A [`Worker`] claims cells and keeps their results in a [`Store`]: a folder, or a bucket of S3,
//! Google Cloud Storage or Azure. [`merge`] makes one table of them, in SQL by DataFusion.
//!
//! What runs a cell is the caller's: nothing here needs a tensor library.
//!
//! # Claims
//!
//! There are no locks, and clocks of workers decide nothing. All rests on one promise of the store: of several that make an
//! object which is not there yet, one does. [`Worker::join`] checks it.
//!
//! | object | written | meaning |
//! |---|---|---|
//! | `plan.json` | by whoever plans | the cells |
//! | `workers/NAME.json` | anew every quarter of the lease | the worker lives; the time at which the store says it was written is the last sign of life |
//! | `claims/KEY/ATTEMPT.json` | once | the worker named in it has the cell; the last attempt counts |
//! | `cells/KEY.json` | once | the result: the cell is done |
//! | `rows/KEY.parquet` | once | the same in columns, made of the object before |
//! | `failures/KEY/ATTEMPT.json` | once | that attempt failed |
//!
//! A claim is worth nothing once its worker is silent for longer than its lease or says that it is over: the next attempt
//! may be made, by one of those that try. A worker that was suspended for so long and goes on may run a cell that another
//! one runs, too: the first result counts, and there is never a second one.
//!
//! ```
//! use circuitscope_sweep::{Claim, Plan, PlanFile, Store, Worker};
//!
//! # fn work(plan: &Plan, store: &Store) -> Result<(), circuitscope_sweep::Error> {
//! let worker = Worker::join(store, "machine", plan.lease)?;
//! for cell in &plan.cells {
//!     if let Claim::Ours(attempt) = worker.claim(cell, 0)? {
//!         println!("{cell}, attempt {attempt}");
//!         // … run it, then worker.commit(&record)?
//!     }
//! }
//! worker.leave()
//! # }
//! ```

mod error;
mod file;
mod merge;
mod plan;
mod record;
mod shard;
mod status;
mod store;
mod table;
mod worker;

pub use arrow::array::RecordBatch;
pub use error::{Error, Result};
pub use file::{PlanFile, Settings};
pub use merge::{Row, Tables, WithInterval, done, merge, query, read_cell};
pub use plan::{Cell, Plan, PlannedMethod, PlannedModel, PlannedTask, SCHEMA};
pub use record::{CellRecord, Failure, Made};
pub use shard::{SHARD_VARIABLES, Scheduler, Shard};
pub use status::{CellState, Status, WorkerState, last_attempts};
pub use store::{Listed, Object, STORE_VARIABLES, Store};
pub use table::{csv, json, parquet};
pub use worker::{Claim, GiveBack, Worker, WorkerRecord};
