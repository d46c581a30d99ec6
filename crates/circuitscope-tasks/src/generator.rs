use rand::Rng;

use crate::{PromptPair, Result, TokenEncoder, Vocabulary};

/// Draws the prompt pairs of one task in the words of one model.
pub trait Generator {
    /// Draws pair number `index`, from `rng` alone.
    fn pair(&self, index: usize, rng: &mut dyn Rng) -> PromptPair;

    /// What the tokenizer made different from the plain task, one sentence each.
    fn notes(&self) -> Vec<String>;
}

/// Makes the generator of a task for a vocabulary and, where a model's tokenizer is given, for its tokens.
///
/// # Errors
/// [`Error::Unposable`](crate::Error::Unposable) where the words that the task needs are not there.
pub type MakeGenerator = fn(Vocabulary, Option<&TokenEncoder<'_>>) -> Result<Box<dyn Generator>>;
