//! The ROC curves of all methods on one task.

use maud::{Markup, html};

use crate::svg::Anchor::{End, Middle, Start};
use crate::svg::{
    Drawing, GRID, INK, MUTED, Pen, Point, ROUNDS, hinted_line, line, line_colour, line_round,
    slug, text, upright,
};
use crate::{MethodReport, TaskReport};

/// Side of the square in which curves run, its left and upper edge, and the size of all.
const SIDE: f64 = 360.0;
const LEFT: f64 = 52.0;
const TOP: f64 = 34.0;
const SIZE: Point = (720.0, 450.0);

/// Dashes in pixels, as often as the colours start again: methods are drawn through, or nearly so.
const METHOD_DASHES: [Option<&str>; ROUNDS] = [
    None,
    Some("20 3.5"),
    Some("20 3.5 3.5 3.5"),
    Some("20 3.5 3.5 3.5 3.5 3.5"),
];
const CONTROL_DASHES: [Option<&str>; ROUNDS] = [
    Some("7 4.5"),
    Some("2 3"),
    Some("7 3 2 3"),
    Some("7 3 2 3 2 3"),
];

/// A method with its place among all of the task.
type Judged<'a> = (usize, &'a MethodReport);

/// `None` where no method has a curve.
pub(super) fn draw(task: &TaskReport) -> Option<Drawing> {
    let all = task.methods.iter().enumerate();
    let judged: Vec<Judged<'_>> = all.filter(|(_, method)| !method.curve.is_empty()).collect();
    if judged.is_empty() {
        return None;
    }
    let names: Vec<String> = judged.iter().map(|(_, method)| label(method)).collect();
    // Controls first, so that methods lie above them.
    let (controls, methods): (Vec<_>, Vec<_>) = judged
        .iter()
        .copied()
        .partition(|(_, method)| method.control);
    let known = if task.truth_name.is_empty() {
        "the known circuit".to_owned()
    } else {
        format!("the known circuit ({})", task.truth_name)
    };
    let shapes = html! {
        (text(&format!("{} · heads against {known}", task.task), (LEFT, 14.0), 12.1, INK, Start))
        (axes())
        @for (at, method) in controls.into_iter().chain(methods) {
            @let points: Vec<Point> = method.curve.iter().map(|&point| place(point)).collect();
            @let width = if method.control { 2.0 } else { 2.75 };
            (hinted_line(&label(method), &points, pen(at, method, width), 10.0))
        }
        (list(&judged))
    };
    // The list of methods may be longer than the square is high.
    let high = TOP + 30.0 + 24.0 * (judged.len() + 1) as f64;
    Some(Drawing {
        file_name: format!("roc-{}.svg", slug(&task.task)),
        description: format!(
            "ROC curves of heads on task {}; area under each: {}",
            task.task,
            names.join(", ")
        ),
        role: "img",
        size: (SIZE.0, SIZE.1.max(high)),
        shapes,
    })
}

/// Where a point of the unit square is.
fn place((x, y): (f64, f64)) -> Point {
    (LEFT + SIDE * x, TOP + SIDE * (1.0 - y))
}

fn pen(at: usize, method: &MethodReport, width: f64) -> Pen {
    let dashes = if method.control {
        CONTROL_DASHES
    } else {
        METHOD_DASHES
    };
    Pen::new(line_colour(at), width).dashed(dashes[line_round(at)])
}

/// The grid with its numbers, names of the axes, and the diagonal.
fn axes() -> Markup {
    let thin = Pen::new(GRID, 1.0);
    let middle = SIDE / 2.0;
    html! {
        @for value in (0..=5).map(|fifth| f64::from(fifth) / 5.0) {
            @let (across, up) = (place((value, 0.0)), place((0.0, value)));
            (line(&[across, place((value, 1.0))], thin))
            (line(&[up, place((1.0, value))], thin))
            @let words = format!("{value:.1}");
            (text(&words, (across.0, TOP + SIDE + 13.0), 8.9, MUTED, Middle))
            (text(&words, (LEFT - 7.0, up.1), 8.9, MUTED, End))
        }
        (text("false positive rate", (LEFT + middle, TOP + SIDE + 33.0), 9.7, INK, Middle))
        (upright("true positive rate", (13.0, TOP + middle), 9.7, INK))
        (line(&[place((0.0, 0.0)), place((1.0, 1.0))], Pen::new(MUTED, 1.0)))
    }
}

/// The methods with their areas, the largest first.
fn list(judged: &[Judged<'_>]) -> Markup {
    let area = |method: &MethodReport| {
        let row = method.row.as_ref();
        row.map_or(f64::NEG_INFINITY, |row| row.node_auc.mean)
    };
    let mut best_first = judged.to_vec();
    best_first.sort_by(|(_, a), (_, b)| area(b).total_cmp(&area(a)));
    let x = LEFT + SIDE + 24.0;
    let row = |at: usize| TOP + 30.0 + 24.0 * at as f64;
    html! {
        (text("area under the curve", (x, TOP + 6.0), 9.7, MUTED, Start))
        @for (place, (at, method)) in best_first.into_iter().enumerate() {
            @let y = row(place);
            @let width = if method.control { 2.0 } else { 3.25 };
            (line(&[(x, y), (x + 26.0, y)], pen(at, method, width)))
            (text(&method.method, (x + 36.0, y), 10.5, INK, Start))
            (text(&figure(method), (SIZE.0 - 6.0, y), 10.5, INK, End))
        }
        (text("short dashes: control", (x, row(judged.len()) + 4.0), 9.7, MUTED, Start))
    }
}

fn figure(method: &MethodReport) -> String {
    match &method.row {
        Some(row) if row.seeds > 1 => format!("{:.3} ± {:.3}", row.node_auc.mean, row.node_auc.std),
        Some(row) => format!("{:.3}", row.node_auc.mean),
        None => String::new(),
    }
}

fn label(method: &MethodReport) -> String {
    format!("{} {}", method.method, figure(method))
        .trim_end()
        .to_owned()
}
