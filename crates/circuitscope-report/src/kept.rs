//! What circuits of growing size keep: faithfulness over the share of heads, KL over the number of
//! edges.

use circuitscope_measures::{Faithfulness, MIB_SIZES, circuit_size};
use maud::{Markup, html};

use crate::axis::Axis;
use crate::svg::Anchor::{End, Middle, Start};
use crate::svg::{
    Drawing, GRID, INK, MUTED, Pen, Point, ROUNDS, hinted, hinted_line, line, line_colour,
    line_round, slug, text,
};
use crate::{TaskReport, number};

const SIDE: f64 = 300.0;
const LEFT: f64 = 52.0;
const GAP: f64 = 76.0;
const TOP: f64 = 34.0;

const DASHES: [Option<&str>; ROUNDS] = [None, Some("20 3.5"), Some("7 4.5"), Some("2 3")];

/// A method that was measured.
struct Measured<'a> {
    name: &'a str,
    control: bool,
    /// Its place among all methods of the task.
    at: usize,
    kept: &'a Faithfulness,
}

impl Measured<'_> {
    fn pen(&self, width: f64) -> Pen {
        Pen::new(line_colour(self.at), width).dashed(DASHES[line_round(self.at)])
    }
}

/// One panel: points of each method, and what the axes say.
struct Panel<'a> {
    title: &'a str,
    below: &'a str,
    /// Left edge.
    left: f64,
    /// Words under the ten places.
    places: [String; MIB_SIZES.len()],
    lowest: f64,
    highest: f64,
    /// Values that mean something, with words.
    levels: &'static [(f64, &'static str)],
    lines: Vec<(&'a Measured<'a>, Vec<f64>)>,
}

/// `None` where no method was measured.
pub(super) fn draw(task: &TaskReport) -> Option<Drawing> {
    let methods = task.methods.iter().enumerate();
    let measured: Vec<Measured<'_>> = methods
        .filter_map(|(at, method)| {
            Some(Measured {
                name: &method.method,
                control: method.control,
                at,
                kept: method.faithfulness.as_ref()?,
            })
        })
        .collect();
    let panels = panels(&measured)?;
    let right = panels.last()?.left + SIDE + 24.0;
    let list = TOP + 22.0 * (measured.len() + 1) as f64;
    let shapes = html! {
        @for panel in &panels { (panel.draw()) }
        @for (row, method) in measured.iter().enumerate() {
            @let y = TOP + 10.0 + 22.0 * row as f64;
            (line(&[(right, y), (right + 22.0, y)], method.pen(2.5)))
            (text(method.name, (right + 30.0, y), 9.7, INK, Start))
        }
    };
    Some(Drawing {
        file_name: format!("kept-{}.svg", slug(&task.task)),
        description: format!(
            "Circuits of growing size on task {}: faithfulness by share of heads, KL by number of edges",
            task.task
        ),
        role: "img",
        size: (right + 210.0, (TOP + SIDE + 48.0).max(list)),
        shapes,
    })
}

