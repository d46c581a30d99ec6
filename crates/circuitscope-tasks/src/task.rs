use core::fmt;
use core::str::FromStr;

use circuitscope_core::nearest;
use serde::{Deserialize, Serialize};

use crate::Error;

/// A behaviour whose circuit is looked for.
///
/// Written `ioi`, `greater-than`, `docstring`, `induction` on the command line and in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Indirect object identification: of two people named, one is named again as the giver; the
    /// receiver is the other (Wang et al. 2022, arXiv 2211.00593).
    Ioi,
    /// A span of years ends after it began (Hanna et al. 2023, arXiv 2305.00586).
    GreaterThan,
    /// A docstring lists the arguments of a function in the order of its signature
    /// (Heimersheim and Janiak 2023).
    Docstring,
    /// A sequence seen before goes on as it did (Olsson et al. 2022, arXiv 2209.11895).
    Induction,
}

impl Task {
    /// All tasks, in the order of every table.
    pub const ALL: [Self; 4] = [
        Self::Ioi,
        Self::GreaterThan,
        Self::Docstring,
        Self::Induction,
    ];

    /// Its name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ioi => "ioi",
            Self::GreaterThan => "greater-than",
            Self::Docstring => "docstring",
            Self::Induction => "induction",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|task| task.name() == s)
            .ok_or_else(|| Error::UnknownTask {
                found: s.to_owned(),
                nearest: nearest(s, Self::ALL.map(Self::name)),
            })
    }
}

/// The words that prompts are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vocabulary {
    /// Ordinary text. Every word that can be an answer, or that differs between the prompts of a
    /// pair, is one token of GPT-2's byte-pair encoding.
    Gpt2,
    /// Words of the shipped reference model, separated by single spaces.
    Reference,
}

impl Vocabulary {
    /// Both vocabularies.
    pub const ALL: [Self; 2] = [Self::Gpt2, Self::Reference];

    /// Its name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt2",
            Self::Reference => "reference",
        }
    }
}

impl fmt::Display for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Vocabulary {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|vocabulary| vocabulary.name() == s)
            .ok_or_else(|| Error::UnknownVocabulary {
                found: s.to_owned(),
                nearest: nearest(s, Self::ALL.map(Self::name)),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_serialise_the_same() {
        for task in Task::ALL {
            assert_eq!(task.to_string().parse::<Task>().unwrap(), task);
            assert_eq!(
                serde_json::to_string(&task).unwrap(),
                format!("\"{task}\""),
                "serde and Display agree"
            );
        }
        for vocabulary in Vocabulary::ALL {
            assert_eq!(
                vocabulary.to_string().parse::<Vocabulary>().unwrap(),
                vocabulary
            );
            assert_eq!(
                serde_json::to_string(&vocabulary).unwrap(),
                format!("\"{vocabulary}\"")
            );
        }
    }

    #[test]
    fn unknown_names_are_answered_with_the_nearest() {
        let message = "greater_than".parse::<Task>().unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown task \"greater_than\" (did you mean `greater-than`?): expected \"ioi\", \
             \"greater-than\", \"docstring\" or \"induction\""
        );
        let message = "zebra".parse::<Vocabulary>().unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown vocabulary \"zebra\": expected \"gpt2\" or \"reference\""
        );
    }
}
