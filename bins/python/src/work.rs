//! Long work: on a thread of its own, with the interpreter's lock released, heard and stopped meanwhile.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use circuitscope::{Progress, text};
use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

create_exception!(
    circuitscope,
    Error,
    PyValueError,
    "What could not be done, and why: the text names the file or the setting, what was found and what was expected."
);

/// The most of what is counted: prompts, heads, draws, tokens.
pub(crate) const MOST: usize = 1_000_000;
/// The most seeds of one call.
pub(crate) const SEEDS: usize = 10_000;
/// How often signals are looked at and progress is told.
const TICK: Duration = Duration::from_millis(50);
/// How long work that is asked to stop may take to come to a safe point; then it is left to itself.
const GRACE: Duration = Duration::from_millis(600);
/// Ends of stages that are remembered until they are told.
const ENDS: usize = 16;
/// Stack of the thread that works: as large as that of a main thread usually is.
const STACK: usize = 8 << 20;

/// An error as Python raises it, with all its causes in one line.
pub(crate) fn raised(error: &anyhow::Error) -> PyErr {
    Error::new_err(text::one_line(error.as_ref()))
}

/// A wrong argument.
pub(crate) fn refused(said: impl std::fmt::Display) -> PyErr {
    Error::new_err(said.to_string())
}

/// The arguments of a call, of which those named `n_…` are called without.
pub(crate) fn options<T: DeserializeOwned>(text: &str) -> PyResult<T> {
    let mut json = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let all: Value = serde_json::from_str(text).unwrap_or_default();
        let pointer = path.replace(['.', '['], "/").replace(']', "");
        let found = all.pointer(&format!("/{pointer}")).unwrap_or(&Value::Null);
        let said = error.inner().to_string();
        let expected = said.rsplit("expected ").next().unwrap_or_default();
        let expected = match expected.split(" at line ").next().unwrap_or_default() {
            "u64" | "usize" => "a whole number that is not negative",
            "u32" => "a whole number of 32 bits that is not negative",
            "a string" | "path string" => "text",
            "a boolean" => "True or False",
            "a sequence" => "a list",
            other => other,
        };
        let name = path.strip_prefix("n_").filter(|_| path != "n_layers");
        refused(format!(
            "{}: found {found}, expected {expected}",
            name.unwrap_or(&path)
        ))
    })
}

/// Fails unless a number that was given is one of these.
pub(crate) fn in_range(
    name: &str,
    number: Option<usize>,
    range: RangeInclusive<usize>,
) -> anyhow::Result<()> {
    match number.filter(|number| !range.contains(number)) {
        Some(found) => anyhow::bail!(
            "{name}: found {found}, expected a whole number, from {} to {}",
            range.start(),
            range.end()
        ),
        None => Ok(()),
    }
}

/// As JSON.
pub(crate) fn to_json(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(refused)
}

/// The process whose threads have worked.
static WORKED: OnceLock<u32> = OnceLock::new();

/// A stage that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stage {
    name: String,
    done: u64,
    total: u64,
}

/// What the thread that works tells the one that waits, and is asked by it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    stop: AtomicBool,
    open: Mutex<Vec<Stage>>,
    /// Stages that have ended and whose end was not told yet, the last [`ENDS`].
    ended: Mutex<VecDeque<Stage>>,
}

impl Watch {
    fn stages<T>(&self, with: impl FnOnce(&mut Vec<Stage>) -> T) -> T {
        with(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Progress for Watch {
    fn begin(&self, stage: &str, total: u64) {
        let name = stage.to_owned();
        self.stages(|open| {
            open.push(Stage {
                name,
                done: 0,
                total,
            });
        });
    }

    fn at(&self, what: &str) {
        self.stages(|open| {
            if let Some(stage) = open.last_mut() {
                what.clone_into(&mut stage.name);
            }
        });
    }

    fn advance(&self, steps: u64) {
        self.stages(|open| {
            if let Some(stage) = open.last_mut() {
                stage.done += steps;
            }
        });
    }

    fn end(&self) {
        if let Some(stage) = self.stages(Vec::pop) {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            if ended.len() == ENDS {
                ended.pop_front();
            }
            ended.push_back(stage);
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs `work` and waits for it. `progress` is called with the name of the innermost stage, the steps done and the steps in
/// all, whenever they have changed. What it raises, and `KeyboardInterrupt`, ends the work.
pub(crate) fn run<T: Send + 'static>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Watch) -> anyhow::Result<T> + Send + 'static,
) -> PyResult<T> {
    // Threads are not copied into a process that is forked: what waits for them would wait for ever.
    let process = std::process::id();
    if *WORKED.get_or_init(|| process) != process {
        return Err(refused(
            "found a process that was forked after circuitscope had worked, expected one of its own: start it with the method \
             \"spawn\" (multiprocessing.get_context(\"spawn\"))",
        ));
    }
    let watch = Arc::new(Watch::default());
    let (send, receive) = mpsc::channel();
    let own = Arc::clone(&watch);
    thread::Builder::new()
        .name("circuitscope".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| work(&own)));
            // Nobody may be there any more who asked.
            send.send(outcome).ok();
        })
        .map_err(refused)?;
    // A receiver is for one thread at a time.
    let receive = Mutex::new(receive);
    let wait = |time: Duration| {
        py.detach(|| {
            let receive = receive.lock().unwrap_or_else(PoisonError::into_inner);
            receive.recv_timeout(time)
        })
    };
    let mut told = None;
    loop {
        match wait(TICK) {
            Ok(Ok(outcome)) => {
                let outcome = outcome.map_err(|error| raised(&error))?;
                tell(&watch, progress, &mut told)?;
                return Ok(outcome);
            }
            Ok(Err(panicked)) => return Err(bug(panicked.as_ref())),
            Err(RecvTimeoutError::Disconnected) => return Err(bug(&"the work ended")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let heard = tell(&watch, progress, &mut told).and_then(|()| py.check_signals());
        if let Err(stop) = heard {
            watch.stop.store(true, Ordering::Relaxed);
            wait(GRACE).ok();
            return Err(stop);
        }
    }
}

/// Tells where the work is, if that is not what was told last.
fn tell(
    watch: &Watch,
    progress: Option<&Bound<'_, PyAny>>,
    told: &mut Option<Stage>,
) -> PyResult<()> {
    let Some(progress) = progress else {
        return Ok(());
    };
    let ended = std::mem::take(&mut *watch.ended.lock().unwrap_or_else(PoisonError::into_inner));
    let now = watch.stages(|open| open.last().cloned());
    for stage in ended.into_iter().chain(now) {
        if told.as_ref() != Some(&stage) {
            progress.call1((stage.name.as_str(), stage.done, stage.total))?;
            *told = Some(stage);
        }
    }
    Ok(())
}

/// A panic is never the user's fault.
fn bug(panicked: &(dyn Any + Send)) -> PyErr {
    let said = panicked.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panicked.downcast_ref::<String>().map(String::as_str));
    PyRuntimeError::new_err(format!(
        "this is a bug in circuitscope, please report it: {}",
        said.unwrap_or("no message")
    ))
}
