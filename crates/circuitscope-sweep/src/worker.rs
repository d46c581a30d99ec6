//! Workers: claims without locks, and saying to be alive.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{Cell, CellRecord, Error, Failure, Result, SCHEMA, Store, table};

/// How long a worker that must stop tries to say so.
const FAREWELL: Duration = Duration::from_millis(350);

/// A worker as the store knows it: `workers/NAME.json`, written anew as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its name.
    pub worker: String,
    /// Name of its machine.
    pub host: String,
    /// Its process.
    pub process: u32,
    /// When it began, in UTC by its own clock.
    pub started: String,
    /// Seconds after which its claims lapse if it says nothing.
    pub lease: u64,
    /// Whether it is over: all its claims are void.
    pub ended: bool,
}

/// A claim of a cell: `claims/KEY/ATTEMPT.json`. The last one counts; a claim is never written anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimRecord {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// Whose it is.
    pub(crate) worker: String,
}

/// What comes of claiming a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// It is this worker's: which attempt at the cell it is, counted from 1.
    Ours(u32),
    /// Its result is there.
    Done,
    /// Its last attempt failed.
    Failed,
    /// Another worker has it, which spoke last at this time of the store's clock.
    Taken {
        /// The worker.
        worker: String,
        /// When it spoke.
        heard: DateTime<Utc>,
    },
}

/// What a claim comes to for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// It lives, and spoke last then.
    Alive(DateTime<Utc>),
    /// It was silent for longer than its lease, or is over.
    Gone,
}

/// The name of the object of a claim, a failure.
pub(crate) fn attempt_name(folder: &str, key: &str, attempt: u32) -> String {
    format!("{folder}/{key}/{attempt:06}.json")
}

/// Which attempt the name of an object is of.
pub(crate) fn attempt_of(name: &str) -> Option<u32> {
    let (_, file) = name.rsplit_once('/')?;
    file.strip_suffix(".json")?.parse().ok()
}

pub(crate) fn cell_name(key: &str) -> String {
    format!("cells/{key}.json")
}

pub(crate) fn row_name(key: &str) -> String {
    format!("rows/{key}.parquet")
}

/// What one worker's claim is worth at `now` of the store's clock.
pub(crate) fn holder(store: &Store, worker: &str, now: DateTime<Utc>) -> Result<Holder> {
    let Some((record, heard)) = store.json::<WorkerRecord>(&worker_name(worker))? else {
        return Ok(Holder::Gone);
    };
    let lease = TimeDelta::seconds(record.lease.try_into().unwrap_or(i64::MAX / 1000));
    if record.ended || now - heard > lease {
        Ok(Holder::Gone)
    } else {
        Ok(Holder::Alive(heard))
    }
}

fn worker_name(worker: &str) -> String {
    format!("workers/{worker}.json")
}

/// A worker of a sweep. It says every quarter of its lease that it lives, until it [leaves](Self::leave) or is dropped.
#[derive(Debug)]
pub struct Worker<'s> {
    store: &'s Store,
    shared: Arc<Shared>,
    stop: Option<Sender<()>>,
    beats: Option<JoinHandle<()>>,
}

/// What the threads of a worker share.
#[derive(Debug)]
struct Shared {
    record: WorkerRecord,
    /// What the store's clock showed when it was last seen, and when that was.
    clock: Mutex<(DateTime<Utc>, Instant)>,
    /// Whether all claims were given back. Held while a result is written.
    ended: Mutex<bool>,
    /// The store once more, to say goodbye from any thread.
    store: Mutex<Store>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Says that the worker lives, and reads the store's clock.
    fn beat(&self, store: &Store) -> Result<()> {
        let name = worker_name(&self.record.worker);
        let asked = Instant::now();
        store.overwrite(&name, &store.to_json(&name, &self.record)?)?;
        if let Some(now) = store.written(&name)? {
            *locked(&self.clock) = (now, asked);
        }
        Ok(())
    }

