//! Codes of a head, as a table.

use circuitscope_core::Polarity;
use circuitscope_measures::cards::{CodeCard, CodePrompt, TokenRule};
use maud::{Markup, html};

use crate::number;

use super::text::{count, fixed};
use super::tokens::{code, list, visible};

/// `None` where the head has none.
pub(super) fn table(codes: &[CodeCard]) -> Option<Markup> {
    if codes.is_empty() {
        return None;
    }
    Some(html! {
        h4 { "Codes" }
        p.note {
            "A code is the feature that is active where the head matters; effects of all codes add up to that of the head. \
             A rule is learnt on one half of the pairs and tried on the other, in balanced accuracy, beside rules of tokens \
             drawn at random."
        }
        div.scroll tabindex="0" {
            table.codes {
                thead {
                    tr {
                        th scope="col" { "code" }
                        th scope="col" { abbr title="positive prompts that carry it" { "pos." } }
                        th scope="col" { abbr title="negative prompts that carry it" { "neg." } }
                        th scope="col" { "effect" }
                        th.words scope="col" { "token read at" }
                        th.words scope="col" { "the head promotes" }
                        th.words scope="col" { "its atom raises" }
                        th.words scope="col" { "its atom lowers" }
                        th.words scope="col" { "token rule" }
                        th.words scope="col" { "prompts" }
                    }
                }
                tbody { @for code in codes { (row(code)) } }
            }
        }
    })
}

fn row(card: &CodeCard) -> Markup {
    html! {
        tr {
            th scope="row" { @if card.code < 0 { "none" } @else { (card.code) } }
            td { (card.positives) }
            td { (card.negatives) }
            td { (number(card.effect)) }
            td.words { (code(&card.token)) " " small { "on " (card.at_token) } }
            td.words { (list(&card.promotes)) }
            td.words { (list(&card.atom_up)) }
            td.words { (list(&card.atom_down)) }
            td.words { @if let Some(rule) = &card.rule { (ruled(rule)) } @else { span.none { "–" } } }
            td.words { (prompts(&card.prompts)) }
        }
        "\n"
    }
}

fn ruled(rule: &TokenRule) -> Markup {
    html! {
        "holds " (list(&rule.tokens)) br;
        small {
            "learnt " (fixed(rule.learnt)) ", tried " b { (fixed(rule.tried)) } "; random " (fixed(rule.random))
            ", their 95 % point " (fixed(rule.random_high))
            @if rule.tried <= rule.random_high { ": no better than random" }
        }
    }
}

fn prompts(prompts: &[CodePrompt]) -> Markup {
    html! {
        @if prompts.is_empty() { span.none { "–" } } @else {
            details {
                summary { (count(prompts.len(), "prompt")) }
                ul {
                    @for prompt in prompts {
                        @let class = match prompt.class {
                            Polarity::Positive => "positive",
                            Polarity::Negative => "negative",
                        };
                        li {
                            "pair " (prompt.pair) ", " (class) ": at “" (visible(&prompt.token)) "” (" (prompt.position)
                            ") from “" (visible(&prompt.from)) "” (" (prompt.from_position) ")"
                        }
                    }
                }
            }
        }
    }
}
