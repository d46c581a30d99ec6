use std::collections::BTreeSet;

use crate::next::encode;
use crate::{Error, PromptSet, Result, TokenEncoder};

/// An answer word that a tokenizer splits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitAnswer {
    /// The word, as token text.
    pub word: String,
    /// How many tokens it has.
    pub tokens: usize,
}

/// The answers and wrong answers of `set` that are not one token, in alphabetical order.
///
/// A metric that reads one logit for each answer is only defined where this is empty.
///
/// # Errors
/// [`Error::Tokenizer`] where `tokens` fails.
pub fn check_answers(set: &PromptSet, tokens: &TokenEncoder<'_>) -> Result<Vec<SplitAnswer>> {
    let words: BTreeSet<&String> = set
        .pairs
        .iter()
        .flat_map(|pair| [&pair.positive, &pair.negative])
        .flat_map(|prompt| prompt.answers.iter().chain(&prompt.wrong_answers))
        .collect();
    let mut split = Vec::new();
    for word in words {
        let count = encode(tokens, word)?.len();
        if count != 1 {
            split.push(SplitAnswer {
                word: word.clone(),
                tokens: count,
            });
        }
    }
    Ok(split)
}

/// Checks that the prompts of each pair have the same number of tokens, given as
/// (positive, negative).
///
/// # Errors
/// [`Error::UnequalPair`], which names the first such pair, both lengths, and how many follow.
///
/// # Examples
/// ```
/// use circuitscope_tasks::check_pair_lengths;
///
/// assert!(check_pair_lengths(&[(15, 15), (9, 9)]).is_ok());
/// let message = check_pair_lengths(&[(15, 15), (15, 16)]).unwrap_err().to_string();
/// assert!(message.starts_with("pair 2: the positive prompt has 15 tokens, the negative 16"));
/// ```
pub fn check_pair_lengths(lengths: &[(usize, usize)]) -> Result<()> {
    let mut unequal = lengths
        .iter()
        .enumerate()
        .filter(|(_, (positive, negative))| positive != negative);
    match unequal.next() {
        None => Ok(()),
        Some((pair, &(positive, negative))) => Err(Error::UnequalPair {
            pair,
            positive,
            negative,
            others: unequal.count(),
        }),
    }
}
