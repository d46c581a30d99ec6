use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

use circuitscope_core::Polarity;

use crate::LabelledPrompts;

/// Fewer pairs than this are few.
const FEW: usize = 5;

/// Something about prompts that limits what can be found with them. It prints as a sentence that says
/// what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PromptWarning {
    /// Negatives that are positives, too: the same sentences in another order.
    SameSentences {
        /// How many negatives occur among the positives.
        shared: usize,
        /// How many negatives there are.
        negatives: usize,
    },
    /// Few pairs.
    FewPairs {
        /// How many.
        pairs: usize,
    },
    /// Few examples of a class, where nothing more is known of them.
    FewExamples {
        /// Positive ones.
        positives: usize,
        /// Negative ones.
        negatives: usize,
    },
    /// Pairs that occur again and again.
    Copies {
        /// How many there are.
        pairs: usize,
        /// How many of them differ.
        distinct: usize,
    },
    /// Classes that are not matched one to one.
    Unmatched {
        /// Positive prompts.
        positives: usize,
        /// Negative prompts.
        negatives: usize,
    },
    /// Pairs whose prompts have less than half of their words in common.
    Unlike {
        /// How many.
        pairs: usize,
        /// Of how many.
        of: usize,
        /// Where the first stands.
        first: String,
    },
    /// Pairs whose prompts are the same.
    Same {
        /// How many.
        pairs: usize,
        /// Where the first stands.
        first: String,
    },
}

impl fmt::Display for PromptWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameSentences { shared, negatives } => write!(
                f,
                "{shared} of {negatives} negatives are positives, too: classes of the same sentences cannot \
                 be told apart by what heads put out on them; use answers and a method that compares each \
                 prompt with its partner, such as eap, hisp or activation-patching"
            ),
            Self::FewPairs { pairs } => write!(
                f,
                "{pairs} {}: heads that differ here may differ for any reason; use 20 or more",
                if *pairs == 1 { "pair" } else { "pairs" }
            ),
            Self::FewExamples {
                positives,
                negatives,
            } => write!(
                f,
                "{positives} positive and {negatives} negative examples: heads that differ here may differ for \
                 any reason; use 20 or more of each"
            ),
            Self::Copies { pairs, distinct } => write!(
                f,
                "{pairs} pairs are {distinct} different ones, the others their copies: they say no more than \
                 {distinct}, and intervals over pairs are too narrow; leave the copies out"
            ),
            Self::Unmatched {
                positives,
                negatives,
            } => write!(
                f,
                "{positives} positives and {negatives} negatives are not matched: heads may tell them apart \
                 by anything in which the files differ, and methods that compare pairs cannot be used; use \
                 pairs that differ in the behaviour alone"
            ),
            Self::Unlike { pairs, of, first } => write!(
                f,
                "the prompts of {pairs} of {of} pairs have less than half of their words in common (first: \
                 {first}): heads may tell them apart by anything in which they differ; use pairs that differ \
                 in few words"
            ),
            Self::Same { pairs, first } => write!(
                f,
                "the prompts of {pairs} {} are the same (first: {first}) and show nothing; leave them out",
                if *pairs == 1 { "pair" } else { "pairs" }
            ),
        }
    }
}

/// What is to be said of prompts before anything is run on them.
///
/// # Examples
/// ```
/// use circuitscope_tasks::{LabelledPrompts, prompt_warnings};
///
/// let capitals = ["The capital of France is", "The capital of Spain is", "The capital of Italy is"];
/// let rotated = (0..3).map(|at| (capitals[at].to_owned(), capitals[(at + 1) % 3].to_owned()));
/// let warnings = prompt_warnings(&LabelledPrompts::from_pairs(rotated));
/// assert!(warnings[0].to_string().starts_with("3 of 3 negatives are positives, too"));
/// ```
#[must_use]
pub fn prompt_warnings(prompts: &LabelledPrompts) -> Vec<PromptWarning> {
    let of = |class: Polarity| {
        let all = prompts.texts.iter().zip(&prompts.labels);
        all.filter(move |(_, label)| **label == class)
            .map(|(text, _)| text)
    };
    let (positives, negatives) = (
        of(Polarity::Positive).count(),
        of(Polarity::Negative).count(),
    );
    let shared = shared(of(Polarity::Positive), of(Polarity::Negative));
    let mut warnings = Vec::new();
    if 2 * shared >= negatives.max(1) {
        warnings.push(PromptWarning::SameSentences { shared, negatives });
    }
    if prompts.pairs.is_empty() {
        warnings.push(PromptWarning::Unmatched {
            positives,
            negatives,
        });
        return warnings;
    }
    let texts = |pair: usize| {
        let (positive, negative) = prompts.pairs[pair];
        (&prompts.texts[positive], &prompts.texts[negative])
    };
    let pairs = prompts.pairs.len();
    let distinct = (0..pairs).map(texts).collect::<BTreeSet<_>>().len();
    if 2 * distinct <= pairs {
        warnings.push(PromptWarning::Copies { pairs, distinct });
    }
    if distinct < FEW {
        warnings.push(PromptWarning::FewPairs { pairs: distinct });
    }
    let such = |is: &dyn Fn(&str, &str) -> bool| {
        let pairs = (0..prompts.pairs.len()).filter(|&pair| {
            let (positive, negative) = texts(pair);
            is(positive, negative)
        });
        pairs.collect::<Vec<_>>()
    };
    let same = such(&|positive, negative| positive == negative);
    if let Some(first) = same.first() {
        warnings.push(PromptWarning::Same {
            pairs: same.len(),
            first: prompts.place(*first),
        });
    }
    let unlike = such(&|positive, negative| {
        let longest = words(positive).count().max(words(negative).count());
        2 * shared_words(positive, negative) < longest
    });
    if let Some(first) = unlike.first() {
        warnings.push(PromptWarning::Unlike {
            pairs: unlike.len(),
            of: prompts.pairs.len(),
            first: prompts.place(*first),
        });
    }
    warnings
}

