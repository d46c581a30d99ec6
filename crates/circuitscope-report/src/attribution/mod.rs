//! The page of an attribution graph.

mod picture;

use maud::{Markup, html};
use serde_json::Value;

use crate::discovery::visible;
use crate::page::{document, provenance};
use crate::svg::theme_css;
use crate::table::of_words;
use crate::{Picture, Report};

const CSS: &str = ".prompt{line-height:2;overflow-wrap:anywhere}.prompt code{white-space:pre-wrap}\
                   @media screen{.attribution svg{max-width:none}}\
                   @media print{th,td{padding:.15rem .3rem;white-space:normal}table{font-size:.75rem}.attribution{break-inside:avoid}}";

/// What the page of an attribution graph shows.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphPage {
    /// Heading of the page.
    pub title: String,
    /// What is explained, in a sentence.
    pub lead: String,
    /// How far to trust it: a sentence or two each.
    pub said: Vec<String>,
    /// The tokens of the prompt.
    pub tokens: Vec<String>,
    /// Number of layers of the model.
    pub layers: usize,
    /// The nodes that were kept.
    pub nodes: Vec<GraphMark>,
    /// The edges that were kept, the strongest first.
    pub edges: Vec<GraphLine>,
    /// What is also in numbers.
    pub tables: Vec<GraphTable>,
    /// What made it, shown as it is.
    pub provenance: Value,
}

/// What a node stands for, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    /// A feature of a layer.
    Feature {
        /// The layer.
        layer: usize,
        /// Of the token, from 0.
        position: usize,
    },
    /// What features of a layer leave over.
    Error {
        /// The layer.
        layer: usize,
        /// Of the token, from 0.
        position: usize,
    },
    /// The embedding of a token.
    Token {
        /// From 0.
        position: usize,
    },
    /// A position vector.
    Position {
        /// From 0.
        position: usize,
    },
    /// What is explained.
    Logit {
        /// Where the logits are.
        position: usize,
    },
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphMark {
    /// What it stands for.
    pub kind: MarkKind,
    /// Its share of the influence of all nodes; the size of features.
    pub influence: f64,
    /// What stands in it, of logits.
    pub label: String,
    /// What is said where the pointer is.
    pub hint: String,
}

/// An edge.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphLine {
    /// The place of its source among the nodes.
    pub source: usize,
    /// Of its target.
    pub target: usize,
    /// What the source adds to the target.
    pub effect: f64,
}

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphTable {
    /// Heading.
    pub heading: String,
    /// Names of columns.
    pub columns: Vec<String>,
    /// As many cells each.
    pub rows: Vec<Vec<String>>,
    /// What the columns mean.
    pub note: String,
}

/// Writes the page of an attribution graph.
#[must_use]
pub fn render_graph(page: &GraphPage) -> Report {
    let (drawing, caption) = picture::draw(page);
    let body = html! {
        body {
            main {
                header { h1 { (page.title) } p.lead { (page.lead) } }
                p.prompt {
                    @for (position, token) in page.tokens.iter().enumerate() {
                        code.token title={ "position " (position) } { (visible(token)) } " "
                    }
                }
                ul.said { @for sentence in &page.said { li { (sentence) } } }
                section aria-labelledby="graph" {
                    h2 #graph { "The graph" }
                    figure.attribution {
                        div.scroll tabindex="0" { (drawing.inline()) }
                        figcaption { (caption) }
                    }
                }
                @for (at, table) in page.tables.iter().enumerate() { (table_of(at, table)) "\n" }
                (provenance(&page.provenance))
            }
        }
    };
    Report {
        pictures: vec![Picture {
            file_name: drawing.file_name.clone(),
            svg: drawing.standalone(),
        }],
        html: document(&page.title, &[&theme_css(), CSS], &body),
    }
}

fn table_of(at: usize, table: &GraphTable) -> Markup {
    let id = format!("table-{at}");
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (table.heading) }
            @if table.rows.is_empty() {
                p.none { "None." }
            } @else {
                (of_words(&table.columns, &table.rows))
            }
            p.note { (table.note) }
        }
    }
}
