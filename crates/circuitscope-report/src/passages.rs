//! What is said of a task before its figures: sentences, lists and small tables.

use crate::svg::escape;

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

pub(super) fn html(passages: &[Passage]) -> String {
    let mut html = String::new();
    for passage in passages {
        putln!(html, "<h3>{}</h3>", escape(&passage.title));
        if !passage.sentences.is_empty() {
            html.push_str("<ul class=\"said\">");
            for sentence in &passage.sentences {
                match sentence.strip_prefix("warning: ") {
                    Some(warning) => put!(
                        html,
                        "<li class=\"warning\"><b>Warning:</b> {}</li>",
                        escape(warning)
                    ),
                    None => put!(html, "<li>{}</li>", escape(sentence)),
                }
            }
            html.push_str("</ul>\n");
        }
        if let Some((columns, rows)) = &passage.table {
            html.push_str("<div class=\"scroll\"><table><thead><tr>");
            for column in columns {
                put!(html, "<th scope=\"col\">{}</th>", escape(column));
            }
            html.push_str("</tr></thead><tbody>");
            for row in rows {
                html.push_str("<tr>");
                for cell in row {
                    put!(html, "<td>{}</td>", escape(cell));
                }
                html.push_str("</tr>");
            }
            html.push_str("</tbody></table></div>\n");
        }
        if let Some((what, entries)) = &passage.list {
            put!(
                html,
                "<details><summary>{}</summary><ul class=\"said\">",
                escape(what)
            );
            for entry in entries {
                put!(html, "<li>{}</li>", escape(entry));
            }
            html.push_str("</ul></details>\n");
        }
    }
    html
}
