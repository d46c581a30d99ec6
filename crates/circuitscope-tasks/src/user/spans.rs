//! Parts of two prompts that correspond, named by their text.

use serde_json::Value;

use crate::Span;
use crate::error::LineProblem;

const EXPECTED: &str = "a list of pairs such as [[\"Mary Ann\", \"John\"], …], texts of the positive and the \
                        negative prompt in the order in which they stand there";

/// The spans that a field `spans` names: each text is looked for after the end of the one before.
pub(super) fn read(
    value: &Value,
    positive: &str,
    negative: &str,
) -> Result<Vec<Span>, LineProblem> {
    let wrong = |found: String| LineProblem::Field {
        field: "spans".to_owned(),
        found,
        expected: EXPECTED,
    };
    let list = value.as_array().ok_or_else(|| wrong(value.to_string()))?;
    let (mut here, mut there) = (0, 0);
    let mut spans = Vec::new();
    for entry in list {
        let texts = entry.as_array().map(Vec::as_slice);
        let Some([Value::String(in_positive), Value::String(in_negative)]) = texts else {
            return Err(wrong(entry.to_string()));
        };
        let find = |part: &str, text: &str, from: usize| {
            let at = text[from..].find(part).filter(|_| !part.is_empty());
            let start = from + at.ok_or_else(|| wrong(format!("{part:?}, which is not there")))?;
            Ok(start..start + part.len())
        };
        let span = Span {
            positive: find(in_positive, positive, here)?,
            negative: find(in_negative, negative, there)?,
        };
        (here, there) = (span.positive.end, span.negative.end);
        spans.push(span);
    }
    Ok(spans)
}