/// The same for examples of which nothing but their number is known.
#[must_use]
pub fn few_examples(labels: &[Polarity]) -> Option<PromptWarning> {
    let of = |class| labels.iter().filter(|label| **label == class).count();
    let (positives, negatives) = (of(Polarity::Positive), of(Polarity::Negative));
    (positives.min(negatives) < FEW).then_some(PromptWarning::FewExamples {
        positives,
        negatives,
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

fn shared_words(a: &str, b: &str) -> usize {
    shared(words(a), words(b))
}

/// How many members of `b` are in `a`, each of `a` counted once.
fn shared<T: Ord>(a: impl Iterator<Item = T>, b: impl Iterator<Item = T>) -> usize {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for member in a {
        *counts.entry(member).or_default() += 1;
    }
    let mut found = 0;
    for member in b {
        if let Some(left) = counts.get_mut(&member).filter(|left| **left > 0) {
            *left -= 1;
            found += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(pairs: &[(&str, &str)]) -> Vec<PromptWarning> {
        let pairs = pairs.iter();
        let pairs =
            pairs.map(|(positive, negative)| ((*positive).to_owned(), (*negative).to_owned()));
        prompt_warnings(&LabelledPrompts::from_pairs(pairs))
    }

    #[test]
    fn matched_pairs_are_not_warned_of() {
        let pairs = [
            ("a b c", "a b d"),
            ("e b c", "e b d"),
            ("f b c", "f b d"),
            ("g b c", "g b d"),
            ("h b c", "h b d"),
        ];
        assert_eq!(warned(&pairs), []);
        assert_eq!(warned(&pairs[..1]), [PromptWarning::FewPairs { pairs: 1 }]);
    }

    #[test]
    fn classes_that_cannot_be_compared_are_named() {
        let rotated = [
            ("a x", "b x"),
            ("b x", "c x"),
            ("c x", "d x"),
            ("d x", "e x"),
            ("e x", "a x"),
        ];
        let all = PromptWarning::SameSentences {
            shared: 5,
            negatives: 5,
        };
        assert_eq!(warned(&rotated), [all]);
        let unlike = warned(&[
            ("a b c", "d e f"),
            ("a b d", "d e f"),
            ("a b e", "d e f"),
            ("a b g", "d e f"),
            ("a b h", "d e f"),
            ("a b i", "d e f"),
        ]);
        assert_eq!(
            unlike,
            [PromptWarning::Unlike {
                pairs: 6,
                of: 6,
                first: "pair 1".to_owned()
            }]
        );
        let unmatched =
            LabelledPrompts::from_classes(vec!["a".to_owned()], vec!["b".to_owned(); 2]);
        let unmatched = prompt_warnings(&unmatched);
        assert!(
            unmatched[0]
                .to_string()
                .starts_with("1 positives and 2 negatives are not matched")
        );
        let copies = warned(&[("a b", "a c"); 24]);
        assert_eq!(
            copies,
            [
                PromptWarning::Copies {
                    pairs: 24,
                    distinct: 1
                },
                PromptWarning::FewPairs { pairs: 1 }
            ]
        );
        let labels = [Polarity::Positive, Polarity::Negative];
        assert!(few_examples(&labels).is_some());
        assert_eq!(few_examples(&labels.repeat(5)), None);
        let same = warned(&[
            ("a b", "a b"),
            ("c d", "c e"),
            ("f g", "f h"),
            ("i j", "i k"),
            ("l", "l"),
        ]);
        assert_eq!(
            same,
            [PromptWarning::Same {
                pairs: 2,
                first: "pair 1".to_owned()
            }]
        );
    }
}
