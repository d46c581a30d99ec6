//! The tables of the page.

use circuitscope_measures::{Spread, SummaryRow};

use crate::svg::{escape, line_class};
use crate::{MethodReport, TaskReport, number};

/// Heads listed by rank.
const RANKS: usize = 15;

/// Methods × tasks, each cell the node AUC. A method that does not exceed a control is marked.
pub(super) fn overview(tasks: &[TaskReport]) -> String {
    let judged: Vec<&TaskReport> = tasks.iter().filter(|task| is_judged(task)).collect();
    if judged.is_empty() {
        return String::new();
    }
    let mut methods: Vec<&MethodReport> = Vec::new();
    for method in judged.iter().flat_map(|task| &task.methods) {
        if !methods.iter().any(|other| other.method == method.method) {
            methods.push(method);
        }
    }
    let mut html = String::from(
        "<div class=\"scroll\"><table class=\"overview\"><caption>Node AUC (trapezoid), mean ± standard \
         deviation over seeds</caption><thead><tr><th scope=\"col\">method</th>",
    );
    for task in &judged {
        let name = escape(&task.task);
        put!(
            html,
            "<th scope=\"col\"><a href=\"#{}\">{name}</a></th>",
            anchor(task)
        );
    }
    html.push_str("</tr></thead><tbody>");
    for method in methods {
        put!(
            html,
            "<tr{}>{}",
            row_class(method),
            method_cell(method, None)
        );
        for task in &judged {
            let row = task
                .methods
                .iter()
                .find(|other| other.method == method.method);
            html.push_str(&auc_cell(
                row.and_then(|method| method.row.as_ref()),
                best(task),
            ));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html.push_str(&verdict(&judged));
    html
}

/// One sentence for each method: on how many tasks it is no better than a control.
fn verdict(judged: &[&TaskReport]) -> String {
    let mut html = String::new();
    let mut seen: Vec<&str> = Vec::new();
    for method in judged
        .iter()
        .flat_map(|task| &task.methods)
        .filter(|method| !method.control)
    {
        if seen.contains(&method.method.as_str()) {
            continue;
        }
        seen.push(&method.method);
        let rows: Vec<&SummaryRow> = judged
            .iter()
            .flat_map(|task| &task.methods)
            .filter(|other| other.method == method.method)
            .filter_map(|other| other.row.as_ref())
            .collect();
        let lost: Vec<String> = rows
            .iter()
            .filter(|row| !row.not_above.is_empty())
            .map(|row| {
                format!(
                    "{} ({})",
                    escape(&row.task),
                    escape(&row.not_above.join(", "))
                )
            })
            .collect();
        let name = escape(&method.method);
        if lost.is_empty() {
            put!(
                html,
                "<li class=\"won\"><code>{name}</code> is clearly above every control on {}.</li>",
                if rows.len() == 1 {
                    "its one task".to_owned()
                } else {
                    format!("all {} tasks", rows.len())
                }
            );
        } else {
            put!(
                html,
                "<li class=\"lost\"><code>{name}</code> is not clearly above a control on {} of {} {}: {}.</li>",
                lost.len(),
                rows.len(),
                if rows.len() == 1 { "task" } else { "tasks" },
                lost.join("; ")
            );
        }
    }
    format!("<ul class=\"verdict\">{html}</ul>")
}

/// All measures of one task.
pub(super) fn measures(task: &TaskReport) -> String {
    if !is_judged(task) {
        return String::new();
    }
    let mut html =
        String::from("<div class=\"scroll\"><table><thead><tr><th scope=\"col\">method</th>");
    for (name, meaning) in [
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
            "Mean likeness of the circuits chosen on two half samples of the prompts: both over either",
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
    ] {
        let meaning = escape(meaning);
        put!(
            html,
            "<th scope=\"col\"><abbr title=\"{meaning}\">{name}</abbr></th>"
        );
    }
    html.push_str("</tr></thead><tbody>");
    for (index, method) in task.methods.iter().enumerate() {
        let Some(row) = &method.row else { continue };
        put!(
            html,
            "<tr{}>{}",
            row_class(method),
            method_cell(method, Some(index))
        );
        html.push_str(&auc_cell(Some(row), best(task)));
        let interval = row
            .node_interval
            .map(|interval| format!("{:.2} to {:.2}", interval.low, interval.high));
        let figure = |value: Option<f64>| value.map(|value| format!("{value:.2}"));
        for cell in [
            interval,
            figure(row.jaccard.map(|jaccard| jaccard.mean)),
            figure(row.node_cpr),
            figure(row.node_cmd),
        ] {
            match cell {
                Some(cell) => put!(html, "<td>{cell}</td>"),
                None => html.push_str("<td class=\"none\">–</td>"),
            }
        }
        for value in [
            Some(row.node_auc_pessimistic),
            Some(row.node_average_precision),
            Some(row.precision_at_size),
            Some(row.best_f1),
            Some(row.paper_f1),
            row.edge_auc,
            row.paper_edge_auc,
        ] {
            let value = value.map_or_else(
                || "<td class=\"none\">–</td>".to_owned(),
                |value| format!("<td>{}</td>", spread(value, row.seeds)),
            );
            html.push_str(&value);
        }
        put!(html, "<td>{} s</td></tr>", number(row.seconds.mean));
    }
    html.push_str("</tbody></table></div>");
    html
}

/// Heads by rank, one column for each method; marked heads stand out.
pub(super) fn ranks(task: &TaskReport) -> String {
    let shown = RANKS.min(task.grid.len());
    let mut html = String::from(
        "<div class=\"scroll\"><table class=\"ranks\"><thead><tr><th scope=\"col\">rank</th>",
    );
    let mut columns = Vec::new();
    for method in &task.methods {
        put!(html, "<th scope=\"col\">{}</th>", escape(&method.method));
        let mut order: Vec<_> = task
            .grid
            .heads()
            .zip(method.scores.iter().copied())
            .collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        columns.push(order);
    }
    html.push_str("</tr></thead><tbody>");
    for rank in 0..shown {
        put!(html, "<tr><th scope=\"row\">{}</th>", rank + 1);
        for column in &columns {
            let (head, score) = column[rank];
            let marked = task
                .truth
                .as_ref()
                .is_some_and(|truth| truth.contains(&head));
            let class = if marked { " class=\"true\"" } else { "" };
            let title = if marked {
                format!(" title=\"{}\"", escape(&task.marked))
            } else {
                String::new()
            };
            put!(
                html,
                "<td{class}{title}><span class=\"head\">{head}</span> <span class=\"score\">{}</span></td>",
                number(score)
            );
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

pub(super) fn is_judged(task: &TaskReport) -> bool {
    task.methods.iter().any(|method| method.row.is_some())
}

pub(super) fn anchor(task: &TaskReport) -> String {
    format!("task-{}", crate::svg::slug(&task.task))
}

fn row_class(method: &MethodReport) -> &'static str {
    if method.control {
        " class=\"control\""
    } else {
        ""
    }
}

/// `line`: which colour stands for the method, where there is a plot beside the table.
fn method_cell(method: &MethodReport, line: Option<usize>) -> String {
    let swatch = line.map_or_else(String::new, |line| {
        format!(
            "<svg class=\"swatch\" width=\"14\" height=\"10\" aria-hidden=\"true\"><rect width=\"14\" height=\"4\" y=\"3\" rx=\"2\" class=\"f-{}\"/></svg>",
            line_class(line)
        )
    });
    let badge = if method.control {
        " <span class=\"badge\">control</span>"
    } else {
        ""
    };
    format!(
        "<th scope=\"row\" title=\"{}\">{swatch}{}{badge}</th>",
        escape(&method.summary),
        escape(&method.method)
    )
}

fn auc_cell(row: Option<&SummaryRow>, best: f64) -> String {
    let Some(row) = row else {
        return "<td class=\"none\">–</td>".to_owned();
    };
    let value = spread(row.node_auc, row.seeds);
    let mut class = String::new();
    if row.node_auc.mean == best {
        class.push_str(" best");
    }
    if row.not_above.is_empty() {
        return format!("<td class=\"auc{class}\">{value}</td>");
    }
    let note = format!("not clearly above {}", row.not_above.join(", "));
    format!(
        "<td class=\"auc lost{class}\" title=\"{0}\">{value}<span class=\"flag\" role=\"img\" aria-label=\"{0}\"> ▼</span></td>",
        escape(&note)
    )
}

fn best(task: &TaskReport) -> f64 {
    let rows = task.methods.iter().filter_map(|method| method.row.as_ref());
    rows.map(|row| row.node_auc.mean)
        .fold(f64::NEG_INFINITY, f64::max)
}

fn spread(value: Spread, seeds: usize) -> String {
    if seeds > 1 {
        format!("{:.3} <small>± {:.3}</small>", value.mean, value.std)
    } else {
        format!("{:.3}", value.mean)
    }
}
