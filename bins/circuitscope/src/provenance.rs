//! What made a result: this program.

pub(crate) use circuitscope::{Provenance, human_bytes};

/// Version of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Starts the clock, and takes down the command line.
pub(crate) fn start() -> Provenance {
    let command = std::env::args_os().skip(1);
    let command = command.map(|arg| arg.to_string_lossy().into_owned());
    Provenance::start(format!("circuitscope {VERSION}"), command.collect())
}
