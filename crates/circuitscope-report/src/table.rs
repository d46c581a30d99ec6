//! The tables of the page.

use circuitscope_core::HeadId;
use circuitscope_measures::{Spread, SummaryRow};
use maud::{Markup, html};

use crate::svg::line_colour;
use crate::{MethodReport, TaskReport, number};

/// Heads listed by rank.
const RANKS: usize = 15;

/// Methods × tasks, each cell the node AUC; a method that does not exceed a control is marked. Below it what that
/// comes to. `None` where nothing was judged.
pub(super) fn overview(tasks: &[TaskReport]) -> Option<Markup> {
    let judged: Vec<&TaskReport> = tasks.iter().filter(|task| is_judged(task)).collect();
    if judged.is_empty() {
        return None;
    }
    let mut methods: Vec<&MethodReport> = Vec::new();
    for method in judged.iter().flat_map(|task| &task.methods) {
        if !methods.iter().any(|other| other.method == method.method) {
            methods.push(method);
        }
    }
    let row = |task: &TaskReport, method: &MethodReport| {
        let same = |other: &&MethodReport| other.method == method.method;
        let cell = task.methods.iter().find(same);
        auc_cell(cell.and_then(|method| method.row.as_ref()), best(task))
    };
    Some(html! {
        div.scroll tabindex="0" {
            table.overview {
                caption { "Node AUC (trapezoid), mean ± standard deviation over seeds" }
                thead {
                    tr {
                        th scope="col" { "method" }
                        @for task in &judged {
                            th scope="col" { a href={ "#" (anchor(task)) } { (task.task) } }
                        }
                    }
                }
                tbody {
                    @for method in &methods {
                        tr.control[method.control] {
                            (method_cell(method, None))
                            @for task in &judged { (row(task, method)) }
                        }
                    }
                }
            }
        }
        ul.verdict {
            @for method in methods.iter().filter(|method| !method.control) {
                (verdict(&judged, &method.method))
            }
        }
    })
}

/// On how many tasks a method is no better than a control.
fn verdict(judged: &[&TaskReport], name: &str) -> Markup {
    let methods = judged.iter().flat_map(|task| &task.methods);
    let same = methods.filter(|method| method.method == name);
    let rows: Vec<&SummaryRow> = same.filter_map(|method| method.row.as_ref()).collect();
    let lost = rows.iter().filter(|row| !row.not_above.is_empty());
    let lost: Vec<String> = lost
        .map(|row| format!("{} ({})", row.task, row.not_above.join(", ")))
        .collect();
    let tasks = if rows.len() == 1 { "task" } else { "tasks" };
    let controlled = judged.iter().filter(|task| {
        let own = task.methods.iter().any(|method| method.method == name);
        own && task.methods.iter().any(|method| method.control)
    });
    html! {
        @if controlled.count() < rows.len() {
            li.lost {
                "No control was run beside " code { (name) } ": nothing says what a trivial method reaches."
            }
        } @else if !lost.is_empty() {
            li.lost {
                code { (name) } " is not clearly above a control on " (lost.len()) " of " (rows.len()) " " (tasks) ": "
                (lost.join("; ")) "."
            }
        } @else if rows.len() == 1 {
            li.won { code { (name) } " is clearly above every control on its one task." }
        } @else {
            li.won { code { (name) } " is clearly above every control on all " (rows.len()) " tasks." }
        }
    }
}

/// Columns of the table of one task, and what each means.
const MEASURES: [(&str, &str); 14] = [
    (
        "node AUC",
        "Area under the ROC curve of heads, trapezoid rule",
    ),
    (
        "95 %",
        "95 % interval of the node AUC of one seed, from half samples of the prompts",
    ),
    (
        "Jaccard",
        "Mean likeness of the circuits chosen on two half samples of the prompts: both over either; in brackets that of as many \
         heads drawn at random",
    ),
    (
        "CPR",
        "Area under faithfulness over the share of heads kept, in the order of signed scores",
    ),
    (
        "CMD",
        "Area of the distance of faithfulness from 1, in the order of absolute scores: lower is better",
    ),
    (
        "accuracy",
        "Share of pairs with the right answer ahead, mean over circuits of growing size by the logarithm of their share of heads",
    ),
    (
        "pessimistic",
        "The same by the lower staircase, ACDC's rule: ties count nothing",
    ),
    (
        "average precision",
        "Mean over true heads of the precision of the ranking down to that head",
    ),
    (
        "precision at size",
        "Share of true heads among the first k, k the number of true heads",
    ),
    (
        "best F1",
        "Highest F1 of heads over all thresholds, the threshold chosen on the answer",
    ),
    (
        "paper’s F1",
        "Highest harmonic mean of sensitivity and specificity, which the authors' code prints as F1",
    ),
    (
        "edge AUC",
        "Area under the ROC curve of pairs of heads, from earlier to later layers",
    ),
    (
        "paper’s “edge”",
        "Heads ranked by their share in top pairs, judged against true heads: no edge is compared",
    ),
    (
        "time",
        "Wall time of the method for one seed, capture excluded; a dictionary that two methods share is trained by the first",
    ),
];

