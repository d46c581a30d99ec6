//! What `eval` and `report` print of results: for each task what they come to, then a table.

use std::path::Path;

use circuitscope::Results;
use circuitscope::measures::{Spread, SummaryRow};
use circuitscope::score::stats::Interval;

use super::cross_task;
use crate::output::{count, table, width, wrapped};

/// What stands where there is no figure.
const NONE: &str = "–";

/// A line for each task that says what it comes to, its table and what the controls leave open; and where the page is.
pub(crate) fn results_text(results: &Results, page: &Path) -> String {
    let width = width();
    let rows = &results.summary;
    let mut tasks: Vec<&str> = Vec::new();
    for row in rows {
        if !tasks.contains(&row.task.as_str()) {
            tasks.push(&row.task);
        }
    }
    let (columns, left_out) = fitting(rows, width);
    let mut text = String::new();
    for task in tasks {
        let of_task: Vec<&SummaryRow> = rows.iter().filter(|row| row.task == task).collect();
        text.push_str(&wrapped(&verdict(task, &of_task), width - 2).join("\n  "));
        text.push('\n');
        let cells: Vec<Vec<String>> = of_task
            .iter()
            .map(|row| columns.iter().map(|column| column.cell(row)).collect())
            .collect();
        let header: Vec<&str> = columns.iter().map(|column| column.title()).collect();
        text.push_str(&table(&header, &cells));
        for note in notes(&of_task, width) {
            text.push_str(&note);
            text.push('\n');
        }
        text.push('\n');
    }
    let seeds = rows.first().map_or(0, |row| row.seeds);
    text.push_str(&wrapped(&legend(seeds, &columns, &left_out), width).join("\n"));
    text.push('\n');
    text.push_str(&cross_task::text(&results.cross_task));
    format!("{text}\nreport: {}", page.display())
}

/// `ioi: best: hisp 1.000; best control: mean-difference 0.980; clearly above every control: hisp`
fn verdict(task: &str, rows: &[&SummaryRow]) -> String {
    let best = |control: bool| {
        let of_kind = rows.iter().filter(|row| row.control == control);
        let best = of_kind.max_by(|a, b| {
            // The first of equals: they stand in the order of the table.
            let order = a.node_auc.mean.total_cmp(&b.node_auc.mean);
            order.then(std::cmp::Ordering::Greater)
        });
        best.map(|row| format!("{} {:.3}", row.method, row.node_auc.mean))
    };
    let above = || {
        let methods = rows.iter().filter(|row| !row.control);
        let above = methods.filter(|row| row.not_above.is_empty());
        let above: Vec<&str> = above.map(|row| row.method.as_str()).collect();
        match above.as_slice() {
            [] => "no method is clearly above every control".to_owned(),
            above => format!("clearly above every control: {}", above.join(", ")),
        }
    };
    let control = best(true);
    let of_controls = control.as_ref().map_or_else(
        || "no control was run".to_owned(),
        |control| format!("best control: {control}"),
    );
    match (best(false), control) {
        (None, _) => format!("{task}: {of_controls}"),
        (Some(method), None) => format!("{task}: best: {method}; {of_controls}"),
        (Some(method), Some(_)) => format!("{task}: best: {method}; {of_controls}; {}", above()),
    }
}

/// What the methods of a task are not clearly above, a line each that fits.
fn notes(rows: &[&SummaryRow], width: usize) -> Vec<String> {
    let controls = rows.iter().filter(|row| row.control).count();
    let beaten = || rows.iter().filter(|row| !row.not_above.is_empty());
    let compared = || beaten().filter(|row| row.node_interval.is_some());
    let names = |rows: &mut dyn Iterator<Item = &&SummaryRow>| -> Vec<String> {
        rows.map(|row| row.method.clone()).collect()
    };
    let mut notes = Vec::new();
    let mut say = |what: String, names: &[String]| {
        if !names.is_empty() {
            notes.push(folded(&what, names, width));
        }
    };
    let of_none = |row: &&&SummaryRow| row.not_above.len() == controls;
    let above_none = names(&mut compared().filter(of_none));
    say(
        "note: not clearly above any control:".to_owned(),
        &above_none,
    );
    for row in compared().filter(|row| !of_none(row)) {
        say(
            format!("note: {} is not clearly above", row.method),
            &row.not_above,
        );
    }
    let alone = names(&mut beaten().filter(|row| row.node_interval.is_none()));
    say(
        "note: without an interval and not compared with controls:".to_owned(),
        &alone,
    );
    notes
}

