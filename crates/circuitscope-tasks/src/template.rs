//! Texts with named slots in square brackets.

use crate::data::DataFile;
use crate::{Result, Slot};

/// A text with slots, such as `The [NOUN] continued`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Slot(String),
}

impl Template {
    /// Parses `text`; only the slots `known` may occur.
    pub(crate) fn parse(file: DataFile<'_>, text: &str, known: &[&str]) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('[') {
            let (slot, after) = after
                .split_once(']')
                .ok_or_else(|| file.error(format!("template {text:?}: \"[\" without \"]\"")))?;
            file.require(known.contains(&slot), || {
                format!(
                    "template {text:?}: unknown slot [{slot}], expected [{}]",
                    known.join("], [")
                )
            })?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Slot(slot.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// The slots, in the order of the text.
    pub(crate) fn slots(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Slot(slot) => Some(slot.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The text with each slot replaced by `fill(slot, how often the slot came before)`.
    pub(crate) fn render<'a>(&'a self, mut fill: impl FnMut(&'a str, usize) -> &'a str) -> String {
        self.render_named(|slot, before| (fill(slot, before), None))
            .0
    }

    /// As [`render`](Self::render), where `fill` also says by which name the word is a part of the text, if by
    /// any; with these parts, each without spaces around it.
    pub(crate) fn render_named<'a>(
        &'a self,
        mut fill: impl FnMut(&'a str, usize) -> (&'a str, Option<&'a str>),
    ) -> (String, Vec<Slot>) {
        let mut seen: Vec<&str> = Vec::new();
        let (mut out, mut parts) = (String::new(), Vec::new());
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Slot(slot) => {
                    let before = seen.iter().filter(|s| *s == slot).count();
                    let (word, name) = fill(slot, before);
                    let start = out.len() + (word.len() - word.trim_start().len());
                    out.push_str(word);
                    let range = start..start + word.trim().len();
                    parts.extend(name.map(|name| Slot::new(name, range)));
                    seen.push(slot);
                }
            }
        }
        (out, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: DataFile<'_> = DataFile {
        name: "test.json",
        text: "",
    };

    #[test]
    fn slots_are_filled_by_name_and_turn() {
        let template = Template::parse(FILE, "[B] and [A] met; [B] left", &["A", "B"]).unwrap();
        assert_eq!(template.slots().collect::<Vec<_>>(), ["B", "A", "B"]);
        let text = template.render(|slot, before| match (slot, before) {
            ("B", 0) => "Ann",
            ("B", _) => "Cid",
            _ => "Bob",
        });
        assert_eq!(text, "Ann and Bob met; Cid left");
    }

    #[test]
    fn parts_are_known_where_they_are_written() {
        let template = Template::parse(FILE, "An [A] of [B] [A]", &["A", "B"]).unwrap();
        let (text, parts) = template.render_named(|slot, before| match (slot, before) {
            ("A", 0) => ("n", Some("first")),
            ("A", _) => (" née ", Some("second")),
            _ => ("of", None),
        });
        assert_eq!(text, "An n of of  née ");
        let expected = [Slot::new("first", 3..4), Slot::new("second", 12..16)];
        assert_eq!(parts, expected);
        assert_eq!(&text[12..16], "née");
    }

    #[test]
    fn malformed_templates_are_refused() {
        let message = |text| Template::parse(FILE, text, &["A"]).unwrap_err().to_string();
        assert_eq!(
            message("[C] x"),
            "test.json: template \"[C] x\": unknown slot [C], expected [A]"
        );
        assert!(message("[A x").contains("\"[\" without \"]\""));
    }
}
