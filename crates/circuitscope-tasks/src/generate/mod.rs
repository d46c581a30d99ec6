//! Drawing prompt pairs.

mod docstring;
pub(crate) mod draw;
mod greater_than;
mod induction;
mod ioi;
pub(crate) mod words;

use std::collections::BTreeMap;

use circuitscope_core::Seed;

use crate::generator::Generator;
use crate::next::encode;
use crate::spec::Prompts;
use crate::templates::Templates;
use crate::{
    Error, LabelledPrompts, PromptPair, PromptSet, Result, TaskSpec, TokenEncoder, Vocabulary,
};

pub use docstring::DOCSTRING;
pub use greater_than::GREATER_THAN;
pub use induction::INDUCTION;
pub use ioi::IOI;

/// How often a pair of unequal token length is drawn again before [`generate`] gives up.
pub const MAX_DRAWS: usize = 100;

/// Draws `n_pairs` pairs of prompts.
///
/// With `tokens`, a model's tokenizer, ordinary text is written in its words: names, arguments and words
/// to repeat are those that are one token after a space (where too few are, those of the token count that
/// most of them have), greater-than asks the digits that are a token of their own, and a pair whose
/// prompts differ in token count is drawn again. For GPT-2 that changes nothing: without `tokens`, both
/// vocabularies align under their own tokenizer by the choice of their words.
///
/// Prompts know their named parts ([`Prompt::slots`](crate::Prompt::slots)) and what they vary in
/// ([`Prompt::variables`](crate::Prompt::variables)). A part of a negative prompt has the name of the part that
/// stands in its place in the positive.
///
/// | task | parts | variables |
/// |---|---|---|
/// | ioi | `IO` the receiver, `S1` and `S2` the first and second mention of the giver, `PLACE`, `OBJECT` | `IO`, `S` (the name at `S2`: who gives), `order` (`ABBA` where the receiver comes first, else `BABA`), `template` (its number, from 0), `place`, `object` |
/// | greater-than | `NOUN`, `CENTURY`, `YEAR` (its last two digits), `CENTURY2` where the prompt ends; where single digits are asked, `TENS` and `UNITS` for `YEAR`, and `TENS2` after `CENTURY2` if it is shown | `noun`, `century`, `year` (two digits), `tens`, `units` |
/// | docstring | `A_def`, `B_def`, `C_def` in the signature, `A_doc`, `B_doc` in the docstring (names of Heimersheim and Janiak), `other_def` for each other argument; C comes next and is not there a second time | `A`, `B`, `C` (those of the signature), `position` (how many arguments come before A) |
/// | induction | `SECOND` the last word, `FIRST` where it stands before, `AFTER` the word after that | `repeated` (the last word), `answer` (the word at `AFTER`) |
/// | of a folder | its slots, as in the templates | what was drawn into the slots of the prompt, with all words of their entries |
///
/// # Determinism
/// Pair `i` draws from `seed.stream("tasks/{task}/{vocabulary}").nth("pair", i)`: it depends on
/// neither `n_pairs` nor the other pairs, and a larger set begins with the smaller one.
///
/// # Errors
/// [`Error::NoPairs`] for `n_pairs` = 0, [`Error::Tokenizer`] where `tokens` fails, [`Error::Unposable`]
/// where the tokenizer has not the words that the task needs, [`Error::NoEqualLengths`] after
/// [`MAX_DRAWS`] draws of one pair, [`Error::NotGenerated`] for a task whose pairs are given: [`draw`] takes
/// from those, too.
///
/// # Examples
/// ```
/// use circuitscope_core::Seed;
/// use circuitscope_tasks::{GREATER_THAN, Vocabulary, generate};
///
/// # fn main() -> Result<(), circuitscope_tasks::Error> {
/// let set = generate(&GREATER_THAN, Vocabulary::Gpt2, 2, Seed::new(0), None)?;
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
    task: &TaskSpec,
    vocabulary: Vocabulary,
    n_pairs: usize,
    seed: Seed,
    tokens: Option<&TokenEncoder<'_>>,
) -> Result<PromptSet> {
    let name = || task.name.clone().into_owned();
    if n_pairs == 0 {
        return Err(Error::NoPairs { task: name() });
    }
    let generator: Box<dyn Generator> = match &task.prompts {
        Prompts::Generator(make) => make(vocabulary, tokens)?,
        Prompts::Templates(templates) => Box::new(Templates::generator(templates, tokens)?),
        Prompts::Pairs(_) => return Err(Error::NotGenerated { task: name() }),
    };
    let stream = seed.stream(&format!("tasks/{task}/{vocabulary}"));
    let pairs = (0..n_pairs)
        .map(|index| {
            let mut rng = stream.nth("pair", index as u64).rng();
            aligned(task, index, tokens, || generator.pair(index, &mut rng))
        })
        .collect::<Result<_>>()?;
    Ok(PromptSet {
        task: name(),
        vocabulary,
        seed,
        pairs,
        notes: generator.notes(),
    })
}

/// Draws `n_pairs` pairs of prompts in the form in which prompts meet a model: generated ([`generate`]), or
/// taken at random from the pairs that the task was given.
///
/// # Determinism
/// As [`generate`]; pairs that are given are taken in an order that depends on `seed` and the task's name
/// alone, so that here, too, a larger set begins with the smaller one.
///
/// # Errors
/// As [`generate`], and [`Error::TooFewPairs`] where the task has fewer pairs.
pub fn draw(
    task: &TaskSpec,
    vocabulary: Vocabulary,
    n_pairs: usize,
    seed: Seed,
    tokens: Option<&TokenEncoder<'_>>,
) -> Result<LabelledPrompts> {
    let Prompts::Pairs(given) = &task.prompts else {
        return Ok(generate(task, vocabulary, n_pairs, seed, tokens)?.labelled());
    };
    let found = given.pairs.len();
    if n_pairs == 0 || n_pairs > found {
        let task = task.name.clone().into_owned();
        return Err(match n_pairs {
            0 => Error::NoPairs { task },
            asked => Error::TooFewPairs { task, found, asked },
        });
    }
    let mut rng = seed.stream(&format!("tasks/{task}/pairs")).rng();
    let all: Vec<usize> = (0..found).collect();
    let taken = draw::distinct(&mut rng, &all, n_pairs);
    Ok(given.only_pairs(&taken.into_iter().copied().collect::<Vec<_>>()))
}

/// Variables by their names.
pub(crate) fn variables<const N: usize>(all: [(&str, &str); N]) -> BTreeMap<String, String> {
    let all = all.into_iter();
    all.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Draws until both prompts have the same number of tokens.
fn aligned(
    task: &TaskSpec,
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
                task: task.name.clone().into_owned(),
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
