//! Tokens as text.

use maud::{Markup, html};

/// A token so that it is seen: no line ends, no bare space.
pub(crate) fn visible(token: &str) -> String {
    let shown: String = token
        .chars()
        .map(|letter| match letter {
            '\n' => '↵',
            '\r' => '␍',
            '\t' => '⇥',
            other if other.is_control() => '�',
            other => other,
        })
        .collect();
    if shown.trim().is_empty() {
        return shown.replace(' ', "␣");
    }
    shown
}

/// A token, its leading space kept.
pub(super) fn code(token: &str) -> Markup {
    html! { code.token { (visible(token)) } }
}

/// Tokens one after the other.
pub(super) fn list(tokens: &[String]) -> Markup {
    html! {
        @if tokens.is_empty() { span.none { "–" } }
        @for token in tokens { (code(token)) " " }
    }
}

/// A token in a sentence, at its position.
pub(super) fn at(tokens: &[String], position: usize) -> String {
    let token = tokens.get(position);
    let token = token.map_or_else(|| "?".to_owned(), |token| visible(token));
    format!("“{token}” ({position})")
}
