//! Parts of two prompts that correspond, given by their text and, where they have one, a name.

use serde_json::Value;

use super::slots::{nth_of, occurrences};
use crate::error::LineProblem;
use crate::{Slot, Span};

const EXPECTED: &str = "a list of pairs such as [[\"Mary Ann\", \"John\"], …], texts of the positive and the \
                        negative prompt in the order in which they stand there, and a name if they have one";

/// Spans, and those with a name as slots of the positive and of the negative prompt.
#[derive(Default)]
pub(super) struct Read {
    pub(super) spans: Vec<Span>,
    pub(super) slots: [Vec<Slot>; 2],
}

/// The spans that a field `spans` names: each text is looked for after the end of the one before.
pub(super) fn read(value: &Value, positive: &str, negative: &str) -> Result<Read, LineProblem> {
    let wrong = |found: String| LineProblem::Field {
        field: "spans".to_owned(),
        found,
        expected: EXPECTED,
    };
    let list = value.as_array().ok_or_else(|| wrong(value.to_string()))?;
    let (mut here, mut there) = (0, 0);
    let mut read = Read::default();
    for entry in list {
        let texts = entry.as_array().map(Vec::as_slice);
        let (in_positive, in_negative, name) = match texts {
            Some([positive, negative]) => (positive, negative, None),
            Some([positive, negative, Value::String(name)]) => (positive, negative, Some(name)),
            _ => return Err(wrong(entry.to_string())),
        };
        let find = |part: &Value, text: &str, from: usize| {
            let named = nth_of(part).filter(|(part, _)| !part.is_empty());
            let (word, nth) = named.ok_or_else(|| wrong(entry.to_string()))?;
            let at = occurrences(&text[from..], word).nth(nth.unwrap_or(0));
            let start = from + at.ok_or_else(|| wrong(format!("{part}, which is not there")))?;
            Ok(start..start + word.len())
        };
        let span = Span {
            positive: find(in_positive, positive, here)?,
            negative: find(in_negative, negative, there)?,
        };
        (here, there) = (span.positive.end, span.negative.end);
        if let Some(name) = name {
            let ranges = [span.positive.clone(), span.negative.clone()];
            for (slots, range) in read.slots.iter_mut().zip(ranges) {
                slots.push(Slot::new(name, range));
            }
        }
        read.spans.push(span);
    }
    Ok(read)
}