/// As many names as fit in a line, and how many more there are.
fn folded(what: &str, names: &[String], width: usize) -> String {
    let whole = format!("{what} {}", names.join(", "));
    if whole.chars().count() <= width || names.len() < 2 {
        return whole;
    }
    let line = |shown: usize| {
        let names_shown = names[..shown].join(", ");
        format!("{what} {names_shown} and {} more", names.len() - shown)
    };
    let fits = |shown: &usize| line(*shown).chars().count() <= width;
    line((1..names.len()).rev().find(fits).unwrap_or(1))
}

/// A column of the table, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Method,
    NodeAuc,
    NodeInterval,
    EdgeAuc,
    EdgeInterval,
    PaperEdgeAuc,
    BestF1,
    Jaccard,
    Cpr,
    Cmd,
    Accuracy,
    Time,
}

impl Column {
    const ALL: [Self; 12] = [
        Self::Method,
        Self::NodeAuc,
        Self::NodeInterval,
        Self::EdgeAuc,
        Self::EdgeInterval,
        Self::PaperEdgeAuc,
        Self::BestF1,
        Self::Jaccard,
        Self::Cpr,
        Self::Cmd,
        Self::Accuracy,
        Self::Time,
    ];

    /// Those that go where there is no room, the first one first.
    const DISPENSABLE: [Self; 9] = [
        Self::PaperEdgeAuc,
        Self::Accuracy,
        Self::Jaccard,
        Self::EdgeInterval,
        Self::BestF1,
        Self::Cmd,
        Self::Time,
        Self::Cpr,
        Self::EdgeAuc,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Method => "method [control]",
            Self::NodeAuc => "node AUC",
            Self::NodeInterval | Self::EdgeInterval => "95 %",
            Self::EdgeAuc => "edge AUC",
            Self::PaperEdgeAuc => "paper's edge AUC",
            Self::BestF1 => "best F1",
            Self::Jaccard => "Jaccard",
            Self::Cpr => "CPR",
            Self::Cmd => "CMD",
            Self::Accuracy => "accuracy",
            Self::Time => "time",
        }
    }

    fn cell(self, row: &SummaryRow) -> String {
        let none = || NONE.to_owned();
        let spread = |x: Spread| format!("{:.3} ± {:.3}", x.mean, x.std);
        let range = |x: Interval| format!("{:.2} to {:.2}", x.low, x.high);
        let figure = |x: f64| format!("{x:.2}");
        match self {
            Self::Method if row.control => format!("[{}]", row.method),
            Self::Method => row.method.clone(),
            Self::NodeAuc => spread(row.node_auc),
            Self::NodeInterval => row.node_interval.map_or_else(none, range),
            Self::EdgeAuc => row.edge_auc.map_or_else(none, spread),
            Self::EdgeInterval => row.edge_interval.map_or_else(none, range),
            Self::PaperEdgeAuc => row.paper_edge_auc.map_or_else(none, spread),
            Self::BestF1 => format!("{:.3}", row.best_f1.mean),
            Self::Jaccard => row.jaccard_text().unwrap_or_else(none),
            Self::Cpr => row.node_cpr.map_or_else(none, figure),
            Self::Cmd => row.node_cmd.map_or_else(none, figure),
            Self::Accuracy => row.node_accuracy_area.map_or_else(none, figure),
            Self::Time => format!("{:.2} s", row.seconds.mean),
        }
    }

    /// Characters that it takes.
    fn width(self, rows: &[SummaryRow]) -> usize {
        let cells = rows.iter().map(|row| self.cell(row).chars().count());
        cells.chain([self.title().len()]).max().unwrap_or(0)
    }
}

/// The columns that say something and fit, and those for which there is no room.
fn fitting(rows: &[SummaryRow], width: usize) -> (Vec<Column>, Vec<Column>) {
    let says = |column: &Column| rows.iter().any(|row| column.cell(row) != NONE);
    let mut columns: Vec<Column> = Column::ALL.into_iter().filter(says).collect();
    let mut left_out = Vec::new();
    let taken = |columns: &[Column]| {
        let cells: usize = columns.iter().map(|column| column.width(rows)).sum();
        cells + 2 * columns.len().saturating_sub(1)
    };
    for column in Column::DISPENSABLE {
        if taken(&columns) <= width {
            break;
        }
        let before = columns.len();
        columns.retain(|other| *other != column);
        if columns.len() < before {
            left_out.push(column);
        }
    }
    (columns, left_out)
}

