//! Stopping at Ctrl-C: at the next safe point or, where none comes in time, in the middle of the work.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{mem, thread};

use circuitscope::core::files;

use crate::failure::INTERRUPTED as CODE;
use crate::output::{note, write_all};
use crate::progress::Terminal;

/// How long work has to come to a safe point.
const GRACE: Duration = Duration::from_millis(1500);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static KEPT: Mutex<Kept> = Mutex::new(Kept {
    said: String::new(),
    json: None,
});

/// What is left of the work if it is stopped.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// What is kept and what is missing.
    pub(crate) said: String,
    /// Results so far, where they are printed as JSON.
    pub(crate) json: Option<String>,
}

/// Makes Ctrl-C (and SIGTERM) ask the work to stop; a second one stops the program at once.
pub(crate) fn catch(terminal: &Terminal) -> Result<(), ctrlc::Error> {
    let terminal = terminal.clone();
    ctrlc::set_handler(move || {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            leave();
        }
        let terminal = terminal.clone();
        thread::spawn(move || {
            thread::sleep(GRACE);
            let kept = kept();
            // Files are written to their end.
            let _writes = files::hold_writes();
            terminal.clear();
            tell(&kept);
            leave();
        });
    })
}

/// Whether Ctrl-C was pressed.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Sets what is left of the work from now on.
pub(crate) fn keep(left: Kept) {
    *kept() = left;
}

/// The work ended by itself, from here on for whatever reason: at a safe point after Ctrl-C, it says what
/// is kept.
pub(crate) fn end(stopped: bool) {
    let kept = kept();
    if stopped {
        tell(&kept);
    }
    // Nobody else ends the program any more.
    mem::forget(kept);
}

fn tell(kept: &Kept) {
    if let Some(json) = &kept.json {
        write_all(json).ok();
    }
    let said = match kept.said.as_str() {
        "" => "nothing is kept",
        said => said,
    };
    note(&format!("interrupted: {said}"));
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::exit, reason = "the user asked, and the work does not listen")]
fn leave() -> ! {
    exit(CODE.into())
}
