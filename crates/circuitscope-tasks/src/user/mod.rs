//! The user's own prompts.

mod auto_circuit;
mod eap_csv;
mod extra;
mod fields;
mod json_lines;
mod mib;
mod slots;
mod spans;
mod variables;
mod write;
mod years;

use std::path::Path;

use circuitscope_core::Polarity;
use circuitscope_files::read_to_string;

use crate::error::LineProblem;
use crate::prompt::{in_order, known};
use crate::{Answers, Error, LabelledPrompts, Origin, Place, Result};
use variables::Variables;

pub use write::write_pairs;

/// One pair as a file gives it.
struct Pair {
    positive: String,
    negative: String,
    /// Without any where the file gives none.
    answers: Answers,
    /// Parts that correspond, and parts with a name, where the file gives them.
    parts: spans::Read,
    /// Of the positive and of the negative prompt.
    variables: [Variables; 2],
    place: Place,
}

/// The pairs of a file, and what was seen in reading them.
struct FileRead {
    pairs: Vec<Pair>,
    /// Fields of right and wrong answers.
    fields: [String; 2],
    /// Whether answers are years.
    years: bool,
    notes: Vec<String>,
}

/// Reads matched prompts, and where the file has them their answers.
///
/// | ending | form | positive, negative | answers |
/// |---|---|---|---|
/// | `.json` | [auto-circuit](https://github.com/UFO-101/auto-circuit): an object with a list `prompts` | `clean`, `corrupt` | `answers`, `wrong_answers` |
/// | `.csv` | [EAP](https://github.com/hannamw/EAP-IG): a table with a header | `clean`, `corrupted` | `correct_idx`, `incorrect_idx` or `clean_answer_idx`, `corrupted_answer_idx`: numbers of tokens; or `label`: a year of two digits, after which later ones are right and all others wrong |
/// | other | one object a line | `positive`, `negative` | `answers`, `wrong_answers`; may be left out |
/// | other | rows of a data set of [MIB](https://github.com/hannamw/MIB-circuit-track), one object a line | `prompt`, and the `prompt` of its counterfactual | `metadata.indirect_object` and `metadata.subject`; or `choices` at `answerKey`; or `label`; the wrong one is the counterfactual's |
///
/// Of several counterfactuals in a row of MIB that one is read which its circuit track takes:
/// `s2_io_flip_counterfactual` (IOI), `symbol_counterfactual` (MCQA, ARC), `random_counterfactual`
/// (arithmetic). Rows whose counterfactual is null are left out, as there, with a note.
///
/// Answers are those of the positive prompt. In our own form and in auto-circuit's an answer is a
/// word, with its leading space where the vocabulary has one, or the number of a token, or a list of
/// them.
///
/// Where a file of one of the first three forms has a field or column `spans`, it names parts of the two
/// prompts that correspond, `[[in the positive, in the negative], …]` in order (as JSON in a table): prompts
/// whose lengths differ are aligned by them ([`LabelledPrompts::spans`]). A third text in an entry is a name: then the
/// parts are slots of their prompts, too ([`LabelledPrompts::slots`]).
///
/// Lines of our own form may also have
///
/// - `slots`, parts by name, `{"IO": "Mary", "S2": ["John", 2]}`: a text that is there once, or a text and for which
///   time it is there, or a list of these; the same for both prompts, or `{"positive": {…}, "negative": {…}}`,
/// - `variables`, values by name ([`LabelledPrompts::variables`]): a text, a number or a boolean for both prompts, or
///   `{"positive": …, "negative": …}`; here any name goes, also one that is refused as a field.
///
/// Prompts are taken as they are, with their leading and trailing spaces. Blank lines are allowed
/// only at the end. Other fields and columns of a pair are variables where they hold what `variables` may, and a
/// note says so ([`LabelledPrompts::notes`]); what holds something else is named in a note. Fields that look like
/// answers or like a misspelt field are an error. In rows of MIB, `metadata` are variables as well; those of the
/// negative prompt are its counterfactual's.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("pairs.jsonl");
/// let line = r#"{"positive": "Mary and John met; John", "negative": "Mary and John met; Mary",
///   "slots": {"positive": {"IO": "Mary", "S2": ["John", 2]}, "negative": {"IO": ["Mary", 1], "S2": ["Mary", 2]}},
///   "order": "ABBA"}"#;
/// std::fs::write(&path, line.replace('\n', " "))?;
/// let prompts = circuitscope_tasks::read_pairs(&path)?;
/// let s2 = &prompts.slots[0][1];
/// assert_eq!((&*s2.name, &prompts.texts[0][s2.range.clone()], s2.range.start), ("S2", "John", 19));
/// assert_eq!(prompts.variables[1]["order"], "ABBA");
/// assert!(prompts.notes[0].ends_with("the field `order` is kept as a variable"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Io`] (which names the file), [`Error::Line`] (which names file, line and field),
/// [`Error::Field`] for a `.json` file, and [`Error::EmptyClass`] for a file without pairs.
pub fn read_pairs(path: &Path) -> Result<LabelledPrompts> {
    let text = read(path)?;
    let is = |ending: &str| {
        let found = path.extension();
        found.is_some_and(|found| found.eq_ignore_ascii_case(ending))
    };
    let read = if is("json") {
        auto_circuit::read(path, &text)?
    } else if is("csv") {
        eap_csv::read(path, &text)?
    } else {
        json_lines::read(path, &text)?
    };
    labelled(path, read)
}