/// All measures of one task; those that no method has are left out.
pub(super) fn measures(task: &TaskReport) -> Markup {
    let rows: Vec<Vec<Option<Markup>>> = task
        .methods
        .iter()
        .filter_map(|method| Some(of_row(method.row.as_ref()?)))
        .collect();
    let there = |column: usize| rows.iter().any(|row| row[column].is_some());
    html! {
        @if is_judged(task) {
            div.scroll tabindex="0" {
                table {
                    thead {
                        tr {
                            th scope="col" { "method" }
                            @for (at, (name, meaning)) in MEASURES.into_iter().enumerate() {
                                @if at == 0 || there(at - 1) { th scope="col" { abbr title=(meaning) { (name) } } }
                            }
                        }
                    }
                    tbody {
                        @for (at, method) in task.methods.iter().enumerate() {
                            @if let Some(row) = &method.row {
                                tr.control[method.control] {
                                    (method_cell(method, Some(at)))
                                    (auc_cell(Some(row), best(task)))
                                    @for (at, cell) in of_row(row).into_iter().enumerate() {
                                        @if there(at) {
                                            @if let Some(cell) = cell { td { (cell) } } @else { (nothing()) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The cells after the first two.
fn of_row(row: &SummaryRow) -> Vec<Option<Markup>> {
    let interval = row
        .node_interval
        .map(|interval| format!("{:.2} to {:.2}", interval.low, interval.high));
    let figure = |value: Option<f64>| value.map(|value| format!("{value:.2}"));
    let plain = [
        interval,
        row.jaccard_text(),
        figure(row.node_cpr),
        figure(row.node_cmd),
        figure(row.node_accuracy_area),
    ];
    let over_seeds = [
        Some(row.node_auc_pessimistic),
        Some(row.node_average_precision),
        Some(row.precision_at_size),
        Some(row.best_f1),
        Some(row.paper_f1),
        row.edge_auc,
        row.paper_edge_auc,
    ];
    let plain = plain.map(|cell| cell.map(|cell| html! { (cell) }));
    let over_seeds = over_seeds.map(|cell| cell.map(|cell| spread(cell, row.seeds)));
    let time = html! { (number(row.seconds.mean)) " s" };
    plain
        .into_iter()
        .chain(over_seeds)
        .chain([Some(time)])
        .collect()
}

/// Heads by rank, one column for each method; marked heads stand out.
pub(super) fn ranks(task: &TaskReport) -> Markup {
    let columns = task.methods.iter().map(|method| {
        let scores = method.scores.iter().copied();
        let mut order: Vec<(HeadId, f64)> = task.grid.heads().zip(scores).collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        order
    });
    let columns: Vec<_> = columns.collect();
    html! {
        div.scroll tabindex="0" {
            table.ranks {
                thead {
                    tr {
                        th scope="col" { "rank" }
                        @for method in &task.methods { th scope="col" { (method.method) } }
                    }
                }
                tbody {
                    @for rank in 0..RANKS.min(task.grid.len()) {
                        tr {
                            th scope="row" { (rank + 1) }
                            @for (head, score) in columns.iter().map(|column| column[rank]) {
                                @let marks = task.marks_of(head);
                                td.true[task.is_marked(head)] title=[marks.strip_prefix(", ")] {
                                    span.head { (head) } " " span.score { (number(score)) }
                                    @if task.chosen.contains(&head) {
                                        " " span.dot role="img" aria-label="chosen" { "●" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn is_judged(task: &TaskReport) -> bool {
    task.methods.iter().any(|method| method.row.is_some())
}

pub(super) fn anchor(task: &TaskReport) -> String {
    format!("task-{}", crate::svg::slug(&task.task))
}

/// `line`: which colour stands for the method, where there is a plot beside the table.
fn method_cell(method: &MethodReport, line: Option<usize>) -> Markup {
    html! {
        th scope="row" title=(method.summary) {
            @if let Some(line) = line {
                svg.swatch width="14" height="10" aria-hidden="true" {
                    rect width="14" height="4" y="3" rx="2" class=(line_colour(line).fill()) {}
                }
            }
            (method.method)
            @if method.control { " " span.badge { "control" } }
        }
    }
}

fn nothing() -> Markup {
    html! { td.none { "–" } }
}

fn auc_cell(row: Option<&SummaryRow>, best: f64) -> Markup {
    let Some(row) = row else {
        return nothing();
    };
    let is_best = row.node_auc.mean == best;
    let note = format!("not clearly above {}", row.not_above.join(", "));
    html! {
        @if row.not_above.is_empty() {
            td.auc.best[is_best] { (spread(row.node_auc, row.seeds)) }
        } @else {
            td.auc.lost.best[is_best] title=(note) {
                (spread(row.node_auc, row.seeds))
                span.flag role="img" aria-label=(note) { " ▼" }
            }
        }
    }
}

fn best(task: &TaskReport) -> f64 {
    let rows = task.methods.iter().filter_map(|method| method.row.as_ref());
    rows.map(|row| row.node_auc.mean)
        .fold(f64::NEG_INFINITY, f64::max)
}

fn spread(value: Spread, seeds: usize) -> Markup {
    html! {
        (format!("{:.3}", value.mean))
        @if seeds > 1 { " " small { (format!("± {:.3}", value.std)) } }
    }
}

/// Columns and rows of words, the first cell of a row its heading.
pub(super) fn of_words(columns: &[String], rows: &[Vec<String>]) -> Markup {
    html! {
        div.scroll tabindex="0" {
            table {
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (at, cell) in row.iter().enumerate() {
                                @if at == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
