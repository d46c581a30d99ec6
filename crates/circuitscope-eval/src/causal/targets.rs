use std::collections::BTreeSet;

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_core::Metric;
use circuitscope_hooks::wide;

/// The answers of some prompts.
#[derive(Debug, Clone)]
pub struct Targets {
    /// For each prompt its right and wrong tokens, each of them once, with what they count.
    rows: Vec<Vec<Answer>>,
    vocabulary: usize,
}

/// One answer of one prompt.
#[derive(Debug, Clone, Copy)]
struct Answer {
    token: u32,
    /// 1 if it is right.
    right: f32,
    /// 1 if it is wrong.
    wrong: f32,
    /// What its logit counts in the difference of the means.
    contrast: f32,
}

impl Targets {
    /// What a metric reads from the outputs: one value for each prompt.
    ///
    /// # Shapes
    /// - `logits`: `[prompts, vocabulary]`, at the last real position
    /// - `reference`: the same of the full model for [`Metric::Kl`]; what logits are weighted with for [`Metric::Contrast`]
    /// - result: `[prompts]`
    ///
    /// # Panics
    /// These two without `reference`.
    pub fn values<B: Backend>(
        &self,
        metric: Metric,
        logits: Tensor<B, 2>,
        reference: Option<&Tensor<B, 2>>,
    ) -> Tensor<B, 1> {
        let compared = || {
            reference
                .expect("the metric compares with a reference")
                .clone()
        };
        let per_row: Tensor<B, 2> = match metric {
            Metric::LogitDifference => self.sum(logits, |answers| answers.contrast),
            Metric::ProbabilityDifference => {
                self.sum(softmax(logits, 1), |answers| answers.right - answers.wrong)
            }
            Metric::Kl => {
                let clean = log_softmax(compared(), 1);
                let gap = clean.clone() - log_softmax(logits, 1);
                (clean.exp() * gap).sum_dim(1).neg()
            }
            Metric::Contrast => (wide(logits) * compared()).sum_dim(1),
            Metric::LogProbability => self
                .sum(softmax(logits, 1), |answers| answers.right)
                .clamp_min(f32::MIN_POSITIVE)
                .log(),
            Metric::Accuracy => {
                let best = logits.clone().max_dim(1);
                let top = logits.greater_equal(best).float();
                // Two tokens that share the top count half if one of them is right.
                let ties = top.clone().sum_dim(1);
                self.sum(top, |answers| answers.right) / ties
            }
        };
        per_row.squeeze_dim(1)
    }

