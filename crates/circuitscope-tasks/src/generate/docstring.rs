use rand::Rng;
use serde::Deserialize;

use super::{draw, variables, words};
use crate::data::{DataFile, data_file};
use crate::generator::Generator;
use crate::known::{ATTN_ONLY_4L, PLANTED};
use crate::lexicon;
use crate::spec::Published;
use crate::template::Template;
use crate::{PromptPair, Result, TaskSpec, TokenEncoder, Vocabulary};

const GPT2: DataFile<'static> = data_file!("docstring/gpt2.json");

/// Slots of the signature, in order.
const SIGNATURE: [&str; 6] = ["P0", "P1", "P2", "P3", "P4", "P5"];
/// Slots of the arguments that the docstring has described.
const DESCRIBED: [&str; 2] = ["X0", "X1"];
/// Slots of other words.
const WORDS: [&str; 8] = ["FUNCTION", "D0", "D1", "D2", "D3", "D4", "D5", "D6"];
/// Arguments in play: those described, and the one that comes next.
const IN_PLAY: usize = DESCRIBED.len() + 1;
/// Names of the arguments in play as parts of the signature, and of the docstring.
const IN_SIGNATURE: [&str; IN_PLAY] = ["A_def", "B_def", "C_def"];
const IN_DOCSTRING: [&str; DESCRIBED.len()] = ["A_doc", "B_doc"];

/// A docstring lists the arguments of a function in the order of its signature (Heimersheim and Janiak
/// 2023). λ = 0.05 is that of O'Neill and Bui 2024 (arXiv 2405.12522) for this task.
pub static DOCSTRING: TaskSpec = TaskSpec::new(
    "docstring",
    "a docstring lists the arguments of a function in the order of its signature",
    "eleven argument names or more of one length in tokens after a space",
    |vocabulary, tokens| Ok(Box::new(Docstring::load(vocabulary, tokens)?)),
)
.with_l1_coefficient(0.05)
.with_published(&[
    Published {
        model: ATTN_ONLY_4L,
        file: data_file!("docstring/ground_truth.json"),
    },
    PLANTED,
]);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    schema: u32,
    #[expect(dead_code, reason = "documents the file for its readers")]
    source: String,
    template: String,
    first: Vec<usize>,
    arguments: Vec<String>,
    descriptions: Vec<String>,
}

/// The task's section of the reference model's words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    #[expect(dead_code, reason = "for readers of the file")]
    structure: String,
    template: String,
    arguments: Vec<String>,
    descriptions: Vec<String>,
}

/// What a negative prompt changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Corruption {
    /// The arguments in play, in the signature and, differently, in the docstring (*random-random*
    /// of Heimersheim and Janiak).
    Both,
    /// Those of the docstring alone, as in the training of the reference model.
    Docstring,
}

/// Docstring (Heimersheim and Janiak 2023).
///
/// Positive: a signature of six arguments, and a docstring that has described two neighbours of
/// them, A and B; the argument after B, C, comes next. Negative: fresh names for A and B in the
/// docstring and, in the GPT-2 vocabulary, other fresh names for A, B and C in the signature. No
/// argument occurs twice; everything else stays.
struct Docstring {
    template: Template,
    /// Positions of A in the signature to draw from, from 0.
    first: Vec<usize>,
    arguments: Vec<String>,
    words: Vec<String>,
    corruption: Corruption,
    /// Before an answer word.
    space: &'static str,
    note: Option<String>,
}

impl Docstring {
    fn load(vocabulary: Vocabulary, tokens: Option<&TokenEncoder<'_>>) -> Result<Self> {
        match vocabulary {
            Vocabulary::Gpt2 => {
                let words: Words = GPT2.parse()?;
                GPT2.check_schema(words.schema)?;
                let task = Self {
                    template: template(GPT2, &words.template)?,
                    first: words.first,
                    arguments: words.arguments,
                    words: words.descriptions,
                    corruption: Corruption::Both,
                    space: " ",
                    note: None,
                }
                .checked(GPT2)?;
                let (arguments, note) = words::of_one_length(
                    &DOCSTRING.name,
                    "arguments",
                    task.arguments,
                    Self::N_ARGUMENTS,
                    tokens,
                )?;
                Ok(Self {
                    arguments,
                    note,
                    ..task
                })
            }
            Vocabulary::Reference => {
                let words = lexicon::section::<Reference>(&DOCSTRING.name)?;
                Self {
                    template: template(lexicon::FILE, &words.template)?,
                    first: (0..=SIGNATURE.len() - IN_PLAY).collect(),
                    arguments: words.arguments,
                    words: words.descriptions,
                    corruption: Corruption::Docstring,
                    space: "",
                    note: None,
                }
                .checked(lexicon::FILE)
            }
        }
    }

