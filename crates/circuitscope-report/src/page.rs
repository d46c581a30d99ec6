//! The page around the pictures.

use maud::{Markup, PreEscaped, html};

use crate::svg::{Drawing, theme_css};
use crate::{ReportInput, Section, TaskReport, conclusion, passages, table};

pub(super) fn page(input: &ReportInput, sections: &[Section<'_>]) -> String {
    let body = html! {
        body {
            main {
                "\n"
                header {
                    h1 { (input.title) }
                    @if !input.lead.is_empty() { "\n" p.lead { (input.lead) } }
                    @if !input.facts.is_empty() { "\n" (facts(&input.facts)) }
                }
                "\n"
                (summary(&input.tasks))
                @for section in sections { (of_task(section)) "\n" }
                (provenance(&input.provenance))
                "\n"
            }
        }
    };
    document(&input.title, &[&theme_css()], &body)
}

/// A whole page around a body: the styles of every page, then those of this one.
pub(super) fn document(title: &str, styles: &[&str], body: &Markup) -> String {
    let css = format!("\n{}{}\n", include_str!("page.css"), styles.concat());
    let page = html! {
        (PreEscaped("<!doctype html>\n"))
        html lang="en" {
            head {
                "\n" meta charset="utf-8";
                "\n" meta name="viewport" content="width=device-width, initial-scale=1";
                "\n" meta name="color-scheme" content="light dark";
                "\n" title { (title) }
                "\n" style { (PreEscaped(css)) }
                "\n"
            }
            "\n"
            (body)
        }
        "\n"
    };
    page.into_string()
}

/// What made the results, folded.
pub(super) fn provenance(value: &serde_json::Value) -> Markup {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    html! {
        section aria-labelledby="provenance" {
            h2 #provenance { "Provenance" }
            details { summary { "What made these results" } pre tabindex="0" { (text) } }
        }
    }
}

pub(super) fn facts(facts: &[(String, String)]) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in facts { div { dt { (name) } dd { (value) } } }
        }
    }
}

fn summary(tasks: &[TaskReport]) -> Markup {
    html! {
        @if let Some(overview) = table::overview(tasks) {
            section aria-labelledby="summary" {
                h2 #summary { "Summary" }
                (overview)
                p.note {
                    b { "Bold" } ": the highest mean of the task. " span.flag { "▼" }
                    ": a method that is not clearly above every control of the same task: its mean is not higher, \
                     or the 95 % interval of the difference on the same resamples reaches 0. 0.5 is chance."
                }
            }
            "\n"
        }
    }
}

fn of_task(section: &Section<'_>) -> Markup {
    let task = section.task;
    let id = table::anchor(task);
    let conclusion = conclusion::paragraph(task);
    html! {
        section aria-labelledby=(id) {
            h2 id=(id) { (task.task) } "\n"
            p { (heads(task)) "." } "\n"
            @if let Some(found) = reconciled(task) { p { (found) "." } "\n" }
            (passages::html(&task.passages))
            @if !conclusion.is_empty() { p { (conclusion) } "\n" }
            (table::measures(task))
            @if let Some(curves) = &section.curves {
                figure.roc {
                    (curves.inline())
                    figcaption {
                        "ROC curves of heads, the mean over seeds at each false positive rate. The thin diagonal is chance."
                    }
                }
                "\n"
            }
            @if let Some(kept) = &section.kept {
                figure.roc {
                    (kept.inline())
                    figcaption {
                        "Circuits taken from the top of each ranking, everything else ablated. Left: heads in the order \
                         of signed scores, MLPs kept; 1 is the full model, 0 the model with everything ablated. Right: \
                         edges in the order of absolute scores."
                    }
                }
                "\n"
            }
            h3 { "Scores of heads" } "\n"
            (maps(&section.heads))
            @if !section.circuits.is_empty() {
                h3 { "Strongest edges" } "\n"
                (maps(&section.circuits))
            }
            h3 { "Heads by rank" } "\n"
            (table::ranks(task)) "\n"
        }
    }
}

fn maps(drawings: &[Drawing]) -> Markup {
    html! {
        div.maps {
            "\n"
            @for drawing in drawings { figure { (drawing.inline()) } "\n" }
        }
        "\n"
    }
}

/// How many heads there are, and those that are outlined.
fn heads(task: &TaskReport) -> Markup {
    let grid = task.grid;
    let mut truth = task.truth.clone();
    if let Some(heads) = &mut truth {
        heads.sort_unstable();
    }
    html! {
        (grid.n_layers) " layers × " (grid.n_heads) " heads = " (grid.len()) " heads"
        @if let Some(truth) = truth {
            ", " (truth.len()) " of them " (task.marked)
            @if !task.truth_name.is_empty() { " (" (task.truth_name) ")" }
            ":"
            @for head in truth { " " code { (head) } }
        }
    }
}

/// What chosen heads have in common with the known circuit, where both are there.
fn reconciled(task: &TaskReport) -> Option<String> {
    let truth = task.truth.as_ref().filter(|_| !task.chosen.is_empty())?;
    let found = task.chosen.iter().filter(|head| truth.contains(head));
    let found = found.count();
    Some(format!(
        "{} heads chosen (dots): {found} of the {} that are {} (outlined), {} others",
        task.chosen.len(),
        truth.len(),
        task.marked,
        task.chosen.len() - found
    ))
}
