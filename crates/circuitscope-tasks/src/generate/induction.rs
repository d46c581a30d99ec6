use rand::Rng;
use serde::Deserialize;

use super::{draw, variables, words};
use crate::data::{DataFile, data_file};
use crate::generator::Generator;
use crate::known::PLANTED;
use crate::lexicon;
use crate::{PromptPair, Result, Slot, TaskSpec, TokenEncoder, Vocabulary};

const GPT2: DataFile<'static> = data_file!("induction/gpt2.json");

/// A sequence seen before goes on as it did (Olsson et al. 2022, arXiv 2209.11895).
pub static INDUCTION: TaskSpec = TaskSpec::new(
    "induction",
    "a sequence seen before goes on as it did",
    "twenty words or more of one length in tokens after a space",
    |vocabulary, tokens| Ok(Box::new(Induction::load(vocabulary, tokens)?)),
)
.with_published(&[PLANTED]);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    schema: u32,
    #[expect(dead_code, reason = "documents the file for its readers")]
    source: String,
    length: usize,
    words: Vec<String>,
}

/// The task's section of the reference model's words.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    #[expect(dead_code, reason = "for readers of the file")]
    structure: String,
    pool: Vec<String>,
    /// Words before the segment.
    first: usize,
    /// Words of the segment.
    repeated: usize,
}

/// Induction (Olsson et al. 2022, arXiv 2209.11895).
///
/// Positive: different random words, then a segment of them once more; what followed the segment's
/// last word the first time comes next. Negative: the segment is of fresh words, so that nothing is
/// repeated. In the GPT-2 vocabulary the segment is the whole sequence, and its beginning comes
/// next.
struct Induction {
    words: Vec<String>,
    /// Words before the segment.
    length: usize,
    /// Words of the segment.
    segment: usize,
    /// Before each word, but for the separator between words.
    space: &'static str,
    note: Option<String>,
}

impl Induction {
    fn load(vocabulary: Vocabulary, tokens: Option<&TokenEncoder<'_>>) -> Result<Self> {
        match vocabulary {
            Vocabulary::Gpt2 => {
                let record: Record = GPT2.parse()?;
                GPT2.check_schema(record.schema)?;
                let task = Self::new(GPT2, record.words, record.length, record.length, " ")?;
                let needed = task.length + task.segment;
                let (words, note) =
                    words::of_one_length(&INDUCTION.name, "words", task.words, needed, tokens)?;
                Ok(Self {
                    words,
                    note,
                    ..task
                })
            }
            Vocabulary::Reference => {
                let words = lexicon::section::<Reference>(&INDUCTION.name)?;
                Self::new(lexicon::FILE, words.pool, words.first, words.repeated, "")
            }
        }
    }

    fn new(
        file: DataFile<'_>,
        words: Vec<String>,
        length: usize,
        segment: usize,
        space: &'static str,
    ) -> Result<Self> {
        file.require(2 <= length && 1 <= segment && segment <= length, || {
            format!("a segment of {segment} words in a sequence of {length}")
        })?;
        file.check_words("words", &words, length + segment)?;
        Ok(Self {
            words,
            length,
            segment,
            space,
            note: None,
        })
    }
}

impl Generator for Induction {
    fn pair(&self, _: usize, rng: &mut dyn Rng) -> PromptPair {
        let drawn = draw::distinct(rng, &self.words, self.length + self.segment);
        let (sequence, fresh) = drawn.split_at(self.length);
        // The word after the segment must exist, unless the segment is the whole sequence, which
        // is its own continuation.
        let starts: Vec<usize> = (0..(self.length - self.segment).max(1)).collect();
        let start = *draw::one(rng, &starts);
        let next = (start + self.segment) % self.length;
        let render = |segment: &[&String]| {
            let words: Vec<&str> = sequence.iter().chain(segment).map(|w| w.as_str()).collect();
            let text = format!("{}{}", self.space, words.join(" "));
            // The last word of the segment, where it stood before and what followed it there.
            let (first, last) = (start + self.segment - 1, words.len() - 1);
            let slot = |name: &str, at: usize| {
                let before = words[..at].iter().map(|word| word.len() + 1);
                let from = self.space.len() + before.sum::<usize>();
                Slot::new(name, from..from + words[at].len())
            };
            let slots = vec![
                slot("FIRST", first),
                slot("AFTER", first + 1),
                slot("SECOND", last),
            ];
            let variables = variables([("repeated", words[last]), ("answer", words[first + 1])]);
            (text, slots, variables)
        };
        let token = |word: &&String| format!("{}{word}", self.space);
        let positive = render(&sequence[start..start + self.segment]);
        let negative = render(fresh);
        PromptPair::new(
            positive.0,
            negative.0,
            vec![token(&sequence[next])],
            sequence
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != next)
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
