//! Drawing prompt pairs.

mod docstring;
mod draw;
mod greater_than;
mod induction;
mod ioi;
mod words;

use circuitscope_core::Seed;
use rand::Rng;

use crate::next::encode;
use crate::{Error, PromptPair, PromptSet, Result, Task, TokenEncoder, Vocabulary};

/// How often a pair of unequal token length is drawn again before [`generate`] gives up.
pub const MAX_DRAWS: usize = 100;

/// One task in one vocabulary.
trait Generator {
    /// Draws pair number `index`.
    fn pair(&self, index: usize, rng: &mut dyn Rng) -> PromptPair;

    /// What the tokenizer made different from the plain task, one sentence each.
    fn notes(&self) -> Vec<String>;
}

/// Draws `n_pairs` pairs of prompts.
///
/// With `tokens`, a model's tokenizer, ordinary text is written in its words: names, arguments and words
/// to repeat are those that are one token after a space (where too few are, those of the token count that
/// most of them have), greater-than asks the digits that are a token of their own, and a pair whose
/// prompts differ in token count is drawn again. For GPT-2 that changes nothing: without `tokens`, both
/// vocabularies align under their own tokenizer by the choice of their words.
///
/// # Determinism
/// Pair `i` draws from `seed.stream("tasks/{task}/{vocabulary}").nth("pair", i)`: it depends on
/// neither `n_pairs` nor the other pairs, and a larger set begins with the smaller one.
///
/// # Errors
/// [`Error::NoPairs`] for `n_pairs` = 0, [`Error::Tokenizer`] where `tokens` fails, [`Error::Unposable`]
/// where the tokenizer has not the words that the task needs, [`Error::NoEqualLengths`] after
/// [`MAX_DRAWS`] draws of one pair.
///
/// # Examples
/// ```
/// use circuitscope_core::Seed;
/// use circuitscope_tasks::{Task, Vocabulary, generate};
///
/// # fn main() -> Result<(), circuitscope_tasks::Error> {
/// let set = generate(Task::GreaterThan, Vocabulary::Gpt2, 2, Seed::new(0), None)?;
/// let pair = &set.pairs[0];
/// // The first pair's year ends in 02, so that 03 to 99 are right and 00 to 02 wrong.
/// assert!(pair.positive.text.contains("02 to the year"));
/// assert!(pair.negative.text.contains("01 to the year"));
/// assert_eq!(pair.positive.answers.len(), 97);
/// assert_eq!(pair.positive.wrong_answers, ["00", "01", "02"]);
/// # Ok(())
/// # }
/// ```
pub fn generate(
    task: Task,
    vocabulary: Vocabulary,
    n_pairs: usize,
    seed: Seed,
    tokens: Option<&TokenEncoder<'_>>,
) -> Result<PromptSet> {
    if n_pairs == 0 {
        return Err(Error::NoPairs { task });
    }
    let generator: Box<dyn Generator> = match task {
        Task::Ioi => Box::new(ioi::Ioi::load(vocabulary, tokens)?),
        Task::GreaterThan => Box::new(greater_than::GreaterThan::load(vocabulary, tokens)?),
        Task::Docstring => Box::new(docstring::Docstring::load(vocabulary, tokens)?),
        Task::Induction => Box::new(induction::Induction::load(vocabulary, tokens)?),
    };
    let stream = seed.stream(&format!("tasks/{task}/{vocabulary}"));
    let pairs = (0..n_pairs)
        .map(|index| {
            let mut rng = stream.nth("pair", index as u64).rng();
            aligned(task, index, tokens, || generator.pair(index, &mut rng))
        })
        .collect::<Result<_>>()?;
    Ok(PromptSet {
        task,
        vocabulary,
        seed,
        pairs,
        notes: generator.notes(),
    })
}

/// Draws until both prompts have the same number of tokens.
fn aligned(
    task: Task,
    index: usize,
    tokens: Option<&TokenEncoder<'_>>,
    mut draw: impl FnMut() -> PromptPair,
) -> Result<PromptPair> {
    let Some(tokens) = tokens else {
        return Ok(draw());
    };
    for attempt in 1.. {
        let pair = draw();
        let positive = encode(tokens, &pair.positive.text)?.len();
        let negative = encode(tokens, &pair.negative.text)?.len();
        if positive == negative {
            return Ok(pair);
        }
        if attempt == MAX_DRAWS {
            return Err(Error::NoEqualLengths {
                task,
                pair: index,
                attempts: MAX_DRAWS,
                positive,
                negative,
                text: pair.positive.text,
            });
        }
    }
    unreachable!("the loop has no other end")
}
