//! One JSON object a line: our own fields, or the columns of MIB's data sets.

use std::path::Path;

use serde_json::{Map, Value};

use super::extra::{self, Extra};
use super::fields::{answer_tokens, object, text};
use super::variables::Variables;
use super::{FileRead, Pair, lines, mib, slots, spans, variables};
use crate::error::LineProblem;
use crate::{Answers, Error, Place, Result};

const FIELDS: &[&str] = &[
    "positive",
    "negative",
    "answers",
    "wrong_answers",
    "spans",
    "slots",
    "variables",
];
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
        notes: extra.notes(),
    })
}

fn pair(line: &str, number: usize, extra: &mut Extra) -> Result<Pair, LineProblem> {
    let fields = object(line)?;
    let present: Vec<String> = fields.iter().map(|(name, _)| name.clone()).collect();
    let mut found = [const { None }; 7];
    let mut of_pair = [Variables::new(), Variables::new()];
    for (name, value) in fields {
        let Some(at) = FIELDS.iter().position(|field| *field == name) else {
            let there = |known: &str| present.iter().any(|name| name == known);
            extra::refuse(&name, FIELDS, there, ANSWERS)?;
            extra.keep(&name, &value, &mut of_pair);
            continue;
        };
        if found[at].replace(value).is_some() {
            return Err(LineProblem::RepeatedField { field: FIELDS[at] });
        }
    }
    let [positive, negative, right, wrong, spans, slots, variables] = found;
    let prompt = |value: Option<Value>, field: &'static str| {
        let value = value.ok_or(LineProblem::MissingField { field })?;
        text(&value, field)
    };
    let answers = |value: Option<Value>, field: &str| {
        value.map_or_else(|| Ok(Vec::new()), |value| answer_tokens(&value, field))
    };
    let positive = prompt(positive, FIELDS[0])?;
    let negative = prompt(negative, FIELDS[1])?;
    let mut parts = match spans {
        None => spans::Read::default(),
        Some(spans) => spans::read(&spans, &positive, &negative)?,
    };
    if let Some(named) = slots {
        let named = slots::read(&named, [&positive, &negative])?;
        for (slots, named) in parts.slots.iter_mut().zip(named) {
            slots.extend(named);
        }
    }
    if let Some(named) = variables {
        variables::read(&named, &mut of_pair)?;
    }
    Ok(Pair {
        positive,
        negative,
        parts,
        variables: of_pair,
        answers: Answers {
            right: answers(right, FIELDS[2])?,
            wrong: answers(wrong, FIELDS[3])?,
        },
        place: Place::Line(number),
    })
}
