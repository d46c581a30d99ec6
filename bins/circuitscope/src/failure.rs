//! How a command ends: exit codes, and errors in one line.

use std::io;
use std::mem;
use std::panic;
use std::process::ExitCode;

use anyhow::Error;

use crate::{interrupt, output};

/// The command did what it was asked.
pub(crate) const OK: u8 = 0;
/// It could not: wrong file, wrong setting, missing device.
pub(crate) const FAILED: u8 = 1;
/// The command line itself is wrong.
pub(crate) const USAGE: u8 = 2;

/// What a command returns when it did its work and the answer is *no*: `doctor` on a device that
/// computes wrongly. The command has said so itself.
#[derive(Debug, thiserror::Error)]
#[error("the answer is no")]
pub(crate) struct Negative;

/// The exit code for an outcome, after telling the user what went wrong.
pub(crate) fn exit_code(outcome: Result<(), Error>) -> ExitCode {
    let kept = interrupt::end();
    let code = match outcome {
        Ok(()) => OK,
        // `circuitscope … | head` has what it wanted.
        Err(error) if is_broken_pipe(&error) => OK,
        Err(error) if error.is::<Negative>() => FAILED,
        Err(_) if interrupt::interrupted() => {
            kept.tell();
            interrupt::CODE
        }
        Err(error) => {
            output::note(&format!("error: {}", one_line(&error)));
            FAILED
        }
    };
    // Kept for good: the program ends with this code.
    mem::forget(kept);
    ExitCode::from(code)
}

/// The exit code for a command line that clap refuses, or for `--help`.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    match error.print() {
        Err(full) if !error.use_stderr() && full.kind() != io::ErrorKind::BrokenPipe => {
            output::note(&format!("error: cannot write to stdout: {full}"));
            ExitCode::from(FAILED)
        }
        _ if error.use_stderr() => ExitCode::from(USAGE),
        _ => ExitCode::from(OK),
    }
}

/// An error with its causes, those left out whose text an outer one repeats.
fn one_line(error: &Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.is_empty() {
            line = text;
        } else if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
    }
    line
}

fn is_broken_pipe(error: &Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A panic is a bug of this program, never the user's: say so in one line and without a backtrace,
/// unless one is asked for.
pub(crate) fn report_bugs_in_one_line() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            default(info);
            return;
        }
        let what = info.payload_as_str().unwrap_or("no message").trim();
        let place = info
            .location()
            .map_or_else(String::new, |place| format!(" at {place}"));
        output::note(&format!(
            "error: this is a bug in circuitscope, please report it: {what}{place}"
        ));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn causes_are_joined_and_repetitions_dropped() {
        let error = Error::msg("no such file")
            .context("x.json: no such file")
            .context("reading the model");
        assert_eq!(one_line(&error), "reading the model: x.json: no such file");
    }

    #[test]
    fn a_broken_pipe_is_found_under_context() {
        let error = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("printing");
        assert!(is_broken_pipe(&error.unwrap_err()));
        assert!(!is_broken_pipe(&Error::msg("pipe")));
    }
}
