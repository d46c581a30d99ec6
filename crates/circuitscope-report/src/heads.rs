//! The head map: a cell for each head. Layers run downwards, or to the right where there are many of them.

use circuitscope_core::{HeadGrid, HeadId};
use maud::{Markup, html};

use crate::svg::Anchor::{End, Middle, Start};
use crate::svg::{
    ABOVE, BELOW, Colour, Drawing, HEAT, INK, MARK, MUTED, ON_HEAT, Pen, Point, cell, dot, frame,
    hinted, slug, text,
};
use crate::{MethodReport, TaskReport, number};

const LEFT: f64 = 34.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 44.0;
const RIGHT: f64 = 10.0;
const GAP: f64 = 3.0;

/// More layers than this run to the right.
const LAYERS_DOWN: usize = 12;

/// Width that cells of a map fill, beside other maps.
const ROOM: usize = 304;

/// The same where layers run to the right.
const WIDE_ROOM: usize = 640;

/// The least share of full colour, so that a cell of score 0 is seen.
const FAINT: f64 = 0.07;

/// Up to this share of full colour, ink reads better on it than white does.
const INK_UP_TO: f64 = 0.7;

/// Letters of a score; cells too small for them have none.
const LETTERS: f64 = 9.0;

/// Letters of the names of layers and heads.
const NAMES: f64 = 12.5;

/// A map of one method, and what else is known of heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map<'a> {
    pub(super) task: &'a TaskReport,
    pub(super) method: &'a MethodReport,
    /// What colours show, a value for each head.
    pub(super) scores: &'a [f64],
    /// Said of each head beside that; empty for nothing.
    pub(super) effects: &'a [f64],
    /// Width that cells fill.
    pub(super) room: usize,
}

pub(super) fn draw(task: &TaskReport, method: &MethodReport) -> Drawing {
    let wide = Places::turned(task.grid);
    Map {
        task,
        method,
        scores: &method.scores,
        effects: &[],
        room: if wide { WIDE_ROOM } else { ROOM },
    }
    .draw()
}

/// Where cells are.
#[derive(Clone, Copy)]
struct Places {
    grid: HeadGrid,
    /// Whether layers run to the right.
    turned: bool,
    /// From a cell to the next.
    size: f64,
}

impl Places {
    const fn turned(grid: HeadGrid) -> bool {
        grid.n_layers > LAYERS_DOWN && grid.n_layers > grid.n_heads
    }

    fn new(grid: HeadGrid, room: usize) -> Self {
        let turned = Self::turned(grid);
        let columns = if turned { grid.n_layers } else { grid.n_heads };
        Self {
            grid,
            turned,
            size: (room / columns.max(1)).clamp(12, 38) as f64,
        }
    }

    const fn counts(self) -> (usize, usize) {
        if self.turned {
            (self.grid.n_layers, self.grid.n_heads)
        } else {
            (self.grid.n_heads, self.grid.n_layers)
        }
    }

    fn corner(self, head: HeadId) -> Point {
        let (column, row) = if self.turned {
            (head.layer, head.head)
        } else {
            (head.head, head.layer)
        };
        (
            LEFT + column as f64 * self.size,
            TOP + row as f64 * self.size,
        )
    }

    /// Middle of a column or row, from the first.
    fn middle(self, at: usize) -> f64 {
        at as f64 * self.size + self.side() / 2.0
    }

    fn side(self) -> f64 {
        self.size - GAP
    }

    /// Small cells have fewer names beside them.
    fn every(self, least: f64) -> usize {
        match self.size {
            size if size < least => 5,
            size if size < 28.0 && self.turned => 2,
            _ => 1,
        }
    }

    fn names(self) -> Markup {
        let (columns, rows) = self.counts();
        let (across, down) = if self.turned { ("L", "H") } else { ("", "L") };
        let column = |at: usize| {
            let wide = self.size >= 28.0;
            let letter = if wide { across } else { "" };
            text(
                &format!("{letter}{at}"),
                (LEFT + self.middle(at), TOP - 10.0),
                NAMES,
                MUTED,
                Middle,
            )
        };
        html! {
            @for at in (0..columns).step_by(self.every(18.0)) { (column(at)) }
            @for at in (0..rows).step_by(self.every(15.0)) {
                (text(&format!("{down}{at}"), (LEFT - 7.0, TOP + self.middle(at)), NAMES, MUTED, End))
            }
        }
    }
}

