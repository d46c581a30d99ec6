//! `circuitscope.toml`: flags that a file gives where the command line does not.
//!
//! There is no second list of keys: a key is a flag as `clap` knows it, its value is checked by the flag's own parser, and
//! what counts is put behind the command line as if it had been typed.

use core::any::TypeId;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use circuitscope::files::{self, FileError, line_of as line};
use circuitscope::{did_you_mean, nearest};
use clap::builder::ValueHint;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::args::{COMMANDS_WITHOUT_CONFIG, MODEL_VARIABLE};

/// The file that is read where it lies in the current folder.
pub(crate) const FILE: &str = "circuitscope.toml";
/// The variable of the environment that names another.
pub(crate) const VARIABLE: &str = "CIRCUITSCOPE_CONFIG";
/// What `--config` and the variable say where no file is to be read.
pub(crate) const NONE: &str = "none";
/// The flag that names another, which no file can give.
const FLAG: &str = "config";
/// Most times that a flag which is counted can be given.
const MOST: i64 = 9;

/// Flags that a file gives to the command that was typed.
#[derive(Debug)]
pub(crate) struct Given {
    /// The file.
    pub(crate) file: PathBuf,
    /// As they would be typed: `--key=value`.
    pub(crate) flags: Vec<OsString>,
}

/// What the file gives to the command that was typed: nothing where there is no file, where the command reads none, and
/// for what the command line says itself, or forbids.
pub(crate) fn given(command: &Command, typed: &ArgMatches) -> Result<Option<Given>, FileError> {
    let Some((name, of_command)) = typed.subcommand() else {
        return Ok(None);
    };
    if COMMANDS_WITHOUT_CONFIG.contains(&name) {
        return Ok(None);
    }
    let Some(file) = find(of_command.get_one::<PathBuf>(FLAG)) else {
        return Ok(None);
    };
    let entries = File::new(command, &file).entries()?;
    let set_by_environment = env::var_os(MODEL_VARIABLE).is_some_and(|model| !model.is_empty());
    let mut told: Vec<&Arg> = known(command, name)
        .filter(|arg| {
            of_command.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
        })
        .collect();
    let mut flags = Vec::new();
    // What a table says of the command counts before what stands above all tables.
    for of_table in [true, false] {
        let mut taken = Vec::new();
        for entry in entries
            .iter()
            .filter(|entry| entry.command.is_some() == of_table)
        {
            let of_this = entry.command.as_deref().is_none_or(|of| of == name);
            let arg = known(command, name).find(|arg| arg.get_long() == Some(entry.key.as_str()));
            let Some(arg) = arg.filter(|_| of_this) else {
                continue;
            };
            let model = entry.key == "model" && set_by_environment;
            if model || told.iter().any(|other| exclude(command, name, arg, other)) {
                continue;
            }
            flags.extend_from_slice(&entry.flags);
            taken.push(arg);
        }
        told.extend(taken);
    }
    Ok((!flags.is_empty()).then_some(Given { file, flags }))
}

/// Puts flags behind what was typed, before a `--` that ends the flags.
pub(crate) fn append(typed: &mut Vec<OsString>, flags: &[OsString]) {
    let end = typed.iter().position(|arg| arg == "--");
    let end = end.unwrap_or(typed.len());
    typed.splice(end..end, flags.iter().cloned());
}

/// The file to read: `--config`, the environment, or the one in the current folder if it is there.
fn find(flag: Option<&PathBuf>) -> Option<PathBuf> {
    let named = flag.cloned();
    let named = named.or_else(|| {
        let variable = env::var_os(VARIABLE).filter(|value| !value.is_empty());
        variable.map(PathBuf::from)
    });
    if let Some(named) = named {
        return (named.as_os_str() != NONE).then_some(named);
    }
    let usual = PathBuf::from(FILE);
    usual.symlink_metadata().is_ok().then_some(usual)
}

/// The flags of a command, those of every command included.
fn known<'c>(command: &'c Command, name: &str) -> impl Iterator<Item = &'c Arg> {
    let own = command.find_subcommand(name).into_iter();
    let own = own.flat_map(Command::get_arguments);
    own.chain(command.get_arguments().filter(|arg| arg.is_global_set()))
}

/// Names that a file can give to a command.
fn keys<'c>(command: &'c Command, name: &str) -> impl Iterator<Item = &'c str> {
    let flags = known(command, name).filter(|arg| !arg.is_hide_set());
    flags.filter_map(Arg::get_long).filter(|key| *key != FLAG)
}

/// Whether two flags are one, or cannot be given together.
fn exclude(command: &Command, name: &str, a: &Arg, b: &Arg) -> bool {
    if a.get_id() == b.get_id() {
        return true;
    }
    let Some(own) = command.find_subcommand(name) else {
        return false;
    };
    let conflicts = |one: &Arg, other: &Arg| {
        let of = if one.is_global_set() { command } else { own };
        let conflicts = of.get_arg_conflicts_with(one);
        conflicts.iter().any(|arg| arg.get_id() == other.get_id())
    };
    let alternatives = own.get_groups().any(|group| {
        let holds = |arg: &Arg| group.get_args().any(|id| id == arg.get_id());
        holds(a) && holds(b) && !group.clone().is_multiple()
    });
    alternatives || conflicts(a, b) || conflicts(b, a)
}

