//! What circuits of growing size keep: faithfulness over the share of heads, KL over the number of
//! edges.

use circuitscope_measures::{MIB_SIZES, Point};
use plotters::prelude::*;

use crate::svg::{
    Drawing, GRID, HPos, Hint, INK, MUTED, UNIT, VPos, curve_class, drawing, line_colour,
    line_round, slug, text,
};
use crate::{MethodReport, Result, TaskReport, number};

const SIDE: i32 = 300;
const LEFT: i32 = 52;
const GAP: i32 = 76;
const TOP: i32 = 34;

const DASHES: [Option<&str>; 4] = [None, Some("160 28"), Some("56 36"), Some("16 24")];

/// One panel: points of each method, and what the axes say.
struct Panel<'a> {
    title: &'a str,
    below: &'a str,
    /// Left edge.
    left: i32,
    /// Words under the ten places.
    places: [String; MIB_SIZES.len()],
    lowest: f64,
    highest: f64,
    lines: Vec<(usize, &'a MethodReport, Vec<f64>)>,
}

/// `None` where no method was measured.
pub(super) fn draw(task: &TaskReport) -> Result<Option<Drawing>> {
    let measured: Vec<(usize, &MethodReport)> = task
        .methods
        .iter()
        .enumerate()
        .filter(|(_, method)| method.faithfulness.is_some())
        .collect();
    if measured.is_empty() {
        return Ok(None);
    }
    let values = |points: &[Point], of: fn(&Point) -> f64| points.iter().map(of).collect();
    let heads: Vec<(usize, &MethodReport, Vec<f64>)> = measured
        .iter()
        .filter_map(|&(at, method)| {
            let curve = &method.faithfulness.as_ref()?.nodes;
            Some((
                at,
                method,
                values(&curve.signed, |point| point.faithfulness),
            ))
        })
        .collect();
    let edges: Vec<(usize, &MethodReport, Vec<f64>)> = measured
        .iter()
        .filter_map(|&(at, method)| {
            let curve = method.faithfulness.as_ref()?.edges.as_ref()?;
            Some((at, method, values(&curve.absolute, |point| point.kl)))
        })
        .collect();
    let all_edges = measured
        .iter()
        .find_map(|(_, method)| Some(method.faithfulness.as_ref()?.edges.as_ref()?.members));
    // Circuits may keep far more, or less, than the model does; the middle is what matters.
    let span = |lines: &[(usize, &MethodReport, Vec<f64>)], low: f64, high: f64| {
        let all = || {
            lines
                .iter()
                .flat_map(|(_, _, values)| values.iter().copied())
        };
        let lowest = all().fold(low, f64::min).max(-2.0);
        (lowest, all().fold(high, f64::max).min(low.max(high) + 3.0))
    };
    let (lowest, highest) = span(&heads, 0.0, 1.0);
    let (kl_low, kl_high) = span(&edges, 0.0, 0.1);
    let mut panels = vec![Panel {
        title: "faithfulness of circuits of heads",
        below: "share of heads kept",
        left: LEFT,
        places: MIB_SIZES.map(|share| format!("{}", share * 100.0) + "%"),
        lowest,
        highest,
        lines: heads,
    }];
    if let Some(members) = all_edges {
        panels.push(Panel {
            title: "KL from the model, circuits of edges",
            below: "edges kept",
            left: LEFT + SIDE + GAP,
            places: MIB_SIZES
                .map(|share| circuitscope_measures::circuit_size(share, members).to_string()),
            lowest: kl_low,
            highest: kl_high,
            lines: edges,
        });
    }
    let legend = panels.last().map_or(0, |panel| panel.left) + SIDE + 24;
    let height = (TOP + SIDE + 48).max(TOP + 22 * (measured.len() as i32 + 1));
    let size = (legend as u32 + 210, height as u32);
    let description = format!(
        "Circuits of growing size on task {}: faithfulness by share of heads, KL by number of edges",
        task.task
    );
    let file_name = format!("kept-{}.svg", slug(&task.task));
    let mut drawn = drawing(file_name, &description, size, |area| {
        let at = |x: i32, y: i32| (x * UNIT, y * UNIT);
        let write = |words: &str, size, colour, (h, v), (x, y)| {
            area.draw(&Text::new(
                words.to_owned(),
                at(x, y),
                text(size, colour, h, v),
            ))
        };
        let mut hints = Vec::new();
        for panel in &panels {
            let last = (MIB_SIZES.len() - 1) as i32;
            let x = |place: usize| panel.left * UNIT + SIDE * UNIT * place as i32 / last;
            let y = |value: f64| {
                let share = (value.clamp(panel.lowest, panel.highest) - panel.lowest)
                    / (panel.highest - panel.lowest);
                (TOP + SIDE) * UNIT - (share * f64::from(SIDE * UNIT)).round() as i32
            };
            write(
                panel.title,
                14,
                INK,
                (HPos::Left, VPos::Center),
                (panel.left, 14),
            )?;
            for (place, words) in panel.places.iter().enumerate() {
                let line = vec![(x(place), TOP * UNIT), (x(place), (TOP + SIDE) * UNIT)];
                area.draw(&PathElement::new(
                    line,
                    GRID.stroke_width(UNIT.unsigned_abs()),
                ))?;
                if place % 3 == 0 {
                    let below = (x(place) / UNIT, TOP + SIDE + 13);
                    write(words, 11, MUTED, (HPos::Center, VPos::Center), below)?;
                }
            }
            for fifth in 0..=5 {
                let value = panel.lowest + (panel.highest - panel.lowest) * f64::from(fifth) / 5.0;
                let line = vec![(x(0), y(value)), (x(MIB_SIZES.len() - 1), y(value))];
                area.draw(&PathElement::new(
                    line,
                    GRID.stroke_width(UNIT.unsigned_abs()),
                ))?;
                let beside = (panel.left - 7, y(value) / UNIT);
                let words = number((value * 100.0).round() / 100.0);
                write(&words, 11, MUTED, (HPos::Right, VPos::Center), beside)?;
            }
            let middle = (panel.left + SIDE / 2, TOP + SIDE + 33);
            write(panel.below, 12, INK, (HPos::Center, VPos::Center), middle)?;
            for (index, method, values) in &panel.lines {
                let points: Vec<_> = values
                    .iter()
                    .enumerate()
                    .map(|(place, &value)| (x(place), y(value)))
                    .collect();
                let written: Vec<_> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
                let pen = if method.control { 12 } else { 18 };
                let colour = line_colour(*index).stroke_width(pen);
                area.draw(&PathElement::new(points, colour))?;
                hints.push(Hint {
                    shape: format!(
                        "<polyline points=\"{}\" fill=\"none\" stroke=\"#000\" stroke-opacity=\"0\" stroke-width=\"{}\"",
                        written.join(" "),
                        8 * UNIT
                    ),
                    text: method.method.clone(),
                });
            }
        }
        for (line, (index, method)) in (0i32..).zip(&measured) {
            let y = TOP + 10 + 22 * line;
            let colour = line_colour(*index).stroke_width(20);
            area.draw(&PathElement::new(
                vec![at(legend, y), at(legend + 22, y)],
                colour,
            ))?;
            let beside = (legend + 30, y);
            write(&method.method, 12, INK, (HPos::Left, VPos::Center), beside)?;
        }
        Ok(hints)
    })?;
    for (index, _) in &measured {
        if let Some(dashes) = DASHES[line_round(*index)] {
            drawn.dash(&curve_class(*index), dashes);
        }
    }
    drawn.round_lines();
    Ok(Some(drawn))
}
