//! The page of a sweep: every method on every model, a table for each task.

use maud::{Markup, html};

use crate::Report;
use crate::page::{document, facts, provenance};

/// A sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepPage {
    /// Heading of the page.
    pub title: String,
    /// A sentence or two below it.
    pub lead: String,
    /// Names and values shown at the top.
    pub facts: Vec<(String, String)>,
    /// One for each task.
    pub tables: Vec<SweepTable>,
    /// What made the results, shown as it is.
    pub provenance: serde_json::Value,
}

/// A model with one set of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepModel {
    /// Its name.
    pub name: String,
    /// Name of the set of settings.
    pub settings: String,
    /// Its own page, from the folder of this one on.
    pub page: String,
}

/// The methods on one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepTable {
    /// Name of the task.
    pub task: String,
    /// Names of methods, in the order of columns.
    pub methods: Vec<String>,
    /// Models, each with one text for each method.
    pub rows: Vec<(SweepModel, Vec<String>)>,
}

/// Writes the page of a sweep.
#[must_use]
pub fn render_sweep(page: &SweepPage) -> Report {
    let body = html! {
        body {
            main {
                "\n"
                header {
                    h1 { (page.title) }
                    "\n" p.lead { (page.lead) }
                    "\n" (facts(&page.facts))
                }
                "\n"
                @for (at, table) in page.tables.iter().enumerate() { (of_task(at, table)) "\n" }
                (provenance(&page.provenance))
                "\n"
            }
        }
    };
    Report {
        html: document(&page.title, &[], &body),
        pictures: Vec::new(),
    }
}

fn of_task(at: usize, table: &SweepTable) -> Markup {
    let id = format!("task-{at}");
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (table.task) } "\n"
            div.scroll tabindex="0" {
                table {
                    thead {
                        tr {
                            th scope="col" { "model" }
                            th scope="col" { "settings" }
                            @for method in &table.methods { th scope="col" { (method) } }
                        }
                    }
                    tbody {
                        @for (model, cells) in &table.rows {
                            tr {
                                th scope="row" { a href=(model.page) { (model.name) } }
                                td { (model.settings) }
                                @for cell in cells { td { (cell) } }
                            }
                            "\n"
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_lead_to_pages() {
        let model = SweepModel {
            name: "a<b".to_owned(),
            settings: "default".to_owned(),
            page: "0000-a-b/report.html".to_owned(),
        };
        let page = SweepPage {
            title: "Sweep".to_owned(),
            lead: "Lead".to_owned(),
            facts: vec![("cells".to_owned(), "1".to_owned())],
            tables: vec![SweepTable {
                task: "ioi".to_owned(),
                methods: vec!["sae".to_owned()],
                rows: vec![(model, vec!["0.843".to_owned()])],
            }],
            provenance: serde_json::json!({}),
        };
        let html = render_sweep(&page).html;
        assert!(
            html.contains("<a href=\"0000-a-b/report.html\">a&lt;b</a>"),
            "{html}"
        );
        assert!(html.contains("<td>0.843</td>"), "{html}");
    }
}
