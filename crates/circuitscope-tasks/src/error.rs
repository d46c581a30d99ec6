use std::path::PathBuf;

use circuitscope_core::{Polarity, did_you_mean};
use circuitscope_files::FileError;

/// An error of a caller's function, such as a tokenizer's.
pub type BoxError = Box<dyn core::error::Error + Send + Sync>;

/// The result of this crate's functions.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What can go wrong with prompts and ground truths.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No task has this name.
    #[error(
        "unknown task {found:?}{}: expected {known}, or the folder of a task of your own",
        did_you_mean(*.nearest)
    )]
    UnknownTask {
        /// The name given.
        found: String,
        /// The name most like it.
        nearest: Option<&'static str>,
        /// All names.
        known: String,
    },
    /// No vocabulary has this name.
    #[error(
        "unknown vocabulary {found:?}{}: expected {known}",
        did_you_mean(*.nearest)
    )]
    UnknownVocabulary {
        /// The name given.
        found: String,
        /// The name most like it.
        nearest: Option<&'static str>,
        /// All names.
        known: String,
    },
    /// No model with a published or planted circuit has this name.
    #[error(
        "no circuit is known for model {found:?}{}: expected {known}",
        did_you_mean(*.nearest)
    )]
    UnknownModel {
        /// The name given.
        found: String,
        /// The name most like it.
        nearest: Option<&'static str>,
        /// All names.
        known: String,
    },
    /// Zero pairs were asked for.
    #[error("zero pairs of {task} prompts were asked for: ask for at least one")]
    NoPairs {
        /// The task.
        task: String,
    },
    /// A class of prompts has no member.
    #[error("{} has no {} prompt: both classes need at least one", .file.display(), class_name(*.class))]
    EmptyClass {
        /// The file.
        file: PathBuf,
        /// The class without members.
        class: Polarity,
    },
    /// More pairs were asked for than a task has.
    #[error("task {task}: found {found} pairs, expected at least the {asked} that were asked for")]
    TooFewPairs {
        /// The task.
        task: String,
        /// Pairs that it has.
        found: usize,
        /// Pairs that were asked for.
        asked: usize,
    },
    /// Prompts were to be generated of a task whose pairs are given.
    #[error("task {task} is a list of pairs: `draw` takes from it, nothing is generated")]
    NotGenerated {
        /// The task.
        task: String,
    },
    /// A field of a file of a task's folder is not as it should be.
    #[error("{}: {field}: found {found}, expected {expected}", .file.display())]
    TaskField {
        /// The file.
        file: PathBuf,
        /// The field, such as `dictionary.l1`.
        field: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// A data file breaks the rules of its form.
    #[error("{file}: {problem}")]
    Data {
        /// The file; one that the crate carries begins with `datasets/`.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The caller's tokenizer failed.
    #[error("the tokenizer cannot read {text:?}")]
    Tokenizer {
        /// The text.
        text: String,
        /// Its error.
        #[source]
        source: BoxError,
    },
    /// No draw gave two prompts of equal token length.
    #[error(
        "no {task} pair of equal token length in {attempts} draws for pair {}: the last one has \
         {positive} and {negative} tokens ({text:?}): the tokenizer splits the words in which the \
         prompts of a pair differ",
        .pair + 1
    )]
    NoEqualLengths {
        /// The task.
        task: String,
        /// Number of the pair, from 0.
        pair: usize,
        /// How often it was drawn.
        attempts: usize,
        /// Tokens of the last positive prompt.
        positive: usize,
        /// Tokens of the last negative prompt.
        negative: usize,
        /// The last positive prompt.
        text: String,
    },
    /// A tokenizer has not the words that a task needs.
    #[error("task {task} cannot be posed in this model's tokens: {why}")]
    Unposable {
        /// The task.
        task: String,
        /// Why.
        why: String,
    },
    /// A file cannot be read; the message names it.
    #[error(transparent)]
    Io(#[from] FileError),
    /// A line of a prompt file is not as it should be.
    #[error("{}:{line}: {problem}", .file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// A part of a JSON file of prompts is not as it should be.
    #[error("{}: {place}: {problem}", .file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// Which part, such as `prompts[3]`.
        place: String,
        /// What is wrong with it.
        problem: LineProblem,
    },
}

/// What can be wrong with one line, or one entry, of a prompt file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineProblem {
    /// The line is blank, and another follows that is not.
    #[error("the line is empty: every line holds a prompt")]
    Blank,
    /// The line is not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// The line is JSON, but not an object.
    #[error("found {found}, expected an object {{\"positive\": \"…\", \"negative\": \"…\"}}")]
    NotAnObject {
        /// The kind of value found.
        found: &'static str,
    },
    /// The object has a field that means nothing.
    #[error(
        "unknown field {field:?}{}: expected {}",
        did_you_mean(.nearest.as_deref()),
        list(known)
    )]
    UnknownField {
        /// The field.
        field: String,
        /// The field most like it.
        nearest: Option<&'static str>,
        /// All fields.
        known: &'static [&'static str],
    },
    /// The object has a field that looks like answers and is not read.
    #[error("field {field:?} looks like answers and is not read: answers are read from {answers}")]
    UnreadAnswers {
        /// The field.
        field: String,
        /// Where answers are read.
        answers: &'static str,
    },
    /// The object has a field twice.
    #[error("field \"{field}\" is given twice")]
    RepeatedField {
        /// The field.
        field: &'static str,
    },
    /// The object lacks a field.
    #[error("field \"{field}\" is missing")]
    MissingField {
        /// The field.
        field: &'static str,
    },
    /// The line is no row of a table.
    #[error("not CSV: {0}")]
    NotCsv(String),
    /// A field or column holds something else.
    #[error("field \"{field}\": found {found}, expected {expected}")]
    Field {
        /// The field.
        field: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// A prompt is the empty string.
    #[error("field \"{field}\" is an empty prompt")]
    EmptyPrompt {
        /// The field.
        field: String,
    },
}

/// Names between quotes, joined by commas and `or`.
pub(crate) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn class_name(class: Polarity) -> &'static str {
    match class {
        Polarity::Positive => "positive",
        Polarity::Negative => "negative",
    }
}
