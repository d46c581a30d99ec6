//! One JSON object a line: our own fields, or the columns of MIB's data sets.

use core::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value};

use super::extra::Extra;
use super::{FileRead, Pair, lines, mib, spans};
use crate::error::LineProblem;
use crate::{AnswerToken, Answers, Error, Place, Result};

const FIELDS: &[&str] = &["positive", "negative", "answers", "wrong_answers", "spans"];
const ANSWERS: &str = "`answers` and `wrong_answers`";

pub(super) fn read(path: &Path, text: &str) -> Result<FileRead> {
    let lines = lines(path, text)?;
    let first = lines
        .first()
        .and_then(|line| serde_json::from_str(line).ok());
    let of_mib = first.is_some_and(|row: Map<String, Value>| {
        mib::PROMPTS.iter().any(|field| row.contains_key(*field))
            && !FIELDS.iter().any(|field| row.contains_key(*field))
    });
    if of_mib {
        return mib::read(path, &lines);
    }
    let mut extra = Extra::default();
    let pairs = lines.into_iter().enumerate().map(|(at, line)| {
        pair(line, at + 1, &mut extra).map_err(|problem| Error::Line {
            file: path.to_owned(),
            line: at + 1,
            problem,
        })
    });
    Ok(FileRead {
        pairs: pairs.collect::<Result<_>>()?,
        fields: ["answers", "wrong_answers"].map(str::to_owned),
        years: false,
        notes: extra.note().into_iter().collect(),
    })
}

/// The fields of a line.
pub(super) fn object(line: &str) -> Result<Vec<(String, Value)>, LineProblem> {
    serde_json::from_str::<Fields>(line)
        .map(|fields| fields.0)
        .map_err(|error| match serde_json::from_str::<Value>(line) {
            Ok(value) => LineProblem::NotAnObject {
                found: kind(&value),
            },
            Err(_) => LineProblem::NotJson(without_line(&error)),
        })
}

fn pair(line: &str, number: usize, extra: &mut Extra) -> Result<Pair, LineProblem> {
    let fields = object(line)?;
    let present: Vec<String> = fields.iter().map(|(name, _)| name.clone()).collect();
    let mut found = [const { None }; 5];
    for (name, value) in fields {
        let Some(at) = FIELDS.iter().position(|field| *field == name) else {
            let there = |known: &str| present.iter().any(|name| name == known);
            extra.pass_over(&name, FIELDS, there, ANSWERS)?;
            continue;
        };
        if found[at].replace(value).is_some() {
            return Err(LineProblem::RepeatedField { field: FIELDS[at] });
        }
    }
    let [positive, negative, right, wrong, spans] = found;
    let prompt = |value: Option<Value>, field: &'static str| {
        let value = value.ok_or(LineProblem::MissingField { field })?;
        text(&value, field)
    };
    let answers = |value: Option<Value>, field: &str| {
        value.map_or_else(|| Ok(Vec::new()), |value| answer_tokens(&value, field))
    };
    let positive = prompt(positive, FIELDS[0])?;
    let negative = prompt(negative, FIELDS[1])?;
    let spans = match spans {
        None => Vec::new(),
        Some(spans) => spans::read(&spans, &positive, &negative)?,
    };
    Ok(Pair {
        positive,
        negative,
        spans,
        answers: Answers {
            right: answers(right, FIELDS[2])?,
            wrong: answers(wrong, FIELDS[3])?,
        },
        place: Place::Line(number),
    })
}

/// A prompt: a string that is not empty.
pub(super) fn text(value: &Value, field: &str) -> Result<String, LineProblem> {
    match value.as_str() {
        None => Err(LineProblem::Field {
            field: field.to_owned(),
            found: kind(value).to_owned(),
            expected: "a string",
        }),
        Some("") => Err(LineProblem::EmptyPrompt {
            field: field.to_owned(),
        }),
        Some(text) => Ok(text.to_owned()),
    }
}

/// One answer or a list of them: words, or numbers of tokens.
pub(super) fn answer_tokens(value: &Value, field: &str) -> Result<Vec<AnswerToken>, LineProblem> {
    let one = |value: &Value| {
        let token = match value {
            Value::String(word) if !word.is_empty() => Some(AnswerToken::Word(word.clone())),
            Value::Number(id) => {
                let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                id.map(AnswerToken::Id)
            }
            _ => None,
        };
        token.ok_or_else(|| LineProblem::Field {
            field: field.to_owned(),
            found: match value {
                Value::String(_) => "an empty string".to_owned(),
                Value::Number(number) => number.to_string(),
                other => kind(other).to_owned(),
            },
            expected: "a word or the number of a token, or a list of them",
        })
    };
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// A parser's message without its own line number, which is always 1 here.
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line 1 column ") {
        Some((what, _)) => format!("{what} at column {}", error.column()),
        None => message,
    }
}

pub(super) const fn kind(value: &Value) -> &'static str {
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