    /// Voids all claims at once, within [`FAREWELL`].
    fn end(&self) -> Result<()> {
        let mut ended = if let Ok(ended) = self.ended.try_lock() {
            ended
        } else {
            // A result is being written: it counts. Not for long, or this worker is left to lapse.
            std::thread::sleep(FAREWELL / 2);
            self.ended.try_lock().map_err(|_busy| Error::GivenBack)?
        };
        if *ended {
            return Ok(());
        }
        *ended = true;
        let record = WorkerRecord {
            ended: true,
            ..self.record.clone()
        };
        let name = worker_name(&record.worker);
        let store = locked(&self.store);
        store.overwrite_within(&name, &store.to_json(&name, &record)?, FAREWELL)
    }
}

/// Gives back the claims of a worker from another thread, as where a signal ends the program.
#[derive(Debug, Clone)]
pub struct GiveBack(Arc<Shared>);

impl GiveBack {
    /// Voids all claims of the worker at once, within half a second. A result that is being written counts; later ones do
    /// not.
    ///
    /// # Errors
    /// [`Error::Store`] where the store does not answer in time: then the claims lapse.
    pub fn now(&self) -> Result<()> {
        self.0.end()
    }
}

impl<'s> Worker<'s> {
    /// Joins the work. `host` is the name of the machine; `lease` is in seconds.
    ///
    /// # Errors
    /// [`Error::Store`]; [`Error::Unconditional`] for a store that overwrites what must not be there.
    pub fn join(store: &'s Store, host: &str, lease: u64) -> Result<Self> {
        let process = std::process::id();
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '.' {
                c
            } else {
                '-'
            }
        };
        let host: String = host.chars().take(60).map(plain).collect();
        let started = std::time::SystemTime::now();
        let mut nanos = started
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let record = loop {
            let seen =
                circuitscope_files::sha256_of(format!("{host} {process} {nanos}").as_bytes());
            let worker = format!("{host}-{process}-{}", &seen[..8]);
            let record = WorkerRecord {
                schema: SCHEMA,
                worker,
                host: host.clone(),
                process,
                started: crate::Made::time(started),
                lease,
                ended: false,
            };
            let name = worker_name(&record.worker);
            if store.create(&name, &store.to_json(&name, &record)?)? {
                // The promise that all claims rest on.
                if store.create(&name, b"{}\n")? {
                    return Err(Error::Unconditional {
                        place: store.location().to_owned(),
                    });
                }
                break record;
            }
            nanos += 1;
        };
        let shared = Arc::new(Shared {
            record,
            clock: Mutex::new((DateTime::UNIX_EPOCH, Instant::now())),
            ended: Mutex::new(false),
            store: Mutex::new(store.again()?),
        });
        shared.beat(store)?;
        let (stop, stopped) = mpsc::channel::<()>();
        let every = Duration::from_secs(lease) / 4;
        let beats = std::thread::Builder::new().name("beats".to_owned()).spawn({
            let (shared, store) = (Arc::clone(&shared), store.again()?);
            move || {
                while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    // Whoever gave its claims back is not heard again.
                    let ended = locked(&shared.ended);
                    let beat = if *ended { Ok(()) } else { shared.beat(&store) };
                    drop(ended);
                    if let Err(error) = &beat {
                        tracing::warn!("cannot say that this worker is alive: {error}");
                    }
                }
            }
        });
        Ok(Self {
            store,
            shared,
            stop: Some(stop),
            beats: Some(beats.map_err(Error::Thread)?),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.record.worker
    }

    /// Name of its machine, as others see it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.shared.record.host
    }

    /// How often it, and others of the same lease, say that they live.
    #[must_use]
    pub fn every(&self) -> Duration {
        Duration::from_secs(self.shared.record.lease) / 4
    }

    /// What gives its claims back from another thread.
    #[must_use]
    pub fn give_back(&self) -> GiveBack {
        GiveBack(Arc::clone(&self.shared))
    }

    /// What the store's clock shows. Clocks of workers decide nothing.
    fn now(&self) -> DateTime<Utc> {
        let (seen, at) = *locked(&self.shared.clock);
        seen + TimeDelta::from_std(at.elapsed()).unwrap_or(TimeDelta::MAX)
    }

    /// Claims a cell. A claim of a worker that is over, or was silent for longer than its lease, is taken over. Failures of
    /// attempts up to `forgiven` (0 for none) do not count.
    ///
    /// # Errors
    /// [`Error::Store`] and [`Error::Object`].
    pub fn claim(&self, cell: &Cell, forgiven: u32) -> Result<Claim> {
        if self.is_done(cell)? {
            return Ok(Claim::Done);
        }
        loop {
            let before = self.store.list(&format!("claims/{}", cell.key))?;
            let last = before
                .iter()
                .filter_map(|claim| attempt_of(&claim.name))
                .max();
            if let Some(last) = last {
                let name = attempt_name("claims", &cell.key, last);
                if self.is_failed(cell, last)? {
                    if last > forgiven {
                        return Ok(Claim::Failed);
                    }
                } else if let Some((claim, _)) = self.store.json::<ClaimRecord>(&name)? {
                    if claim.worker == self.name() {
                        return Ok(Claim::Ours(last));
                    }
                    if let Holder::Alive(heard) = holder(self.store, &claim.worker, self.now())? {
                        // It may have written its result since.
                        if self.is_done(cell)? {
                            return Ok(Claim::Done);
                        }
                        return Ok(Claim::Taken {
                            worker: claim.worker,
                            heard,
                        });
                    }
                }
            }
            let attempt = last.unwrap_or(0) + 1;
            let name = attempt_name("claims", &cell.key, attempt);
            let claim = ClaimRecord {
                schema: SCHEMA,
                worker: self.name().to_owned(),
            };
            if self
                .store
                .create(&name, &self.store.to_json(&name, &claim)?)?
            {
                // Who had it before may have written its result as its last deed.
                return Ok(if self.is_done(cell)? {
                    Claim::Done
                } else {
                    Claim::Ours(attempt)
                });
            }
        }
    }

    /// Whether the result of a cell is there.
    fn is_done(&self, cell: &Cell) -> Result<bool> {
        Ok(self.store.written(&cell_name(&cell.key))?.is_some())
    }

    fn is_failed(&self, cell: &Cell, attempt: u32) -> Result<bool> {
        let name = attempt_name("failures", &cell.key, attempt);
        Ok(self.store.written(&name)?.is_some())
    }

    /// Keeps the result of a cell; says whether it is the one that counts. It is not where another worker took a claim
    /// over that had lapsed, and was quicker.
    ///
    /// # Errors
    /// [`Error::GivenBack`] where this worker's claims were; [`Error::Store`]; [`Error::Table`].
    pub fn commit(&self, done: &CellRecord) -> Result<bool> {
        let ended = locked(&self.shared.ended);
        if *ended {
            return Err(Error::GivenBack);
        }
        let name = cell_name(&done.cell.key);
        let counts = self
            .store
            .create(&name, &self.store.to_json(&name, done)?)?;
        if counts {
            // Made of the record alone: where this worker dies before, whoever merges writes it.
            self.store
                .create(&row_name(&done.cell.key), &table::row(done)?)?;
        }
        Ok(counts)
    }

    /// Keeps why a cell could not be run. It is not tried again unless somebody asks for it.
    ///
    /// # Errors
    /// [`Error::GivenBack`] where this worker's claims were; [`Error::Store`].
    pub fn fail(&self, failure: &Failure) -> Result<()> {
        let ended = locked(&self.shared.ended);
        if *ended {
            return Err(Error::GivenBack);
        }
        let name = attempt_name("failures", &failure.cell.key, failure.made.attempt);
        self.store
            .create(&name, &self.store.to_json(&name, failure)?)?;
        Ok(())
    }

    /// Leaves the work. Claims without a result are given back.
    ///
    /// # Errors
    /// [`Error::Store`] where the store does not answer: then the claims lapse.
    pub fn leave(mut self) -> Result<()> {
        self.stop();
        self.shared.end()
    }

    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(beats) = self.beats.take() {
            beats.join().ok();
        }
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if self.beats.is_some() {
            // Not waited for: it may be in the middle of a request that does not end.
            drop(self.stop.take());
            self.shared.end().ok();
        }
    }
}
