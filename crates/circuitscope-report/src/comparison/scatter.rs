//! Every head as a point: what it is in A to the right, what it is in B upwards.

use circuitscope_core::HeadGrid;
use circuitscope_measures::average_ranks;
use circuitscope_measures::compare::{Comparison, HeadInBoth, Place};
use maud::{Markup, html};

use super::Plot;
use crate::svg::Anchor::{End, Middle, Start};
use crate::svg::{
    Colour, GRID, INK, MUTED, Pen, Point, disc, hinted, line, line_colour, ring, text, upright,
};

/// Side of the square, its left and upper edge.
const SIDE: f64 = 440.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 34.0;
const SIZE: Point = (730.0, 530.0);

/// Half the width of a mark, in pixels.
const MARK: f64 = 5.5;

/// Heads with a name beside them, those ranked best.
const LABELS: usize = 40;

/// Size of such a name, its height, and the width of a letter.
const LETTERS: f64 = 10.0;
const HIGH: f64 = 12.0;
const LETTER: f64 = 6.4;

/// A quantity on both axes.
enum Axis {
    /// Effects, from the lowest to the highest.
    Effects { low: f64, high: f64 },
    /// Ranks, the best outermost, in steps of equal ratios.
    Ranks { last: f64 },
}

/// `None` where heads cannot be matched, or there are none.
pub(super) fn draw(comparison: &Comparison) -> Option<Plot> {
    let (a, b) = (&comparison.a, &comparison.b);
    if !comparison.is_matched() || a.scores.is_empty() || a.scores.len() != b.scores.len() {
        return None;
    }
    let effects = a.effects.as_ref().zip(b.effects.as_ref());
    let (axis, [right, up]) = if let Some((right, up)) = effects {
        let axis = Axis::of_effects(right.iter().chain(up));
        (axis, [right.clone(), up.clone()])
    } else {
        let last = a.scores.len() as f64;
        (
            Axis::Ranks { last },
            [a, b].map(|side| average_ranks(&side.scores)),
        )
    };
    let grid = HeadGrid::new(a.n_layers, a.n_heads);
    let points = right.iter().zip(&up);
    let points: Vec<Point> = points.map(|(x, y)| (axis.right(*x), axis.up(*y))).collect();
    let marked: Vec<(&HeadInBoth, Point)> = comparison
        .heads
        .iter()
        .filter_map(|head| Some((head, *points.get(grid.index(head.head)?)?)))
        .collect();
    let others = grid.heads().zip(&points);
    let others: Vec<Point> = others
        .filter(|(head, _)| !marked.iter().any(|(of, _)| of.head == *head))
        .map(|(_, point)| *point)
        .collect();
    let named = labelled(&marked);
    let what = axis.name();
    let shapes = html! {
        (text(&format!("{what} of all heads"), (LEFT, 14.0), 12.1, INK, Start))
        (axis.grid())
        (text(&format!("{what} in A"), (LEFT + SIDE / 2.0, TOP + SIDE + 37.0), 10.5, INK, Middle))
        (upright(&format!("{what} in B"), (13.0, TOP + SIDE / 2.0), 10.5, INK))
        (line(&[(LEFT, TOP + SIDE), (LEFT + SIDE, TOP)], Pen::new(MUTED, 1.0).dashed(Some("2 3"))))
        @for point in &others { (ring(*point, 2.2, Pen::new(MUTED, 0.8))) }
        @for (head, point) in marked.iter().rev() {
            (hinted(&hint(head), &mark(head.place, *point)))
        }
        @for label in &named { (label.draw()) }
        (legend(comparison, others.len(), named.len() < marked.len()))
    };
    let counts = |place| comparison.heads_in(place).count();
    Some(Plot {
        file_name: "heads-a-against-b.svg".to_owned(),
        title: format!("{what} of heads in A against B"),
        description: format!(
            "{what} of {} heads in A to the right and in B upwards; {} in both circuits, {} only in A's, {} only in B's",
            points.len(),
            counts(Place::Both),
            counts(Place::OnlyA),
            counts(Place::OnlyB)
        ),
        size: SIZE,
        shapes,
    })
}