/// Reads matched prompts of a text that is in no file: of the form of one object a line, as [`read_pairs`] describes it.
/// `name` stands for a file in errors and notes.
///
/// ```
/// let text = r#"{"positive": "Mary and John met; John", "negative": "Mary and John met; Mary"}"#;
/// let prompts = circuitscope_tasks::parse_pairs("prompts", text)?;
/// assert_eq!(prompts.pairs, [(0, 1)]);
/// let wrong = circuitscope_tasks::parse_pairs("prompts", "{}").unwrap_err();
/// assert!(wrong.to_string().starts_with("prompts:1: "));
/// # Ok::<(), circuitscope_tasks::Error>(())
/// ```
///
/// # Errors
/// As [`read_pairs`].
pub fn parse_pairs(name: &str, text: &str) -> Result<LabelledPrompts> {
    let name = Path::new(name);
    labelled(name, json_lines::read(name, text)?)
}

/// What was read from a file, as prompts.
fn labelled(path: &Path, read: FileRead) -> Result<LabelledPrompts> {
    let FileRead {
        pairs,
        fields,
        years,
        notes,
    } = read;
    if pairs.is_empty() {
        return Err(Error::EmptyClass {
            file: path.to_owned(),
            class: Polarity::Positive,
        });
    }
    let (mut texts, mut answers) = (Vec::new(), Vec::new());
    let (mut spans, mut places) = (Vec::new(), Vec::new());
    let mut slots = [Vec::new(), Vec::new()];
    let mut variables = [Vec::new(), Vec::new()];
    for pair in pairs {
        texts.push((pair.positive, pair.negative));
        answers.push(pair.answers);
        spans.push(pair.parts.spans);
        places.push(pair.place);
        for (all, of) in slots.iter_mut().zip(pair.parts.slots) {
            all.push(in_order(of));
        }
        for (all, of) in variables.iter_mut().zip(pair.variables) {
            all.push(of);
        }
    }
    let file = path.display();
    Ok(LabelledPrompts {
        answers: known(answers),
        spans: known(spans),
        slots: known(slots.concat()),
        variables: known(variables.concat()),
        notes: notes
            .into_iter()
            .map(|note| format!("{file}: {note}"))
            .collect(),
        origin: Some(Origin {
            file: path.to_owned(),
            places,
            fields,
            years,
        }),
        ..LabelledPrompts::from_pairs(texts)
    })
}

/// Reads two text files of one prompt a line, one for each class.
///
/// Files of equally many lines are matched line by line. A prompt is everything between two line ends;
/// see [`read_prompts`] for what ends a line. A prompt that contains a line break cannot be written so:
/// use [`read_pairs`].
///
/// # Errors
/// [`Error::Io`] (which names the file), [`Error::Line`] for a blank line before the end,
/// [`Error::EmptyClass`] for a file without prompts.
pub fn read_lines(positive: &Path, negative: &Path) -> Result<LabelledPrompts> {
    let class = |path: &Path, class: Polarity| {
        let prompts = read_prompts(path)?;
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

/// Reads a text file of one prompt a line; empty if it has none.
///
/// A line ends at `\n` or `\r\n`, and nowhere else: every other character belongs to the prompt, spaces
/// and tabs at its ends, a lone `\r` and Unicode's own separators included. A byte-order mark at the
/// beginning of the file does not. Blank lines are allowed only at the end.
///
/// # Errors
/// [`Error::Io`] (which names the file), [`Error::Line`] for a blank line before the end.
pub fn read_prompts(path: &Path) -> Result<Vec<String>> {
    let text = read(path)?;
    Ok(lines(path, &text)?.into_iter().map(str::to_owned).collect())
}

/// The text of a file, without the byte-order mark that some editors put first.
fn read(path: &Path) -> Result<String> {
    let text = read_to_string(path)?;
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
