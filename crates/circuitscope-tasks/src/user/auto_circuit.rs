//! Task files of auto-circuit: an object with a list `prompts` of `clean`, `corrupt`, `answers` and
//! `wrong_answers`.

use std::path::Path;

use serde_json::{Map, Value};

use super::extra::{self, Extra};
use super::fields::{answer_tokens, kind, text};
use super::variables::Variables;
use super::{FileRead, Pair, spans};
use crate::error::LineProblem;
use crate::{Answers, Error, Place, Result};

const FIELDS: &[&str] = &["clean", "corrupt", "answers", "wrong_answers", "spans"];
const ROOT: &[&str] = &["prompts"];
/// What the format keeps beside its prompts, none of it answers.
const DESCRIBES: [&str; 2] = ["seq_labels", "word_idxs"];
const ANSWERS: &str = "`answers` and `wrong_answers`";

pub(super) fn read(path: &Path, content: &str) -> Result<FileRead> {
    let at = |place: String, problem: LineProblem| Error::Field {
        file: path.to_owned(),
        place,
        problem,
    };
    let value: Value = serde_json::from_str(content).map_err(|error| {
        at(
            "the file".to_owned(),
            LineProblem::NotJson(error.to_string()),
        )
    })?;
    let prompts = value.get("prompts");
    let Some(prompts) = prompts.and_then(Value::as_array) else {
        let problem = LineProblem::Field {
            field: "prompts".to_owned(),
            found: match prompts {
                Some(found) => kind(found).to_owned(),
                None => "nothing".to_owned(),
            },
            expected: "a list of objects with `clean`, `corrupt`, `answers` and `wrong_answers` \
                       (prompts one a line go into a .jsonl file)",
        };
        return Err(at("the file".to_owned(), problem));
    };
    let mut extra = Extra::default();
    for name in value.as_object().into_iter().flat_map(Map::keys) {
        if DESCRIBES.contains(&name.as_str()) {
            extra.note_of(name);
        } else if name != "prompts" {
            let seen = |known: &str| known == "prompts";
            extra::refuse(name, ROOT, seen, ANSWERS)
                .map_err(|problem| at("the file".to_owned(), problem))?;
            extra.note_of(name);
        }
    }
    let pairs = prompts.iter().enumerate().map(|(index, prompt)| {
        pair(prompt, index, &mut extra).map_err(|problem| at(format!("prompts[{index}]"), problem))
    });
    Ok(FileRead {
        pairs: pairs.collect::<Result<_>>()?,
        fields: ["answers", "wrong_answers"].map(str::to_owned),
        years: false,
        notes: extra.notes(),
    })
}

fn pair(prompt: &Value, index: usize, extra: &mut Extra) -> Result<Pair, LineProblem> {
    let empty = Map::new();
    let fields = prompt.as_object().unwrap_or(&empty);
    let mut variables = [Variables::new(), Variables::new()];
    for (name, value) in extra::others(fields, FIELDS, ANSWERS)? {
        extra.keep(name, value, &mut variables);
    }
    let get = |field: &'static str| {
        let value = fields.get(field);
        value.ok_or(LineProblem::MissingField { field })
    };
    let answers = |field: &'static str| match fields.get(field) {
        None => Ok(Vec::new()),
        Some(value) => answer_tokens(value, field),
    };
    let positive = text(get("clean")?, "clean")?;
    let negative = text(get("corrupt")?, "corrupt")?;
    let parts = match fields.get("spans") {
        None => spans::Read::default(),
        Some(spans) => spans::read(spans, &positive, &negative)?,
    };
    Ok(Pair {
        positive,
        negative,
        parts,
        variables,
        answers: Answers {
            right: answers("answers")?,
            wrong: answers("wrong_answers")?,
        },
        place: Place::Entry(index),
    })
}
