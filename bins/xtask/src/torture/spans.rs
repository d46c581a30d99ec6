//! Where the values of a JSON text are, so that one of them can be replaced by what no writer of JSON would write.

use std::ops::Range;

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Text,
    /// A string before a colon.
    Key,
    /// `true`, `false` or `null`.
    Word,
    List,
    Map,
}

/// A value or key and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) kind: Kind,
    pub(crate) bytes: Range<usize>,
}

/// The values and keys of `text`, by where they end; whatever is no JSON is passed over.
pub(crate) fn spans(text: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    let mut open: Vec<(Kind, usize)> = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let start = at;
        at += 1;
        match text[start] {
            b'"' => {
                while at < text.len() && text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(text.len());
                let next = text[at..].iter().find(|byte| !byte.is_ascii_whitespace());
                let kind = if next == Some(&b':') {
                    Kind::Key
                } else {
                    Kind::Text
                };
                found.push(Span {
                    kind,
                    bytes: start..at,
                });
            }
            b'[' => open.push((Kind::List, start)),
            b'{' => open.push((Kind::Map, start)),
            b']' | b'}' => {
                if let Some((kind, start)) = open.pop() {
                    found.push(Span {
                        kind,
                        bytes: start..at,
                    });
                }
            }
            b'-' | b'0'..=b'9' => {
                let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                at += text[at..].iter().take_while(|byte| part(byte)).count();
                found.push(Span {
                    kind: Kind::Number,
                    bytes: start..at,
                });
            }
            byte if byte.is_ascii_alphabetic() => {
                let rest = text[at..].iter();
                at += rest.take_while(|byte| byte.is_ascii_alphabetic()).count();
                found.push(Span {
                    kind: Kind::Word,
                    bytes: start..at,
                });
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_keys_are_told_apart() {
        let text = br#"{"a\"": [1, -2.5e3], "b" : "c", "d":null}"#;
        let shown = spans(text).into_iter().map(|span| {
            let bytes = &text[span.bytes];
            (span.kind, std::str::from_utf8(bytes).unwrap().to_owned())
        });
        let expected = [
            (Kind::Key, r#""a\"""#),
            (Kind::Number, "1"),
            (Kind::Number, "-2.5e3"),
            (Kind::List, "[1, -2.5e3]"),
            (Kind::Key, r#""b""#),
            (Kind::Text, r#""c""#),
            (Kind::Key, r#""d""#),
            (Kind::Word, "null"),
            (Kind::Map, std::str::from_utf8(text).unwrap()),
        ];
        assert!(shown.eq(expected.map(|(kind, text)| (kind, text.to_owned()))));
    }

    #[test]
    fn what_is_broken_is_passed_over() {
        assert!(spans(b"]}\\").is_empty());
        assert_eq!(spans(b"\"open\\").len(), 1);
    }
}
