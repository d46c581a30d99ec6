//! Fields of a file that are not read.

use std::collections::BTreeSet;

use circuitscope_core::nearest;
use serde_json::{Map, Value};

use crate::error::LineProblem;

/// Parts of names that stand for answers.
const ANSWERS: [&str; 9] = [
    "answer",
    "choice",
    "completion",
    "correct",
    "expected",
    "gold",
    "label",
    "solution",
    "target",
];

/// Words that do so by themselves or beside others, as in `good_token`.
const ANSWER_WORDS: [&str; 9] = [
    "bad",
    "continuation",
    "good",
    "output",
    "response",
    "right",
    "token",
    "truth",
    "wrong",
];

fn stands_for_answers(name: &str) -> bool {
    let lower = name.to_lowercase();
    let mut words = lower.split(|letter: char| !letter.is_alphanumeric());
    ANSWERS.iter().any(|part| lower.contains(part))
        || words.any(|word| ANSWER_WORDS.contains(&word))
}

/// Collects the fields that are not read, and refuses those that should have been.
#[derive(Debug, Default)]
pub(super) struct Extra(BTreeSet<String>);

impl Extra {
    /// Takes a field of a line that is not read. `known` are all fields of the form, `present` says
    /// which of them the line has, and `answers` are those that hold answers.
    pub(super) fn pass_over(
        &mut self,
        name: &str,
        known: &'static [&'static str],
        present: impl Fn(&str) -> bool,
        answers: &'static str,
    ) -> Result<(), LineProblem> {
        let like = nearest(name, known.iter().copied().filter(|known| !present(known)));
        if let Some(like) = like {
            return Err(LineProblem::UnknownField {
                field: name.to_owned(),
                nearest: Some(like),
                known,
            });
        }
        if stands_for_answers(name) {
            return Err(LineProblem::UnreadAnswers {
                field: name.to_owned(),
                answers,
            });
        }
        self.note_of(name);
        Ok(())
    }

    /// Takes all fields of an object that are not among the `known` ones.
    pub(super) fn pass_over_others(
        &mut self,
        object: &Map<String, Value>,
        known: &'static [&'static str],
        answers: &'static str,
    ) -> Result<(), LineProblem> {
        let mut others = object.keys().filter(|name| !known.contains(&name.as_str()));
        others.try_for_each(|name| {
            self.pass_over(name, known, |known| object.contains_key(known), answers)
        })
    }

    /// Takes a field that is known to hold no answers.
    pub(super) fn note_of(&mut self, name: &str) {
        if !name.is_empty() {
            self.0.insert(name.to_owned());
        }
    }

    /// What to say of the fields passed over.
    pub(super) fn note(&self) -> Option<String> {
        let names: Vec<String> = self.0.iter().map(|name| format!("`{name}`")).collect();
        match names.as_slice() {
            [] => None,
            [one] => Some(format!("the field {one} is not read")),
            names => Some(format!("the fields {} are not read", names.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_answers() {
        for name in [
            "good_token",
            "badToken_bad",
            "Correct",
            "next token",
            "ground-truth",
            "targets",
        ] {
            assert!(stands_for_answers(name), "{name}");
        }
        for name in [
            "id",
            "goods",
            "n_tokens",
            "template",
            "copyright",
            "badge",
            "source",
        ] {
            assert!(!stands_for_answers(name), "{name}");
        }
    }
}
