//! Axes with round ticks.

use maud::{Markup, html};

use crate::svg::Anchor::{End, Middle};
use crate::svg::{GRID, INK, MUTED, Pen, Point, line, text, upright};

/// The frame of a plot: its corners in pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// An axis from a lowest to a highest value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Axis {
    /// Values to be shown, with a margin on each side.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values);
        let margin = 0.05 * (high - low);
        Self {
            low: low - margin,
            high: high + margin,
        }
    }

    /// How far up a value lies: 0 at the lower end, 1 at the upper one.
    pub(super) fn share(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Whether a value is in the frame.
    pub(super) fn holds(self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// About as many round values as wished for, 1, 2 or 5 times a power of ten apart, and how each is written.
    pub(super) fn ticks(self, wished: usize) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / wished.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = match rough / power {
            x if x <= 1.0 => power,
            x if x <= 2.0 => 2.0 * power,
            x if x <= 5.0 => 5.0 * power,
            _ => 10.0 * power,
        };
        let digits = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
        let (first, last) = (
            (self.low / step).ceil() as i64,
            (self.high / step).floor() as i64,
        );
        let last = last.min(first.saturating_add(50));
        (first..=last)
            .map(|at| {
                let value = at as f64 * step + 0.0;
                let words = if (1e-6..1e7).contains(&step) {
                    format!("{value:.digits$}")
                } else {
                    format!("{value:.0e}")
                };
                (value, words)
            })
            .collect()
    }
}

/// The finite values' lowest and highest, never the same.
pub(super) fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    match high - low {
        span if span > 0.0 && span.is_finite() => (low, high),
        0.0 => (low - 0.5, high + 0.5),
        _ => (0.0, 1.0),
    }
}

impl Frame {
    pub(super) fn x(self, axis: Axis, value: f64) -> f64 {
        self.left + (self.right - self.left) * axis.share(value)
    }

    pub(super) fn y(self, axis: Axis, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * axis.share(value)
    }

    pub(super) fn place(self, (x, y): (Axis, Axis), at: Point) -> Point {
        (self.x(x, at.0), self.y(y, at.1))
    }

    /// Vertical grid lines, with words below.
    pub(super) fn below(self, ticks: &[(f64, String)], name: &str) -> Markup {
        html! {
            @for (x, words) in ticks {
                (line(&[(*x, self.top), (*x, self.bottom)], Pen::new(GRID, 1.0)))
                (text(words, (*x, self.bottom + 14.0), 11.0, MUTED, Middle))
            }
            (text(name, (f64::midpoint(self.left, self.right), self.bottom + 34.0), 12.0, INK, Middle))
        }
    }

    /// Horizontal ones, with words to the left.
    pub(super) fn beside(self, axis: Axis, name: &str) -> Markup {
        html! {
            @for (value, words) in axis.ticks(5) {
                @let y = self.y(axis, value);
                (line(&[(self.left, y), (self.right, y)], Pen::new(GRID, 1.0)))
                (text(&words, (self.left - 8.0, y), 11.0, MUTED, End))
            }
            (upright(name, (13.0, f64::midpoint(self.top, self.bottom)), 12.0, INK))
        }
    }

    /// Ticks of an axis at their places.
    pub(super) fn ticks(self, axis: Axis, wished: usize) -> Vec<(f64, String)> {
        let ticks = axis.ticks(wished).into_iter();
        ticks.map(|(at, words)| (self.x(axis, at), words)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let words = |low, high| -> Vec<String> {
            let ticks = Axis { low, high }.ticks(5);
            ticks.into_iter().map(|(_, words)| words).collect()
        };
        assert_eq!(words(-0.3, 1.1), ["0.0", "0.5", "1.0"]);
        assert_eq!(words(0.0, 90.0), ["0", "20", "40", "60", "80"]);
        assert_eq!(
            words(-0.0021, 0.0019),
            ["-0.002", "-0.001", "0.000", "0.001"]
        );
        assert!(words(0.0, 3e9).len() > 3);
    }

    #[test]
    fn nothing_or_one_value_has_an_axis_too() {
        for values in [vec![], vec![f64::NAN], vec![2.0], vec![f64::INFINITY, 1.0]] {
            let axis = Axis::of(values.into_iter());
            assert!(axis.low < axis.high && axis.low.is_finite() && axis.high.is_finite());
        }
    }
}
