//! Named parts of prompts, given by their text.

use circuitscope_core::{did_you_mean, nearest};
use serde_json::{Map, Value};

use super::fields::kind;
use crate::Slot;
use crate::error::LineProblem;

pub(super) const SIDES: [&str; 2] = ["positive", "negative"];
const EXPECTED: &str = "parts by name, such as {\"IO\": \"Mary\", \"S2\": [\"John\", 2]}, for both prompts or as \
                        {\"positive\": {…}, \"negative\": {…}}";
const PART: &str =
    "a text that is there once, or [text, n] for the n-th time it is there, or a list of these";

/// The parts that a field `slots` names in the positive and in the negative prompt.
pub(super) fn read(value: &Value, texts: [&str; 2]) -> Result<[Vec<Slot>; 2], LineProblem> {
    let Some(named) = value.as_object() else {
        return Err(LineProblem::Field {
            field: "slots".to_owned(),
            found: kind(value).to_owned(),
            expected: EXPECTED,
        });
    };
    let mut sides = named.iter();
    let by_side = sides.all(|(side, parts)| SIDES.contains(&side.as_str()) && parts.is_object());
    let mut slots = [Vec::new(), Vec::new()];
    for ((side, text), slots) in SIDES.into_iter().zip(texts).zip(&mut slots) {
        let (parts, place) = if by_side {
            let parts = named.get(side).and_then(Value::as_object);
            (parts, format!("slots.{side}"))
        } else {
            (Some(named), "slots".to_owned())
        };
        for (name, value) in parts.into_iter().flat_map(Map::iter) {
            let prompt = Prompt { side, text };
            let parts = prompt.parts(value).map_err(|found| LineProblem::Field {
                field: format!("{place}.{name}"),
                found,
                expected: PART,
            })?;
            slots.extend(parts.into_iter().map(|range| Slot::new(name, range)));
        }
    }
    Ok(slots)
}

struct Prompt<'a> {
    /// Which of the two.
    side: &'static str,
    text: &'a str,
}

impl Prompt<'_> {
    /// Where the parts of one name stand, or what was found instead.
    fn parts(&self, value: &Value) -> Result<Vec<core::ops::Range<usize>>, String> {
        match value {
            Value::Array(list) if nth_of(value).is_none() => {
                if list.is_empty() {
                    return Err("an empty list".to_owned());
                }
                list.iter().map(|value| self.part(value)).collect()
            }
            value => Ok(vec![self.part(value)?]),
        }
    }

    fn part(&self, value: &Value) -> Result<core::ops::Range<usize>, String> {
        let Some((part, nth)) = nth_of(value).filter(|(part, _)| !part.is_empty()) else {
            return Err(value.to_string());
        };
        let mut starts = occurrences(self.text, part);
        let start = match nth {
            Some(nth) => starts.clone().nth(nth),
            None => starts.next().filter(|_| starts.next().is_none()),
        };
        if let Some(start) = start {
            return Ok(start..start + part.len());
        }
        let there = match occurrences(self.text, part).count() {
            0 => "is not",
            1 => "is once",
            2 => "is twice",
            _ => "is several times",
        };
        let hint = match there {
            "is not" => did_you_mean(nearest(part, words(self.text))),
            _ => String::new(),
        };
        Err(format!(
            "{value}, which {there} in the {} prompt{hint}",
            self.side
        ))
    }
}

/// The words of a text, without the signs around them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split_whitespace();
    words.map(|word| word.trim_matches(|sign: char| !sign.is_alphanumeric()))
}

/// A text, and of `[text, n]` also n, counted from 0.
pub(super) fn nth_of(value: &Value) -> Option<(&str, Option<usize>)> {
    if let Value::String(text) = value {
        return Some((text, None));
    }
    let [Value::String(text), Value::Number(nth)] = value.as_array()?.as_slice() else {
        return None;
    };
    let nth = usize::try_from(nth.as_u64()?).ok()?.checked_sub(1)?;
    Some((text, Some(nth)))
}

/// Where `part` begins in `text`, each time that it is there.
pub(super) fn occurrences<'a>(
    text: &'a str,
    part: &'a str,
) -> impl Iterator<Item = usize> + Clone + use<'a> {
    let starts = text.char_indices().map(|(at, _)| at);
    starts.filter(move |at| text[*at..].starts_with(part))
}
