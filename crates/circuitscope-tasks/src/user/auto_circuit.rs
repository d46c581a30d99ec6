//! Task files of auto-circuit: an object with a list `prompts` of `clean`, `corrupt`, `answers` and
//! `wrong_answers`.

use std::path::Path;

use serde_json::Value;

use super::Pair;
use super::json_lines::{answer_tokens, kind, text};
use crate::error::LineProblem;
use crate::{Answers, Error, Result};

pub(super) fn read(path: &Path, content: &str) -> Result<Vec<Pair>> {
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
    let pairs = prompts.iter().enumerate().map(|(index, prompt)| {
        pair(prompt).map_err(|problem| at(format!("prompts[{index}]"), problem))
    });
    pairs.collect()
}

fn pair(prompt: &Value) -> Result<Pair, LineProblem> {
    let get = |field: &'static str| {
        let value = prompt.get(field);
        value.ok_or(LineProblem::MissingField { field })
    };
    let answers = |field: &'static str| match prompt.get(field) {
        None => Ok(Vec::new()),
        Some(value) => answer_tokens(value, field),
    };
    Ok(Pair {
        positive: text(get("clean")?, "clean")?,
        negative: text(get("corrupt")?, "corrupt")?,
        answers: Answers {
            right: answers("answers")?,
            wrong: answers("wrong_answers")?,
        },
    })
}
