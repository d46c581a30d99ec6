//! What prompts vary in, as files give it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::kind;
use crate::error::LineProblem;

/// Values by name.
pub(super) type Variables = BTreeMap<String, String>;

const SIDES: [&str; 2] = ["positive", "negative"];
const EXPECTED: &str = "values by name, each a text, a number or a boolean, or {\"positive\": …, \"negative\": …} \
                        of them";

/// A value as text.
pub(super) fn one(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The values for the two prompts of a pair: one for both, or one for each of those that are named.
pub(super) fn values(value: &Value) -> Option<[Option<String>; 2]> {
    let Value::Object(sides) = value else {
        return one(value).map(|value| [Some(value.clone()), Some(value)]);
    };
    let named = sides.keys().all(|side| SIDES.contains(&side.as_str()));
    if sides.is_empty() || !named || !sides.values().all(|value| one(value).is_some()) {
        return None;
    }
    Some(SIDES.map(|side| sides.get(side).and_then(one)))
}

pub(super) fn insert(of: &mut [Variables; 2], name: &str, values: [Option<String>; 2]) {
    for (of, value) in of.iter_mut().zip(values) {
        if let Some(value) = value {
            of.insert(name.to_owned(), value);
        }
    }
}

/// Reads a field `variables` beside the variables that other fields gave.
pub(super) fn read(value: &Value, of: &mut [Variables; 2]) -> Result<(), LineProblem> {
    let wrong = |field: String, found: String, expected| LineProblem::Field {
        field,
        found,
        expected,
    };
    let Some(named) = value.as_object() else {
        let found = kind(value).to_owned();
        return Err(wrong("variables".to_owned(), found, EXPECTED));
    };
    for (name, value) in named {
        let field = format!("variables.{name}");
        if of.iter().any(|of| of.contains_key(name)) {
            let found = format!("a field `{name}` beside it");
            return Err(wrong(field, found, "each variable once"));
        }
        match values(value) {
            Some(values) => insert(of, name, values),
            None => return Err(wrong(field, value.to_string(), EXPECTED)),
        }
    }
    Ok(())
}