impl Map<'_> {
    pub(super) fn draw(self) -> Drawing {
        let (task, method) = (self.task, self.method);
        let places = Places::new(task.grid, self.room);
        let (columns, rows) = places.counts();
        let width = (LEFT + columns as f64 * places.size + RIGHT).max(250.0);
        let below = TOP + rows as f64 * places.size;
        let span = Span::of(self.scores);
        let outlined = match &task.truth {
            Some(truth) => format!("{} heads are outlined: {}", truth.len(), task.marked),
            None => "no head is outlined".to_owned(),
        };
        let scored = || task.grid.heads().zip(self.scores.iter().copied());
        let shapes = html! {
            (text(&method.method, (LEFT, 14.0), 13.0, INK, Start))
            (text(&self.subtitle(places), (LEFT, 32.0), 11.0, MUTED, Start))
            (places.names())
            @for (at, (head, score)) in scored().enumerate() {
                @let corner = places.corner(head);
                (hinted(
                    &self.hint(at, head, score),
                    &html! {
                        (span.cell(corner, (places.side(), places.side()), score))
                        @if task.is_marked(head) { (outline(corner, places.size)) }
                        @if task.chosen.contains(&head) { (corner_dot(corner, places.side())) }
                    },
                ))
            }
            @if places.size >= 34.0 {
                g.numbers pointer-events="none" {
                    @for (head, score) in scored() {
                        @let (x, y) = places.corner(head);
                        @let colour = if span.strength(score) > INK_UP_TO { ON_HEAT } else { INK };
                        @let middle = (x + places.side() / 2.0, y + places.side() / 2.0);
                        (text(&span.short(score), middle, LETTERS, colour, Middle))
                    }
                }
            }
            (span.scale(below + 12.0))
            (self.legend((LEFT + 112.0, below + 12.0)))
        };
        Drawing {
            file_name: format!("heads-{}-{}.svg", slug(&task.task), slug(&method.method)),
            description: format!(
                "Scores of method {} for each head on task {}; {outlined}",
                method.method, task.task
            ),
            role: "img",
            size: (width, below + BOTTOM),
            shapes,
        }
    }

    /// What is said where the pointer is.
    fn hint(&self, at: usize, head: HeadId, score: f64) -> String {
        let effect = self.effects.get(at);
        let effect = effect.map(|effect| format!(", effect {}", number(*effect)));
        format!(
            "{head}: {}{}{}",
            number(score),
            effect.unwrap_or_default(),
            self.task.marks_of(head)
        )
    }

    /// What stands below the name of the method.
    fn subtitle(&self, places: Places) -> String {
        let kind = if self.method.control {
            "control · "
        } else {
            ""
        };
        let axes = if places.turned {
            " · layers to the right, heads downwards"
        } else {
            ""
        };
        match &self.method.row {
            Some(row) => format!(
                "{kind}{} · AUC {:.2} ± {:.2}{axes}",
                self.task.task, row.node_auc.mean, row.node_auc.std
            ),
            None => format!("{kind}{}{axes}", self.task.task),
        }
    }

    /// What outlines and dots mean.
    fn legend(&self, (x, y): Point) -> Markup {
        let task = self.task;
        let row = if task.truth.is_some() { 18.0 } else { 4.0 };
        html! {
            @if task.truth.is_some() {
                (frame((x, y - 1.0), (10.0, 10.0), Pen::new(MARK, 2.0)))
                (text(&task.marked, (x + 17.0, y + 4.0), 10.5, MUTED, Start))
            }
            @if !task.chosen.is_empty() {
                (dot((x + 5.0, y + row), 3.0))
                (text("chosen", (x + 17.0, y + row), 10.5, MUTED, Start))
            }
        }
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

    /// Whether 0 is in the middle, a colour on each side.
    const fn signed(self) -> bool {
        self.lowest < 0.0
    }

    fn size(self) -> f64 {
        self.highest.max(-self.lowest)
    }

    /// A score in the few digits that fit in a cell.
    fn short(self, score: f64) -> String {
        if !score.is_finite() {
            return number(score);
        }
        let digits = match self.size() {
            100.0.. => 0,
            10.0.. => 1,
            0.1.. => 2,
            0.01.. => 3,
            _ => return String::new(),
        };
        let words = format!("{score:.digits$}");
        let zero = words.chars().all(|letter| "-0.".contains(letter));
        if zero { "0".to_owned() } else { words }
    }

    /// How much of full colour stands for a score.
    fn strength(self, score: f64) -> f64 {
        if self.size() > 0.0 && !score.is_nan() {
            (score.abs() / self.size()).min(1.0)
        } else {
            0.0
        }
    }

    fn colour(self, score: f64) -> Colour {
        match (self.signed(), score < 0.0) {
            (true, true) => BELOW,
            (true, false) => ABOVE,
            (false, _) => HEAT,
        }
    }

    fn cell(self, corner: Point, size: Point, score: f64) -> Markup {
        let share = FAINT + (1.0 - FAINT) * self.strength(score);
        cell(corner, size, self.colour(score), share)
    }

    /// From the lowest score to the highest.
    fn scale(self, y: f64) -> Markup {
        let (steps, step) = (30, 3.0);
        let right = LEFT + f64::from(steps) * step;
        let (low, high) = if self.signed() {
            (-self.size(), self.size())
        } else {
            (self.lowest, self.highest)
        };
        let value = |at: f64| low + (high - low) * at / f64::from(steps - 1);
        html! {
            @for at in (0..steps).map(f64::from) {
                (self.cell((LEFT + at * step, y), (step, 8.0), value(at)))
            }
            (text(&number(low), (LEFT, y + 18.0), 10.5, MUTED, Start))
            @if self.signed() { (text("0", (f64::midpoint(LEFT, right), y + 18.0), 10.5, MUTED, Middle)) }
            (text(&number(high), (right, y + 18.0), 10.5, MUTED, End))
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
    let radius = (side / 7.0).max(3.6);
    dot((x + side - radius, y + radius), radius)
}
