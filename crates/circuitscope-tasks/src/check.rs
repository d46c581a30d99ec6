use std::collections::BTreeSet;

use crate::next::encode;
use crate::{PromptSet, Result, TokenEncoder};

/// An answer word that a tokenizer splits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
/// [`Error::Tokenizer`](crate::Error::Tokenizer) where `tokens` fails.
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