    /// For each prompt, its right and its wrong next tokens.
    ///
    /// # Panics
    /// If a token is not in the vocabulary.
    pub fn new<'a>(
        answers: impl Iterator<Item = (&'a [u32], &'a [u32])>,
        vocabulary: usize,
    ) -> Self {
        let row = |(right, wrong): (&[u32], &[u32])| {
            let unique = |tokens: &[u32]| tokens.iter().copied().collect::<BTreeSet<u32>>();
            let (right, wrong) = (unique(right), unique(wrong));
            let share = |tokens: &BTreeSet<u32>, token: u32| {
                if tokens.contains(&token) {
                    1.0 / tokens.len() as f32
                } else {
                    0.0
                }
            };
            let one =
                |tokens: &BTreeSet<u32>, token: &u32| f32::from(u8::from(tokens.contains(token)));
            let answer = |token: &u32| {
                assert!(
                    (*token as usize) < vocabulary,
                    "token {token} of {vocabulary}"
                );
                Answer {
                    token: *token,
                    right: one(&right, token),
                    wrong: one(&wrong, token),
                    contrast: share(&right, *token) - share(&wrong, *token),
                }
            };
            right.union(&wrong).map(answer).collect()
        };
        Self {
            rows: answers.map(row).collect(),
            vocabulary,
        }
    }

    /// The answers of the same prompts several times over.
    pub(crate) fn repeated(&self, copies: usize) -> Self {
        Self {
            rows: vec![self.rows.clone(); copies].concat(),
            vocabulary: self.vocabulary,
        }
    }

    /// All answers, and the same targets over them as the vocabulary.
    pub(crate) fn apart(&self) -> (Vec<u32>, Self) {
        let tokens: BTreeSet<u32> = self
            .rows
            .iter()
            .flatten()
            .map(|answer| answer.token)
            .collect();
        let tokens: Vec<u32> = tokens.into_iter().collect();
        let mut apart = self.clone();
        apart.vocabulary = tokens.len();
        for answer in apart.rows.iter_mut().flatten() {
            answer.token = tokens.partition_point(|token| *token < answer.token) as u32;
        }
        (tokens, apart)
    }

    /// `[prompts, vocabulary]`: what logits are weighted with for their difference.
    pub(crate) fn contrast<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2> {
        let mut data = vec![0.0f32; self.rows.len() * self.vocabulary];
        for (row, answers) in self.rows.iter().enumerate() {
            for answer in answers {
                data[row * self.vocabulary + answer.token as usize] = answer.contrast;
            }
        }
        let shape = [self.rows.len(), self.vocabulary];
        Tensor::from_data(TensorData::new(data, shape), device)
    }

    /// Sums values of the vocabulary over the answers of each prompt, each weighted.
    ///
    /// # Shapes
    /// - `values`: `[prompts, vocabulary]`
    /// - result: `[prompts, 1]`
    fn sum<B: Backend>(
        &self,
        values: Tensor<B, 2>,
        weight: impl Fn(&Answer) -> f32,
    ) -> Tensor<B, 2> {
        let most = self.rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let (mut tokens, mut weights) = (Vec::new(), Vec::new());
        for answers in &self.rows {
            // Rows with fewer are filled up with token 0, which counts nothing.
            tokens.extend(answers.iter().map(|answer| i64::from(answer.token)));
            weights.extend(answers.iter().map(&weight));
            let fill = most - answers.len();
            tokens.extend(core::iter::repeat_n(0, fill));
            weights.extend(core::iter::repeat_n(0.0, fill));
        }
        let shape = [self.rows.len(), most];
        let device = values.device();
        let tokens = Tensor::<B, 2, Int>::from_data(TensorData::new(tokens, shape), &device);
        let weights = TensorData::new(weights, shape);
        let weights = Tensor::<B, 2>::from_data(weights, (&device, values.dtype()));
        (values.gather(1, tokens) * weights).sum_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::{Flex, FlexDevice};

    fn values(metric: Metric, logits: [[f32; 4]; 2]) -> Vec<f32> {
        let answers: [(&[u32], &[u32]); 2] = [(&[0], &[1, 2]), (&[1, 3], &[0])];
        let targets = Targets::new(answers.into_iter(), 4);
        let clean = Tensor::from_data([[0.0f32, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]], &FlexDevice);
        let logits = Tensor::from_data(logits, &FlexDevice);
        let values = targets.values::<Flex>(metric, logits.clone(), Some(&clean));
        let values: Vec<f32> = values.into_data().to_vec().unwrap();
        if metric.reads_answers_only() {
            // Over the answers alone: tokens 0 to 2 of the first prompt, 0, 1 and 3 of the second.
            let (tokens, apart) = targets.apart();
            assert_eq!(tokens, [0, 1, 2, 3]);
            let again = apart.values::<Flex>(metric, logits, None);
            assert_eq!(again.into_data().to_vec::<f32>().unwrap(), values);
        }
        values
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
    fn contrast_by_hand() {
        let logits = [[1.0, 2.0, 3.0, 4.0], [0.5, 0.0, -1.0, 2.0]];
        // Against the second argument of `values`: zeros, and 1 to 4.
        close(&values(Metric::Contrast, logits), [0.0, 0.5 - 3.0 + 8.0]);
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
