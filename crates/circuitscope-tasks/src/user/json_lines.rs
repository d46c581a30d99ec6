//! One JSON object a line: our own fields, or the columns of MIB's data sets.

use core::fmt;
use std::path::Path;

use circuitscope_core::nearest;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Pair, lines};
use crate::error::LineProblem;
use crate::{AnswerToken, Answers, Error, Result};

const FIELDS: [&str; 4] = ["positive", "negative", "answers", "wrong_answers"];

/// Of several counterfactuals of a MIB row, the one that its circuit track pairs IOI prompts with.
const COUNTERFACTUAL: &str = "s2_io_flip_counterfactual";

pub(super) fn read(path: &Path, text: &str) -> Result<Vec<Pair>> {
    let lines = lines(path, text)?;
    let first = lines
        .first()
        .and_then(|line| serde_json::from_str(line).ok());
    let of_mib = first.is_some_and(|row: Map<String, Value>| {
        row.contains_key("prompt") && !FIELDS.iter().any(|field| row.contains_key(*field))
    });
    let read = if of_mib { mib_row } else { pair };
    let pairs = lines.into_iter().enumerate().map(|(at, line)| {
        read(line).map_err(|problem| Error::Line {
            file: path.to_owned(),
            line: at + 1,
            problem,
        })
    });
    pairs.collect()
}

fn pair(line: &str) -> Result<Pair, LineProblem> {
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
    let mut found = [const { None }; FIELDS.len()];
    for (name, value) in fields {
        let Some(at) = FIELDS.iter().position(|field| *field == name) else {
            return Err(LineProblem::UnknownField {
                nearest: nearest(&name, FIELDS),
                field: name,
            });
        };
        if found[at].replace(value).is_some() {
            return Err(LineProblem::RepeatedField { field: FIELDS[at] });
        }
    }
    let [positive, negative, right, wrong] = found;
    let prompt = |value: Option<Value>, field: &'static str| {
        let value = value.ok_or(LineProblem::MissingField { field })?;
        text(&value, field)
    };
    let answers = |value: Option<Value>, field: &str| {
        value.map_or_else(|| Ok(Vec::new()), |value| answer_tokens(&value, field))
    };
    Ok(Pair {
        positive: prompt(positive, FIELDS[0])?,
        negative: prompt(negative, FIELDS[1])?,
        answers: Answers {
            right: answers(right, FIELDS[2])?,
            wrong: answers(wrong, FIELDS[3])?,
        },
    })
}

/// A row of a data set of MIB: `prompt`, a counterfactual of which the `prompt` is read, and where
/// they are there `metadata.indirect_object` and `metadata.subject`, or `choices` and `answerKey` of
/// both, as answers.
fn mib_row(line: &str) -> Result<Pair, LineProblem> {
    let row: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| LineProblem::NotJson(without_line(&error)))?;
    let mut counterfactuals = row.keys().filter(|key| key.contains("_counterfactual"));
    let column = match (counterfactuals.next(), counterfactuals.next()) {
        (Some(only), None) => only.as_str(),
        (Some(_), Some(_)) if row.contains_key(COUNTERFACTUAL) => COUNTERFACTUAL,
        (first, second) => {
            let found = [first, second].into_iter().flatten().chain(counterfactuals);
            let found = found.map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(LineProblem::Field {
                field: "*_counterfactual".to_owned(),
                found: if found.is_empty() {
                    "no such column".to_owned()
                } else {
                    found
                },
                expected: "one column of counterfactuals, or `s2_io_flip_counterfactual` among them",
            });
        }
    };
    let other = row[column].as_object().ok_or_else(|| LineProblem::Field {
        field: column.to_owned(),
        found: kind(&row[column]).to_owned(),
        expected: "an object with a `prompt`",
    })?;
    let prompt = |row: &Map<String, Value>, field: &str| {
        text(row.get("prompt").unwrap_or(&Value::Null), field)
    };
    let name = |field: &str| row.get("metadata")?.get(field)?.as_str();
    let (right, wrong) = match (name("indirect_object"), name("subject")) {
        // Names follow a space.
        (Some(object), Some(subject)) => (Some(format!(" {object}")), Some(format!(" {subject}"))),
        _ => (choice(&row), choice(other)),
    };
    let answer = |answer: Option<String>| answer.map(AnswerToken::Word).into_iter().collect();
    Ok(Pair {
        positive: prompt(&row, "prompt")?,
        negative: prompt(other, &format!("{column}.prompt"))?,
        answers: Answers {
            right: answer(right),
            wrong: answer(wrong),
        },
    })
}

/// The label of the right choice of a row, as written.
fn choice(row: &Map<String, Value>) -> Option<String> {
    let choices = row.get("choices")?;
    let labels = choices.get("label").unwrap_or(choices).as_array()?;
    let at = usize::try_from(row.get("answerKey")?.as_u64()?).ok()?;
    Some(labels.get(at)?.as_str()?.to_owned())
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