impl Axis {
    fn of_effects<'a>(values: impl Iterator<Item = &'a f64> + Clone) -> Self {
        let low = values.clone().copied().fold(0.0, f64::min);
        let high = values.copied().fold(0.0, f64::max);
        let room = if high > low {
            0.06 * (high - low)
        } else {
            0.01
        };
        Self::Effects {
            low: low - room,
            high: high + room,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Effects { .. } => "effect",
            Self::Ranks { .. } => "rank",
        }
    }

    /// How far a value is from the lower or left edge.
    fn share(&self, value: f64) -> f64 {
        match *self {
            Self::Effects { low, high } => (value - low) / (high - low),
            // Half a step of room at both ends.
            Self::Ranks { last } => {
                let (from, to) = ((last + last * 0.2).ln(), 0.8f64.ln());
                (from - value.ln()) / (from - to)
            }
        }
    }

    fn right(&self, value: f64) -> f64 {
        LEFT + SIDE * self.share(value)
    }

    fn up(&self, value: f64) -> f64 {
        TOP + SIDE * (1.0 - self.share(value))
    }

    /// Values with a line, and their words.
    fn ticks(&self) -> Vec<(f64, String)> {
        match *self {
            Self::Effects { low, high } => {
                let step = round_step((high - low) / 5.0);
                let first = (low / step).ceil() as i64;
                let last = (high / step).floor() as i64;
                let places = (-(100.0 * step).log10().floor()).max(0.0) as usize;
                let tick = |at: i64| {
                    let value = at as f64 * step;
                    (value, format!("{:.places$} %", 100.0 * value + 0.0))
                };
                (first..=last).map(tick).collect()
            }
            Self::Ranks { last } => {
                let tens = (0..7).map(|power| 10f64.powi(power));
                let ranks = tens.flat_map(|ten| [1.0, 2.0, 5.0].map(|digit| digit * ten));
                let ranks = ranks.filter(|rank| *rank <= last);
                ranks.map(|rank| (rank, format!("{rank:.0}"))).collect()
            }
        }
    }

    fn grid(&self) -> Markup {
        let (right, bottom) = (LEFT + SIDE, TOP + SIDE);
        let zero = matches!(self, Self::Effects { .. });
        html! {
            @for (value, words) in self.ticks() {
                @let (x, y) = (self.right(value), self.up(value));
                @let pen = if zero && value == 0.0 { Pen::new(MUTED, 1.0) } else { Pen::new(GRID, 1.0) };
                (line(&[(x, TOP), (x, bottom)], pen))
                (line(&[(LEFT, y), (right, y)], pen))
                (text(&words, (x, bottom + 14.0), 9.5, MUTED, Middle))
                (text(&words, (LEFT - 7.0, y), 9.5, MUTED, End))
            }
        }
    }
}

/// The next of 1, 2, 5, 10, … times a power of ten.
fn round_step(least: f64) -> f64 {
    let ten = 10f64.powf(least.log10().floor());
    let digit = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|digit| digit * ten >= least);
    digit.unwrap_or(10.0) * ten
}

const fn colour(place: Place) -> Colour {
    match place {
        Place::Both => line_colour(0),
        Place::OnlyA => line_colour(2),
        Place::OnlyB => line_colour(4),
    }
}

/// A disc in both, a triangle that points up only in A, one that points down only in B.
fn mark(place: Place, at: Point) -> Markup {
    let (x, y) = at;
    let triangle = |way: f64| {
        let (tip, foot) = ((x, y - way * MARK), y + way * MARK * 0.8);
        let corners = [tip, (x + MARK, foot), (x - MARK, foot), tip];
        line(&corners, Pen::new(colour(place), 2.0))
    };
    html! {
        @match place {
            Place::Both => { (disc(at, MARK * 0.85, colour(place))) },
            Place::OnlyA => { (triangle(1.0)) },
            Place::OnlyB => { (triangle(-1.0)) },
        }
    }
}

fn place_words(place: Place) -> &'static str {
    match place {
        Place::Both => "in both circuits",
        Place::OnlyA => "only in A’s circuit",
        Place::OnlyB => "only in B’s circuit",
    }
}