    fn checked(self, file: DataFile<'_>) -> Result<Self> {
        let last = SIGNATURE.len() - IN_PLAY;
        file.require(
            !self.first.is_empty() && self.first.iter().all(|&at| at <= last),
            || format!("first must be a list of positions from 0 to {last}"),
        )?;
        file.check_words("arguments", &self.arguments, Self::N_ARGUMENTS)?;
        file.check_words("descriptions", &self.words, WORDS.len())?;
        Ok(self)
    }

    /// Arguments of one pair: a signature, and fresh ones for its corruption.
    const N_ARGUMENTS: usize = SIGNATURE.len() + IN_PLAY + DESCRIBED.len();
}

/// Every slot once, the signature before the docstring.
fn template(file: DataFile<'_>, text: &str) -> Result<Template> {
    let known = [&SIGNATURE[..], &DESCRIBED, &WORDS].concat();
    let template = Template::parse(file, text, &known)?;
    let of = |slots: &[&str]| {
        template
            .slots()
            .filter(|s| slots.contains(s))
            .eq(slots.iter().copied())
    };
    let arguments = [&SIGNATURE[..], &DESCRIBED].concat();
    file.require(of(&arguments) && of(&WORDS), || {
        format!(
            "the docstring template must have the slots [{}] and [{}], each once and in this order",
            arguments.join("] ["),
            WORDS.join("] [")
        )
    })?;
    Ok(template)
}

impl Generator for Docstring {
    fn pair(&self, _: usize, rng: &mut dyn Rng) -> PromptPair {
        let first = *draw::one(rng, &self.first);
        let drawn = draw::distinct(rng, &self.arguments, Self::N_ARGUMENTS);
        let (signature, fresh) = drawn.split_at(SIGNATURE.len());
        let (fresh_signature, fresh_described) = fresh.split_at(IN_PLAY);
        let words = draw::distinct(rng, &self.words, WORDS.len());
        let position = first.to_string();
        let render = |signature: &[&String], described: &[&String]| {
            let (text, slots) = self.template.render_named(|slot, _| {
                let among = |slots: &[&str]| slots.iter().position(|name| *name == slot);
                if let Some(at) = among(&SIGNATURE) {
                    let name = at.checked_sub(first).and_then(|at| IN_SIGNATURE.get(at));
                    (signature[at], Some(*name.unwrap_or(&"other_def")))
                } else if let Some(at) = among(&DESCRIBED) {
                    (described[at], Some(IN_DOCSTRING[at]))
                } else {
                    (words[among(&WORDS).unwrap_or_default()], None)
                }
            });
            let variables = variables([
                ("A", signature[first]),
                ("B", signature[first + 1]),
                ("C", signature[first + 2]),
                ("position", &position),
            ]);
            (text, slots, variables)
        };
        let answer = first + DESCRIBED.len();
        let mut corrupted = signature.to_vec();
        if self.corruption == Corruption::Both {
            corrupted[first..first + IN_PLAY].copy_from_slice(fresh_signature);
        }
        let token = |word: &&String| format!("{}{word}", self.space);
        let positive = render(signature, &signature[first..answer]);
        let negative = render(&corrupted, fresh_described);
        PromptPair::new(
            positive.0,
            negative.0,
            vec![token(&signature[answer])],
            signature
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != answer)
                .map(|(_, word)| token(word))
                .collect(),
        )
        .with_slots(positive.1, negative.1)
        .with_variables(positive.2, negative.2)
    }
    fn notes(&self) -> Vec<String> {
        self.note.iter().cloned().collect()
    }
}
