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
    /// Logits, each weighted by what its token's probabilities after the two unchanged prompts of the pair differ by:
    /// `Σ_v (p+_v − p−_v) logits_v`, weights held fixed. Needs no answers. From the negative prompt to the positive one it rises by
    /// the Jeffreys divergence of the two predictions, `KL(p+ ‖ p−) + KL(p− ‖ p+)`.
    Contrast,
    /// Log-probability of the right answers together: minus the cross-entropy loss.
    LogProbability,
    /// Share of prompts whose most likely token is a right answer.
    Accuracy,
}

crate::names!(pub Metric: "metric" {
    LogitDifference => "logit-difference",
    ProbabilityDifference => "probability-difference",
    Kl => "kl",
    Contrast => "contrast",
    LogProbability => "log-probability",
    Accuracy => "accuracy",
});

impl Metric {
    /// Whether it reads the logits of the answers alone.
    #[must_use]
    pub const fn reads_answers_only(self) -> bool {
        matches!(self, Self::LogitDifference)
    }

    /// Whether it reads answers. The others compare with what the unchanged model makes of the prompts.
    #[must_use]
    pub const fn reads_answers(self) -> bool {
        !matches!(self, Self::Kl | Self::Contrast)
    }

    /// Whether it is above 0 exactly where a right answer is ahead of the wrong ones.
    #[must_use]
    pub const fn is_difference(self) -> bool {
        matches!(
            self,
            Self::LogitDifference | Self::ProbabilityDifference | Self::Accuracy
        )
    }

    /// Whether its gradient vanishes where nothing is changed.
    #[must_use]
    pub const fn is_flat_at_prompts(self) -> bool {
        matches!(self, Self::Kl)
    }

    /// Whether small changes of the logits change it, so that it can be differentiated.
    #[must_use]
    pub const fn has_gradient(self) -> bool {
        !matches!(self, Self::Accuracy)
    }
}
