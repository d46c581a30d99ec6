use circuitscope_measures::Selection;
use serde::{Deserialize, Serialize};

/// How heads are chosen where no circuit is known.
///
/// What each gives on models whose circuits are known is in `docs/methods/choosing.md`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
            Choice::Rule(Selection::Softmax(0.5)),
            Choice::Knee,
            Choice::FalseDiscoveryRate(0.05),
        ] {
            assert_eq!(
                serde_json::from_str::<Choice>(&json(choice)).unwrap(),
                choice
            );
        }
    }
}