fn hint(head: &HeadInBoth) -> String {
    let effect = |effect: Option<f64>| {
        effect.map_or_else(String::new, |effect| {
            format!(", effect {:.1} %", 100.0 * effect + 0.0)
        })
    };
    format!(
        "{}, {}: rank {} in A{}, rank {} in B{}",
        head.head,
        place_words(head.place),
        head.a.rank,
        effect(head.a.effect),
        head.b.rank,
        effect(head.b.effect)
    )
}

/// A name beside a mark.
struct Label {
    words: String,
    /// The mark.
    of: Point,
    /// Middle of the name.
    at: Point,
}

impl Label {
    fn size(words: &str) -> Point {
        (LETTER * words.chars().count() as f64 + 2.0, HIGH)
    }

    fn draw(&self) -> Markup {
        let far = (self.at.0 - self.of.0).abs() > 34.0 || (self.at.1 - self.of.1).abs() > 16.0;
        html! {
            @if far { (line(&[self.of, self.at], Pen::new(MUTED, 0.6))) }
            (text(&self.words, self.at, LETTERS, INK, Middle))
        }
    }
}

/// Whether two boxes, middle and size, have something in common.
fn overlap(a: (Point, Point), b: (Point, Point)) -> bool {
    let ((ax, ay), (aw, ah)) = a;
    let ((bx, by), (bw, bh)) = b;
    (ax - bx).abs() < f64::midpoint(aw, bw) && (ay - by).abs() < f64::midpoint(ah, bh)
}

/// Names of the best heads, each where it covers no mark and no other name; left out where there is no such place.
fn labelled(marked: &[(&HeadInBoth, Point)]) -> Vec<Label> {
    const WAYS: [Point; 8] = [
        (1.0, 0.0),
        (-1.0, 0.0),
        (0.0, -1.0),
        (0.0, 1.0),
        (1.0, -1.0),
        (-1.0, -1.0),
        (1.0, 1.0),
        (-1.0, 1.0),
    ];
    let mut order: Vec<&(&HeadInBoth, Point)> = marked.iter().collect();
    order.sort_by_key(|(head, _)| head.a.rank.min(head.b.rank));
    let mut taken: Vec<(Point, Point)> = marked
        .iter()
        .map(|(_, point)| (*point, (2.0 * MARK, 2.0 * MARK)))
        .collect();
    let mut labels = Vec::new();
    for (head, of) in order.into_iter().take(LABELS) {
        let words = head.head.to_string();
        let size = Label::size(&words);
        let inside = |(x, y): Point| {
            x - size.0 / 2.0 > LEFT
                && x + size.0 / 2.0 < LEFT + SIDE
                && y - size.1 / 2.0 > TOP
                && y + size.1 / 2.0 < TOP + SIDE
        };
        let far = (0..5).map(|ring| 12.0 * f64::from(ring));
        let mut places = far.flat_map(|far| {
            let reach = (
                MARK + 2.0 + size.0 / 2.0 + far,
                MARK + 1.0 + size.1 / 2.0 + far,
            );
            WAYS.map(|(x, y)| (of.0 + x * reach.0, of.1 + y * reach.1))
        });
        let free =
            |at: &Point| inside(*at) && !taken.iter().any(|other| overlap((*at, size), *other));
        if let Some(at) = places.find(free) {
            taken.push((at, size));
            labels.push(Label { words, of: *of, at });
        }
    }
    labels
}

fn legend(comparison: &Comparison, others: usize, unnamed: bool) -> Markup {
    let x = LEFT + SIDE + 26.0;
    let row = |at: usize| TOP + 12.0 + 24.0 * at as f64;
    let places = [Place::Both, Place::OnlyA, Place::OnlyB];
    html! {
        @for (at, place) in places.into_iter().enumerate() {
            (mark(place, (x, row(at))))
            @let heads = comparison.heads_in(place).count();
            (text(&format!("{} ({heads})", place_words(place)), (x + 16.0, row(at)), 10.5, INK, Start))
        }
        (ring((x, row(3)), 2.2, Pen::new(MUTED, 0.8)))
        (text(&format!("in neither ({others})"), (x + 16.0, row(3)), 10.5, INK, Start))
        @if unnamed {
            (text("names: point at a mark", (x - 6.0, row(4)), 9.5, MUTED, Start))
            (text("that has none", (x - 6.0, row(4) + 14.0), 9.5, MUTED, Start))
        }
    }
}
