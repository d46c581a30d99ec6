//! The head map: a cell for each head, layers downwards, heads to the right.

use maud::{Markup, html};

use crate::svg::Anchor::{End, Middle, Start};
use crate::svg::{
    Drawing, HEAT, INK, MARK, MUTED, ON_HEAT, Pen, Point, cell, dot, frame, hinted, slug, text,
};
use crate::{MethodReport, TaskReport, number};

const LEFT: f64 = 34.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 44.0;
const RIGHT: f64 = 10.0;
const GAP: f64 = 3.0;

/// The least share of full colour, so that a cell of score 0 is seen.
const FAINT: f64 = 0.07;

/// Up to this share of full colour, ink reads better on it than white does.
const INK_UP_TO: f64 = 0.7;

pub(super) fn draw(task: &TaskReport, method: &MethodReport) -> Drawing {
    let grid = task.grid;
    let size = (304 / grid.n_heads.max(1)).clamp(12, 38);
    // Small cells have fewer names beside them.
    let every = |least: usize| if size < least { 5 } else { 1 };
    let size = size as f64;
    let width = (LEFT + grid.n_heads as f64 * size + RIGHT).max(250.0);
    let below = TOP + grid.n_layers as f64 * size;
    let middle = |at: usize| at as f64 * size + (size - GAP) / 2.0;
    let span = Span::of(&method.scores);
    let outlined = match &task.truth {
        Some(truth) => format!("{} heads are outlined: {}", truth.len(), task.marked),
        None => "no head is outlined".to_owned(),
    };
    let shapes = html! {
        (text(&method.method, (LEFT, 14.0), 12.0, INK, Start))
        (text(&subtitle(task, method), (LEFT, 32.0), 9.7, MUTED, Start))
        @for column in (0..grid.n_heads).step_by(every(18)) {
            (text(&column.to_string(), (LEFT + middle(column), TOP - 9.0), 8.9, MUTED, Middle))
        }
        @for row in (0..grid.n_layers).step_by(every(15)) {
            (text(&format!("L{row}"), (LEFT - 7.0, TOP + middle(row)), 8.9, MUTED, End))
        }
        @for (head, &score) in grid.heads().zip(&method.scores) {
            @let corner = (LEFT + head.head as f64 * size, TOP + head.layer as f64 * size);
            (hinted(
                &format!("{head}: {}{}", number(score), task.marks_of(head)),
                &html! {
                    (scored(corner, size, score, span.share(score)))
                    @if task.is_marked(head) { (outline(corner, size)) }
                    @if task.chosen.contains(&head) { (corner_dot(corner, size - GAP)) }
                },
            ))
        }
        (scale(span, below + 12.0))
        @if task.truth.is_some() { (legend(task, (LEFT + 112.0, below + 12.0))) }
    };
    Drawing {
        file_name: format!("heads-{}-{}.svg", slug(&task.task), slug(&method.method)),
        description: format!(
            "Scores of method {} for each head on task {}; {outlined}",
            method.method, task.task
        ),
        size: (width, below + BOTTOM),
        shapes,
    }
}

/// The lowest and the highest score, 0 included.
#[derive(Clone, Copy)]
struct Span {
    lowest: f64,
    highest: f64,
}

impl Span {
    fn of(scores: &[f64]) -> Self {
        let finite = scores.iter().copied().filter(|score| score.is_finite());
        Self {
            lowest: finite.clone().fold(0.0, f64::min),
            highest: finite.fold(0.0, f64::max),
        }
    }

    /// How far up a score lies.
    fn share(self, score: f64) -> f64 {
        let span = self.highest - self.lowest;
        if span > 0.0 {
            ((score - self.lowest) / span).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

fn heat(corner: Point, size: Point, share: f64) -> Markup {
    cell(corner, size, HEAT, FAINT + (1.0 - FAINT) * share)
}

/// A cell with its score, where that fits in.
fn scored((x, y): Point, size: f64, score: f64, share: f64) -> Markup {
    let side = size - GAP;
    let letters = match size {
        36.0.. => Some(8.9),
        28.0.. => Some(7.3),
        25.0.. => Some(6.5),
        _ => None,
    };
    let colour = if share > INK_UP_TO { ON_HEAT } else { INK };
    html! {
        (heat((x, y), (side, side), share))
        @if let Some(letters) = letters {
            (text(&number(score), (x + side / 2.0, y + side / 2.0), letters, colour, Middle))
        }
    }
}

fn outline((x, y): Point, size: f64) -> Markup {
    let side = size - GAP + 2.0;
    let pen = if size >= 20.0 { 2.5 } else { 2.0 };
    frame((x - 1.0, y - 1.0), (side, side), Pen::new(MARK, pen))
}

/// In the upper right corner of a cell.
fn corner_dot((x, y): Point, side: f64) -> Markup {
    let radius = (side / 7.0).max(2.0);
    dot((x + side - radius, y + radius), radius)
}

/// From the lowest score to the highest.
fn scale(span: Span, y: f64) -> Markup {
    let (steps, step) = (30, 3.0);
    let right = LEFT + f64::from(steps) * step;
    html! {
        @for at in (0..steps).map(f64::from) {
            (heat((LEFT + at * step, y), (step, 8.0), at / f64::from(steps - 1)))
        }
        (text(&number(span.lowest), (LEFT, y + 18.0), 8.9, MUTED, Start))
        (text(&number(span.highest), (right, y + 18.0), 8.9, MUTED, End))
    }
}

/// What outlines and dots mean.
fn legend(task: &TaskReport, (x, y): Point) -> Markup {
    html! {
        (frame((x, y - 1.0), (10.0, 10.0), Pen::new(MARK, 2.0)))
        (text(&task.marked, (x + 17.0, y + 4.0), 8.9, MUTED, Start))
        @if !task.chosen.is_empty() {
            (dot((x + 5.0, y + 18.0), 3.0))
            (text("chosen", (x + 17.0, y + 18.0), 8.9, MUTED, Start))
        }
    }
}

/// What stands below the name of the method.
fn subtitle(task: &TaskReport, method: &MethodReport) -> String {
    let kind = if method.control { "control · " } else { "" };
    match &method.row {
        Some(row) => format!(
            "{kind}{} · AUC {:.2} ± {:.2}",
            task.task, row.node_auc.mean, row.node_auc.std
        ),
        None => format!("{kind}{}", task.task),
    }
}
