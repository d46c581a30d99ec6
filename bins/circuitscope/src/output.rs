//! Data to stdout, everything else to stderr.

use std::borrow::Cow;
use std::io::{self, Write};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::failure::is_broken_pipe;

pub(crate) use circuitscope::text::{count, indented, table, wrapped};

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// Prints results in the format that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    format: Format,
    /// Whether results are files, too.
    keeps: bool,
}

impl Printer {
    pub(crate) const fn new(format: Format) -> Self {
        Self {
            format,
            keeps: false,
        }
    }

    /// The same of a command whose results are files, too: it goes on where nobody reads what it prints any more.
    pub(crate) const fn keeping(self, keeps: bool) -> Self {
        Self { keeps, ..self }
    }

    /// Prints a part of the text as soon as it is known; nothing where JSON is asked for.
    ///
    /// # Errors
    /// As [`print`](Self::print).
    pub(crate) fn part(self, text: &str) -> Result<()> {
        match self.format {
            Format::Json => Ok(()),
            Format::Text => match write_all(text) {
                Err(error) if self.keeps && is_broken_pipe(&error) => Ok(()),
                written => written,
            },
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
            Format::Json => write_json(&serde_json::to_string(value)?),
            Format::Text => write_all(&text()),
        }
    }
}

/// Writes JSON to stdout, what terminals would obey written as JSON escapes it.
pub(crate) fn write_json(json: &str) -> Result<()> {
    if !json.contains(unsafe_in_line) {
        return write_all(json);
    }
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if unsafe_in_line(c) {
            let mut units = [0; 2];
            let units = c.encode_utf16(&mut units).iter();
            safe.extend(units.map(|unit| format!("\\u{unit:04x}")));
        } else {
            safe.push(c);
        }
    }
    write_all(&safe)
}

/// Writes to stdout, with an end of line.
pub(crate) fn write_all(text: &str) -> Result<()> {
    let text = safe(text);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes());
    let written = written.and_then(|()| out.write_all(end.as_bytes()));
    written
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// One line for the user, on stderr. Nothing can be done if even that fails.
pub(crate) fn note(text: &str) {
    writeln!(io::stderr(), "{}", one_line(text)).ok();
}

/// Characters of a word that are shown at most, and of a line: what a file says may be longer.
const WORD: usize = 200;
const LINE: usize = 4000;

/// A text as one line that a terminal shows as it is: line ends, control characters and those that turn the
/// direction of writing escaped, long words and long lines cut in the middle.
pub(crate) fn one_line(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        if word.len() <= WORD && !word.contains(unsafe_in_line) {
            return Cow::Borrowed(word);
        }
        Cow::Owned(escaped(&cut(word, WORD), unsafe_in_line))
    });
    cut(&words.collect::<Vec<_>>().join(" "), LINE)
}

/// A text of several lines in the same way, its length left as it is.
fn safe(text: &str) -> Cow<'_, str> {
    let bad = |c: char| !matches!(c, '\n' | '\t') && unsafe_in_line(c);
    if text.contains(bad) {
        Cow::Owned(escaped(text, bad))
    } else {
        Cow::Borrowed(text)
    }
}

fn escaped(text: &str, bad: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if bad(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Characters that a terminal obeys instead of showing them: controls, line and paragraph separators, marks of
/// writing direction.
fn unsafe_in_line(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The first and the last characters of a text of more than `most`.
fn cut(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let (first, last) = (most * 3 / 4, most / 8);
    let begin: String = text.chars().take(first).collect();
    let end: String = text.chars().skip(count - last).collect();
    format!("{begin}… ({} characters more) …{end}", count - first - last)
}

/// Characters of a line where no terminal says how many it shows.
const COLUMNS: usize = 100;

/// Characters that a line on stdout has room for.
pub(crate) fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(io::stdout());
    let columns = terminal.map(|(columns, _)| usize::from(columns.0));
    // Narrower ones wrap lines themselves.
    columns.map_or(COLUMNS, |columns| columns.max(60))
}

/// stderr for log lines: one that is full or closed loses them, and nothing else.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        note(text.trim_end());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_moves_no_cursor_and_fills_no_screen() {
        let forged = "weights.safetensors: \u{1b}[2Jname\r\nerror: all fine\u{202e}";
        assert_eq!(
            one_line(forged),
            r"weights.safetensors: \u{1b}[2Jname\r\nerror: all fine\u{202e}"
        );
        let long = one_line(&format!("key {} unknown", "x".repeat(5000)));
        assert!(long.len() < 250, "{long}");
        assert!(long.contains("(4825 characters more)"), "{long}");
        assert_eq!(one_line("Größe 日本 é"), "Größe 日本 é");
        assert!(one_line(&"many words ".repeat(1000)).len() < 4100);
        assert_eq!(safe("a\tb\nc\u{7}"), "a\tb\nc\\u{7}");
    }
}
