//! Answers as tokens of a model, and the metric that reads them.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::Backend;
use circuitscope_eval::causal::Metric;
use circuitscope_model::{Loaded, Tokenizer};
use circuitscope_tasks::{AnswerToken, Answers, LabelledPrompts, TaskSpec, following};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What is read from a model's output, and why that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MetricChoice {
    /// The metric.
    pub metric: Metric,
    /// Why it was taken, as the end of a sentence.
    pub why: String,
}

/// What became of the answers of a pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChangedAnswers {
    /// The pair, from 0.
    pub pair: usize,
    /// Where it stands in its file.
    pub place: String,
    /// What right and wrong answers begin with alike, and both prompts end in therefore.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub appended: String,
    /// Answers of several tokens, and the token by which each counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub split: BTreeMap<String, String>,
    /// How many answers are left out, because a rival begins with the same token.
    #[serde(default)]
    pub left_out: usize,
}

/// Which metric reads some prompts: as asked for, else that of the task, else what all answers allow.
///
/// # Errors
/// [`Error::Answers`] where nothing was asked for and some pairs have answers of a kind that others
/// lack.
pub fn metric_choice(
    asked: Option<Metric>,
    task: Option<&TaskSpec>,
    prompts: &LabelledPrompts,
) -> Result<MetricChoice> {
    let choice = |metric, why: String| Ok(MetricChoice { metric, why });
    if let Some(metric) = asked {
        return choice(metric, "as asked for".to_owned());
    }
    if let Some((task, metric)) = task.and_then(|task| Some((task, task.metric?))) {
        return choice(metric, format!("the metric of task `{task}`"));
    }
    let [right, wrong] = fields(prompts);
    let of = |has: fn(&Answers) -> bool| {
        let lacking = prompts.answers.iter().position(|answers| !has(answers));
        let all = prompts.answers.len();
        let lack = prompts
            .answers
            .iter()
            .filter(|answers| !has(answers))
            .count();
        (lack == all, lacking)
    };
    let (no_right, lacks_right) = of(|answers| !answers.right.is_empty());
    let (no_wrong, lacks_wrong) = of(|answers| !answers.wrong.is_empty());
    for (none, lacking, field) in [
        (no_right, lacks_right, right),
        (no_wrong, lacks_wrong, wrong),
    ] {
        if let (false, Some(pair)) = (none, lacking) {
            return Err(Error::Answers {
                place: prompts.place(pair),
                field: field.to_owned(),
                problem: "found none, expected answers as other pairs have them, or the metric `contrast`, which \
                          reads none"
                    .to_owned(),
            });
        }
    }
    if no_right && !no_wrong {
        return Err(Error::Answers {
            place: prompts.place(0),
            field: right.to_owned(),
            problem: format!(
                "found none beside `{wrong}`, expected the right answer of every pair, or the metric `contrast`, which \
                 reads none"
            ),
        });
    }
    if no_right {
        let why = "no pair has answers".to_owned();
        return choice(Metric::Contrast, why);
    }
    if prompts.origin.as_ref().is_some_and(|origin| origin.years) {
        let why = format!("`{right}` gives years: later ones are right, all others wrong");
        return choice(Metric::ProbabilityDifference, why);
    }
    if no_wrong {
        let why = "pairs have right answers and no wrong ones".to_owned();
        return choice(Metric::LogProbability, why);
    }
    choice(
        Metric::LogitDifference,
        "every pair has right and wrong answers".to_owned(),
    )
}

