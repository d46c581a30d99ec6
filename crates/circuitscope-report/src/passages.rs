//! What is said of a task before its figures: sentences, lists and small tables.

use maud::{Markup, html};

/// Some sentences under a heading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passage {
    /// The heading.
    pub title: String,
    /// Sentences without full stops; those that begin with `warning:` stand out.
    pub sentences: Vec<String>,
    /// A list that opens when asked for: what it is of, and its entries.
    pub list: Option<(String, Vec<String>)>,
    /// A small table: names of columns, and rows.
    pub table: Option<(Vec<String>, Vec<Vec<String>>)>,
}

impl Passage {
    /// Sentences alone.
    pub fn new(title: impl Into<String>, sentences: Vec<String>) -> Self {
        Self {
            title: title.into(),
            sentences,
            ..Self::default()
        }
    }
}

pub(super) fn html(passages: &[Passage]) -> Markup {
    html! {
        @for passage in passages {
            h3 { (passage.title) } "\n"
            @if !passage.sentences.is_empty() {
                ul.said { @for sentence in &passage.sentences { (said(sentence)) } } "\n"
            }
            @if let Some((columns, rows)) = &passage.table { (table(columns, rows)) "\n" }
            @if let Some((what, entries)) = &passage.list {
                details {
                    summary { (what) }
                    ul.said { @for entry in entries { li { (entry) } } }
                }
                "\n"
            }
        }
    }
}

fn said(sentence: &str) -> Markup {
    html! {
        @if let Some(warning) = sentence.strip_prefix("warning: ") {
            li.warning { b { "Warning:" } " " (warning) }
        } @else {
            li { (sentence) }
        }
    }
}

fn table(columns: &[String], rows: &[Vec<String>]) -> Markup {
    html! {
        div.scroll tabindex="0" {
            table {
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody { @for row in rows { tr { @for cell in row { td { (cell) } } } } }
            }
        }
    }
}
