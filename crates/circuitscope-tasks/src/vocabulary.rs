use core::str::FromStr;

use circuitscope_core::{names, nearest};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::list;

/// The words that prompts are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vocabulary {
    /// Ordinary text. Of the built-in tasks, every word that can be an answer, or that differs between
    /// the prompts of a pair, is one token of GPT-2's byte-pair encoding.
    Gpt2,
    /// Words of the shipped reference model, separated by single spaces.
    Reference,
}

names!(pub Vocabulary { Gpt2 => "gpt2", Reference => "reference" });

impl FromStr for Vocabulary {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|vocabulary| vocabulary.name() == s)
            .ok_or_else(|| Error::UnknownVocabulary {
                found: s.to_owned(),
                nearest: nearest(s, Self::ALL.map(Self::name)),
                known: list(&Self::ALL.map(Self::name)),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_serialise_the_same() {
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
        let message = "zebra".parse::<Vocabulary>().unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown vocabulary \"zebra\": expected \"gpt2\" or \"reference\""
        );
    }
}
