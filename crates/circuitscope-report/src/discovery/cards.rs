//! A card for each head of the circuit.

use circuitscope_core::HeadId;
use circuitscope_measures::cards::{Cards, Effect, HeadCard, PatternScore, Reference, Writes};
use maud::{Markup, html};

use crate::number;

use super::roles::{Roles, inline};
use super::text::{fixed, percent};
use super::tokens::list;
use super::{CircuitPage, attention, card_id, codes, why};

/// All cards, in the order of the circuit.
pub(super) fn html(page: &CircuitPage<'_>, roles: &Roles<'_>) -> Markup {
    html! {
        @for head in shown(page) {
            @let known = page.cards.and_then(|cards| {
                let mut all = cards.heads.iter();
                Some((cards, all.find(|card| card.head == head)?))
            });
            details.card {
                summary {
                    h3 { (head) }
                    " " (headline(page, roles, head, known.map(|(_, card)| card)))
                }
                article id=(card_id(head)) aria-label={ "Head " (head) } {
                    (measured(page, head))
                    @if let Some((cards, card)) = known { (body(page, cards, card)) }
                    @else { p.note { "Nothing more was measured of this head." } }
                }
            }
            "\n"
        }
    }
}

/// Heads of the circuit, then the others that were asked about.
pub(super) fn shown(page: &CircuitPage<'_>) -> Vec<HeadId> {
    let mut heads = page.chosen();
    let others = page.cards.into_iter().flat_map(|cards| &cards.heads);
    for card in others {
        if !heads.contains(&card.head) && page.task.grid.contains(card.head) {
            heads.push(card.head);
        }
    }
    heads
}

/// What is seen of a closed card.
fn headline(
    page: &CircuitPage<'_>,
    roles: &Roles<'_>,
    head: HeadId,
    card: Option<&HeadCard>,
) -> Markup {
    let words = roles.words(head);
    html! {
        span.role {
            @if !words.is_empty() {
                @for role in roles.of_head(head) { (inline(role)) }
                (words.join("; "))
            } @else if card.is_some() {
                span.none { "no role found" }
            }
        }
        " "
        span.brief {
            @if let Some(card) = card { "exact effect " b { (number(card.patched.mean)) } }
            @else if let Some(score) = page.score(head) { "score " b { (number(score)) } }
            @if page.known(head) { " " span.badge { (page.task.marked) } }
            @if !page.task.chosen.contains(&head) { " " span.badge { "not in the circuit" } }
        }
    }
}

/// What is known of any head.
fn measured(page: &CircuitPage<'_>, head: HeadId) -> Markup {
    let lost = page.lost.as_ref();
    let cards = page.cards;
    let rank = cards.and_then(|cards| cards.heads.iter().find(|card| card.head == head));
    html! {
        dl.measured {
            @if let Some(card) = rank { div { dt { "rank" } dd { (card.rank) } } }
            @if let Some(score) = page.score(head) { div { dt { "score" } dd { (number(score)) } } }
            @if let Some(signed) = page.signed(head) { div { dt { "with its sign" } dd { (number(signed)) } } }
            @if let (Some(lost), Some(value)) = (lost, page.lost(head)) {
                div { dt { (lost.metric) " lost without it" } dd { (number(value)) } }
            }
            @if let Some(share) = page.share(head) {
                div { dt { "chosen in half-samples" } dd { (percent(share)) } }
            }
        }
    }
}

fn body(page: &CircuitPage<'_>, cards: &Cards, card: &HeadCard) -> Markup {
    let links = why::links(page, cards, card.head);
    html! {
        div.halves {
            section {
                h4 { "Effect" }
                p { (effect(card.effect)) }
                p { (patched(card)) }
                @if !card.matters_at.is_empty() { p { (matters(card)) } }
                (role(card))
            }
            section { (writes(&card.writes)) }
        }
        @if let Some(attention) = attention::html(card, &cards.prompts) { (attention) }
        @if let Some(codes) = codes::table(&card.codes) { (codes) }
        div.halves {
            @if let Some(terms) = why::terms(card, cards) { section { (terms) } }
            @if let Some(links) = links { section { (links) } }
        }
    }
}

