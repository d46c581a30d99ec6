//! Roles of heads: a shape and a colour for each.

use circuitscope_core::HeadId;
use circuitscope_measures::cards::{HeadCard, Pattern};
use maud::{Markup, html};

use crate::svg::{Colour, KINDS, Point, disc, polygon};

use super::CircuitPage;

/// Roles that occur, in the order of cards; a role past the last shape shares it.
pub(super) struct Roles<'a> {
    all: Vec<&'a Pattern>,
    cards: &'a [HeadCard],
}

impl<'a> Roles<'a> {
    pub(super) fn of(page: &CircuitPage<'a>) -> Self {
        let cards = page.cards.map_or(&[][..], |cards| &cards.heads);
        let mut all: Vec<&Pattern> = Vec::new();
        for role in cards.iter().flat_map(HeadCard::main_roles) {
            if !all.contains(&&role.pattern) {
                all.push(&role.pattern);
            }
        }
        Self { all, cards }
    }

    /// The places of a head's roles among all.
    pub(super) fn of_head(&self, head: HeadId) -> Vec<usize> {
        let card = self.cards.iter().find(|card| card.head == head);
        let roles = card.into_iter().flat_map(HeadCard::main_roles);
        roles
            .filter_map(|role| self.all.iter().position(|other| **other == role.pattern))
            .collect()
    }

    /// Each with what it does.
    pub(super) fn named(&self) -> impl Iterator<Item = (usize, String)> {
        let phrase = |pattern: &Pattern| format!("reads {}", pattern.phrase());
        let all = self.all.iter().enumerate();
        all.map(move |(at, pattern)| (at, phrase(pattern)))
    }

    /// What a head does, in words.
    pub(super) fn words(&self, head: HeadId) -> Vec<String> {
        let own = self.of_head(head);
        let named = self.named().filter(|(at, _)| own.contains(at));
        named.map(|(_, words)| words).collect()
    }
}

/// The sign of the `at`-th role, about ten pixels wide.
pub(super) fn glyph(at: usize, (x, y): Point) -> Markup {
    let at = at.min(KINDS.len() - 1);
    let colour: Colour = KINDS[at];
    let corners = |points: &[Point]| -> Markup {
        let points: Vec<Point> = points.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        polygon(&points, colour)
    };
    match at {
        0 => disc((x, y), 4.5, colour),
        1 => corners(&[(-4.2, -4.2), (4.2, -4.2), (4.2, 4.2), (-4.2, 4.2)]),
        2 => corners(&[(0.0, -5.0), (5.0, 4.0), (-5.0, 4.0)]),
        3 => corners(&[(0.0, -5.4), (5.4, 0.0), (0.0, 5.4), (-5.4, 0.0)]),
        4 => corners(&[(0.0, 5.0), (5.0, -4.0), (-5.0, -4.0)]),
        5 => corners(&[
            (-1.7, -5.0),
            (1.7, -5.0),
            (1.7, -1.7),
            (5.0, -1.7),
            (5.0, 1.7),
            (1.7, 1.7),
            (1.7, 5.0),
            (-1.7, 5.0),
            (-1.7, 1.7),
            (-5.0, 1.7),
            (-5.0, -1.7),
            (-1.7, -1.7),
        ]),
        6 => corners(&[
            (-2.6, -4.6),
            (2.6, -4.6),
            (5.2, 0.0),
            (2.6, 4.6),
            (-2.6, 4.6),
            (-5.2, 0.0),
        ]),
        _ => corners(&[(-5.0, -2.4), (5.0, -2.4), (5.0, 2.4), (-5.0, 2.4)]),
    }
}

/// The same in a line of text.
pub(super) fn inline(at: usize) -> Markup {
    html! { svg.glyph width="12" height="12" aria-hidden="true" { (glyph(at, (6.0, 6.0))) } }
}
