use serde::{Deserialize, Serialize};

/// What is read from a model's output at the last real position of a prompt.
///
/// All are *the higher, the more of the behaviour*, so that a score that says how much of the metric a
/// part carries always has the same sign. Each is differentiable in the logits but for
/// [`Accuracy`](Self::Accuracy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Mean logit of the right answers less mean logit of the wrong ones (Wang et al. 2022, arXiv
    /// 2211.00593, §2.1).
    LogitDifference,
    /// Probability of all right answers less that of all wrong ones (greater-than: Hanna et al.
    /// 2023, arXiv 2305.00586, §2).
    ProbabilityDifference,
    /// −KL(full model ‖ changed model) in nats, over the whole vocabulary. At most 0. Needs no answers.
    /// Its gradient vanishes where nothing is changed.
    Kl,
    /// Log-probability of the right answers together: minus the cross-entropy loss.
    LogProbability,
    /// Share of prompts whose most likely token is a right answer.
    Accuracy,
}

crate::names!(pub Metric: "metric" {
    LogitDifference => "logit-difference",
    ProbabilityDifference => "probability-difference",
    Kl => "kl",
    LogProbability => "log-probability",
    Accuracy => "accuracy",
});

impl Metric {
    /// Whether it reads the logits of the answers alone.
    #[must_use]
    pub const fn reads_answers_only(self) -> bool {
        matches!(self, Self::LogitDifference)
    }

    /// Whether it compares with the output of the full model, and not with answers.
    #[must_use]
    pub const fn needs_clean(self) -> bool {
        matches!(self, Self::Kl)
    }

    /// Whether small changes of the logits change it, so that it can be differentiated.
    #[must_use]
    pub const fn has_gradient(self) -> bool {
        !matches!(self, Self::Accuracy)
    }
}
