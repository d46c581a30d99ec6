use core::fmt;
use core::str::FromStr;

use circuitscope_core::HeadId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a head may attend to.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
#[non_exhaustive]
pub enum Pattern {
    /// The token before.
    PreviousToken,
    /// An earlier token that is the same.
    DuplicateToken,
    /// The token after an earlier place where as many tokens as given, the last one read included, stand as they do here.
    Induction(usize),
    /// The first position, where heads rest.
    FirstToken,
    /// Tokens in which the two prompts of a pair differ.
    DifferingTokens,
    /// A named part of the prompt.
    Slot(String),
}

impl Pattern {
    /// Of patterns that hold alike, the one with the lowest number says most: what the tokens are to each other, then which part of
    /// the prompt they are.
    pub(crate) const fn order(&self) -> usize {
        match self {
            Self::Induction(prefix) => *prefix,
            Self::DuplicateToken => 5,
            Self::PreviousToken => 6,
            Self::Slot(_) => 7,
            Self::DifferingTokens => 8,
            Self::FirstToken => 9,
        }
    }

    /// Longest beginning that [`Pattern::Induction`] is measured with.
    pub const LONGEST_PREFIX: usize = 4;

    /// What a head with it does, as `attends to …`.
    #[must_use]
    pub fn phrase(&self) -> String {
        match self {
            Self::PreviousToken => "the token before".to_owned(),
            Self::DuplicateToken => "an earlier token that is the same".to_owned(),
            Self::Induction(1) => "the token after an earlier one that is the same".to_owned(),
            Self::Induction(prefix) => {
                format!("the token after an earlier place with the same {prefix} tokens")
            }
            Self::FirstToken => "the first token".to_owned(),
            Self::DifferingTokens => "tokens in which the two prompts differ".to_owned(),
            Self::Slot(name) => name.clone(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PreviousToken => f.write_str("previous-token"),
            Self::DuplicateToken => f.write_str("duplicate-token"),
            Self::Induction(prefix) => write!(f, "induction-{prefix}"),
            Self::FirstToken => f.write_str("first-token"),
            Self::DifferingTokens => f.write_str("differing-tokens"),
            Self::Slot(name) => write!(f, "slot:{name}"),
        }
    }
}

/// A text that is no [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is no pattern: expected previous-token, duplicate-token, induction-1 to induction-4, first-token, \
     differing-tokens or slot:NAME"
)]
pub struct UnknownPattern {
    /// The text.
    pub found: String,
}

impl FromStr for Pattern {
    type Err = UnknownPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownPattern {
            found: text.to_owned(),
        };
        match text {
            "previous-token" => Ok(Self::PreviousToken),
            "duplicate-token" => Ok(Self::DuplicateToken),
            "first-token" => Ok(Self::FirstToken),
            "differing-tokens" => Ok(Self::DifferingTokens),
            _ => {
                if let Some(name) = text.strip_prefix("slot:") {
                    return Ok(Self::Slot(name.to_owned()));
                }
                let prefix = text.strip_prefix("induction-").ok_or_else(unknown)?;
                let prefix = prefix.parse().ok();
                let prefix = prefix.filter(|prefix| (1..=Self::LONGEST_PREFIX).contains(prefix));
                prefix.map(Self::Induction).ok_or_else(unknown)
            }
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = UnknownPattern;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

/// How much of a head's attention follows a pattern, and what that is worth.
///
/// A pattern alone names heads that do nothing with it: it is a role only where it is more than chance *and* the head's
/// effect times the pattern is more than what heads without an effect reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PatternScore {
    /// The pattern.
    pub pattern: Pattern,
    /// Mean attention that follows it, over all positions of positive prompts where it is defined: the pattern alone.
    pub attention: f64,
    /// Of what the head does where it matters, the share that comes from there: attention times value times gradient, weighted
    /// with the size of the head's effect at each position; a mean over the pairs that define it, positions of theirs where it is
    /// not defined counting as 0.
    pub weighted: f64,
    /// The named part, `last token` or `elsewhere`, that most of `weighted` is read from; empty where that was not measured.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// The 95 % point of `weighted` when each position attends to as many tokens drawn at random.
    pub shuffled: f64,
    /// `weighted` times the size of the head's exact effect ([`Patched`](super::Patched)), 0 where that was not measured: it is for the
    /// heads with the largest effects by a gradient.
    pub joined: f64,
    /// The largest `joined` among heads without an effect: those whose exact one is less than 7 % of the largest.
    pub idle: f64,
    /// Whether it is more than both, and at least a twentieth of what the head does, and so what it is said to do.
    pub role: bool,
}

/// One pattern in every head of a model, layer by layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PatternOfHeads {
    /// The pattern.
    pub pattern: Pattern,
    /// Pairs whose positive prompt defines it.
    pub pairs: usize,
    /// [`PatternScore::attention`] of each head.
    pub attention: Vec<f64>,
    /// [`PatternScore::joined`] of each head.
    pub joined: Vec<f64>,
    /// Heads that have it as a role.
    #[schemars(with = "Vec<String>")]
    pub roles: Vec<HeadId>,
}

/// Attention of a head on random tokens said twice, a mean over positions of the second time where the pattern is defined (of the
/// previous and first token over all).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HeadPatterns {
    /// To the token before.
    pub previous_token: f64,
    /// To where the same token stood the first time.
    pub duplicate_token: f64,
    /// To the token after that.
    pub induction: f64,
    /// To the first position.
    pub first_token: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let all = [
            Pattern::PreviousToken,
            Pattern::DuplicateToken,
            Pattern::Induction(1),
            Pattern::Induction(4),
            Pattern::FirstToken,
            Pattern::DifferingTokens,
            Pattern::Slot("IO".to_owned()),
        ];
        for pattern in all {
            assert_eq!(pattern.to_string().parse(), Ok(pattern.clone()));
            let json = serde_json::to_string(&pattern).unwrap();
            assert_eq!(serde_json::from_str::<Pattern>(&json).unwrap(), pattern);
        }
        for wrong in ["", "induction-0", "induction-5", "induction-", "Slot"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
    }
}
