//! Rows of MIB's data sets, one JSON object a line.

use std::path::Path;

use serde_json::{Map, Value};

use super::extra::{self, Extra};
use super::fields::{kind, object, text};
use super::variables::Variables;
use super::{FileRead, Pair, spans, years};
use crate::error::LineProblem;
use crate::{AnswerToken, Answers, Error, Place, Result};

/// Fields of which every row has one.
pub(super) const PROMPTS: [&str; 2] = ["prompt", "clean"];

/// Of several counterfactuals of a row, those that the circuit track takes: for IOI; for MCQA and
/// ARC; for arithmetic.
const COUNTERFACTUALS: [&str; 3] = [
    "s2_io_flip_counterfactual",
    "symbol_counterfactual",
    "random_counterfactual",
];

const FIELDS: &[&str] = &[
    "prompt",
    "metadata",
    "choices",
    "answerKey",
    "label",
    "clean",
    "corrupted",
    "year",
];
/// Fields of a counterfactual.
const OTHER: &[&str] = &["prompt", "metadata", "choices", "answerKey", "label"];
const ANSWERS: &str = "`metadata`, `choices` and `answerKey`, or `label`";

pub(super) fn read(path: &Path, lines: &[&str]) -> Result<FileRead> {
    let mut extra = Extra::default();
    let (mut pairs, mut without) = (Vec::new(), Vec::new());
    let (mut fields, mut of_years) = (["label", "label"].map(str::to_owned), false);
    for (line, number) in lines.iter().zip(1..) {
        let at = |problem| Error::Line {
            file: path.to_owned(),
            line: number,
            problem,
        };
        let row: Map<String, Value> = object(line).map_err(at)?.into_iter().collect();
        for name in row.keys().filter(|name| !known(name)) {
            let there = |known: &str| row.contains_key(known);
            extra::refuse(name, FIELDS, there, ANSWERS).map_err(at)?;
        }
        let others = row
            .iter()
            .filter(|(name, _)| name.contains("_counterfactual"));
        for other in others.filter_map(|(_, other)| other.as_object()) {
            extra::others(other, OTHER, ANSWERS).map_err(at)?;
        }
        let Some(read) = row_of(&row).map_err(at)? else {
            without.push(number);
            continue;
        };
        fields = read.fields;
        of_years |= read.years;
        pairs.push(Pair {
            positive: read.positive,
            negative: read.negative,
            answers: read.answers,
            parts: spans::Read::default(),
            variables: variables(&row, &mut extra),
            place: Place::Line(number),
        });
    }
    let mut notes = extra.notes();
    if let Some(first) = without.first() {
        notes.push(format!(
            "{} without a counterfactual left out, the first in line {first}",
            match without.len() {
                1 => "1 row".to_owned(),
                rows => format!("{rows} rows"),
            }
        ));
    }
    Ok(FileRead {
        pairs,
        fields,
        years: of_years,
        notes,
    })
}

/// The fields of a row that the form does not know, and those of `metadata`: of the row for both prompts, of its
/// counterfactual for the negative one.
fn variables(row: &Map<String, Value>, extra: &mut Extra) -> [Variables; 2] {
    let mut variables = [Variables::new(), Variables::new()];
    for (name, value) in row.iter().filter(|(name, _)| !known(name)) {
        extra.keep(name, value, &mut variables);
    }
    let other = match counterfactual(row) {
        Ok(column) if !row.contains_key("clean") => row[column].as_object(),
        _ => None,
    };
    let [positive, negative] = &mut variables;
    for (name, value) in other.into_iter().flatten() {
        if !OTHER.contains(&name.as_str()) {
            extra.keep_one(name, value, negative);
        }
    }
    for (row, of) in [(Some(row), positive), (other, negative)] {
        let metadata = row.and_then(|row| row.get("metadata")?.as_object());
        for (name, value) in metadata.into_iter().flatten() {
            extra.keep_one(name, value, of);
        }
    }
    variables
}

fn known(name: &str) -> bool {
    FIELDS.contains(&name) || name.contains("_counterfactual")
}

struct Row {
    positive: String,
    negative: String,
    answers: Answers,
    fields: [String; 2],
    years: bool,
}

