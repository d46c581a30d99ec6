//! The first screen.

use maud::{Markup, html};

use super::{CircuitPage, card_id};

pub(super) fn header(page: &CircuitPage<'_>) -> Markup {
    let verdict = &page.verdict;
    html! {
        header {
            h1 { (page.title) }
            @if !page.lead.is_empty() { p.lead { (page.lead) } }
            @if !verdict.conclusion.is_empty() { p.conclusion { (verdict.conclusion) } }
            @if !verdict.figures.is_empty() {
                dl.figures {
                    @for figure in &verdict.figures {
                        div {
                            dt { (figure.label) }
                            dd.value { (figure.value) }
                            @if !figure.note.is_empty() { dd.under { (figure.note) } }
                        }
                    }
                }
            }
            @if !verdict.warnings.is_empty() {
                ul.warnings aria-label="Warnings" {
                    @for warning in &verdict.warnings { li { b { "Warning: " } (warning) } }
                }
            }
            @if !verdict.sentences.is_empty() {
                ul.said { @for sentence in &verdict.sentences { li { (sentence) } } }
            }
            @let chosen = page.chosen();
            @if chosen.is_empty() {
                p { "No circuit is shown." }
            } @else {
                p.heads {
                    "Heads of the circuit: "
                    @for (at, head) in chosen.iter().enumerate() {
                        @if at > 0 { ", " }
                        a href={ "#" (card_id(*head)) } { (head) }
                    }
                    "."
                    @if let Some(known) = known(page) { " " (known) }
                }
            }
            @if !page.facts.is_empty() {
                dl.facts { @for (name, value) in &page.facts { div { dt { (name) } dd { (value) } } } }
            }
        }
    }
}

/// What is chosen of the known circuit, and what else is in it.
fn known(page: &CircuitPage<'_>) -> Option<String> {
    let truth = page.task.truth.as_ref()?;
    let chosen = page.chosen();
    let found = chosen.iter().filter(|head| page.known(**head)).count();
    let mut missed: Vec<_> = truth.iter().filter(|head| !chosen.contains(head)).collect();
    missed.sort_unstable();
    let missed: Vec<String> = missed.iter().map(ToString::to_string).collect();
    let whose = if page.task.truth_name.is_empty() {
        String::new()
    } else {
        format!(" ({})", page.task.truth_name)
    };
    let marked = &page.task.marked;
    let others = if missed.is_empty() {
        String::new()
    } else {
        format!(" Not found: {}.", missed.join(", "))
    };
    Some(format!(
        "{found} of the {} heads {marked}{whose} are among them.{others}",
        truth.len()
    ))
}
