//! The ROC curves of all methods on one task.

use plotters::prelude::*;

use crate::svg::{
    Drawing, GRID, HPos, Hint, INK, MUTED, UNIT, VPos, curve_class, drawing, line_colour,
    line_round, slug, text,
};
use crate::{MethodReport, Result, TaskReport};

/// Side of the square in which curves run, its left and upper edge, and the size of all.
const SIDE: i32 = 360;
const LEFT: i32 = 52;
const TOP: i32 = 34;
const SIZE: (u32, u32) = (720, 450);

/// Dashes in units, as often as the colours start again: methods are drawn through, or nearly so.
const METHOD_DASHES: [Option<&str>; 4] = [
    None,
    Some("160 28"),
    Some("160 28 28 28"),
    Some("160 28 28 28 28 28"),
];
const CONTROL_DASHES: [&str; 4] = ["56 36", "16 24", "56 24 16 24", "56 24 16 24 16 24"];

pub(super) fn draw(task: &TaskReport) -> Result<Drawing> {
    let judged: Vec<(usize, &MethodReport)> = task
        .methods
        .iter()
        .enumerate()
        .filter(|(_, method)| !method.curve.is_empty())
        .collect();
    let names: Vec<String> = judged.iter().map(|(_, method)| label(method)).collect();
    let description = format!(
        "ROC curves of heads on task {}; area under each: {}",
        task.task,
        names.join(", ")
    );
    let file_name = format!("roc-{}.svg", slug(&task.task));
    // The list of methods may be longer than the square is high.
    let list = (TOP + 30 + 24 * (judged.len() as i32 + 1)).unsigned_abs();
    let size = (SIZE.0, SIZE.1.max(list));
    let mut drawn = drawing(file_name, &description, size, |area| {
        let at = |x: i32, y: i32| (x * UNIT, y * UNIT);
        let place = |x: f64, y: f64| {
            let along = |value: f64| (value * f64::from(SIDE * UNIT)).round() as i32;
            (LEFT * UNIT + along(x), (TOP + SIDE) * UNIT - along(y))
        };
        let write = |words: &str, size, colour, (h, v), (x, y)| {
            area.draw(&Text::new(
                words.to_owned(),
                at(x, y),
                text(size, colour, h, v),
            ))
        };
        let title = format!("{} · heads against {}", task.task, truth_name(task));
        write(&title, 15, INK, (HPos::Left, VPos::Center), (LEFT, 14))?;
        for fifth in 0..=5 {
            let value = f64::from(fifth) / 5.0;
            let (across, up) = (place(value, 0.0), place(0.0, value));
            let thin = GRID.stroke_width(UNIT.unsigned_abs());
            area.draw(&PathElement::new(vec![across, place(value, 1.0)], thin))?;
            area.draw(&PathElement::new(vec![up, place(1.0, value)], thin))?;
            let (x, y) = (across.0 / UNIT, up.1 / UNIT);
            let words = format!("{value:.1}");
            write(
                &words,
                11,
                MUTED,
                (HPos::Center, VPos::Center),
                (x, TOP + SIDE + 13),
            )?;
            write(
                &words,
                11,
                MUTED,
                (HPos::Right, VPos::Center),
                (LEFT - 7, y),
            )?;
        }
        let middle = LEFT + SIDE / 2;
        let below = (middle, TOP + SIDE + 33);
        write(
            "false positive rate",
            12,
            INK,
            (HPos::Center, VPos::Center),
            below,
        )?;
        let upright = text(12, INK, HPos::Center, VPos::Center).transform(FontTransform::Rotate270);
        let beside = at(13, TOP + SIDE / 2);
        area.draw(&Text::new("true positive rate", beside, upright))?;
        area.draw(&PathElement::new(
            vec![place(0.0, 0.0), place(1.0, 1.0)],
            MUTED.stroke_width(UNIT.unsigned_abs()),
        ))?;

        let mut hints = Vec::new();
        // Controls first, so that methods lie above them.
        let (controls, methods): (Vec<_>, Vec<_>) = judged
            .iter()
            .zip(&names)
            .partition(|((_, method), _)| method.control);
        for ((index, method), name) in controls.into_iter().chain(methods) {
            let points: Vec<_> = method.curve.iter().map(|&(x, y)| place(x, y)).collect();
            let pen = if method.control { 16 } else { 22 };
            let colour = line_colour(*index).stroke_width(pen);
            let written: Vec<_> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
            area.draw(&PathElement::new(points, colour))?;
            hints.push(Hint {
                shape: format!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"#000\" stroke-opacity=\"0\" stroke-width=\"{}\"",
                    written.join(" "),
                    10 * UNIT
                ),
                text: name.clone(),
            });
        }

        let x = LEFT + SIDE + 24;
        let best_first = {
            let mut order: Vec<usize> = (0..judged.len()).collect();
            order.sort_by(|&a, &b| area_of(judged[b].1).total_cmp(&area_of(judged[a].1)));
            order
        };
        write(
            "area under the curve",
            12,
            MUTED,
            (HPos::Left, VPos::Center),
            (x, TOP + 6),
        )?;
        for (line, which) in (0i32..).zip(best_first) {
            let (index, method) = judged[which];
            let y = TOP + 30 + 24 * line;
            let pen = if method.control { 16 } else { 26 };
            let colour = line_colour(index).stroke_width(pen);
            area.draw(&PathElement::new(vec![at(x, y), at(x + 26, y)], colour))?;
            write(
                &method.method,
                13,
                INK,
                (HPos::Left, VPos::Center),
                (x + 36, y),
            )?;
            let figure = figure(method);
            write(
                &figure,
                13,
                INK,
                (HPos::Right, VPos::Center),
                (SIZE.0 as i32 - 6, y),
            )?;
        }
        let note = (x, TOP + 30 + 24 * judged.len() as i32 + 4);
        write(
            "short dashes: control",
            12,
            MUTED,
            (HPos::Left, VPos::Center),
            note,
        )?;
        Ok(hints)
    })?;
    for (index, method) in &judged {
        let round = line_round(*index);
        let dashes = if method.control {
            Some(CONTROL_DASHES[round])
        } else {
            METHOD_DASHES[round]
        };
        if let Some(dashes) = dashes {
            drawn.dash(&curve_class(*index), dashes);
        }
    }
    drawn.round_lines();
    Ok(drawn)
}

fn truth_name(task: &TaskReport) -> String {
    if task.truth_name.is_empty() {
        "the known circuit".to_owned()
    } else {
        format!("the known circuit ({})", task.truth_name)
    }
}

fn area_of(method: &MethodReport) -> f64 {
    method
        .row
        .as_ref()
        .map_or(f64::NEG_INFINITY, |row| row.node_auc.mean)
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
