//! Numbers and names as sentences for people have them.

use core::fmt::Display;

/// Two decimals, fewer where there are many digits before them, more where there is nothing else.
pub(crate) fn figure(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 || size == 0.0 => format!("{value:.2}"),
        size if size >= 0.000_1 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    };
    // A zero has no sign.
    match text.strip_prefix('-') {
        Some(size) if size.bytes().all(|byte| matches!(byte, b'0' | b'.')) => size.to_owned(),
        _ => text,
    }
}

/// `1 pair`, `2 pairs`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// A share as whole per cent.
pub(crate) fn percent(share: f64) -> String {
    // Adding 0 takes the sign from what rounds to none.
    format!("{:.0} %", (100.0 * share).round() + 0.0)
}

/// A name of the command line as words.
pub(crate) fn named(name: &str) -> String {
    name.replace('-', " ")
}

/// One after another.
pub(crate) fn join<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_matter() {
        let cases = [
            (123.4, "123"),
            (-12.34, "-12.3"),
            (1.234, "1.23"),
            (0.0123, "0.01"),
            (0.004_56, "0.0046"),
            (0.0, "0.00"),
            (-0.0, "0.00"),
            (3.2e-7, "3.2e-7"),
        ];
        for (value, text) in cases {
            assert_eq!(figure(value), text);
        }
    }
}