/// What a row says; nothing where its counterfactual is null.
fn row_of(row: &Map<String, Value>) -> Result<Option<Row>, LineProblem> {
    if row.contains_key("clean") {
        return greater_than(row).map(Some);
    }
    let column = counterfactual(row)?;
    let other = match &row[column] {
        Value::Null => return Ok(None),
        Value::Object(other) => other,
        found => {
            return Err(LineProblem::Field {
                field: column.to_owned(),
                found: kind(found).to_owned(),
                expected: "an object with a `prompt`",
            });
        }
    };
    let prompt = |row: &Map<String, Value>, field: &str| {
        text(row.get("prompt").unwrap_or(&Value::Null), field)
    };
    let name = |field: &str| row.get("metadata")?.get(field)?.as_str();
    let (right, wrong, [of_right, of_wrong]) = match (name("indirect_object"), name("subject")) {
        // Names follow a space.
        (Some(object), Some(subject)) => (
            Some(format!(" {object}")),
            Some(format!(" {subject}")),
            ["metadata.indirect_object", "metadata.subject"].map(str::to_owned),
        ),
        _ if row.contains_key("choices") => (
            choice(row, "")?,
            choice(other, &format!("{column}."))?,
            ["choices".to_owned(), format!("{column}.choices")],
        ),
        // Other tasks may have a subject of another kind, beside their label.
        (Some(_), None) if !row.contains_key("label") => {
            return Err(LineProblem::MissingField {
                field: "metadata.subject",
            });
        }
        (None, Some(_)) if !row.contains_key("label") => {
            return Err(LineProblem::MissingField {
                field: "metadata.indirect_object",
            });
        }
        _ => (
            label(row, "")?,
            label(other, &format!("{column}."))?,
            ["label".to_owned(), format!("{column}.label")],
        ),
    };
    let answer = |answer: Option<String>| answer.map(AnswerToken::Word).into_iter().collect();
    Ok(Some(Row {
        positive: prompt(row, "prompt")?,
        negative: prompt(other, &format!("{column}.prompt"))?,
        answers: Answers {
            right: answer(right),
            wrong: answer(wrong),
        },
        fields: [of_right, of_wrong],
        years: false,
    }))
}

/// The name of the counterfactual to read.
fn counterfactual(row: &Map<String, Value>) -> Result<&str, LineProblem> {
    let found: Vec<&String> = row
        .keys()
        .filter(|key| key.contains("_counterfactual"))
        .collect();
    if let [only] = found.as_slice() {
        return Ok(only.as_str());
    }
    let taken = COUNTERFACTUALS.into_iter();
    let mut taken = taken.filter(|name| row.contains_key(*name));
    taken.next().ok_or_else(|| LineProblem::Field {
        field: "*_counterfactual".to_owned(),
        found: if found.is_empty() {
            "no such column".to_owned()
        } else {
            let found = found.iter().map(|name| name.as_str());
            found.collect::<Vec<_>>().join(", ")
        },
        expected: "one column of counterfactuals, or `s2_io_flip_counterfactual`, \
                   `symbol_counterfactual` or `random_counterfactual` among them",
    })
}

/// A row of MIB's greater-than: `clean`, `corrupted` and `year`, or `label`.
fn greater_than(row: &Map<String, Value>) -> Result<Row, LineProblem> {
    let get = |field: &'static str| {
        let value = row.get(field).ok_or(LineProblem::MissingField { field })?;
        text(value, field)
    };
    let positive = get("clean")?;
    let mut year = ["year", "label"].into_iter();
    let year = year.find_map(|field| Some((field, plain(row.get(field)?)?)));
    let (answers, field) = match year {
        None => (Answers::default(), "label"),
        // A year of four digits, or its last two.
        Some((field, year)) => {
            let last = year.len().saturating_sub(2);
            let digits = year.get(last..).unwrap_or(&year);
            (years::answers(&positive, digits, field)?, field)
        }
    };
    Ok(Row {
        positive,
        negative: get("corrupted")?,
        years: year_given(&answers),
        answers,
        fields: [field.to_owned(), field.to_owned()],
    })
}

fn year_given(answers: &Answers) -> bool {
    !answers.right.is_empty()
}

/// The label of the right choice of a row, as written. The key is the number of a choice, or its label.
fn choice(row: &Map<String, Value>, place: &str) -> Result<Option<String>, LineProblem> {
    let choices = row.get("choices").unwrap_or(&Value::Null);
    let labels = choices.get("label").unwrap_or(choices).as_array();
    let labels: Vec<String> = labels.into_iter().flatten().filter_map(plain).collect();
    let key = row.get("answerKey").unwrap_or(&Value::Null);
    let found = match key {
        Value::Number(at) => at
            .as_u64()
            .and_then(|at| labels.get(usize::try_from(at).ok()?)),
        Value::String(label) => labels.iter().find(|known| *known == label),
        _ => None,
    };
    found
        .map(|label| Some(label.clone()))
        .ok_or_else(|| LineProblem::Field {
            field: format!("{place}answerKey"),
            found: key.to_string(),
            expected: "the number of one of `choices`, from 0, or its label",
        })
}

/// The label of a row, if it has one: a string or a number.
fn label(row: &Map<String, Value>, place: &str) -> Result<Option<String>, LineProblem> {
    let Some(value) = row.get("label") else {
        return Ok(None);
    };
    plain(value).map(Some).ok_or_else(|| LineProblem::Field {
        field: format!("{place}label"),
        found: kind(value).to_owned(),
        expected: "a string or a number",
    })
}

/// A string or a number as written.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
