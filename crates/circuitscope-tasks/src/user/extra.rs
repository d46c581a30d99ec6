//! Fields of a file that its form does not know: variables, where they hold a value.

use std::collections::BTreeSet;

use circuitscope_core::nearest;
use serde_json::{Map, Value};

use super::variables::{self, Variables};
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

/// Refuses a field that should have been another, or that holds answers where none are read. `known` are all
/// fields of the form, `present` says which of them the line has, and `answers` are those that hold answers.
pub(super) fn refuse(
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
    Ok(())
}

/// The fields of an object that are not among the `known` ones, none of which is to be refused.
pub(super) fn others<'a>(
    object: &'a Map<String, Value>,
    known: &'static [&'static str],
    answers: &'static str,
) -> Result<Vec<(&'a String, &'a Value)>, LineProblem> {
    let others = object.iter();
    let others = others.filter(|(name, _)| !known.contains(&name.as_str()));
    let others = others.map(|(name, value)| {
        refuse(name, known, |known| object.contains_key(known), answers).map(|()| (name, value))
    });
    others.collect()
}

/// Collects the fields that are kept as variables, and those that are not read.
#[derive(Debug, Default)]
pub(super) struct Extra {
    kept: BTreeSet<String>,
    unread: BTreeSet<String>,
}

impl Extra {
    /// Keeps a field as a variable of the two prompts of a pair, if it holds one.
    pub(super) fn keep(&mut self, name: &str, value: &Value, of: &mut [Variables; 2]) {
        match variables::values(value) {
            Some(values) if !name.is_empty() => {
                self.kept.insert(name.to_owned());
                variables::insert(of, name, values);
            }
            _ => self.note_of(name),
        }
    }

    /// Keeps a field as a variable of one prompt.
    pub(super) fn keep_one(&mut self, name: &str, value: &Value, of: &mut Variables) {
        match variables::one(value) {
            Some(value) if !name.is_empty() => {
                self.kept.insert(name.to_owned());
                of.insert(name.to_owned(), value);
            }
            _ => self.note_of(name),
        }
    }

    /// Takes a field that is not read and known to hold no answers.
    pub(super) fn note_of(&mut self, name: &str) {
        if !name.is_empty() {
            self.unread.insert(name.to_owned());
        }
    }

    /// What to say of the fields kept and passed over.
    pub(super) fn notes(&self) -> Vec<String> {
        let both = &self.kept & &self.unread;
        let said = [
            (
                &self.kept - &both,
                ["is kept as a variable", "are kept as variables"],
            ),
            (
                both.clone(),
                [
                    "is kept as a variable where it is a text, a number or a boolean",
                    "are kept as variables where they are a text, a number or a boolean",
                ],
            ),
            (&self.unread - &both, ["is not read", "are not read"]),
        ];
        let said = said.into_iter().filter_map(|(names, [of_one, of_more])| {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            match names.as_slice() {
                [] => None,
                [one] => Some(format!("the field {one} {of_one}")),
                names => Some(format!("the fields {} {of_more}", names.join(", "))),
            }
        });
        said.collect()
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
