//! Tables of heads: variables, repeated random tokens, all heads.

use std::collections::BTreeSet;

use circuitscope_core::HeadId;
use circuitscope_measures::cards::{HeadPatterns, VariableCell, VariableTable};
use maud::{Markup, html};

use crate::number;

use super::text::{cell, fixed};
use super::{CircuitPage, card_id};

/// Heads listed for each pattern.
const BEST: usize = 5;

/// Rows that are not folded away.
const ROWS: usize = 20;

/// A head that leads to its card, where it has one.
fn name(page: &CircuitPage<'_>, head: HeadId) -> Markup {
    html! {
        @if page.task.chosen.contains(&head) { a href={ "#" (card_id(head)) } { (head) } } @else { (head) }
    }
}

/// Which head carries which variable.
pub(super) fn variables(page: &CircuitPage<'_>, table: &VariableTable) -> Markup {
    html! {
        p.note {
                    "Normalised mutual information of clusters of outputs and values on " (table.prompts)
                    " prompts; below it the 95 % point of values dealt out anew (null) and what a table from cluster to value, learnt on \
                     half of the pairs, gets right on the other half (held out). ▲ and colour: above its null."
                    @if !table.left_out.is_empty() {
                        " Left out, as they have one value, or most prompts have one of their own: "
                        (table.left_out.join(", ")) "."
                    }
        }
        div.scroll tabindex="0" {
            table.cells {
                thead {
                    tr {
                        th scope="col" { "head" }
                        @for (variable, values) in &table.variables {
                            th scope="col" { (variable) " " small { (values) " values" } }
                        }
                    }
                }
                tbody {
                    @for (at, head) in table.heads.iter().enumerate() {
                        tr {
                            th scope="row" { (name(page, *head)) }
                            @for cells in &table.cells {
                                @if let Some(one) = cells.get(at) { (variable(one)) } @else { td.none { "–" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn variable(cell: &VariableCell) -> Markup {
    let above = cell.information > cell.null;
    html! {
        td.above[above] title={ "p = " (fixed(cell.p)) } {
            b { (fixed(cell.information)) @if above { " ▲" } }
            br;
            small { "null " (fixed(cell.null)) ", held out " (fixed(cell.held_out)) }
            span.hidden { ", p = " (fixed(cell.p)) }
        }
    }
}

/// A pattern on repeated random tokens, and how much of a head's attention follows it.
type Column = (&'static str, fn(&HeadPatterns) -> f64);

const COLUMNS: [Column; 4] = [
    ("previous token", |patterns| patterns.previous_token),
    ("duplicate token", |patterns| patterns.duplicate_token),
    ("induction", |patterns| patterns.induction),
    ("first token", |patterns| patterns.first_token),
];

/// Attention on random tokens said twice: chosen heads, and the best of the model in each pattern.
pub(super) fn repeated(page: &CircuitPage<'_>, patterns: &[HeadPatterns]) -> Markup {
    let all: Vec<(HeadId, HeadPatterns)> = page
        .task
        .grid
        .heads()
        .zip(patterns.iter().copied())
        .collect();
    let best: Vec<BTreeSet<HeadId>> = COLUMNS
        .iter()
        .map(|(_, value)| best(&all, *value))
        .collect();
    let chosen = page.chosen();
    let of_circuit = all.iter().filter(|(head, _)| chosen.contains(head));
    let others = all
        .iter()
        .filter(|(head, _)| !chosen.contains(head) && best.iter().any(|best| best.contains(head)));
    let row = |(head, patterns): &(HeadId, HeadPatterns)| {
        html! {
            tr {
                th scope="row" { (name(page, *head)) }
                @for ((_, value), best) in COLUMNS.iter().zip(&best) {
                    td.above[best.contains(head)] {
                        (fixed(value(patterns))) @if best.contains(head) { " ▲" }
                    }
                }
            }
        }
    };
    html! {
        div.scroll tabindex="0" {
            table.cells {
                caption {
                    "Mean attention that follows each pattern. ▲ and colour: among the " (BEST) " strongest of all "
                    (all.len()) " heads."
                }
                thead {
                    tr {
                        th scope="col" { "head" }
                        @for (title, _) in &COLUMNS { th scope="col" { (title) } }
                    }
                }
                tbody {
                    tr.group { th scope="rowgroup" colspan="5" { "heads of the circuit" } }
                    @for one in of_circuit { (row(one)) }
                }
                tbody {
                    tr.group { th scope="rowgroup" colspan="5" { "other heads among the strongest" } }
                    @for one in others { (row(one)) }
                }
            }
        }
    }
}

fn best(all: &[(HeadId, HeadPatterns)], value: fn(&HeadPatterns) -> f64) -> BTreeSet<HeadId> {
    let mut sorted: Vec<_> = all
        .iter()
        .map(|(head, patterns)| (*head, value(patterns)))
        .filter(|(_, value)| value.is_finite())
        .collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    sorted.iter().take(BEST).map(|(head, _)| *head).collect()
}

/// Every head of the model, the highest score first.
pub(super) fn all(page: &CircuitPage<'_>) -> Markup {
    let mut heads: Vec<HeadId> = page.task.grid.heads().collect();
    let score = |head: &HeadId| page.score(*head).filter(|score| !score.is_nan());
    heads.sort_by(|a, b| {
        let (a_score, b_score) = (score(a).unwrap_or(f64::MIN), score(b).unwrap_or(f64::MIN));
        b_score.total_cmp(&a_score).then(a.cmp(b))
    });
    let (first, rest) = heads.split_at(ROWS.min(heads.len()));
    html! {
        (some(page, first, 1, "Heads by score"))
        @if !rest.is_empty() {
            details.rest {
                summary { "All other " (rest.len()) " heads" }
                (some(page, rest, 1 + first.len(), "Other heads by score"))
            }
        }
    }
}

fn some(page: &CircuitPage<'_>, heads: &[HeadId], from: usize, what: &str) -> Markup {
    let (signed, effects, norms) = (
        page.signed.is_some(),
        page.cards.is_some(),
        page.norms.is_some(),
    );
    let (lost, halves) = (page.lost.as_ref(), page.stability.is_some());
    let known = page.task.truth.is_some();
    html! {
        div.scroll tabindex="0" {
            table.sortable {
                caption { (what) }
                thead {
                    tr {
                        th scope="col" { "rank" }
                        th scope="col" { "head" }
                        th scope="col" { "score" }
                        @if signed { th scope="col" { "signed" } }
                        @if effects { th scope="col" { "effect" } }
                        @if norms { th scope="col" { "norm" } }
                        th scope="col" { "chosen" }
                        @if known { th scope="col" { "known" } }
                        @if let Some(lost) = lost { th scope="col" { (lost.metric) " lost" } }
                        @if halves { th scope="col" { "in half-samples" } }
                    }
                }
                tbody {
                    @for (at, head) in heads.iter().enumerate() {
                        @let chosen = page.task.chosen.contains(head);
                        tr.chosen[chosen] {
                            td { (from + at) }
                            th scope="row" data-value=(index(page, *head)) { (name(page, *head)) }
                            (cell(page.score(*head)))
                            @if signed { (cell(page.signed(*head))) }
                            @if effects { (cell(page.effect(*head))) }
                            @if norms { (cell(page.norm(*head))) }
                            (yes(chosen))
                            @if known { (yes(page.known(*head))) }
                            @if lost.is_some() { (cell(page.lost(*head))) }
                            @if halves { (cell(page.share(*head))) }
                        }
                        "\n"
                    }
                }
            }
        }
    }
}

fn index(page: &CircuitPage<'_>, head: HeadId) -> usize {
    page.task.grid.index(head).unwrap_or(usize::MAX)
}

fn yes(yes: bool) -> Markup {
    html! { @if yes { td data-value="1" { "yes" } } @else { td.none data-value="0" { "no" } } }
}

/// A number with its name, for captions.
pub(super) fn nats(value: f64) -> String {
    format!("{} nats", number(value))
}
