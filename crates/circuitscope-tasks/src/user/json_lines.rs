//! The user's own prompts.

use core::fmt;
use std::path::Path;

use circuitscope_core::{Polarity, nearest};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use crate::error::LineProblem;
use crate::{Error, LabelledPrompts, Result};

const FIELDS: [&str; 2] = ["positive", "negative"];

/// Reads matched prompts from a JSON-lines file: one object
/// `{"positive": "…", "negative": "…"}` a line.
///
/// Prompts are taken as they are, with their leading and trailing spaces. Blank lines are allowed
/// only at the end.
///
/// # Errors
/// [`Error::Io`] (which names the file), [`Error::Line`] (which names file, line and field) and
/// [`Error::EmptyClass`] for a file without pairs. Whether the prompts of a pair have the same
/// token length is for [`check_pair_lengths`](crate::check_pair_lengths), once they are tokens.
pub fn read_pairs(path: &Path) -> Result<LabelledPrompts> {
    let text = read(path)?;
    let pairs = lines(path, &text)?
        .into_iter()
        .enumerate()
        .map(|(at, line)| {
            pair(line).map_err(|problem| Error::Line {
                file: path.to_owned(),
                line: at + 1,
                problem,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    if pairs.is_empty() {
        return Err(Error::EmptyClass {
            file: path.to_owned(),
            class: Polarity::Positive,
        });
    }
    Ok(LabelledPrompts::from_pairs(pairs))
}

/// Reads two text files of one prompt a line, one for each class.
///
/// Files of equally many lines are matched line by line. A prompt that contains a line break cannot
/// be written so: use [`read_pairs`].
///
/// # Errors
/// [`Error::Io`] (which names the file), [`Error::Line`] for a blank line before the end,
/// [`Error::EmptyClass`] for a file without prompts.
pub fn read_lines(positive: &Path, negative: &Path) -> Result<LabelledPrompts> {
    let class = |path: &Path, class: Polarity| {
        let text = read(path)?;
        let prompts: Vec<String> = lines(path, &text)?.into_iter().map(str::to_owned).collect();
        if prompts.is_empty() {
            return Err(Error::EmptyClass {
                file: path.to_owned(),
                class,
            });
        }
        Ok(prompts)
    };
    let positive = class(positive, Polarity::Positive)?;
    let negative = class(negative, Polarity::Negative)?;
    Ok(if positive.len() == negative.len() {
        LabelledPrompts::from_pairs(positive.into_iter().zip(negative))
    } else {
        LabelledPrompts::from_classes(positive, negative)
    })
}

/// The text of a file, without the byte-order mark that some editors put first.
fn read(path: &Path) -> Result<String> {
    let text = fs_err::read_to_string(path)?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// The lines up to the last that is not blank; none of them may be.
fn lines<'a>(path: &Path, text: &'a str) -> Result<Vec<&'a str>> {
    let mut lines: Vec<&str> = text.lines().collect();
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    match lines.iter().position(|line| line.trim().is_empty()) {
        None => Ok(lines),
        Some(at) => Err(Error::Line {
            file: path.to_owned(),
            line: at + 1,
            problem: LineProblem::Blank,
        }),
    }
}

fn pair(line: &str) -> Result<(String, String), LineProblem> {
    let fields = match serde_json::from_str::<Fields>(line) {
        Ok(fields) => fields.0,
        Err(error) => {
            return Err(match serde_json::from_str::<Value>(line) {
                Ok(value) => LineProblem::NotAnObject {
                    found: kind(&value),
                },
                Err(_) => LineProblem::NotJson(without_line(&error)),
            });
        }
    };
    let mut prompts: [Option<String>; 2] = [None, None];
    for (name, value) in fields {
        let Some(at) = FIELDS.iter().position(|field| *field == name) else {
            return Err(LineProblem::UnknownField {
                nearest: nearest(&name, FIELDS),
                field: name,
            });
        };
        let field = FIELDS[at];
        let Value::String(prompt) = value else {
            return Err(LineProblem::NotAString {
                field,
                found: kind(&value),
            });
        };
        if prompt.is_empty() {
            return Err(LineProblem::EmptyPrompt { field });
        }
        if prompts[at].replace(prompt).is_some() {
            return Err(LineProblem::RepeatedField { field });
        }
    }
    let [positive, negative] = prompts;
    let take = |prompt: Option<String>, field| prompt.ok_or(LineProblem::MissingField { field });
    Ok((take(positive, FIELDS[0])?, take(negative, FIELDS[1])?))
}

/// A parser's message without its own line number, which is always 1 here.
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line 1 column ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => message,
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The fields of an object as written, repetitions included.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsWritten;
        impl<'de> Visitor<'de> for AsWritten {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields, M::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(AsWritten)
    }
}
