//! Pairs in the form that is our own.

use core::ops::Range;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::slots::{SIDES, occurrences};
use super::{json_lines, labelled};
use crate::{AnswerToken, LabelledPrompts, Slot, Span};

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    positive: &'a str,
    negative: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    answers: &'a [AnswerToken],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    wrong_answers: &'a [AnswerToken],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spans: Vec<[Value; 2]>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    slots: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    variables: Map<String, Value>,
}

/// Matched prompts as lines of JSON, one pair a line with its answers, spans, slots and variables: the form that
/// [`read_pairs`](crate::read_pairs) reads from a file that ends in `.jsonl`, which gives the same texts and all of
/// these again.
///
/// Where the prompts came from, the notes, and that answers are years are not written.
///
/// Nothing where lines cannot hold the prompts: where they are not matched one to one (write the two classes with a
/// prompt a line, for [`read_lines`](crate::read_lines)), where tokens are appended to them, where a prompt, a part or
/// an answer is empty, or where spans overlap.
///
/// ```
/// use circuitscope_core::Seed;
/// use circuitscope_tasks::{IOI, Vocabulary, draw, read_pairs, write_pairs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("ioi.jsonl");
/// let prompts = draw(&IOI, Vocabulary::Gpt2, 20, Seed::new(0), None)?;
/// std::fs::write(&path, write_pairs(&prompts).expect("they are matched"))?;
/// let read = read_pairs(&path)?;
/// assert_eq!((&read.texts, &read.answers), (&prompts.texts, &prompts.answers));
/// assert_eq!((read.slots, read.variables), (prompts.slots, prompts.variables));
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn write_pairs(prompts: &LabelledPrompts) -> Option<String> {
    let pairs: Vec<usize> = (0..prompts.pairs.len()).collect();
    if prompts.check().is_err() || 2 * pairs.len() != prompts.texts.len() {
        return None;
    }
    let prompts = prompts.only_pairs(&pairs);
    let mut lines = String::new();
    for pair in pairs {
        lines.push_str(&serde_json::to_string(&line(&prompts, pair)?).ok()?);
        lines.push('\n');
    }
    // Whatever the form cannot hold shows in reading it.
    let path = Path::new("pairs.jsonl");
    let read = labelled(path, json_lines::read(path, &lines).ok()?).ok()?;
    let same = LabelledPrompts {
        origin: prompts.origin.clone(),
        notes: prompts.notes.clone(),
        ..read
    } == prompts;
    same.then_some(lines)
}

fn line(prompts: &LabelledPrompts, pair: usize) -> Option<Line<'_>> {
    let &(positive, negative) = prompts.pairs.get(pair)?;
    let both = [positive, negative];
    let [of_positive, of_negative] = both.map(|at| prompts.texts[at].as_str());
    let answers = prompts.answers.get(pair);
    let spans = prompts.spans.get(pair).into_iter().flatten();
    let mut slots = Map::new();
    if both.iter().any(|at| {
        prompts
            .slots
            .get(*at)
            .is_some_and(|slots| !slots.is_empty())
    }) {
        for (side, at) in SIDES.into_iter().zip(both) {
            let parts = prompts.slots.get(at)?;
            slots.insert(
                side.to_owned(),
                parts_by_name(&prompts.texts[at], parts)?.into(),
            );
        }
    }
    Some(Line {
        positive: of_positive,
        negative: of_negative,
        answers: answers.map_or(&[], |answers| &answers.right),
        wrong_answers: answers.map_or(&[], |answers| &answers.wrong),
        spans: parts_in_order(of_positive, of_negative, spans)?,
        slots,
        variables: variables(both.map(|at| prompts.variables.get(at))),
    })
}

/// Spans, each text looked for after the end of the one before.
fn parts_in_order<'a>(
    positive: &str,
    negative: &str,
    spans: impl Iterator<Item = &'a Span>,
) -> Option<Vec<[Value; 2]>> {
    let (mut here, mut there) = (0, 0);
    let spans = spans.map(|span| {
        let after = |text: &str, range: &Range<usize>, end: &mut usize| {
            let from = core::mem::replace(end, range.end);
            let (start, stop) = (range.start.checked_sub(from)?, range.end.checked_sub(from)?);
            let (part, nth, _) = nth(text.get(from..)?, &(start..stop))?;
            Some(if nth == 1 {
                json!(part)
            } else {
                json!([part, nth])
            })
        };
        Some([
            after(positive, &span.positive, &mut here)?,
            after(negative, &span.negative, &mut there)?,
        ])
    });
    spans.collect()
}

fn parts_by_name(text: &str, slots: &[Slot]) -> Option<Map<String, Value>> {
    let mut named: Map<String, Value> = Map::new();
    for slot in slots {
        let (part, nth, once) = nth(text, &slot.range)?;
        let part = if once {
            json!(part)
        } else {
            json!([part, nth])
        };
        let of_name = named.entry(slot.name.clone()).or_insert_with(|| json!([]));
        of_name.as_array_mut()?.push(part);
    }
    for parts in named.values_mut() {
        if let Some([only]) = parts.as_array().map(Vec::as_slice) {
            *parts = only.clone();
        }
    }
    Some(named)
}

/// A part of a text, for which time it is there, and whether that is the only one.
fn nth<'a>(text: &'a str, range: &Range<usize>) -> Option<(&'a str, usize, bool)> {
    let part = text.get(range.clone())?;
    let starts: Vec<usize> = occurrences(text, part).collect();
    let at = starts.iter().position(|start| *start == range.start)?;
    Some((part, at + 1, starts.len() == 1))
}

/// One value where both prompts have the same.
fn variables(of: [Option<&super::Variables>; 2]) -> Map<String, Value> {
    let names = of.into_iter().flatten().flat_map(|of| of.keys());
    let mut variables = Map::new();
    for name in names {
        let values = of.map(|of| of.and_then(|of| of.get(name)));
        let value = match values {
            [Some(one), Some(other)] if one == other => json!(one),
            values => {
                let sides = SIDES.into_iter().zip(values);
                let sides =
                    sides.filter_map(|(side, value)| Some((side.to_owned(), json!(value?))));
                Value::Object(sides.collect())
            }
        };
        variables.insert(name.clone(), value);
    }
    variables
}
