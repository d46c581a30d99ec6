//! Attention of a head over the tokens of the shown pairs.

use circuitscope_measures::cards::{Attention, AttentionRow, HeadCard, ShownPair};
use maud::{Markup, html};

use super::text::{fixed, percent};
use super::tokens::visible;

/// Attention from here on is written beside its token.
const WRITTEN: f64 = 0.05;

/// Steps of shade.
const SHADES: f64 = 10.0;

/// The positive prompt and the negative one side by side, pair by pair; `None` where nothing was read.
pub(super) fn html(card: &HeadCard, prompts: &[ShownPair]) -> Option<Markup> {
    let pairs: Vec<_> = prompts
        .iter()
        .enumerate()
        .map(|(at, pair)| (pair, one(card, at, true), one(card, at, false)))
        .filter(|(_, positive, negative)| positive.is_some() || negative.is_some())
        .collect();
    if pairs.is_empty() {
        return None;
    }
    Some(html! {
        h4 { "Attention" }
        p.note {
            "From the positions where most of the head’s effect arises (outlined); darker is more. From "
            (WRITTEN) " on the number stands beside the token, below that where the pointer is."
        }
        @for (pair, positive, negative) in pairs {
            div.pair {
                (side(pair, positive, true))
                (side(pair, negative, false))
            }
        }
    })
}

fn one(card: &HeadCard, prompt: usize, positive: bool) -> Option<&Attention> {
    let same = |one: &&Attention| one.prompt == prompt && one.positive == positive;
    card.attention.iter().find(same)
}

fn side(pair: &ShownPair, attention: Option<&Attention>, positive: bool) -> Markup {
    let tokens = if positive {
        &pair.positive
    } else {
        &pair.negative
    };
    let name = if positive { "positive" } else { "negative" };
    html! {
        div {
            p.side { "Pair " (pair.pair) ", " (name) }
            @if let Some(attention) = attention {
                @for row in &attention.rows { (line(pair, tokens, row, positive)) }
                @if attention.rows.is_empty() { p.note { "No effect arises on this prompt." } }
            }
        }
    }
}

fn line(pair: &ShownPair, tokens: &[String], row: &AttentionRow, positive: bool) -> Markup {
    let slot = |position: usize| {
        let mut slots = pair.slots.iter().filter(|_| positive);
        let slot = slots.find(|(_, positions)| positions.contains(&position));
        slot.map(|(name, _)| name.as_str())
    };
    html! {
        p.attention {
            @for (position, token) in tokens.iter().enumerate() {
                @let to = row.to.get(position).copied().filter(|to| to.is_finite());
                (chip(token, to, (position, row.position), slot(position)))
            }
            span.weight { "from " (row.position) ": " (percent(row.weight)) " of the effect" }
        }
    }
}

fn chip(token: &str, to: Option<f64>, (at, from): (usize, usize), slot: Option<&str>) -> Markup {
    let shown = visible(token);
    let joined = !shown.starts_with(' ') && at > 0;
    let shade = to.map_or(0.0, |to| (to * SHADES).ceil().clamp(0.0, SHADES));
    let mut class = "t".to_owned();
    if to.is_some_and(|to| to >= 0.01) {
        class = format!("t a{shade}");
    }
    if joined {
        class.push_str(" j");
    }
    if at == from {
        class.push_str(" q");
    }
    let title = to.map(|to| format!("{at}: {}", fixed(to)));
    html! {
        span class=(class) title=[title] {
            (shown.trim_start())
            @if let Some(slot) = slot { sup { (slot) } }
            @if let Some(to) = to.filter(|to| *to >= WRITTEN) { sub { (short(to)) } }
        }
        @if !joined { " " }
    }
}

/// Two digits, without the zero before the point.
fn short(share: f64) -> String {
    let words = format!("{share:.2}");
    match words.strip_prefix('0') {
        Some(rest) => rest.to_owned(),
        None => words,
    }
}
