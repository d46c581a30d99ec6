//! What circuits of each size keep.

use maud::{Markup, html};

use crate::number;
use crate::svg::Anchor::{End, Start};
use crate::svg::{ABOVE, Drawing, INK, MARK, Pen, Point, disc, hinted, line, polygon, slug, text};

use super::text::count;
use super::{CircuitPage, SizeCurve};
use crate::axis::{Axis, Frame, range};

const FRAME: Frame = Frame {
    left: 70.0,
    right: 544.0,
    top: 26.0,
    bottom: 330.0,
};
const SIZE: Point = (560.0, 374.0);
/// Values are shown up to this part of the distance of the whole model from the ablated one beyond both.
const BEYOND: f64 = 0.6;

/// `None` where nothing was measured.
pub(super) fn draw(page: &CircuitPage<'_>) -> Option<Drawing> {
    let curve = page.curve.as_ref()?;
    let points = points(curve);
    if points.is_empty() {
        return None;
    }
    let y = height(curve, &points);
    let across = Across::of(&points);
    let place = |(size, value): &(usize, f64)| (across.x(*size), FRAME.y(y, *value));
    let inside = |(x, at): Point| (x, at.clamp(FRAME.top, FRAME.bottom));
    let through: Vec<Point> = points.iter().map(|point| inside(place(point))).collect();
    let near = |value: f64| {
        curve
            .empty
            .is_some_and(|empty| (FRAME.y(y, value) - FRAME.y(y, empty)).abs() < 16.0)
    };
    let shapes = html! {
        (FRAME.below(&across.ticks(), "heads kept, the best first"))
        (FRAME.beside(y, &curve.metric))
        (level("whole model", curve.full, y, curve.empty.is_none_or(|empty| curve.full >= empty)))
        @if let Some(empty) = curve.empty {
            (level("all ablated", empty, y, near(curve.full) != (empty > curve.full)))
        }
        @if let Some(size) = curve.chosen {
            @let x = across.x(size);
            @if (FRAME.left..=FRAME.right).contains(&x) {
                (line(&[(x, FRAME.top), (x, FRAME.bottom)], Pen::new(MARK, 1.75)))
                @let words = format!("chosen: {size}");
                @if x < f64::midpoint(FRAME.left, FRAME.right) {
                    (text(&words, (x + 5.0, FRAME.top - 10.0), 11.0, INK, Start))
                } @else {
                    (text(&words, (x - 5.0, FRAME.top - 10.0), 11.0, INK, End))
                }
            }
        }
        (line(&through, Pen::new(ABOVE, 2.0)))
        @for point in &points { (mark(point, place(point), y)) }
    };
    Some(Drawing {
        file_name: format!("kept-{}.svg", slug(&page.task.task)),
        description: format!(
            "{} of circuits of the best heads by their size; the table below has all numbers",
            curve.metric
        ),
        role: "img",
        size: SIZE,
        shapes,
    })
}

