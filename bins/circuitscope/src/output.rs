//! Data to stdout, everything else to stderr.

use std::io::{self, Write as _};

use anyhow::Result;
use serde::Serialize;

use crate::args::Format;

/// Prints results in the format that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    format: Format,
}

impl Printer {
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints a part of the text as soon as it is known; nothing where JSON is asked for.
    ///
    /// # Errors
    /// As [`print`](Self::print).
    pub(crate) fn part(self, text: &str) -> Result<()> {
        match self.format {
            Format::Json => Ok(()),
            Format::Text => write_all(text),
        }
    }

    /// Whether one JSON object is printed.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints `value` as one JSON object, or `text`.
    ///
    /// # Errors
    /// If stdout cannot be written; a broken pipe is told apart by the caller.
    pub(crate) fn print(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        match self.format {
            Format::Json => write_all(&serde_json::to_string(value)?),
            Format::Text => write_all(&text()),
        }
    }
}

/// Writes to stdout, with an end of line.
pub(crate) fn write_all(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Sentences as lines below a heading.
pub(crate) fn indented(sentences: &[String]) -> String {
    let lines = sentences.iter().map(|sentence| format!("  {sentence}\n"));
    lines.collect()
}

/// One line for the user, on stderr. Nothing can be done if even that fails.
pub(crate) fn note(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

/// A table with its columns aligned: the first to the left, numbers to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .chain([header[column].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (column, cell) in cells.enumerate() {
            let pad = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            if column > 0 {
                line.push_str("  ");
            }
            let text = column == 0 || rows.first().is_some_and(|row| is_text(&row[column]));
            let (before, after) = if text {
                ("", pad.as_str())
            } else {
                (pad.as_str(), "")
            };
            line.extend([before, cell, after]);
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    };
    let mut table = line(&mut header.iter().copied());
    for row in rows {
        table.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    table
}

/// Whether a cell is a word and not a figure (or the dash that stands for none).
fn is_text(cell: &str) -> bool {
    !cell.starts_with(|first: char| first.is_ascii_digit() || "-–.".contains(first))
}

/// `1 example`, `2 examples`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_words_left_and_figures_right() {
        let rows = [
            vec!["sae".to_owned(), "0.5".to_owned(), "yes".to_owned()],
            vec!["random".to_owned(), "10.25".to_owned(), "no".to_owned()],
        ];
        assert_eq!(
            table(&["method", "auc", "control"], &rows),
            "method    auc  control\nsae       0.5  yes\nrandom  10.25  no\n"
        );
    }
}
