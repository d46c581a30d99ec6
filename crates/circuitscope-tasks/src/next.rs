//! What a word is after a text, in tokens.

use crate::error::BoxError;
use crate::{Error, Result};

/// The tokens of a text, without a beginning-of-sequence token.
pub type TokenEncoder<'a> = dyn Fn(&str) -> Result<Vec<u32>, BoxError> + 'a;

pub(crate) fn encode(tokens: &TokenEncoder<'_>, text: &str) -> Result<Vec<u32>> {
    tokens(text).map_err(|source| Error::Tokenizer {
        text: text.to_owned(),
        source,
    })
}

/// The tokens that follow those of `before` where `word` follows its text; nothing where the two do not
/// part between tokens.
///
/// A word alone may be other tokens: tokenizers of the SentencePiece kind put a space before every
/// text.
///
/// # Errors
/// [`Error::Tokenizer`] where `tokens` fails.
///
/// # Examples
/// ```
/// use circuitscope_tasks::following;
///
/// # fn main() -> Result<(), circuitscope_tasks::Error> {
/// // Digits in threes from the left, as Llama 3 has them.
/// let tokens = |text: &str| {
///     let bytes = text.as_bytes().chunks(3);
///     Ok(bytes.map(|digits| digits.iter().fold(0, |sum, digit| 256 * sum + u32::from(*digit))).collect())
/// };
/// assert_eq!(following(&tokens, "175", "2")?, Some(vec![u32::from(b'2')]));
/// assert_eq!(following(&tokens, "17", "52")?, None);
/// # Ok(())
/// # }
/// ```
pub fn following(tokens: &TokenEncoder<'_>, before: &str, word: &str) -> Result<Option<Vec<u32>>> {
    let stem = encode(tokens, before)?;
    let whole = encode(tokens, &format!("{before}{word}"))?;
    let rest = whole.strip_prefix(stem.as_slice());
    Ok(rest.filter(|rest| !rest.is_empty()).map(<[u32]>::to_vec))
}
