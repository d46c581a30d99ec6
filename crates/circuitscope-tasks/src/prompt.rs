use core::fmt;
use core::ops::Range;
use std::collections::BTreeMap;
use std::path::PathBuf;

use circuitscope_core::{Polarity, Seed};
use serde::{Deserialize, Serialize};

use crate::Vocabulary;

mod check;
mod parts;

pub use parts::Slot;
pub(crate) use parts::in_order;

/// A prompt and the words between which the next-token prediction is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The text, without a beginning-of-sequence token.
    pub text: String,
    /// Next tokens that show the behaviour, as token text (with its leading space, for GPT-2).
    pub answers: Vec<String>,
    /// Next tokens that the behaviour rules out.
    pub wrong_answers: Vec<String>,
    /// Its named parts, in the order of the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    /// What it varies in, by name: who receives, which year.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

/// A prompt that calls for the behaviour and a matched one that does not.
///
/// Both carry the *same* answers and wrong answers, those of the positive prompt: a metric such as
/// the logit difference is read with the same words on both, high on the positive, and near what
/// chance gives on the negative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptPair {
    /// The behaviour happens here.
    pub positive: Prompt,
    /// Here it does not.
    pub negative: Prompt,
}

impl PromptPair {
    /// A pair that carries the same answers on both sides, without named parts and variables.
    #[must_use]
    pub fn new(
        positive: String,
        negative: String,
        answers: Vec<String>,
        wrong_answers: Vec<String>,
    ) -> Self {
        Self {
            negative: Prompt {
                text: negative,
                answers: answers.clone(),
                wrong_answers: wrong_answers.clone(),
                slots: Vec::new(),
                variables: BTreeMap::new(),
            },
            positive: Prompt {
                text: positive,
                answers,
                wrong_answers,
                slots: Vec::new(),
                variables: BTreeMap::new(),
            },
        }
    }

    /// With the named parts of the positive and of the negative prompt. Parts of one name correspond, the first to
    /// the first.
    #[must_use]
    pub fn with_slots(mut self, positive: Vec<Slot>, negative: Vec<Slot>) -> Self {
        self.positive.slots = parts::in_order(positive);
        self.negative.slots = parts::in_order(negative);
        self
    }

    /// With the variables of the positive and of the negative prompt.
    #[must_use]
    pub fn with_variables(
        mut self,
        positive: BTreeMap<String, String>,
        negative: BTreeMap<String, String>,
    ) -> Self {
        self.positive.variables = positive;
        self.negative.variables = negative;
        self
    }

    /// The prompt of class `polarity`.
    pub const fn get(&self, polarity: Polarity) -> &Prompt {
        match polarity {
            Polarity::Positive => &self.positive,
            Polarity::Negative => &self.negative,
        }
    }
}

/// The prompts of one task, with what made them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptSet {
    /// Name of the task.
    pub task: String,
    /// The words used.
    pub vocabulary: Vocabulary,
    /// The run's seed.
    pub seed: Seed,
    /// The pairs, in the order drawn.
    pub pairs: Vec<PromptPair>,
    /// What the model's tokenizer made different from the plain task, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl PromptSet {
    /// All prompts with their labels: first every positive, then every negative, each in pair order.
    #[must_use]
    pub fn labelled(&self) -> LabelledPrompts {
        let words = |words: &[String]| words.iter().cloned().map(AnswerToken::Word).collect();
        let answers = self.pairs.iter().map(|pair| Answers {
            right: words(&pair.positive.answers),
            wrong: words(&pair.positive.wrong_answers),
        });
        let texts = self.pairs.iter();
        let texts = texts.map(|pair| (pair.positive.text.clone(), pair.negative.text.clone()));
        let positives = self.pairs.iter().map(|pair| &pair.positive);
        let prompts = positives.chain(self.pairs.iter().map(|pair| &pair.negative));
        let slots = prompts.clone().map(|prompt| prompt.slots.clone());
        let variables = prompts.map(|prompt| prompt.variables.clone());
        LabelledPrompts {
            answers: answers.collect(),
            slots: known(slots.collect()),
            variables: known(variables.collect()),
            notes: self.notes.clone(),
            ..LabelledPrompts::from_pairs(texts)
        }
    }
}

/// Texts of two classes: the form in which prompts, generated or the user's own, meet a model.
///
/// Positives come first, then negatives, each class in its own order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
#[non_exhaustive]
pub struct LabelledPrompts {
    /// The prompts.
    pub texts: Vec<String>,
    /// The class of each prompt.
    pub labels: Vec<Polarity>,
    /// Which prompts belong together, as (positive, negative) positions in `texts`; empty where
    /// the classes are not matched one to one.
    pub pairs: Vec<(usize, usize)>,
    /// For each pair, what is right and wrong after its positive prompt; empty where unknown.
    #[serde(default)]
    pub answers: Vec<Answers>,
    /// For each pair, tokens that both of its prompts end in, after their text: what its right and
    /// wrong answers begin with alike. Empty where there is nothing of the kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub appended: Vec<Vec<u32>>,
    /// For each pair, the parts of its prompts that correspond, in order; empty where none are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<Vec<Span>>,
    /// For each text, its named parts in the order of the text; empty where none are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Vec<Slot>>,
    /// For each text, its variables; empty where none are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<BTreeMap<String, String>>,
    /// Where the pairs were read from, if from a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What was passed over in reading, or fitted to a tokenizer in drawing, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Parts of the two prompts of a pair that correspond, in bytes of their texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Of the positive prompt.
    pub positive: Range<usize>,
    /// Of the negative prompt.
    pub negative: Range<usize>,
}

