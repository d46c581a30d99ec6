//! Stopping at Ctrl-C: at the next safe point or, where none comes in time, in the middle of the work.

use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use circuitscope::files;

use crate::output::{note, write_json};

/// The exit code, as shells report Ctrl-C.
pub(crate) const CODE: u8 = 130;

/// How long work has to come to a safe point.
const GRACE: Duration = Duration::from_millis(1500);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static KEPT: Mutex<Kept> = Mutex::new(Kept {
    said: String::new(),
    json: None,
});

/// What is to be done before work that does not listen is stopped.
type Deed = Box<dyn Fn() + Send>;

static BEFORE_LEAVING: Mutex<Option<Deed>> = Mutex::new(None);

/// What is left of the work if it is stopped.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// What is kept and what is missing.
    pub(crate) said: String,
    /// Results so far, where they are printed as JSON.
    pub(crate) json: Option<String>,
}

/// Makes Ctrl-C (and SIGTERM) ask the work to stop; a second one stops the program at once. `clear` takes what is drawn
/// off the terminal.
pub(crate) fn catch(clear: impl Fn() + Clone + Send + 'static) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || {
        if INTERRUPTED.swap(true, Ordering::SeqCst) {
            leave();
        }
        let clear = clear.clone();
        thread::spawn(move || {
            thread::sleep(GRACE);
            if let Some(deed) = last_deed().as_ref() {
                deed();
            }
            let kept = kept();
            // Files are written to their end.
            let _writes = files::hold_writes();
            clear();
            kept.tell();
            leave();
        });
    })
}

/// Whether Ctrl-C was pressed.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Sets what is done, in less than half a second, before work that does not come to a safe point in time is stopped.
#[cfg(feature = "sweep")]
pub(crate) fn before_leaving(deed: impl Fn() + Send + 'static) {
    *last_deed() = Some(Box::new(deed));
}

fn last_deed() -> MutexGuard<'static, Option<Deed>> {
    BEFORE_LEAVING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

/// Sets what is left of the work from now on, and returns what was left before.
pub(crate) fn keep(left: Kept) -> Kept {
    std::mem::replace(&mut kept(), left)
}

/// What is left of work that ended by itself. Until the result is dropped nobody else ends the program.
pub(crate) fn end() -> MutexGuard<'static, Kept> {
    kept()
}

impl Kept {
    /// Tells the user, with the results where they are printed as JSON.
    pub(crate) fn tell(&self) {
        if let Some(json) = &self.json {
            write_json(json).ok();
        }
        let said = match self.said.as_str() {
            "" => "nothing is kept",
            said => said,
        };
        note(&format!("interrupted: {said}"));
    }
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::exit, reason = "the user asked, and the work does not listen")]
fn leave() -> ! {
    exit(CODE.into())
}
