//! Task tables of EAP and EAP-IG: columns `clean` and `corrupted`, and answers in one of three forms.

use std::path::Path;

use circuitscope_core::nearest;
use csv::{ReaderBuilder, StringRecord};
use serde_json::Value;

use super::extra::{self, Extra};
use super::variables::Variables;
use super::{FileRead, Pair, spans, variables, years};
use crate::error::LineProblem;
use crate::{AnswerToken, Answers, Error, Place, Result};

const COLUMNS: &[&str] = &[
    "clean",
    "corrupted",
    "correct_idx",
    "incorrect_idx",
    "clean_answer_idx",
    "corrupted_answer_idx",
    "label",
    "spans",
];
const ANSWERS: &str = "`correct_idx` and `incorrect_idx` (numbers of tokens), `clean_answer_idx` and \
                       `corrupted_answer_idx`, or `label` (a year)";

pub(super) fn read(path: &Path, text: &str) -> Result<FileRead> {
    let at = |line: u64, problem: LineProblem| Error::Line {
        file: path.to_owned(),
        line: line as usize,
        problem,
    };
    let broken = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        at(line, LineProblem::NotCsv(error.to_string()))
    };
    let mut reader = ReaderBuilder::new().from_reader(text.as_bytes());
    let header = reader.headers().map_err(broken)?.clone();
    let columns = Columns::of(&header).map_err(|problem| at(1, problem))?;
    let mut extra = Extra::default();
    let mut pairs = Vec::new();
    for row in reader.records() {
        let row = row.map_err(broken)?;
        let line = row.position().map_or(1, csv::Position::line);
        pairs.push(
            columns
                .pair(&row, line, &mut extra)
                .map_err(|problem| at(line, problem))?,
        );
    }
    let [right, wrong] = match columns.answers {
        Some(Read::Tokens { names, .. }) => names,
        Some(Read::Year { name, .. }) => [name, name],
        None => ["correct_idx", "incorrect_idx"],
    };
    Ok(FileRead {
        pairs,
        fields: [right.to_owned(), wrong.to_owned()],
        years: matches!(columns.answers, Some(Read::Year { .. })),
        notes: extra.notes(),
    })
}

/// Where a table has its answers.
#[derive(Clone, Copy)]
enum Read {
    /// Numbers of tokens: right and wrong.
    Tokens {
        at: [usize; 2],
        names: [&'static str; 2],
    },
    /// A year of two digits.
    Year { at: usize, name: &'static str },
}

struct Columns {
    clean: usize,
    corrupted: usize,
    answers: Option<Read>,
    spans: Option<usize>,
    /// Columns that the form does not know.
    others: Vec<(usize, String)>,
}

impl Columns {
    fn of(header: &StringRecord) -> Result<Self, LineProblem> {
        let find = |name: &str| header.iter().position(|column| column.trim() == name);
        let need = |name: &str| {
            find(name).ok_or_else(|| LineProblem::Field {
                field: name.to_owned(),
                found: match nearest(name, header.iter()) {
                    Some(like) => format!("no such column, but `{like}`"),
                    None => "no such column".to_owned(),
                },
                expected: "columns `clean` and `corrupted`, and for answers `correct_idx` and \
                           `incorrect_idx`",
            })
        };
        for (at, name) in header.iter().map(str::trim).enumerate() {
            let known = COLUMNS.iter().find(|known| **known == name);
            if let Some(&field) =
                known.filter(|_| header.iter().take(at).any(|before| before.trim() == name))
            {
                return Err(LineProblem::RepeatedField { field });
            }
        }
        let (clean, corrupted) = (need("clean")?, need("corrupted")?);
        let two = |names: [&'static str; 2]| {
            let [right, wrong] = names;
            Ok(Some(Read::Tokens {
                at: [need(right)?, need(wrong)?],
                names,
            }))
        };
        let there = |name: &str| find(name).is_some();
        let answers = if there("incorrect_idx") {
            two(["correct_idx", "incorrect_idx"])?
        } else if there("clean_answer_idx") || there("corrupted_answer_idx") {
            two(["clean_answer_idx", "corrupted_answer_idx"])?
        } else {
            // Older greater-than tables have their year in `correct_idx`.
            let year = ["label", "correct_idx"].into_iter();
            let mut year = year.filter_map(|name| {
                Some(Read::Year {
                    at: find(name)?,
                    name,
                })
            });
            year.next()
        };
        let read = match answers {
            None => Vec::new(),
            Some(Read::Tokens { names, .. }) => names.to_vec(),
            Some(Read::Year { name, .. }) => vec![name],
        };
        let mut others = Vec::new();
        for (at, name) in header.iter().map(str::trim).enumerate() {
            let prompts = ["clean", "corrupted", "spans"];
            if !prompts.contains(&name) && !read.contains(&name) {
                extra::refuse(name, COLUMNS, there, ANSWERS)?;
                others.push((at, name.to_owned()));
            }
        }
        Ok(Self {
            clean,
            corrupted,
            answers,
            spans: find("spans"),
            others,
        })
    }

    fn pair(&self, row: &StringRecord, line: u64, extra: &mut Extra) -> Result<Pair, LineProblem> {
        let prompt = |column: usize, name: &str| match row.get(column) {
            None | Some("") => Err(LineProblem::EmptyPrompt {
                field: name.to_owned(),
            }),
            Some(text) => Ok(text.to_owned()),
        };
        let token = |column: usize, name: &str| {
            let found = row.get(column).unwrap_or_default().trim();
            let id = found.parse().ok().ok_or_else(|| LineProblem::Field {
                field: name.to_owned(),
                found: format!("`{found}`"),
                expected: "the number of a token",
            })?;
            Ok(vec![AnswerToken::Id(id)])
        };
        let positive = prompt(self.clean, "clean")?;
        let answers = match self.answers {
            None => Answers::default(),
            Some(Read::Tokens { at, names }) => Answers {
                right: token(at[0], names[0])?,
                wrong: token(at[1], names[1])?,
            },
            Some(Read::Year { at, name }) => {
                years::answers(&positive, row.get(at).unwrap_or_default(), name)?
            }
        };
        let negative = prompt(self.corrupted, "corrupted")?;
        let parts = match self.spans.and_then(|at| row.get(at)) {
            None | Some("") => spans::Read::default(),
            Some(text) => {
                let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
                spans::read(&value, &positive, &negative)?
            }
        };
        let mut variables = [Variables::new(), Variables::new()];
        for (at, name) in &self.others {
            match row.get(*at).unwrap_or_default() {
                "" => {}
                cell => {
                    // A value for each prompt is an object; everything else is text as it stands.
                    let object = serde_json::from_str(cell).ok();
                    let object = object.filter(|value| variables::values(value).is_some());
                    let value = object.filter(Value::is_object);
                    extra.keep(name, &value.unwrap_or_else(|| cell.into()), &mut variables);
                }
            }
        }
        Ok(Pair {
            positive,
            negative,
            answers,
            parts,
            variables,
            place: Place::Line(line as usize),
        })
    }
}
