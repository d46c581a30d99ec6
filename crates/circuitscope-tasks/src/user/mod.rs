//! The user's own prompts.

mod auto_circuit;
mod eap_csv;
mod json_lines;

use std::path::Path;

use circuitscope_core::Polarity;

use crate::error::LineProblem;
use crate::{Answers, Error, LabelledPrompts, Result};

/// One pair as a file gives it.
struct Pair {
    positive: String,
    negative: String,
    /// Without any where the file gives none.
    answers: Answers,
}

/// Reads matched prompts, and where the file has them their answers.
///
/// | ending | form | positive, negative | answers |
/// |---|---|---|---|
/// | `.json` | [auto-circuit](https://github.com/UFO-101/auto-circuit): an object with a list `prompts` | `clean`, `corrupt` | `answers`, `wrong_answers` |
/// | `.csv` | [EAP](https://github.com/hannamw/EAP-IG): a table with a header | `clean`, `corrupted` | `correct_idx`, `incorrect_idx`: numbers of tokens |
/// | other | one object a line | `positive`, `negative` | `answers`, `wrong_answers`; may be left out |
/// | other | rows of a data set of [MIB](https://github.com/hannamw/MIB-circuit-track), one object a line | `prompt`, and `prompt` of `s2_io_flip_counterfactual` or of the only counterfactual | `metadata.indirect_object` and `metadata.subject`, or `choices` at `answerKey` |
///
/// Answers are those of the positive prompt. In our own form and in auto-circuit's an answer is a
/// word, with its leading space where the vocabulary has one, or the number of a token, or a list of
/// them.
///
/// Prompts are taken as they are, with their leading and trailing spaces. Blank lines are allowed
/// only at the end.
///
/// # Errors
/// [`Error::Io`] (which names the file), [`Error::Line`] (which names file, line and field),
/// [`Error::Field`] for a `.json` file, and [`Error::EmptyClass`] for a file without pairs. Whether
/// the prompts of a pair have the same token length is for
/// [`check_pair_lengths`](crate::check_pair_lengths), once they are tokens.
pub fn read_pairs(path: &Path) -> Result<LabelledPrompts> {
    let text = read(path)?;
    let is = |ending: &str| {
        let found = path.extension();
        found.is_some_and(|found| found.eq_ignore_ascii_case(ending))
    };
    let pairs = if is("json") {
        auto_circuit::read(path, &text)?
    } else if is("csv") {
        eap_csv::read(path, &text)?
    } else {
        json_lines::read(path, &text)?
    };
    if pairs.is_empty() {
        return Err(Error::EmptyClass {
            file: path.to_owned(),
            class: Polarity::Positive,
        });
    }
    let (mut texts, mut answers) = (Vec::new(), Vec::new());
    for pair in pairs {
        texts.push((pair.positive, pair.negative));
        answers.push(pair.answers);
    }
    if answers.iter().all(|answers| *answers == Answers::default()) {
        answers.clear();
    }
    Ok(LabelledPrompts {
        answers,
        ..LabelledPrompts::from_pairs(texts)
    })
}

/// Reads two text files of one prompt a line, one for each class.
///
/// Files of equally many lines are matched line by line. A prompt that contains a line break cannot
/// be written so: use [`read_pairs`].
///
/// # Errors
/// [`Error::Io`] (which names the file), [`Error::Line`] for a blank line before the end,
/// [`Error::EmptyClass`] for a file without prompts.
pub fn read_lines(positive: &Path, negative: &Path) -> Result<LabelledPrompts> {
    let class = |path: &Path, class: Polarity| {
        let text = read(path)?;
        let prompts: Vec<String> = lines(path, &text)?.into_iter().map(str::to_owned).collect();
        if prompts.is_empty() {
            return Err(Error::EmptyClass {
                file: path.to_owned(),
                class,
            });
        }
        Ok(prompts)
    };
    let positive = class(positive, Polarity::Positive)?;
    let negative = class(negative, Polarity::Negative)?;
    Ok(if positive.len() == negative.len() {
        LabelledPrompts::from_pairs(positive.into_iter().zip(negative))
    } else {
        LabelledPrompts::from_classes(positive, negative)
    })
}

/// The text of a file, without the byte-order mark that some editors put first.
fn read(path: &Path) -> Result<String> {
    let text = fs_err::read_to_string(path)?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// The lines up to the last that is not blank; none of them may be.
fn lines<'a>(path: &Path, text: &'a str) -> Result<Vec<&'a str>> {
    let mut lines: Vec<&str> = text.lines().collect();
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    match lines.iter().position(|line| line.trim().is_empty()) {
        None => Ok(lines),
        Some(at) => Err(Error::Line {
            file: path.to_owned(),
            line: at + 1,
            problem: LineProblem::Blank,
        }),
    }
}