/// The same as a table.
pub(super) fn table(curve: &SizeCurve) -> Markup {
    html! {
        details {
            summary { "The numbers of the curve" }
            div.scroll tabindex="0" {
                table {
                    caption {
                        (curve.metric) ": whole model " (number(curve.full))
                        @if let Some(empty) = curve.empty { ", all ablated " (number(empty)) }
                    }
                    thead { tr { th scope="col" { "heads kept" } th scope="col" { (curve.metric) } } }
                    tbody {
                        @for (size, value) in curve.sizes.iter().zip(&curve.values) {
                            tr.chosen[curve.chosen == Some(*size)] {
                                th scope="row" {
                                    (size)
                                    @if curve.chosen == Some(*size) { " " span.badge { "chosen" } }
                                }
                                td { (number(*value)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn points(curve: &SizeCurve) -> Vec<(usize, f64)> {
    let points = curve
        .sizes
        .iter()
        .copied()
        .zip(curve.values.iter().copied());
    points.filter(|(_, value)| value.is_finite()).collect()
}

/// Of the whole model and the ablated one, and of values not too far beyond both.
fn height(curve: &SizeCurve, points: &[(usize, f64)]) -> Axis {
    let values = || points.iter().map(|point| point.1);
    let ends = || [Some(curve.full), curve.empty].into_iter().flatten();
    if curve.empty.is_none() {
        return Axis::of(values().chain(ends()));
    }
    let (low, high) = range(ends());
    let beyond = BEYOND * (high - low);
    Axis::of(
        values()
            .map(|value| value.clamp(low - beyond, high + beyond))
            .chain(ends()),
    )
}

/// A line that is named at its right end.
fn level(words: &str, value: f64, axis: Axis, above: bool) -> Markup {
    let y = FRAME.y(axis, value);
    let words = format!("{words}: {}", number(value));
    let up = if above { -9.0 } else { 10.0 };
    html! {
        @if value.is_finite() && axis.holds(value) {
            (line(&[(FRAME.left, y), (FRAME.right, y)], Pen::new(INK, 1.25).dashed(Some("6 4"))))
            (text(&words, (FRAME.right - 4.0, y + up), 11.0, INK, End))
        }
    }
}

/// A dot, or a triangle at the edge of the frame for a value beyond it.
fn mark((size, value): &(usize, f64), (x, y): Point, axis: Axis) -> Markup {
    let hint = format!("{}: {}", count(*size, "head"), number(*value));
    if axis.holds(*value) {
        return hinted(&hint, &disc((x, y), 3.5, ABOVE));
    }
    let (edge, out) = if *value > axis.high {
        (FRAME.top, -8.0)
    } else {
        (FRAME.bottom, 8.0)
    };
    let corners = [(x - 5.0, edge), (x + 5.0, edge), (x, edge + out)];
    hinted(
        &format!("{hint}, outside of the frame"),
        &html! {
            (polygon(&corners, ABOVE))
            (text(&number(*value), (x + 9.0, edge - out * 0.9), 10.0, INK, Start))
        },
    )
}

/// Sizes across: by their logarithm where they differ much.
struct Across {
    axis: Axis,
    log: bool,
    sizes: Vec<usize>,
}

impl Across {
    fn of(points: &[(usize, f64)]) -> Self {
        let sizes: Vec<usize> = points.iter().map(|point| point.0).collect();
        let least = sizes.iter().copied().filter(|size| *size > 0).min();
        let most = sizes.iter().copied().max().unwrap_or(0);
        let log = least.is_some_and(|least| most > 20 * least);
        let mut across = Self {
            axis: Axis {
                low: 0.0,
                high: 1.0,
            },
            log,
            sizes,
        };
        across.axis = Axis::of(across.sizes.iter().map(|size| across.value(*size)));
        across
    }

    /// 0 heads stand where half a head would.
    fn value(&self, size: usize) -> f64 {
        if self.log {
            (size as f64).max(0.5).ln()
        } else {
            size as f64
        }
    }

    fn x(&self, size: usize) -> f64 {
        FRAME.x(self.axis, self.value(size))
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let least = if self.log { 26.0 } else { 18.0 };
        let mut ticks: Vec<(f64, String)> = Vec::new();
        if !self.log {
            let all = self.axis.ticks(8).into_iter();
            let whole = all.filter(|(value, _)| value.fract() == 0.0 && *value >= 0.0);
            let placed = whole.map(|(value, _)| (FRAME.x(self.axis, value), number(value)));
            return placed.collect();
        }
        for size in [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] {
            let x = self.x(size);
            let zero = size == 0 && !self.sizes.contains(&0);
            let far = ticks.last().is_none_or(|(last, _)| x - last >= least);
            if far && !zero && (FRAME.left..=FRAME.right).contains(&x) {
                ticks.push((x, size.to_string()));
            }
        }
        ticks
    }
}
