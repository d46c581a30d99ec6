//! The head map: a cell for each head, layers downwards, heads to the right.

use plotters::prelude::*;

use crate::svg::{
    Drawing, HEAT, HPos, Hint, INK, MARK, MUTED, ON_HEAT, UNIT, VPos, drawing, slug, text,
};
use crate::{MethodReport, Result, TaskReport, number};

const LEFT: i32 = 34;
const TOP: i32 = 62;
const BOTTOM: i32 = 44;
const RIGHT: i32 = 10;
const GAP: i32 = 3;

/// The least share of full colour, so that a cell of score 0 is seen.
const FAINT: f64 = 0.07;

/// Up to this share of full colour, ink reads better on it than white does.
const INK_UP_TO: f64 = 0.7;

pub(super) fn draw(task: &TaskReport, method: &MethodReport) -> Result<Drawing> {
    let grid = task.grid;
    let (rows, columns) = (grid.n_layers as i32, grid.n_heads as i32);
    let cell = (304 / columns.max(1)).clamp(12, 38);
    let width = (LEFT + columns * cell + RIGHT).max(250);
    let height = TOP + rows * cell + BOTTOM;
    let marked: Vec<bool> = grid
        .heads()
        .map(|head| {
            task.truth
                .as_ref()
                .is_some_and(|truth| truth.contains(&head))
        })
        .collect();
    let finite = method
        .scores
        .iter()
        .copied()
        .filter(|score| score.is_finite());
    let highest = finite.clone().fold(f64::NEG_INFINITY, f64::max).max(0.0);
    let lowest = finite.fold(f64::INFINITY, f64::min).min(0.0);
    let share = |score: f64| {
        let span = highest - lowest;
        if span > 0.0 {
            ((score - lowest) / span).clamp(0.0, 1.0)
        } else {
            0.0
        }
    };
    let heat = |share: f64| HEAT.mix(((FAINT + (1.0 - FAINT) * share) * 1000.0).round() / 1000.0);
    let description = format!(
        "Scores of method {} for each head on task {}; {}",
        method.method,
        task.task,
        match &task.truth {
            Some(truth) => format!("{} heads are outlined: {}", truth.len(), task.marked),
            None => "no head is outlined".to_owned(),
        }
    );
    let file_name = format!("heads-{}-{}.svg", slug(&task.task), slug(&method.method));
    drawing(
        file_name,
        &description,
        (width.unsigned_abs(), height.unsigned_abs()),
        |area| {
            let at = |x: i32, y: i32| (x * UNIT, y * UNIT);
            let write = |words: &str, size, colour, (h, v), (x, y)| {
                area.draw(&Text::new(
                    words.to_owned(),
                    at(x, y),
                    text(size, colour, h, v),
                ))
            };
            write(
                &method.method,
                15,
                INK,
                (HPos::Left, VPos::Center),
                (LEFT, 14),
            )?;
            write(
                &subtitle(task, method),
                12,
                MUTED,
                (HPos::Left, VPos::Center),
                (LEFT, 32),
            )?;

            let every = if cell < 18 { 5 } else { 1 };
            for column in (0..columns).step_by(every) {
                let x = LEFT + column * cell + (cell - GAP) / 2;
                write(
                    &column.to_string(),
                    11,
                    MUTED,
                    (HPos::Center, VPos::Center),
                    (x, TOP - 9),
                )?;
            }
            for row in (0..rows).step_by(if cell < 15 { 5 } else { 1 }) {
                let y = TOP + row * cell + (cell - GAP) / 2;
                write(
                    &format!("L{row}"),
                    11,
                    MUTED,
                    (HPos::Right, VPos::Center),
                    (LEFT - 7, y),
                )?;
            }

            let mut hints = Vec::new();
            for (index, (head, &score)) in grid.heads().zip(&method.scores).enumerate() {
                let (x, y) = (
                    LEFT + head.head as i32 * cell,
                    TOP + head.layer as i32 * cell,
                );
                let side = cell - GAP;
                let share = share(score);
                area.draw(&Rectangle::new(
                    [at(x, y), at(x + side, y + side)],
                    heat(share).filled(),
                ))?;
                if cell >= 25 {
                    let colour = if share > INK_UP_TO { ON_HEAT } else { INK };
                    let centre = (x + side / 2, y + side / 2);
                    let size = if cell >= 36 {
                        11
                    } else if cell >= 28 {
                        9
                    } else {
                        8
                    };
                    write(
                        &number(score),
                        size,
                        colour,
                        (HPos::Center, VPos::Center),
                        centre,
                    )?;
                }
                if marked[index] {
                    let (low, high) = (at(x - 1, y - 1), at(x + side + 1, y + side + 1));
                    let around = outline(low, high);
                    let pen = if cell >= 20 { 5 } else { 4 };
                    area.draw(&PathElement::new(
                        around,
                        MARK.stroke_width((pen * UNIT / 2).unsigned_abs()),
                    ))?;
                }
                let mut note = if marked[index] {
                    format!(", {}", task.marked)
                } else {
                    String::new()
                };
                if task.chosen.contains(&head) {
                    note.push_str(", chosen");
                    dot(area, (x + side, y), side)?;
                }
                let ((x, y), side) = (at(x, y), side * UNIT);
                hints.push(Hint {
                shape: format!(
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" fill=\"#000\" fill-opacity=\"0\""
                ),
                text: format!("{head}: {}{note}", number(score)),
            });
            }

            // The scale, from the lowest score to the highest.
            let (y, steps, step) = (TOP + rows * cell + 12, 30, 3);
            for at_step in 0..steps {
                let x = LEFT + at_step * step;
                let share = f64::from(at_step) / f64::from(steps - 1);
                area.draw(&Rectangle::new(
                    [at(x, y), at(x + step, y + 8)],
                    heat(share).filled(),
                ))?;
            }
            let ends = [
                (number(lowest), HPos::Left, LEFT),
                (number(highest), HPos::Right, LEFT + steps * step),
            ];
            for (label, side, x) in ends {
                write(&label, 11, MUTED, (side, VPos::Center), (x, y + 18))?;
            }
            if task.truth.is_some() {
                let x = LEFT + steps * step + 22;
                let (low, high) = (at(x, y - 1), at(x + 10, y + 9));
                let around = outline(low, high);
                area.draw(&PathElement::new(
                    around,
                    MARK.stroke_width((2 * UNIT).unsigned_abs()),
                ))?;
                write(
                    &task.marked,
                    11,
                    MUTED,
                    (HPos::Left, VPos::Center),
                    (x + 17, y + 4),
                )?;
                if !task.chosen.is_empty() {
                    dot(area, (x + 11, y + 14), 12)?;
                    write(
                        "chosen",
                        11,
                        MUTED,
                        (HPos::Left, VPos::Center),
                        (x + 17, y + 18),
                    )?;
                }
            }
            Ok(hints)
        },
    )
}

/// A dot in the upper right corner of a cell of this size, on ground of its own.
fn dot<D: DrawingBackend>(
    area: &DrawingArea<D, plotters::coord::Shift>,
    corner: (i32, i32),
    side: i32,
) -> Result<(), DrawingAreaErrorKind<D::ErrorType>> {
    let radius = (side * UNIT / 7).max(2 * UNIT);
    let centre = (corner.0 * UNIT - radius, corner.1 * UNIT + radius);
    area.draw(&Circle::new(centre, radius, ON_HEAT.filled()))?;
    area.draw(&Circle::new(centre, radius * 3 / 4, MARK.filled()))
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

/// The corners of a rectangle, one side drawn twice so that the line closes.
fn outline(low: (i32, i32), high: (i32, i32)) -> Vec<(i32, i32)> {
    let (right, left) = ((high.0, low.1), (low.0, high.1));
    vec![low, right, high, left, low, right]
}
