//! Settings of a plan are options of `eval`, read by what reads its command line.

use std::error::Error as _;

use anyhow::{Result, anyhow};
use circuitscope::{did_you_mean, nearest};
use circuitscope_sweep::{PlanFile, Settings};
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, ArgMatches, Command, FromArgMatches as _};

use crate::args::EvalArgs;

/// Options of `eval` that a plan sets elsewhere, or that make no sense in one.
const ELSEWHERE: [&str; 11] = [
    "model",
    "task",
    "method",
    "seed",
    "seeds",
    "device",
    "output",
    "scores",
    "cross-task",
    "help",
    "version",
];

/// Options that change no result.
const NO_MATTER: [&str; 3] = ["max-batch-tokens", "trust-device", "strict-config"];

fn command() -> Command {
    <EvalArgs as clap::Args>::augment_args(Command::new("eval"))
}

/// Names of the options that a set of settings may have.
fn names(command: &Command) -> Vec<&str> {
    let options = command.get_arguments().filter_map(clap::Arg::get_long);
    options.filter(|name| !ELSEWHERE.contains(name)).collect()
}

/// What `eval` is told, by a set of settings and `more` options with their values.
fn matches(
    file: &PlanFile,
    set: &str,
    settings: &Settings,
    more: &[(&str, String)],
) -> Result<ArgMatches> {
    let command = command();
    let known = names(&command);
    let mut line = vec!["eval".to_owned()];
    for (name, value) in settings {
        let field = format!("settings.{set}.{name}");
        if !known.contains(&name.as_str()) {
            let elsewhere = ELSEWHERE.contains(&name.as_str());
            let hint = did_you_mean(nearest(name, known.iter().copied()));
            let found = if elsewhere {
                "an option that a plan does not set here".to_owned()
            } else {
                format!("an unknown setting{hint}")
            };
            return Err(file.wrong(&field, &found, &known.join(", ")).into());
        }
        let is_switch = command.get_arguments().any(|option| {
            option.get_long() == Some(name) && matches!(option.get_action(), ArgAction::SetTrue)
        });
        match (is_switch, value.as_str()) {
            (true, "true") => line.push(format!("--{name}")),
            (true, "false") => {}
            (true, other) => {
                return Err(file
                    .wrong(&field, &format!("{other:?}"), "true or false")
                    .into());
            }
            (false, value) => line.push(format!("--{name}={value}")),
        }
    }
    line.extend(more.iter().map(|(name, value)| format!("--{name}={value}")));
    let matches = command.try_get_matches_from(line);
    matches.map_err(|error| refused(file, set, settings, &error))
}

/// What clap says of a value, as an error of the plan.
fn refused(file: &PlanFile, set: &str, settings: &Settings, error: &clap::Error) -> anyhow::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let option = text(ContextKind::InvalidArg).unwrap_or_default();
    let option = option.trim_start_matches('-').split(['=', ' ']).next();
    let option = option.unwrap_or_default();
    let Some(value) = settings.get(option) else {
        return anyhow!("{}: {}", file.path.display(), error.to_string().trim());
    };
    let valid = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) => Some(valid.join(", ")),
        _ => None,
    };
    let valid = valid.filter(|valid| !valid.is_empty());
    let listed = valid.is_some();
    let expected = valid
        .or_else(|| error.source().map(ToString::to_string))
        .unwrap_or_else(|| "another value".to_owned());
    let field = format!("settings.{set}.{option}");
    match expected.strip_prefix("expected ") {
        Some(expected) => file.wrong(&field, &format!("{value:?}"), expected).into(),
        None if listed => file.wrong(&field, &format!("{value:?}"), &expected).into(),
        None => anyhow!(
            "{}: {field}: found {value:?}: {expected}",
            file.path.display()
        ),
    }
}

/// Every value that results depend on, those that nobody wrote included.
pub(super) fn effective(file: &PlanFile, set: &str, settings: &Settings) -> Result<Settings> {
    if let Some(circuit) = settings.get("circuit")
        && circuitscope::tasks::KnownModel::named(circuit).is_err()
    {
        let expected = "the name of a model whose circuits are known; a circuit of your own goes into the folder of its task, \
                        in [[circuits]]";
        let field = format!("settings.{set}.circuit");
        return Err(file.wrong(&field, &format!("{circuit:?}"), expected).into());
    }
    let matches = matches(file, set, settings, &[])?;
    let command = command();
    let mut effective = Settings::new();
    for option in command.get_arguments() {
        let Some(name) = option.get_long() else {
            continue;
        };
        if ELSEWHERE.contains(&name) || NO_MATTER.contains(&name) {
            continue;
        }
        if let Some(values) = matches.get_raw(option.get_id().as_str()) {
            let values = values.map(|value| value.to_string_lossy().into_owned());
            effective.insert(name.to_owned(), values.collect::<Vec<_>>().join(","));
        }
    }
    Ok(effective)
}

/// What `eval` would be told to run cells of a plan: `model` is what to load, `methods` are all of the plan.
pub(super) fn eval_args(
    file: &PlanFile,
    set: &str,
    settings: &Settings,
    model: &str,
    methods: &str,
) -> Result<EvalArgs> {
    let more = [
        ("model", model.to_owned()),
        ("method", methods.to_owned()),
        ("device", file.device.clone()),
        ("seed", file.seed.to_string()),
        ("seeds", "1".to_owned()),
    ];
    let matches = matches(file, set, settings, &more)?;
    Ok(EvalArgs::from_arg_matches(&matches)?)
}