/// A key of the file that is as it should be.
#[derive(Debug)]
struct Entry {
    /// The command whose table it stands in; `None` above all tables.
    command: Option<String>,
    key: String,
    /// As it would be typed; nothing for a switch that is off.
    flags: Vec<OsString>,
}

/// A file that is read.
struct File<'c> {
    command: &'c Command,
    path: &'c Path,
}

/// A key and the value beside it.
type Pair<'t, 'i> = (
    &'t Spanned<std::borrow::Cow<'i, str>>,
    &'t Spanned<DeValue<'i>>,
);

impl<'c> File<'c> {
    const fn new(command: &'c Command, path: &'c Path) -> Self {
        Self { command, path }
    }

    /// Every key, checked whatever command was typed.
    fn entries(&self) -> Result<Vec<Entry>, FileError> {
        let text = files::read_to_string(self.path)?;
        let table = DeTable::parse(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let found = error.message().trim().replace('\n', " ");
            FileError::field(
                self.path,
                format!("line {}", line(&text, start)),
                found,
                "TOML",
            )
        })?;
        let mut entries = Vec::new();
        for (key, value) in in_order(table.get_ref()) {
            if let DeValue::Table(of_command) = value.get_ref() {
                self.check_command(&text, key)?;
                for pair in in_order(of_command) {
                    entries.push(self.entry(&text, pair, Some(key.get_ref()))?);
                }
            } else {
                entries.push(self.entry(&text, (key, value), None)?);
            }
        }
        Ok(entries)
    }

    /// Names of the commands that a file can give flags to.
    fn commands(&self) -> impl Iterator<Item = &'c str> {
        let names = self.command.get_subcommands().map(Command::get_name);
        names.filter(|name| *name != "help" && !COMMANDS_WITHOUT_CONFIG.contains(name))
    }

    fn check_command(
        &self,
        text: &str,
        key: &Spanned<std::borrow::Cow<'_, str>>,
    ) -> Result<(), FileError> {
        let name = key.get_ref();
        if self.commands().any(|command| command == name) {
            return Ok(());
        }
        let hint = did_you_mean(nearest(name, self.commands()));
        let names: Vec<&str> = self.commands().collect();
        Err(FileError::field(
            self.path,
            format!("line {}: [{name}]", line(text, key.span().start)),
            format!("no such command{hint}"),
            names.join(", "),
        ))
    }

    fn entry(
        &self,
        text: &str,
        (key, value): Pair<'_, '_>,
        of: Option<&str>,
    ) -> Result<Entry, FileError> {
        let name = key.get_ref().as_ref();
        let table = of.map_or_else(String::new, |command| format!("[{command}] "));
        let place = format!("line {}: {table}`{name}`", line(text, key.span().start));
        let wrong = |found: String, expected: &str| {
            FileError::field(self.path, place.clone(), found, expected)
        };
        let commands: Vec<&str> = match of {
            Some(command) => vec![command],
            None => self.commands().collect(),
        };
        let holders = commands
            .iter()
            .copied()
            .filter(|command| keys(self.command, command).any(|key| key == name));
        let holders: Vec<&str> = holders.collect();
        if holders.is_empty() {
            let mut others: Vec<&str> = commands
                .iter()
                .flat_map(|command| keys(self.command, command))
                .collect();
            if of.is_none() {
                others.extend(self.commands());
            }
            let hint = did_you_mean(nearest(name, others));
            return Err(match of {
                Some(command) => wrong(
                    format!("no such flag{hint}"),
                    &format!(
                        "a flag that `circuitscope {command} --help` lists, without its dashes"
                    ),
                ),
                None => wrong(
                    format!("no such flag of any command{hint}"),
                    "a flag without its dashes, or the name of a command before a table of its flags",
                ),
            });
        }
        let mut flags = Vec::new();
        for (at, command) in holders.iter().enumerate() {
            let arg = known(self.command, command).find(|arg| arg.get_long() == Some(name));
            let Some(arg) = arg else { continue };
            let these = self.flags(arg, name, value.get_ref());
            let these = these.map_err(|(found, expected)| wrong(found, &expected))?;
            self.check(command, &these).map_err(|expected| {
                let shown = shown(value.get_ref());
                let whose = if of.is_none() && holders.len() > 1 {
                    format!(" (of `{command}`, one of the commands that have this flag)")
                } else {
                    String::new()
                };
                wrong(shown, &format!("{expected}{whose}"))
            })?;
            if at == 0 {
                flags = these;
            }
        }
        Ok(Entry {
            command: of.map(str::to_owned),
            key: name.to_owned(),
            flags,
        })
    }

    /// A value as it would be typed; else what was found and what was expected.
    fn flags(
        &self,
        arg: &Arg,
        key: &str,
        value: &DeValue<'_>,
    ) -> Result<Vec<OsString>, (String, String)> {
        let wrong = |expected: &str| Err((shown(value), expected.to_owned()));
        match (arg.get_action(), value) {
            (ArgAction::SetTrue, DeValue::Boolean(true)) => Ok(vec![format!("--{key}").into()]),
            (ArgAction::SetTrue, DeValue::Boolean(false)) => Ok(Vec::new()),
            (ArgAction::SetTrue, _) => wrong("true or false"),
            (ArgAction::Count, value) => {
                let times = integer(value).filter(|times| (0..=MOST).contains(times));
                let Some(times) = times else {
                    return wrong(&format!("a whole number, from 0 to {MOST}"));
                };
                Ok((0..times).map(|_| format!("--{key}").into()).collect())
            }
            (ArgAction::Append, DeValue::Array(values)) => {
                let values = values.iter().map(|value| {
                    let typed = scalar(value.get_ref());
                    typed.ok_or_else(|| {
                        let found = format!("{} in the list", shown(value.get_ref()));
                        (found, "texts, numbers, true or false in it".to_owned())
                    })
                });
                let values: Vec<String> = values.collect::<Result<_, _>>()?;
                let typed = values.iter().map(|value| self.typed(arg, key, value));
                Ok(typed.collect())
            }
            _ => match scalar(value) {
                Some(text) => Ok(vec![self.typed(arg, key, &text)]),
                None => wrong("a text, a number, true or false"),
            },
        }
    }

    /// `--key=value`, a path taken from the folder of the file.
    fn typed(&self, arg: &Arg, key: &str, value: &str) -> OsString {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let joined = folder.join(value);
        let is_path = arg.get_value_parser().type_id() == TypeId::of::<PathBuf>();
        // What may be a name or a path is a path where it looks like one and is there.
        let may_be = matches!(
            arg.get_value_hint(),
            ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath
        );
        let is_there = may_be && value.contains(['/', '\\']) && joined.exists();
        let mut typed = OsString::from(format!("--{key}="));
        if !value.is_empty() && (is_path || is_there) {
            typed.push(joined);
        } else {
            typed.push(value);
        }
        typed
    }

    /// What the flag's own parser expects, if it does not take this.
    fn check(&self, command: &str, flags: &[OsString]) -> Result<(), String> {
        let line = [OsString::from("circuitscope"), OsString::from(command)];
        let line = line.into_iter().chain(flags.iter().cloned());
        let Err(error) = self.command.clone().try_get_matches_from(line) else {
            return Ok(());
        };
        match error.kind() {
            ErrorKind::ValueValidation => {
                let source = core::error::Error::source(&error).map(ToString::to_string);
                let source = source.unwrap_or_default();
                Err(match source.strip_prefix("expected ") {
                    Some(expected) => expected.to_owned(),
                    None => format!("a value that `--help` allows ({source})"),
                })
            }
            ErrorKind::InvalidValue => Err(match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
                    let hint = match error.get(ContextKind::SuggestedValue) {
                        Some(ContextValue::String(like)) => did_you_mean(Some(like)),
                        _ => String::new(),
                    };
                    format!("one of {}{hint}", valid.join(", "))
                }
                _ => "a value".to_owned(),
            }),
            // The rest of the command line is not there.
            _ => Ok(()),
        }
    }
}