/// Makes the answers of prompts tokens of the model, and says what became of them: what was changed, and in a sentence
/// each what was assumed.
///
/// An answer counts by its first token, as the tokenizer has it after the prompt. Where right and wrong
/// answers of a pair begin with the same tokens, those are put after both prompts
/// ([`LabelledPrompts::appended`]), and answers count by the first token that tells them apart; of lists, members that
/// no token tells apart from a rival are left out. To read answers again changes nothing.
///
/// # Errors
/// Where the metric reads answers, [`Error::Answers`], which names file, line and field, for a token beyond the
/// vocabulary, an empty answer, or answers that no token tells apart.
pub(crate) fn read_answers<B: Backend>(
    loaded: &Loaded<B>,
    prompts: &mut LabelledPrompts,
    metric: Metric,
) -> Result<(Vec<ChangedAnswers>, Vec<String>)> {
    let mut notes = Vec::new();
    let mut changed = Vec::new();
    if !prompts.answers.is_empty() {
        let mut reader = Reader::new(loaded)?;
        let read = (0..prompts.answers.len()).map(|pair| reader.pair(prompts, pair));
        let unread = !metric.reads_answers();
        match read.collect::<Result<Vec<_>>>() {
            Ok(read) if unread && read.iter().any(|read| !read.appended.is_empty()) => {
                notes.push(format!("answers are not read: the metric is {metric}"));
                prompts.answers.clear();
            }
            Ok(read) => {
                prompts.appended.resize(read.len(), Vec::new());
                for (pair, read) in read.into_iter().enumerate() {
                    prompts.answers[pair] = Answers {
                        right: read.right.into_iter().map(AnswerToken::Id).collect(),
                        wrong: read.wrong.into_iter().map(AnswerToken::Id).collect(),
                    };
                    prompts.appended[pair].extend(read.appended);
                    changed.extend(read.changed);
                }
                if prompts.appended.iter().all(Vec::is_empty) {
                    prompts.appended.clear();
                }
            }
            Err(error) if unread => {
                notes.push(format!("answers are not read: {error}"));
                prompts.answers.clear();
            }
            Err(error) => return Err(error),
        }
    }
    notes.extend(describe(&changed));
    Ok((changed, notes))
}

/// How many more pairs something is true of.
pub(crate) fn more(pairs: usize) -> String {
    match pairs {
        0 => String::new(),
        1 => " (and so for 1 more pair)".to_owned(),
        pairs => format!(" (and so for {pairs} more pairs)"),
    }
}

fn fields(prompts: &LabelledPrompts) -> [&str; 2] {
    match &prompts.origin {
        Some(origin) => [origin.fields[0].as_str(), origin.fields[1].as_str()],
        None => ["answers", "wrong_answers"],
    }
}

/// One sentence for each kind of change, with its first pair.
fn describe(changed: &[ChangedAnswers]) -> Vec<String> {
    let say = |has: fn(&ChangedAnswers) -> bool, sentence: &dyn Fn(&ChangedAnswers) -> String| {
        let mut with = changed.iter().filter(|changed| has(changed));
        let first = with.next()?;
        let more = more(with.count());
        Some(format!("{}: {}{more}", first.place, sentence(first)))
    };
    let appended = say(|changed| !changed.appended.is_empty(), &|changed| {
        format!(
            "right and wrong answers begin with {:?}, which is put after both prompts; the next token \
                 is compared",
            changed.appended
        )
    });
    let split = say(|changed| !changed.split.is_empty(), &|changed| {
        let first = changed.split.first_key_value();
        let (word, token) = first.map_or(("", ""), |(word, token)| (word, token));
        format!("the tokenizer splits the answer {word:?}, which counts by its token {token:?}")
    });
    let left_out = say(|changed| changed.left_out > 0, &|changed| {
        format!(
            "{} begin with the same token as a rival and are left out",
            match changed.left_out {
                1 => "1 answer".to_owned(),
                n => format!("{n} answers"),
            }
        )
    });
    [appended, split, left_out].into_iter().flatten().collect()
}

/// Names of the token that stands for text that a tokenizer does not know.
const UNKNOWN: [&str; 3] = ["<unk>", "[UNK]", "<|unk|>"];

/// A sequence of tokens, and the answer that it is.
#[derive(Debug, Clone)]
struct Sequence {
    tokens: Vec<u32>,
    word: Option<String>,
}

/// Answers of a pair, as they are compared.
struct Read {
    right: Vec<u32>,
    wrong: Vec<u32>,
    appended: Vec<u32>,
    changed: Option<ChangedAnswers>,
}

struct Reader<'a> {
    tokenizer: &'a Tokenizer,
    vocabulary: usize,
    /// Tokens of a word after the end of a prompt.
    known: BTreeMap<(String, String), Vec<u32>>,
}

impl<'a> Reader<'a> {
    fn new<B: Backend>(loaded: &'a Loaded<B>) -> Result<Self> {
        Ok(Self {
            tokenizer: loaded.tokenizer()?,
            vocabulary: loaded.model.config().d_vocab_out,
            known: BTreeMap::new(),
        })
    }

