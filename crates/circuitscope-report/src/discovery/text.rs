//! Numbers as text.

use maud::{Markup, html};

use crate::number;

/// Three digits after the point; a dash for what is no number.
pub(super) fn fixed(value: f64) -> String {
    if !value.is_finite() {
        return number(value);
    }
    let words = format!("{value:.3}");
    match words.as_str() {
        "-0.000" => "0.000".to_owned(),
        _ => words,
    }
}

/// A share in hundredths.
pub(super) fn percent(share: f64) -> String {
    if !share.is_finite() {
        return number(share);
    }
    let hundredths = 100.0 * share + 0.0;
    if hundredths == 0.0 || hundredths.abs() >= 1.0 {
        format!("{hundredths:.0} %")
    } else {
        format!("{hundredths:.1} %")
    }
}

/// A cell of a table: a number, or a dash where there is none.
pub(super) fn cell(value: Option<f64>) -> Markup {
    html! {
        @match value {
            Some(value) => td data-value=[value.is_finite().then_some(value)] { (number(value)) },
            None => td.none { "–" },
        }
    }
}

/// One, or several.
pub(super) fn count(number: usize, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {one}{s}")
}
