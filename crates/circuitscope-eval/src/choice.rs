use core::fmt;
use core::str::FromStr;

use circuitscope_measures::Selection;
use serde::{Deserialize, Serialize};

/// How heads are chosen where no circuit is known.
///
/// What each gives on models whose circuits are known is in `docs/methods/choosing.md`. Read and written as
/// `otsu`, `otsu-sqrt`, `top:N`, `softmax:THETA`, `fdr:RATE`, `stability:SHARE` and `knee`:
///
/// ```
/// use circuitscope_eval::Choice;
/// use circuitscope_measures::Selection;
///
/// assert_eq!("top:3".parse(), Ok(Choice::Rule(Selection::Top(3))));
/// assert_eq!(Choice::Stability(0.9).to_string(), "stability:0.9");
/// assert!("fdr:2".parse::<Choice>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Choice {
    /// Heads that stand out from random relabellings of the prompts at this false discovery rate
    /// ([`significance`](crate::significance())). Methods that start anew on other labels, and scores without a
    /// sign, have no such null.
    FalseDiscoveryRate(f64),
    /// Heads that are among the best on at least this share of half samples of the prompts
    /// ([`Stability`](circuitscope_score::stats::Stability)). Only methods that score a resample without starting anew can tell.
    Stability(f64),
    /// The best heads up to where the head share ([`Baseline`](circuitscope_measures::Baseline)) stops growing fast
    /// ([`knee`](circuitscope_score::stats::knee) of it over the
    /// number of heads kept): needs the model and answers, and knows what the metric knows.
    Knee,
    /// By the scores alone.
    #[serde(untagged)]
    Rule(Selection),
}

impl Choice {
    /// What is taken where nothing is asked for: [`Choice::Knee`] where the model is there with pairs of
    /// prompts, else Otsu's threshold.
    #[must_use]
    pub const fn default_for(runs_model: bool) -> Self {
        if runs_model {
            Self::Knee
        } else {
            Self::Rule(Selection::Otsu)
        }
    }

    /// Whether a number of heads was asked for, whatever they score.
    pub(crate) const fn is_a_number(self) -> bool {
        matches!(self, Self::Rule(Selection::Top(_)))
    }
}

/// What is wrong with the text of a [`Choice`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownChoice(String);

impl FromStr for Choice {
    type Err = UnknownChoice;

    fn from_str(s: &str) -> Result<Self, UnknownChoice> {
        let wrong = |expected: &str| UnknownChoice(expected.to_owned());
        let unknown = || {
            wrong(
                "expected `otsu`, `otsu-sqrt`, `top:N`, `softmax:THETA`, `fdr:RATE`, `stability:SHARE` or `knee`",
            )
        };
        let number = |text: &str| text.parse::<f64>().ok().ok_or_else(unknown);
        match s.split_once(':') {
            None if s == "otsu" => Ok(Self::Rule(Selection::Otsu)),
            None if s == "otsu-sqrt" => Ok(Self::Rule(Selection::OtsuSqrt)),
            None if s == "knee" => Ok(Self::Knee),
            Some(("top", n)) => match n.parse() {
                Ok(n) if n > 0 => Ok(Self::Rule(Selection::Top(n))),
                _ => Err(UnknownChoice(format!(
                    "N is a number of heads: found {n:?}, expected 1 or more"
                ))),
            },
            Some(("softmax", theta)) => match number(theta)? {
                theta if (0.0..1.0).contains(&theta) => Ok(Self::Rule(Selection::Softmax(theta))),
                _ => Err(wrong("THETA is a share: at least 0, below 1")),
            },
            Some(("fdr", rate)) => match number(rate)? {
                rate if rate > 0.0 && rate < 1.0 => Ok(Self::FalseDiscoveryRate(rate)),
                _ => Err(wrong("RATE is a share: above 0, below 1")),
            },
            Some(("stability", share)) => match number(share)? {
                share if share > 0.5 && share <= 1.0 => Ok(Self::Stability(share)),
                _ => Err(wrong("SHARE of half samples: above 0.5, at most 1")),
            },
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FalseDiscoveryRate(rate) => write!(f, "fdr:{rate}"),
            Self::Stability(share) => write!(f, "stability:{share}"),
            Self::Knee => f.write_str("knee"),
            Self::Rule(selection) => selection.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_written_by_name() {
        let json = |choice: Choice| serde_json::to_string(&choice).unwrap();
        assert_eq!(json(Choice::Rule(Selection::Otsu)), r#""otsu""#);
        assert_eq!(json(Choice::Rule(Selection::Top(3))), r#"{"top":3}"#);
        assert_eq!(json(Choice::Knee), r#""knee""#);
        assert_eq!(json(Choice::Stability(0.9)), r#"{"stability":0.9}"#);
        for choice in [
            Choice::Rule(Selection::Otsu),
            Choice::Rule(Selection::OtsuSqrt),
            Choice::Rule(Selection::Softmax(0.5)),
            Choice::Knee,
            Choice::FalseDiscoveryRate(0.05),
        ] {
            assert_eq!(
                serde_json::from_str::<Choice>(&json(choice)).unwrap(),
                choice
            );
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
    }
}