    fn pair(&mut self, prompts: &LabelledPrompts, pair: usize) -> Result<Read> {
        let Answers { right, wrong } = &prompts.answers[pair];
        let [of_right, of_wrong] = fields(prompts);
        let fault = |field: &str, problem: String| Error::Answers {
            place: prompts.place(pair),
            field: field.to_owned(),
            problem,
        };
        let prompt = prompts
            .pairs
            .get(pair)
            .map_or("", |&(at, _)| prompts.texts[at].as_str());
        let mut sequences = |answers: &[AnswerToken], field: &str| {
            let sequences = answers.iter().map(|answer| {
                let sequence = self.sequence(prompt, answer);
                let beyond = sequence.tokens.iter();
                let mut beyond = beyond.filter(|token| **token as usize >= self.vocabulary);
                match (beyond.next(), &sequence.word) {
                    (_, Some(word)) if sequence.tokens.is_empty() => {
                        let expected = "expected text that the tokenizer has tokens for";
                        Err(fault(field, format!("found {word:?}, {expected}")))
                    }
                    (None, _) => Ok(sequence),
                    (Some(token), word) => Err(fault(
                        field,
                        format!(
                            "found token {token}{}, expected 0 to {}",
                            word.as_ref()
                                .map_or_else(String::new, |word| format!(" for {word:?}")),
                            self.vocabulary - 1
                        ),
                    )),
                }
            });
            sequences.collect::<Result<Vec<_>>>()
        };
        let (right, wrong) = (sequences(right, of_right)?, sequences(wrong, of_wrong)?);
        let all = right.len() + wrong.len();
        let (right, wrong, appended) = tell_apart(right, wrong).ok_or_else(|| {
            let Answers { right, wrong } = &prompts.answers[pair];
            let show = |answers: &[AnswerToken]| match answers.first() {
                Some(AnswerToken::Word(word)) => format!("{word:?}"),
                Some(AnswerToken::Id(id)) => format!("token {id}"),
                None => String::new(),
            };
            fault(
                of_right,
                format!(
                    "no token tells the right answers (such as {}) from the wrong ones (such as {})",
                    show(right),
                    show(wrong)
                ),
            )
        })?;
        let mut changed = ChangedAnswers {
            pair,
            place: prompts.place(pair),
            appended: self.text(&appended),
            split: BTreeMap::new(),
            left_out: all - right.len() - wrong.len(),
        };
        for sequence in right.iter().chain(&wrong) {
            if let (true, Some(word)) = (sequence.tokens.len() > 1, &sequence.word) {
                let token = self.text(&sequence.tokens[..1]);
                changed.split.insert(word.clone(), token);
            }
        }
        let first = |sequences: Vec<Sequence>| {
            let tokens: BTreeSet<u32> = sequences.iter().map(|one| one.tokens[0]).collect();
            tokens.into_iter().collect::<Vec<_>>()
        };
        let as_given = appended.is_empty() && changed.split.is_empty() && changed.left_out == 0;
        Ok(Read {
            right: first(right),
            wrong: first(wrong),
            appended,
            changed: (!as_given).then_some(changed),
        })
    }

    fn sequence(&mut self, prompt: &str, answer: &AnswerToken) -> Sequence {
        let word = match answer {
            AnswerToken::Id(id) => {
                return Sequence {
                    tokens: vec![*id],
                    word: None,
                };
            }
            AnswerToken::Word(word) => word,
        };
        // A tokenizer looks no further back than the last space.
        let tail = prompt.rfind(' ').map_or(prompt, |at| &prompt[at..]);
        let key = (tail.to_owned(), word.clone());
        let tokens = if let Some(known) = self.known.get(&key) {
            known.clone()
        } else {
            let tokens = self.word(tail, word);
            self.known.insert(key, tokens.clone());
            tokens
        };
        Sequence {
            tokens,
            word: Some(word.clone()),
        }
    }

    /// A word that is one token stays that; else what it is after the prompt, where the two part
    /// between tokens; else what it is alone. Nothing where the tokenizer does not know it.
    fn word(&self, tail: &str, word: &str) -> Vec<u32> {
        let Ok(alone) = self.tokenizer.encode(word, false) else {
            return Vec::new();
        };
        let stored = |token: u32| self.tokenizer.token(token).unwrap_or_default();
        if let [token] = alone[..]
            && stored(token).replace(['Ġ', '▁'], " ") == word
        {
            return alone;
        }
        let encode = |text: &str| Ok(self.tokenizer.encode(text, false)?);
        let after = following(&encode, tail, word).ok().flatten();
        let tokens = after.unwrap_or(alone);
        let unknown = tokens
            .iter()
            .any(|token| UNKNOWN.contains(&stored(*token).as_str()));
        if unknown { Vec::new() } else { tokens }
    }

