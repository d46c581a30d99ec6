//! Task tables of EAP and EAP-IG: columns `clean`, `corrupted`, `correct_idx` and `incorrect_idx`.

use std::path::Path;

use circuitscope_core::nearest;
use csv::{ReaderBuilder, StringRecord};

use super::Pair;
use crate::error::LineProblem;
use crate::{AnswerToken, Answers, Error, Result};

pub(super) fn read(path: &Path, text: &str) -> Result<Vec<Pair>> {
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
    let mut pairs = Vec::new();
    for row in reader.records() {
        let row = row.map_err(broken)?;
        let line = row.position().map_or(1, csv::Position::line);
        pairs.push(columns.pair(&row).map_err(|problem| at(line, problem))?);
    }
    Ok(pairs)
}

struct Columns {
    clean: usize,
    corrupted: usize,
    /// Right and wrong.
    answers: Option<(usize, usize)>,
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
        let (clean, corrupted) = (need("clean")?, need("corrupted")?);
        // One alone is no token in the files that have it, but a year.
        let answers = match (find("correct_idx"), find("incorrect_idx")) {
            (None, None) => None,
            _ => Some((need("correct_idx")?, need("incorrect_idx")?)),
        };
        Ok(Self {
            clean,
            corrupted,
            answers,
        })
    }

    fn pair(&self, row: &StringRecord) -> Result<Pair, LineProblem> {
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
        let answers = match self.answers {
            None => Answers::default(),
            Some((right, wrong)) => Answers {
                right: token(right, "correct_idx")?,
                wrong: token(wrong, "incorrect_idx")?,
            },
        };
        Ok(Pair {
            positive: prompt(self.clean, "clean")?,
            negative: prompt(self.corrupted, "corrupted")?,
            answers,
        })
    }
}
