//! Words, lines and tables, as terminals and pages show them.

use core::error::Error;

/// Sentences as lines below a heading.
#[must_use]
pub fn indented(sentences: &[String]) -> String {
    let lines = sentences.iter().map(|sentence| format!("  {sentence}\n"));
    lines.collect()
}

/// A text in lines of at most so many characters, unless a word is longer.
#[must_use]
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A table with its columns aligned: the first to the left, numbers to the right.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
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
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// An error with its causes in one line, those left out whose text an outer one repeats.
#[must_use]
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_long_as_they_may_be() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("größer als", 10), ["größer als"]);
        assert_eq!(wrapped("far too long", 2), ["far", "too", "long"]);
        assert!(wrapped(" ", 7).is_empty());
    }

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