/// The exact effect of the head alone.
fn patched(card: &HeadCard) -> Markup {
    let patched = card.patched;
    let given = match patched.reference {
        Reference::Differs => "what it puts out on the negative prompt",
        _ => "what it puts out on another positive prompt",
    };
    html! {
        "Given " (given) ", alone, on " (patched.pairs) " pairs: the prediction loses "
        b { (number(patched.mean)) }
        @if card.signs_disagree() { "; the gradient has the other sign: it is this exact effect that counts" }
        @else if card.effect.mean < 0.0 && patched.mean < 0.0 { "; the head works against the behaviour" }
        "."
    }
}

/// Where its effect arises.
fn matters(card: &HeadCard) -> Markup {
    html! {
        "Its effect arises at: "
        @for (at, (name, share)) in card.matters_at.iter().enumerate() {
            @if at > 0 { ", " }
            (name) " " (percent(*share))
        }
        "."
    }
}

fn effect(effect: Effect) -> Markup {
    let against = match effect.reference {
        Reference::Differs => {
            "what it puts out on the negative prompt: it tells the prompts apart".to_owned()
        }
        Reference::Used => "its mean over both prompts: it works alike on both".to_owned(),
        other => other.name().to_owned(),
    };
    let zero = effect.low <= 0.0 && effect.high >= 0.0;
    html! {
        b { (number(effect.mean)) } " of what the predictions are apart, 95 % interval " (number(effect.low)) " to "
        (number(effect.high)) @if zero { ", which holds 0" } ", against " (against) "; the same sign in "
        (percent(effect.same_sign)) " of the pairs"
        "."
    }
}

fn role(card: &HeadCard) -> Markup {
    html! {
        h4 { "Role" }
        p {
            @if card.main_roles().is_empty() {
                "No role: no pattern is both more than chance and more than heads without an effect reach."
            } @else {
                "Reads " (card.role_words()) "."
            }
        }
        @if !card.patterns.is_empty() {
            details {
                summary { "All patterns" }
                div.scroll tabindex="0" {
                    table.patterns {
                        thead {
                            tr {
                                th scope="col" { "attends to" }
                                th scope="col" { abbr title="mean attention that follows the pattern: the pattern alone" { "alone" } }
                                th scope="col" {
                                    abbr title="of what the head does where it matters, the share that comes from there: attention times value times gradient" { "weighted" }
                                }
                                th scope="col" {
                                    abbr title="95 % point of that with as many tokens drawn at random" { "shuffled" }
                                }
                                th scope="col" { abbr title="weighted times the size of the exact effect" { "joined" } }
                                th scope="col" { abbr title="the largest joined among heads without an effect" { "idle" } }
                                th scope="col" { "role" }
                            }
                        }
                        tbody { @for pattern in &card.patterns { (pattern_row(pattern)) } }
                    }
                }
            }
        }
    }
}

fn pattern_row(pattern: &PatternScore) -> Markup {
    html! {
        tr.chosen[pattern.role] {
            th scope="row" title=(pattern.pattern) { (pattern.pattern.phrase()) }
            td { (fixed(pattern.attention)) }
            td { (fixed(pattern.weighted)) }
            td { (fixed(pattern.shuffled)) }
            td { (number(pattern.joined)) }
            td { (number(pattern.idle)) }
            td { @if pattern.role { "yes" } @else { "no" } }
        }
    }
}

fn writes(writes: &Writes) -> Markup {
    let copying = writes.copying;
    html! {
        h4 { "What it writes" }
        dl.writes {
            div { dt { "promotes" } dd { (list(&writes.promotes)) } }
            div { dt { "suppresses" } dd { (list(&writes.suppresses)) } }
            @if let Some(direct) = writes.direct {
                div {
                    dt { "direct effect" }
                    dd {
                        (number(direct))
                        @if let Some(logits) = writes.direct_logits {
                            "; " (number(logits)) " logits between right and wrong answers"
                        }
                    }
                }
            }
            @if copying.top > 0 {
                div {
                    dt { "copying" }
                    dd {
                        "the token attended to is among the " (copying.top) " raised most in "
                        (fixed(copying.copied)) " of the pairs, other tokens of the prompt in " (fixed(copying.others))
                        "; among those lowered most in " (fixed(copying.lowered))
                    }
                }
            }
        }
    }
}
