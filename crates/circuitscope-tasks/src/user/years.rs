//! Greater-than tables that give the year and not the answers.

use crate::error::LineProblem;
use crate::{AnswerToken, Answers};

/// The answers of a prompt that ends in the century of a year which it names: every later year of two
/// digits is right, every other wrong (Hanna et al. 2023, arXiv 2305.00586; EAP-IG's `label`).
///
/// The prompt must name the year, so that a number of another meaning is not taken for one.
pub(super) fn answers(prompt: &str, found: &str, field: &str) -> Result<Answers, LineProblem> {
    let year: Option<u8> = found.trim().parse().ok();
    let century = prompt
        .len()
        .checked_sub(2)
        .and_then(|at| prompt.get(at..))
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    let named = year
        .zip(century)
        .filter(|(year, century)| *year < 99 && prompt.contains(&format!("{century}{year:02}")));
    let Some((year, _)) = named else {
        return Err(LineProblem::Field {
            field: field.to_owned(),
            found: format!("`{found}`"),
            expected: "the last two digits, below 99, of a year that the prompt names, and a prompt that \
                       ends in the year's first two",
        });
    };
    let words = |years: core::ops::Range<u8>| {
        let words = years.map(|year| AnswerToken::Word(format!("{year:02}")));
        words.collect()
    };
    Ok(Answers {
        right: words(year + 1..100),
        wrong: words(0..year + 1),
    })
}
