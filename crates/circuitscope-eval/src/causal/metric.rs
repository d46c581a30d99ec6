use core::fmt;
use core::str::FromStr;

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::nearest;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

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

impl Metric {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::LogitDifference,
        Self::ProbabilityDifference,
        Self::Kl,
        Self::LogProbability,
        Self::Accuracy,
    ];

    /// Its name on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogitDifference => "logit-difference",
            Self::ProbabilityDifference => "probability-difference",
            Self::Kl => "kl",
            Self::LogProbability => "log-probability",
            Self::Accuracy => "accuracy",
        }
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

    /// One value for each prompt.
    ///
    /// # Shapes
    /// - `logits`: `[prompts, vocabulary]`, at the last real position
    /// - `clean`: the same of the full model; read by [`Metric::Kl`] alone
    /// - result: `[prompts]`
    ///
    /// # Panics
    /// [`Metric::Kl`] without `clean`.
    pub fn values<B: Backend>(
        self,
        logits: Tensor<B, 2>,
        targets: &Targets<B>,
        clean: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 1> {
        let per_row: Tensor<B, 2> = match self {
            Self::LogitDifference => (logits * targets.contrast()).sum_dim(1),
            Self::ProbabilityDifference => {
                let difference = targets.right.clone() - targets.wrong.clone();
                (softmax(logits, 1) * difference).sum_dim(1)
            }
            Self::Kl => {
                let clean = log_softmax(clean.expect("KL compares two outputs").clone(), 1);
                let gap = clean.clone() - log_softmax(logits, 1);
                (clean.exp() * gap).sum_dim(1).neg()
            }
            Self::LogProbability => (softmax(logits, 1) * targets.right.clone())
                .sum_dim(1)
                .clamp_min(f32::MIN_POSITIVE)
                .log(),
            Self::Accuracy => {
                let best = logits.clone().max_dim(1);
                let top = logits.greater_equal(best).float();
                // Two tokens that share the top count half if one of them is right.
                let ties = top.clone().sum_dim(1);
                (top * targets.right.clone()).sum_dim(1) / ties
            }
        };
        per_row.squeeze_dim(1)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|metric| metric.name() == s);
        found.ok_or_else(|| Error::UnknownName {
            what: "metric",
            name: s.to_owned(),
            nearest: nearest(s, Self::ALL.map(Self::name)),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// The answers of some prompts, as rows over the vocabulary.
#[derive(Debug, Clone)]
pub struct Targets<B: Backend> {
    /// `[prompts, vocabulary]`: 1 at right answers, 0 elsewhere.
    right: Tensor<B, 2>,
    /// The same of wrong answers.
    wrong: Tensor<B, 2>,
}

impl<B: Backend> Targets<B> {
    /// For each prompt, its right and its wrong next tokens.
    ///
    /// # Panics
    /// If a token is not in the vocabulary.
    pub fn new<'a>(
        answers: impl Iterator<Item = (&'a [u32], &'a [u32])>,
        vocabulary: usize,
        device: &B::Device,
    ) -> Self {
        let (right, wrong): (Vec<_>, Vec<_>) = answers.unzip();
        let matrix = |rows: Vec<&[u32]>| {
            let mut data = vec![0.0f32; rows.len() * vocabulary];
            for (row, tokens) in rows.iter().enumerate() {
                for &token in *tokens {
                    assert!(
                        (token as usize) < vocabulary,
                        "token {token} of {vocabulary}"
                    );
                    data[row * vocabulary + token as usize] = 1.0;
                }
            }
            Tensor::from_data(TensorData::new(data, [rows.len(), vocabulary]), device)
        };
        Self {
            right: matrix(right),
            wrong: matrix(wrong),
        }
    }

    /// The answers of the same prompts several times over.
    pub(crate) fn repeated(&self, copies: usize) -> Self {
        Self {
            right: self.right.clone().repeat_dim(0, copies),
            wrong: self.wrong.clone().repeat_dim(0, copies),
        }
    }

    /// `[prompts, vocabulary]`: what logits are weighted with for their difference.
    pub(crate) fn contrast(&self) -> Tensor<B, 2> {
        let mean = |x: &Tensor<B, 2>| x.clone() / x.clone().sum_dim(1).clamp_min(1.0);
        mean(&self.right) - mean(&self.wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::{Flex, FlexDevice};

    fn values(metric: Metric, logits: [[f32; 4]; 2]) -> Vec<f32> {
        let answers: [(&[u32], &[u32]); 2] = [(&[0], &[1, 2]), (&[1, 3], &[0])];
        let targets = Targets::<Flex>::new(answers.into_iter(), 4, &FlexDevice);
        let clean = Tensor::from_data([[0.0f32, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]], &FlexDevice);
        let logits = Tensor::from_data(logits, &FlexDevice);
        let values = metric.values(logits, &targets, Some(&clean));
        values.into_data().to_vec().unwrap()
    }

    fn close(found: &[f32], expected: [f32; 2]) {
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn by_hand() {
        // Probabilities 1/2, 1/4, 1/8, 1/8 and uniform.
        let logits = [[2.0f32.ln() * 2.0, 2.0f32.ln(), 0.0, 0.0], [0.0; 4]];
        let ln2 = 2.0f32.ln();
        close(&values(Metric::LogitDifference, logits), [1.5 * ln2, 0.0]);
        close(
            &values(Metric::ProbabilityDifference, logits),
            [0.125, 0.25],
        );
        close(&values(Metric::LogProbability, logits), [-ln2, -ln2]);
        // All four tokens share the top in the second row; two of them are right.
        close(&values(Metric::Accuracy, logits), [1.0, 0.5]);
    }

    #[test]
    fn kl_by_hand() {
        let same = [[5.0; 4], [0.0, 1.0, 2.0, 3.0]];
        close(&values(Metric::Kl, same), [0.0, 0.0]);
        // KL(uniform ‖ 1/2 1/4 1/8 1/8) = Σ ¼ (ln ¼ − ln q).
        let logits = [
            [2.0f32.ln() * 2.0, 2.0f32.ln(), 0.0, 0.0],
            [0.0, 1.0, 2.0, 3.0],
        ];
        let ln2 = 2.0f32.ln();
        let expected = -(0.25 * (1.0 + 2.0 + 3.0 + 3.0) * ln2 - 2.0 * ln2);
        close(&values(Metric::Kl, logits), [expected, 0.0]);
    }

    #[test]
    fn names_parse_back() {
        for metric in Metric::ALL {
            assert_eq!(metric.to_string().parse::<Metric>().unwrap(), metric);
        }
        let error = "logit-diference".parse::<Metric>().unwrap_err().to_string();
        assert!(
            error.contains("did you mean `logit-difference`?"),
            "{error}"
        );
    }
}
