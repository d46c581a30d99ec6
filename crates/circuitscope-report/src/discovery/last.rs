//! The end of the page: prompts, files, the command, what made it.

use circuitscope_measures::cards::ShownPair;
use maud::{Markup, html};

use super::CircuitPage;
use super::tokens::list;

/// The pairs that attention is shown on.
pub(super) fn prompts(pairs: &[ShownPair]) -> Markup {
    html! {
        ol.prompts {
            @for pair in pairs {
                li {
                    p.side { "Pair " (pair.pair) }
                    dl {
                        div { dt { "positive" } dd.text { (pair.positive.concat()) } }
                        div { dt { "negative" } dd.text { (pair.negative.concat()) } }
                        @if !pair.right.is_empty() { div { dt { "right" } dd { (list(&pair.right)) } } }
                        @if !pair.wrong.is_empty() { div { dt { "wrong" } dd { (list(&pair.wrong)) } } }
                        @for (slot, positions) in &pair.slots {
                            div {
                                dt { (slot) }
                                dd {
                                    @for position in positions {
                                        @if let Some(token) = pair.positive.get(*position) {
                                            (super::tokens::code(token)) " " small { (position) } " "
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn files(page: &CircuitPage<'_>) -> Markup {
    html! {
        @if !page.files.is_empty() {
            ul.files { @for file in &page.files { li { a href=(file.name) { (file.name) } ": " (file.what) } } }
        }
        @if !page.command.is_empty() {
            h3 { "The command that made this page" }
            div.command {
                pre tabindex="0" { code #command { (page.command) } }
                button type="button" data-copy="command" hidden { "Copy" }
            }
        }
        h3 { "Provenance" }
        @let provenance = serde_json::to_string_pretty(&page.provenance).unwrap_or_default();
        details { summary { "What made these results" } pre tabindex="0" { (provenance) } }
    }
}