    fn text(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens).unwrap_or_default()
    }
}

/// Right and wrong answers from the first token on that tells them apart, and the tokens before it.
/// Members that begin with a rival's token are left out. Nothing where no token tells any apart.
fn tell_apart(
    mut right: Vec<Sequence>,
    mut wrong: Vec<Sequence>,
) -> Option<(Vec<Sequence>, Vec<Sequence>, Vec<u32>)> {
    let mut appended = Vec::new();
    if wrong.is_empty() || right.is_empty() {
        return Some((right, wrong, appended));
    }
    loop {
        let firsts = |sequences: &[Sequence]| -> Option<BTreeSet<u32>> {
            let tokens = sequences.iter().map(|one| one.tokens.first().copied());
            tokens.collect()
        };
        let (of_right, of_wrong) = (firsts(&right)?, firsts(&wrong)?);
        let alone = |sequences: &[Sequence], rivals: &BTreeSet<u32>| -> Vec<Sequence> {
            let sequences = sequences.iter();
            let alone = sequences.filter(|one| !rivals.contains(&one.tokens[0]));
            alone.cloned().collect()
        };
        let (right_alone, wrong_alone) = (alone(&right, &of_wrong), alone(&wrong, &of_right));
        if !right_alone.is_empty() && !wrong_alone.is_empty() {
            return Some((right_alone, wrong_alone, appended));
        }
        // All right answers begin with one token: what comes after it may tell them apart.
        let [shared] = of_right.iter().copied().collect::<Vec<_>>()[..] else {
            return None;
        };
        appended.push(shared);
        let after = |sequences: Vec<Sequence>| -> Vec<Sequence> {
            let with = sequences.into_iter().filter(|one| one.tokens[0] == shared);
            let rest = with.map(|one| Sequence {
                tokens: one.tokens[1..].to_vec(),
                word: one.word,
            });
            rest.collect()
        };
        right = after(right);
        wrong = after(wrong);
        if wrong.is_empty() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(all: &[&[u32]]) -> Vec<Sequence> {
        let one = |tokens: &&[u32]| Sequence {
            tokens: tokens.to_vec(),
            word: None,
        };
        all.iter().map(one).collect()
    }

    fn told(right: &[&[u32]], wrong: &[&[u32]]) -> Option<(Vec<u32>, Vec<u32>, Vec<u32>)> {
        let (right, wrong, appended) = tell_apart(sequences(right), sequences(wrong))?;
        let firsts = |all: Vec<Sequence>| all.iter().map(|one| one.tokens[0]).collect();
        Some((firsts(right), firsts(wrong), appended))
    }

    #[test]
    fn the_first_token_that_differs_is_compared() {
        // As they are.
        assert_eq!(told(&[&[1]], &[&[2]]), Some((vec![1], vec![2], vec![])));
        // A shared beginning goes to the prompts.
        assert_eq!(
            told(&[&[7, 8, 1]], &[&[7, 8, 2, 5]]),
            Some((vec![1], vec![2], vec![7, 8]))
        );
        // Of lists, what cannot be told apart is left out.
        assert_eq!(
            told(&[&[4, 9], &[5, 0]], &[&[3, 0], &[4, 0]]),
            Some((vec![5], vec![3], vec![]))
        );
        // Digits: all right years are in the nineties, and so are some wrong ones.
        assert_eq!(
            told(&[&[9, 6], &[9, 7]], &[&[8, 0], &[9, 5]]),
            Some((vec![6, 7], vec![5], vec![9]))
        );
    }

    #[test]
    fn what_no_token_tells_apart_is_refused() {
        assert_eq!(told(&[&[1]], &[&[1]]), None);
        assert_eq!(told(&[&[1]], &[&[1, 2]]), None, "one begins the other");
        assert_eq!(told(&[&[1], &[2]], &[&[1], &[2]]), None);
        // Nothing to tell apart from.
        assert_eq!(told(&[&[1, 2]], &[]), Some((vec![1], vec![], vec![])));
    }
}
