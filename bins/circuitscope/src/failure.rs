//! How a command ends: exit codes, and errors in one line.

use std::io;
use std::mem;
use std::panic;
use std::process::ExitCode;

use anyhow::Error;
use circuitscope::files::{FileError, FileErrorKind};
use circuitscope::model::{self, Precision};
use circuitscope::{conformance, eval, hooks, measures, text};

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
            let hint = hint(&error).map_or_else(String::new, |hint| format!(": {hint}"));
            output::note(&format!("error: {}{hint}", one_line(&error)));
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
    text::one_line(error.as_ref())
}

/// What to change on the command line, where the libraries say only what is so.
fn hint(error: &Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<circuitscope::Error>() {
            return of_circuitscope(error);
        }
        if let Some(error) = cause.downcast_ref::<eval::Error>() {
            return of_eval(error);
        }
        if let Some(conformance::Error::OtherModel { .. }) = cause.downcast_ref() {
            return Some("make a new one with `circuitscope doctor --write-record`");
        }
        if let Some(hooks::Error::File(error)) = cause.downcast_ref() {
            return of_file(error);
        }
        if let Some(error) = cause.downcast_ref() {
            return of_measures(error);
        }
        cause.downcast_ref().and_then(of_model)
    })
}

fn of_circuitscope(error: &circuitscope::Error) -> Option<&'static str> {
    use circuitscope::Error as E;

    match error {
        E::Eval(error) => of_eval(error),
        E::Model(error) => of_model(error),
        E::At { source, .. } => of_circuitscope(source),
        E::InTemplate { .. } => Some("leave out --chat where prompts are in the template already"),
        E::NoKnownCircuit { .. } => Some(
            "`eval` needs one, and --circuit names one all the same, or a file with one; `discover` does not",
        ),
        E::JudgedOtherwise { .. } => Some("choose another --output"),
        E::NoOwnCircuit { .. } => Some(
            "`eval` needs one: give it in [[circuits]], or by --circuit FILE; `discover` does not",
        ),
        E::NoCircuitIn { .. } => Some("name a model that has one with --circuit"),
        _ => None,
    }
}

fn of_eval(error: &eval::Error) -> Option<&'static str> {
    use eval::Error as E;

    match error {
        E::Model(error) => of_model(error),
        E::Scores { cause, .. } => cause.as_deref().and_then(of_eval),
        E::Unpaired { .. } => Some("use --task or --pairs"),
        E::NeedsModel { .. } | E::KneeNeedsModel => {
            Some("use --task or --pairs, not --activations or unmatched prompts")
        }
        E::FlatMetric { .. } => {
            Some("use --metric logit-difference, or method `eap-ig` or `nap-ig`")
        }
        E::NoGradient { .. } => {
            Some("use --metric logit-difference, probability-difference or log-probability")
        }
        E::NoAnswers { .. } => Some("give them in the file, or use --metric contrast"),
        E::NoPairs => Some(
            "methods that run the model, --tests, --faithfulness, --select knee and --only-correct need them: use --pairs or --task",
        ),
        E::NoTests { .. } => {
            Some("use --metric contrast, or logit-difference where answers are known")
        }
        E::NoPartner { .. } => Some("use --reference negative or position-mean, or more pairs"),
        E::NotFinite {
            precision: Some(Precision::F16 | Precision::Bf16),
        } => Some("use --dtype f32"),
        E::TooFewExamples { .. } => Some("lower --train-examples"),
        E::Measure(error) => of_measures(error),
        _ => None,
    }
}

const fn of_measures(error: &measures::Error) -> Option<&'static str> {
    use measures::Error as E;

    match error {
        E::OtherSettings { .. } | E::Overtaken { .. } => Some("choose another --output"),
        _ => None,
    }
}

/// Of files of activations, which only some commands write.
fn of_file(error: &FileError) -> Option<&'static str> {
    let FileErrorKind::Field { field, found, .. } = error.kind() else {
        return None;
    };
    let ours = ["tensor `activations`", "tensor `labels`"].contains(&field.as_str());
    (ours && found.starts_with("no such tensor")).then_some(
        "`circuitscope discover --save-activations FILE` writes such a file; `capture` writes sites, without labels",
    )
}

const fn of_model(error: &model::Error) -> Option<&'static str> {
    match error {
        model::Error::NoBos => Some("use --prepend-bos false"),
        model::Error::UnknownWord { .. } => Some(
            "give the model that the prompts are for with --model: the reference model inside this program knows the words of its \
             own tasks alone",
        ),
        model::Error::NoChatTemplate => {
            Some("leave out --chat, or use the instruct version of the model")
        }
        model::Error::Overflow { precision, .. } => match precision {
            Precision::F16 => Some("use --dtype bf16 or f32"),
            Precision::Bf16 => Some("use --dtype f32"),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn is_broken_pipe(error: &Error) -> bool {
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
    fn hints_are_found_below_what_wraps_an_error() {
        let overflow = || model::Error::Overflow {
            what: "W_E".to_owned(),
            precision: Precision::Bf16,
        };
        let told = |error: Error| hint(&error.context("reading m"));
        assert_eq!(told(Error::new(overflow())), Some("use --dtype f32"));
        let wrapped = circuitscope::Error::Eval(eval::Error::Model(overflow()));
        assert_eq!(told(Error::new(wrapped)), Some("use --dtype f32"));
        let scores = eval::Error::Scores {
            method: "eap".to_owned(),
            task: None,
            seed: 0,
            what: "scores".to_owned(),
            cause: Some(Box::new(eval::Error::NotFinite {
                precision: Some(Precision::F16),
            })),
        };
        assert_eq!(told(Error::new(scores)), Some("use --dtype f32"));
        assert_eq!(told(Error::msg("no such file")), None);
    }

    /// Flags are this program's: a library's error that names one tells its other users nothing.
    #[test]
    fn libraries_do_not_speak_of_flags() {
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates");
        let mut files = vec![crates];
        let mut read = 0;
        while let Some(path) = files.pop() {
            if path.is_dir() {
                let tests = path.file_name().is_some_and(|name| {
                    ["tests", "target", "examples", "fuzz"]
                        .iter()
                        .any(|other| name == *other)
                });
                let within = fs_err::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path());
                files.extend(within.filter(|_| !tests));
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            read += 1;
            let text = fs_err::read_to_string(&path).unwrap();
            let lines = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            for line in lines {
                let flag = FLAGS.iter().find(|flag| line.contains(*flag));
                assert_eq!(flag, None, "{}: {line}", path.display());
            }
        }
        assert!(read > 150, "{read} files");
    }

    const FLAGS: [&str; 13] = [
        "--activations",
        "--chat",
        "--circuit",
        "--device",
        "--dtype",
        "--metric",
        "--model",
        "--reference",
        "--output",
        "--pairs",
        "--prepend-bos",
        "--select",
        "--task",
    ];

    #[test]
    fn a_broken_pipe_is_found_under_context() {
        let error = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("printing");
        assert!(is_broken_pipe(&error.unwrap_err()));
        assert!(!is_broken_pipe(&Error::msg("pipe")));
    }
}