/// The pairs of a table as the file has them.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<Pair<'t, 'i>> {
    let mut pairs: Vec<Pair<'t, 'i>> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    pairs
}

/// A value that stands for itself on a command line.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Integer(_) => integer(value).map(|number| number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(is) => Some(is.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A value for an error.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
        DeValue::Datetime(time) => format!("the time {time}"),
        _ => scalar(value).unwrap_or_else(|| "a number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    /// No two flags of a command are compared in vain: clap panics where one names another that is not there.
    #[test]
    fn every_two_flags_can_be_compared() {
        let mut command = Cli::command();
        command.build();
        let mut exclusive = 0;
        let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
        for name in names.into_iter().filter(|name| *name != "help") {
            let flags: Vec<&Arg> = known(&command, name).collect();
            for a in &flags {
                for b in &flags {
                    let excluded = exclude(&command, name, a, b);
                    assert_eq!(excluded, exclude(&command, name, b, a), "{name}: {a} {b}");
                    exclusive += usize::from(excluded && a.get_id() != b.get_id());
                }
            }
        }
        assert!(exclusive > 20, "{exclusive}");
    }

    #[test]
    fn flags_are_put_before_the_end_of_flags() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let mut line = words("circuitscope report -- e");
        append(&mut line, &words("--format=json"));
        assert_eq!(line, words("circuitscope report --format=json -- e"));
        let mut line = words("circuitscope report e");
        append(&mut line, &words("--format=json"));
        assert_eq!(line, words("circuitscope report e --format=json"));
    }
}