/// What the columns are.
fn legend(seeds: usize, columns: &[Column], left_out: &[Column]) -> String {
    let has = |column| columns.contains(&column);
    let mut parts = vec![
        format!("mean ± standard deviation over {}", count(seeds, "seed")),
        "95 %: from half samples of the prompts".to_owned(),
    ];
    if has(Column::Jaccard) {
        parts.push(
            "Jaccard: likeness of the circuits chosen on them, in brackets that of random ones"
                .to_owned(),
        );
    }
    if has(Column::PaperEdgeAuc) {
        parts.push("the paper's edge AUC judges heads, not edges".to_owned());
    }
    if has(Column::Cpr) {
        parts.push(
            "CPR, CMD, accuracy: of circuits of growing size, everything else ablated, on the first seed"
                .to_owned(),
        );
    }
    if !left_out.is_empty() {
        let titles = left_out.iter().map(|column| match column {
            Column::EdgeInterval => "95 % of the edge AUC",
            column => column.title(),
        });
        let titles: Vec<&str> = titles.collect();
        parts.push(format!(
            "in the JSON and on the page, not here for want of room: {}",
            titles.join(", ")
        ));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(method: &str, control: bool, auc: f64, not_above: &[&str]) -> SummaryRow {
        let spread = |mean: f64| json!({ "mean": mean, "std": 0.0 });
        let row = json!({
            "task": "ioi", "method": method, "control": control, "seeds": 3, "node_auc": spread(auc),
            "node_auc_pessimistic": spread(auc), "node_average_precision": spread(auc),
            "precision_at_size": spread(auc), "edge_auc": spread(auc), "paper_edge_auc": spread(auc),
            "best_f1": spread(auc), "paper_f1": spread(auc), "seconds": spread(1.0),
            "node_interval": { "low": 0.5, "high": 1.0, "level": 0.95 }, "not_above": not_above,
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_task_is_summed_up_in_a_line() {
        let rows = [
            row("hisp", false, 0.98, &[]),
            row("sae", false, 0.84, &["mean-difference"]),
            row("mean-difference", true, 0.9, &[]),
            row("random", true, 0.5, &[]),
        ];
        let all: Vec<&SummaryRow> = rows.iter().collect();
        assert_eq!(
            verdict("ioi", &all),
            "ioi: best: hisp 0.980; best control: mean-difference 0.900; clearly above every control: hisp"
        );
        assert_eq!(
            verdict("ioi", &all[1..]),
            "ioi: best: sae 0.840; best control: mean-difference 0.900; no method is clearly above every control"
        );
        assert_eq!(
            verdict("ioi", &all[..2]),
            "ioi: best: hisp 0.980; no control was run"
        );
        assert_eq!(
            verdict("ioi", &all[2..]),
            "ioi: best control: mean-difference 0.900"
        );
        assert_eq!(
            notes(&all, 100),
            ["note: sae is not clearly above mean-difference"]
        );
        let neither = [
            row("sae", false, 0.4, &["random"]),
            row("untrained", false, 0.4, &["random"]),
            row("random", true, 0.5, &[]),
        ];
        let neither: Vec<&SummaryRow> = neither.iter().collect();
        assert_eq!(
            notes(&neither, 100),
            ["note: not clearly above any control: sae, untrained"]
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let rows = [
            row("recommended-activations", false, 0.98, &[]),
            row("random", true, 0.5, &[]),
        ];
        let (columns, left_out) = fitting(&rows, 200);
        assert!(left_out.is_empty());
        assert!(!columns.contains(&Column::Cpr), "nothing was run");
        for width in [60, 80, 100] {
            let (columns, left_out) = fitting(&rows, width);
            let taken: usize = columns.iter().map(|column| column.width(&rows) + 2).sum();
            assert!(taken - 2 <= width, "{width}: {columns:?}");
            assert_eq!(left_out.first(), Some(&Column::PaperEdgeAuc));
        }
        let names: Vec<String> = (0..30).map(|at| format!("control-{at}")).collect();
        let line = folded("note: sae is not clearly above", &names, 100);
        assert!(line.chars().count() <= 100, "{line}");
        assert!(line.ends_with(" more"), "{line}");
        assert_eq!(folded("note:", &names[..1], 3), "note: control-0");
    }
}