/// The file that pairs were read from, for messages that name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// Where each pair stands in it.
    pub places: Vec<Place>,
    /// The fields or columns that hold right and wrong answers.
    pub fields: [String; 2],
    /// Whether the file gives a year, after which every later one is right and every other wrong
    /// (greater-than).
    pub years: bool,
}

/// Where a pair stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Place {
    /// A line, from 1.
    Line(usize),
    /// An entry of the list `prompts`, from 0.
    Entry(usize),
}

impl Place {
    /// The place in `file`, as messages begin: `pairs.jsonl:3`, or `task.json: prompts[2]`.
    #[must_use]
    pub fn of(self, file: impl fmt::Display) -> String {
        match self {
            Self::Line(line) => format!("{file}:{line}"),
            Self::Entry(entry) => format!("{file}: prompts[{entry}]"),
        }
    }
}

/// What is right, and what is wrong, after the positive prompt of a pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// Next tokens that show the behaviour.
    pub right: Vec<AnswerToken>,
    /// Next tokens that the behaviour rules out.
    pub wrong: Vec<AnswerToken>,
}

/// A next token, by its text or by its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AnswerToken {
    /// Token text, with its leading space where the vocabulary has one.
    Word(String),
    /// Token id.
    Id(u32),
}

impl LabelledPrompts {
    /// Where pair `pair` stands, as a message begins: file and line, or the number of the pair.
    #[must_use]
    pub fn place(&self, pair: usize) -> String {
        let origin = self.origin.as_ref();
        let place = origin.and_then(|origin| Some((origin, origin.places.get(pair)?)));
        place.map_or_else(
            || format!("pair {}", pair + 1),
            |(origin, place)| place.of(origin.file.display()),
        )
    }

    /// Where a prompt stands, as a message begins: the place of its pair and which of the two it is, or its number
    /// from 1.
    #[must_use]
    pub fn prompt_place(&self, prompt: usize) -> String {
        let of = |pair: usize, class: &str| format!("{}: {class} prompt", self.place(pair));
        let first = self.pairs.iter().position(|pair| pair.0 == prompt);
        let second = self.pairs.iter().position(|pair| pair.1 == prompt);
        match (first, second) {
            (Some(pair), _) => of(pair, "positive"),
            (None, Some(pair)) => of(pair, "negative"),
            (None, None) => format!("prompt {}", prompt + 1),
        }
    }

    /// Some pairs of matched prompts, in the order of `pairs`, and nothing else.
    ///
    /// # Panics
    /// If there is no such pair.
    #[must_use]
    pub fn only_pairs(&self, pairs: &[usize]) -> Self {
        let kept: Vec<(usize, usize)> = pairs.iter().map(|&pair| self.pairs[pair]).collect();
        let texts = kept.iter().map(|&(positive, negative)| {
            (self.texts[positive].clone(), self.texts[negative].clone())
        });
        let Self {
            texts,
            labels,
            pairs: matched,
            ..
        } = Self::from_pairs(texts);
        // Every field is named, so that a new one is not forgotten.
        Self {
            texts,
            labels,
            pairs: matched,
            answers: of_pairs(&self.answers, pairs),
            appended: of_pairs(&self.appended, pairs),
            spans: of_pairs(&self.spans, pairs),
            slots: of_both(&self.slots, &kept),
            variables: of_both(&self.variables, &kept),
            origin: self.origin.clone().map(|origin| Origin {
                places: of_pairs(&origin.places, pairs),
                ..origin
            }),
            notes: self.notes.clone(),
        }
    }

    /// Matched prompts, given as (positive, negative).
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let (positive, negative): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let n = positive.len();
        Self {
            pairs: (0..n).map(|pair| (pair, n + pair)).collect(),
            ..Self::from_classes(positive, negative)
        }
    }

    /// Two classes that are not matched one to one.
    #[must_use]
    pub fn from_classes(positive: Vec<String>, negative: Vec<String>) -> Self {
        let labels = core::iter::repeat_n(Polarity::Positive, positive.len())
            .chain(core::iter::repeat_n(Polarity::Negative, negative.len()))
            .collect();
        let mut texts = positive;
        texts.extend(negative);
        Self {
            texts,
            labels,
            pairs: Vec::new(),
            answers: Vec::new(),
            appended: Vec::new(),
            spans: Vec::new(),
            slots: Vec::new(),
            variables: Vec::new(),
            origin: None,
            notes: Vec::new(),
        }
    }
}

/// What there is for each pair, if anything, for some pairs.
fn of_pairs<T: Clone>(all: &[T], pairs: &[usize]) -> Vec<T> {
    pairs
        .iter()
        .filter_map(|&pair| all.get(pair).cloned())
        .collect()
}

/// What there is for each text, if anything, for the texts of some pairs: first of the positives.
fn of_both<T: Clone>(all: &[T], pairs: &[(usize, usize)]) -> Vec<T> {
    let positives = pairs.iter().map(|pair| pair.0);
    let texts = positives.chain(pairs.iter().map(|pair| pair.1));
    texts.filter_map(|text| all.get(text).cloned()).collect()
}

/// What there is for each text; nothing where there is nothing for any.
pub(crate) fn known<T: Default + PartialEq>(all: Vec<T>) -> Vec<T> {
    if all.iter().all(|one| *one == T::default()) {
        return Vec::new();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positives_come_first_and_pairs_point_at_their_prompts() {
        let prompts = LabelledPrompts::from_pairs([
            ("p0".to_owned(), "n0".to_owned()),
            ("p1".to_owned(), "n1".to_owned()),
        ]);
        assert_eq!(prompts.texts, ["p0", "p1", "n0", "n1"]);
        assert_eq!(prompts.pairs, [(0, 2), (1, 3)]);
        assert_eq!(
            prompts.labels.iter().map(|l| l.label()).collect::<Vec<_>>(),
            [1, 1, 0, 0]
        );
    }
}