/// Heads and, where any method has them, edges.
fn panels<'a>(measured: &'a [Measured<'a>]) -> Option<Vec<Panel<'a>>> {
    if measured.is_empty() {
        return None;
    }
    let heads = measured.iter().map(|method| {
        let points = &method.kept.nodes.signed;
        let values = points.iter().map(|point| point.faithfulness);
        (method, values.collect())
    });
    let mut panels = vec![Panel::new(
        ["faithfulness of circuits of heads", "share of heads kept"],
        MIB_SIZES.map(|share| format!("{}%", share * 100.0)),
        (0.0, 1.0),
        heads.collect(),
    )];
    panels[0].levels = &[(0.0, "all ablated"), (1.0, "whole model")];
    let edges = measured
        .iter()
        .find_map(|method| method.kept.edges.as_ref());
    if let Some(edges) = edges {
        let lines = measured.iter().filter_map(|method| {
            let points = &method.kept.edges.as_ref()?.absolute;
            Some((method, points.iter().map(|point| point.kl).collect()))
        });
        let panel = Panel::new(
            ["KL from the model, circuits of edges", "edges kept"],
            MIB_SIZES.map(|share| circuit_size(share, edges.members).to_string()),
            (0.0, 0.1),
            lines.collect(),
        );
        panels.push(Panel {
            left: LEFT + SIDE + GAP,
            ..panel
        });
    }
    Some(panels)
}

/// The mark of a value outside of the frame.
fn beyond(method: &Measured<'_>, value: f64, (x, y): Point, above: bool) -> Markup {
    let tip = if above { y - 7.0 } else { y + 7.0 };
    let hint = format!("{}: {}, outside of the picture", method.name, number(value));
    let shape = line(&[(x - 4.0, y), (x, tip), (x + 4.0, y)], method.pen(1.5));
    hinted(&hint, &shape)
}

impl<'a> Panel<'a> {
    /// `(low, high)` are shown at least.
    fn new(
        [title, below]: [&'a str; 2],
        places: [String; MIB_SIZES.len()],
        (low, high): (f64, f64),
        lines: Vec<(&'a Measured<'a>, Vec<f64>)>,
    ) -> Self {
        // Circuits may keep far more, or less, than the model does; the middle is what matters.
        let all = || lines.iter().flat_map(|(_, values)| values.iter().copied());
        Self {
            title,
            below,
            left: LEFT,
            places,
            levels: &[],
            lowest: all().fold(low, f64::min).max(-2.0),
            highest: all().fold(high, f64::max).min(high + 3.0),
            lines,
        }
    }

    fn place(&self, at: usize, value: f64) -> Point {
        let last = (MIB_SIZES.len() - 1) as f64;
        let span = self.highest - self.lowest;
        let share = (value.clamp(self.lowest, self.highest) - self.lowest) / span;
        (
            self.left + SIDE * at as f64 / last,
            TOP + SIDE * (1.0 - share),
        )
    }

    fn draw(&self) -> Markup {
        let thin = Pen::new(GRID, 1.0);
        let under = TOP + SIDE;
        let axis = Axis {
            low: self.lowest,
            high: self.highest,
        };
        html! {
            (text(self.title, (self.left, 14.0), 11.3, INK, Start))
            @for (at, words) in self.places.iter().enumerate() {
                @let foot = self.place(at, self.lowest);
                (line(&[(foot.0, TOP), foot], thin))
                @if at % 3 == 0 {
                    (text(words, (foot.0, under + 13.0), 8.9, MUTED, Middle))
                }
            }
            @for (value, words) in axis.ticks(6) {
                @let ends = [self.place(0, value), self.place(MIB_SIZES.len() - 1, value)];
                (line(&ends, thin))
                (text(&words, (self.left - 7.0, ends[0].1), 8.9, MUTED, End))
            }
            @for (value, words) in self.levels {
                @let ends = [self.place(0, *value), self.place(MIB_SIZES.len() - 1, *value)];
                (line(&ends, Pen::new(MUTED, 1.0).dashed(Some("4 3"))))
                (text(words, (ends[1].0 - 4.0, ends[1].1 - 7.0), 8.9, MUTED, End))
            }
            (text(self.below, (self.left + SIDE / 2.0, under + 33.0), 9.7, INK, Middle))
            @for (method, values) in &self.lines {
                @let points: Vec<Point> =
                    values.iter().enumerate().map(|(at, &value)| self.place(at, value)).collect();
                (hinted_line(method.name, &points, method.pen(if method.control { 1.5 } else { 2.25 }), 8.0))
                @for (&value, &at) in values.iter().zip(&points).filter(|(value, _)| !axis.holds(**value)) {
                    (beyond(method, value, at, value > self.highest))
                }
            }
        }
    }
}
