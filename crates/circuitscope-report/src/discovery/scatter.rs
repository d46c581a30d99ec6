//! Score against effect, a dot for each head.

use circuitscope_core::HeadId;
use maud::{Markup, html};

use crate::number;
use crate::svg::Anchor::{End, Start};
use crate::svg::{Drawing, INK, MARK, MUTED, Pen, Point, disc, hinted, line, ring, slug, text};

use super::CircuitPage;
use crate::axis::{Axis, Frame};

const FRAME: Frame = Frame {
    left: 70.0,
    right: 544.0,
    top: 12.0,
    bottom: 340.0,
};
const SIZE: Point = (560.0, 384.0);
const LETTERS: f64 = 11.0;

/// `None` without effects.
pub(super) fn draw(page: &CircuitPage<'_>) -> Option<Drawing> {
    let cards = page.cards?;
    let method = page.task.methods.first()?;
    let grid = page.task.grid;
    let points = grid.heads().zip(&method.scores).zip(&cards.effects);
    let points: Vec<(HeadId, f64, f64)> = points
        .map(|((head, score), effect)| (head, *score, *effect))
        .filter(|(_, score, effect)| score.is_finite() && effect.is_finite())
        .collect();
    if points.is_empty() {
        return None;
    }
    let zero = || core::iter::once(0.0);
    let x = Axis::of(points.iter().map(|point| point.1).chain(zero()));
    let y = Axis::of(points.iter().map(|point| point.2).chain(zero()));
    let chosen = page.chosen();
    let place = |point: &(HeadId, f64, f64)| FRAME.place((x, y), (point.1, point.2));
    let (marked, others): (Vec<_>, Vec<_>) =
        points.iter().partition(|point| chosen.contains(&point.0));
    let dots: Vec<Point> = marked.iter().map(place).collect();
    let names: Vec<String> = marked.iter().map(|point| point.0.to_string()).collect();
    let grey: Vec<Point> = others.iter().map(&place).collect();
    let labels = labels(&dots, &grey, &names);
    let zero = FRAME.y(y, 0.0);
    let hint = |point: &(HeadId, f64, f64)| {
        let marks = page.task.marks_of(point.0);
        format!(
            "{}: score {}, effect {}{marks}",
            point.0,
            number(point.1),
            number(point.2)
        )
    };
    let shapes = html! {
        (FRAME.below(&FRAME.ticks(x, 6), &format!("score of {}", method.method)))
        (FRAME.beside(y, "effect, share of the divergence"))
        (line(&[(FRAME.left, zero), (FRAME.right, zero)], Pen::new(MUTED, 1.0)))
        @for point in &others {
            (hinted(&hint(point), &html! {
                (disc(place(point), 2.5, MUTED))
                @if page.known(point.0) { (ring(place(point), 5.5, Pen::new(MARK, 1.75))) }
            }))
        }
        @for label in &labels { (label.leader()) }
        @for point in &marked {
            (hinted(&hint(point), &html! {
                (disc(place(point), 4.5, MARK))
                @if page.known(point.0) { (ring(place(point), 7.0, Pen::new(MARK, 1.75))) }
            }))
        }
        @for (label, name) in labels.iter().zip(&names) { (label.text(name)) }
    };
    Some(Drawing {
        file_name: format!("score-effect-{}.svg", slug(&page.task.task)),
        description: format!(
            "Score of {} against effect for each of {} heads; chosen heads are named; all numbers are in the table of all \
             heads",
            method.method,
            points.len()
        ),
        role: "img",
        size: SIZE,
        shapes,
    })
}

/// Where the name of a dot stands.
struct Label {
    dot: Point,
    /// Middle of its left or right end.
    at: Point,
    right: bool,
    far: bool,
}

impl Label {
    /// Left, right, top and bottom.
    fn area(&self, width: f64) -> [f64; 4] {
        let left = if self.right {
            self.at.0
        } else {
            self.at.0 - width
        };
        [left, left + width, self.at.1 - 7.0, self.at.1 + 7.0]
    }

    fn leader(&self) -> Markup {
        let beside = if self.right { -2.0 } else { 2.0 };
        html! {
            @if self.far {
                (line(&[self.dot, (self.at.0 + beside, self.at.1)], Pen::new(MUTED, 0.75)))
            }
        }
    }

    fn text(&self, name: &str) -> Markup {
        let anchor = if self.right { Start } else { End };
        text(name, self.at, LETTERS, INK, anchor)
    }
}

/// A place for each name where it covers no other name and as few dots as can be.
fn labels(dots: &[Point], others: &[Point], names: &[String]) -> Vec<Label> {
    let mut taken: Vec<[f64; 4]> = Vec::new();
    let mut labels = Vec::new();
    // Near ones first.
    let heights = (0..=9).flat_map(|step| {
        let height = 13.0 * f64::from(step);
        [-height, height]
    });
    let mut tries: Vec<(f64, f64)> = heights
        .flat_map(|dy| [10.0, -10.0, 34.0, -34.0, 70.0, -70.0].map(|dx| (dx, dy)))
        .collect();
    tries.sort_by(|a, b| a.0.hypot(a.1).total_cmp(&b.0.hypot(b.1)));
    for (dot, name) in dots.iter().zip(names) {
        let width = 6.6 * name.chars().count() as f64;
        let label = |&(dx, dy): &(f64, f64)| Label {
            dot: *dot,
            at: (dot.0 + dx, dot.1 + dy),
            right: dx > 0.0,
            far: dy.abs() > 14.0 || dx.abs() > 20.0,
        };
        let cost = |label: &Label| {
            let area = label.area(width);
            let over = |other: &[f64; 4]| {
                area[0] < other[1] && other[0] < area[1] && area[2] < other[3] && other[2] < area[3]
            };
            let names = taken.iter().filter(|other| over(other)).count();
            let covers = |(x, y): &&Point| over(&[x - 5.0, x + 5.0, y - 5.0, y + 5.0]);
            let out = area[0] < FRAME.left + 2.0
                || area[1] > FRAME.right
                || area[2] < FRAME.top - 6.0
                || area[3] > FRAME.bottom;
            let covered = 10 * dots.iter().filter(covers).count();
            let grey = others.iter().filter(covers).count();
            200 * usize::from(out) + 60 * names + covered + grey.min(20)
        };
        let best = tries.iter().map(label).min_by_key(cost);
        if let Some(best) = best {
            taken.push(best.area(width));
            labels.push(best);
        }
    }
    labels
}
