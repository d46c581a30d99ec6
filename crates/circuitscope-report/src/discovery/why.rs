//! Why a head attends where it does, and what it is joined to.

use circuitscope_core::{HeadId, Node, Port};
use circuitscope_measures::cards::{Cards, HeadCard, Link, QkTerm, Why};
use maud::{Markup, html};

use crate::number;

use super::edges::name;
use super::text::fixed;
use super::tokens::at;
use super::{CircuitPage, card_id};

/// Links listed of one head on each side.
const LINKS: usize = 40;

/// Attention scores taken apart; `None` where none is.
pub(super) fn terms(card: &HeadCard, cards: &Cards) -> Option<Markup> {
    if card.why.is_empty() {
        return None;
    }
    Some(html! {
        h4 { "Why it attends there" }
        p.note {
            "The score before the softmax, less its mean over positions, as terms of what writes the query and what writes the \
             key; they add up to it."
        }
        @for why in &card.why { (one(why, cards)) }
    })
}

fn one(why: &Why, cards: &Cards) -> Markup {
    let pair = cards.prompts.get(why.prompt);
    let tokens = pair.map_or(&[][..], |pair| &pair.positive);
    let largest = why.terms.iter().map(|term| term.value.abs());
    let largest = largest.chain([why.rest.abs()]).fold(1e-9, f64::max);
    html! {
        div.scroll tabindex="0" {
            table.terms {
                caption {
                    @if let Some(pair) = pair { "Pair " (pair.pair) ": " }
                    "from " (at(tokens, why.destination)) " to " (at(tokens, why.source))
                    ", attention " (fixed(why.attention)) ", score " (number(why.score))
                }
                thead {
                    tr {
                        th.words scope="col" { "query from" }
                        th.words scope="col" { "key from" }
                        th scope="col" { "adds" }
                        th.bars scope="col" { span.hidden { "as a bar" } }
                    }
                }
                tbody {
                    @for term in &why.terms { (term_row(term, largest)) }
                    tr {
                        td.words { "all others" } td.words {} td { (number(why.rest)) }
                        td.bars { (bar(why.rest, largest)) }
                    }
                }
            }
        }
    }
}

fn term_row(term: &QkTerm, largest: f64) -> Markup {
    let named = |node: Option<Node>| node.map_or_else(|| "bias".to_owned(), name);
    html! {
        tr {
            td.words { (named(term.query)) } td.words { (named(term.key)) } td { (number(term.value)) }
            td.bars { (bar(term.value, largest)) }
        }
    }
}

/// A bar as wide as a value, of the colour of its sign.
fn bar(value: f64, largest: f64) -> Markup {
    let width = (100.0 * value.abs() / largest).clamp(0.0, 100.0).round();
    let class = if value < 0.0 { "below" } else { "above" };
    html! {
        @if width > 0.0 {
            span.bar.(class) style={ "width:" (width) "%" } {}
        }
    }
}

/// What a head reads from and is read by; `None` where nothing is known.
pub(super) fn links(page: &CircuitPage<'_>, cards: &Cards, head: HeadId) -> Option<Markup> {
    let node = Node::Head(head);
    let into = |port: Option<Port>| -> Vec<&Link> {
        let links = cards.links.iter();
        links
            .filter(|link| link.reader == node && link.port == port)
            .collect()
    };
    let out: Vec<&Link> = cards
        .links
        .iter()
        .filter(|link| link.writer == node)
        .collect();
    let sides = [
        ("into its query", into(Some(Port::Q))),
        ("into its key", into(Some(Port::K))),
        ("into its value", into(Some(Port::V))),
        ("into it", into(None)),
        ("what it sends", out),
    ];
    if sides.iter().all(|(_, links)| links.is_empty()) {
        return None;
    }
    Some(html! {
        h4 { "Composition" }
        p.note {
            "Shares of what the predictions are apart, by a linear estimate; a ring marks those whose sign two gradients do not \
             agree on."
        }
        div.sides {
            @for (index, (title, links)) in sides.iter().enumerate() {
                @if !links.is_empty() {
                    div.out[index == 4] { p.side { (title) } (side(page, links, index == 4)) }
                }
            }
        }
    })
}

fn side(page: &CircuitPage<'_>, links: &[&Link], out: bool) -> Markup {
    let listed = |link: &Link| {
        let node = if out { link.reader } else { link.writer };
        let port = link.port.filter(|_| out);
        html! {
            li.below[link.weight < 0.0] {
                @match node {
                    Node::Head(head) if page.task.chosen.contains(&head) => {
                        a href={ "#" (card_id(head)) } { (head) }
                    }
                    _ => (name(node)),
                }
                @if let Some(port) = port { " " small { (port.name()) } }
                " " b { (number(link.weight)) }
                @if !link.agrees {
                    " " span.flag role="img" aria-label="gradients disagree in sign"
                        title="gradients disagree in sign" { "○" }
                }
            }
        }
    };
    html! {
        ol.links { @for link in links.iter().take(LINKS) { (listed(link)) } }
        @if links.len() > LINKS { p.note { "and " (links.len() - LINKS) " weaker ones" } }
    }
}
