//! What made a result: this program.

use std::ffi::OsString;
use std::sync::OnceLock;

pub(crate) use circuitscope::{Provenance, human_bytes};

use crate::version::VERSION;

/// The command line, program name included.
static LINE: OnceLock<Vec<OsString>> = OnceLock::new();

/// Notes the command line, with what a file of flags gives, for everything that is recorded.
pub(crate) fn as_typed(line: &[OsString]) {
    // There is one command line.
    LINE.set(line.to_vec()).ok();
}

/// Starts the clock, and takes down the command line; what a file of flags gives stands at its end.
pub(crate) fn start() -> Provenance {
    let command = LINE.get().into_iter().flatten().skip(1);
    let command = command.map(|arg| arg.to_string_lossy().into_owned());
    Provenance::start(format!("circuitscope {VERSION}"), command.collect())
}
