//! Fields of a JSON object on one line, and what they hold.

use core::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use crate::AnswerToken;
use crate::error::LineProblem;

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
