//! JSON as Python's `json` module writes it.

use serde_json::Value;

/// Numbers that JSON has not, as Python writes them; what stands for each must not occur otherwise.
const NUMBERS: [(&str, &str); 3] = [
    ("-Infinity", NEGATIVE_INFINITY),
    ("Infinity", INFINITY),
    ("NaN", NAN),
];
const NEGATIVE_INFINITY: &str = "\u{1}-Infinity";
const INFINITY: &str = "\u{1}Infinity";
const NAN: &str = "\u{1}NaN";

/// Parses JSON in which `NaN`, `Infinity` and `-Infinity` may stand for numbers: read them with
/// [`number`].
pub(super) fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(&quoted(text))
}

/// A number, finite or not.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(NAN) => Some(f64::NAN),
        Some(INFINITY) => Some(f64::INFINITY),
        Some(NEGATIVE_INFINITY) => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}

/// The text with such numbers as strings.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        if found.starts_with('"') {
            let end = string_end(found);
            out.push_str(&found[..end]);
            rest = &found[end..];
            continue;
        }
        let number = NUMBERS.iter().find(|(name, _)| found.starts_with(name));
        if let Some((name, stand_in)) = number {
            out.push_str(&Value::from(*stand_in).to_string());
            rest = &found[name.len()..];
        } else {
            out.push_str(&found[..1]);
            rest = &found[1..];
        }
    }
    out.push_str(rest);
    out
}

/// Where the string ends that `text` begins with, its quotes included.
fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_python_are_read_outside_of_strings() {
        let text =
            r#"{"a": NaN, "b": [-Infinity, Infinity, -1.5], "NaN \" Infinity": "NaN", "c": null}"#;
        let value = parse(text).unwrap();
        assert!(number(&value["a"]).unwrap().is_nan());
        assert_eq!(number(&value["b"][0]), Some(f64::NEG_INFINITY));
        assert_eq!(number(&value["b"][1]), Some(f64::INFINITY));
        assert_eq!(number(&value["b"][2]), Some(-1.5));
        assert_eq!(value["NaN \" Infinity"], "NaN");
        assert_eq!(number(&value["NaN \" Infinity"]), None);
        assert_eq!(number(&value["c"]), None);
    }

    #[test]
    fn other_words_stay_faults() {
        for text in ["{\"a\": Nan}", "{\"a\": -}", "{\"a\": \"open", "[NaNNaN]"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
