use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Progress, Seed, draw};
use circuitscope_model::logits_at;
use circuitscope_score::stats::Interval;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::causal::{CausalEvidence, Metric, Targets, TokenPair, host};
use crate::words::{count, figure, named, percent};

/// Largest batch, in tokens.
const TOKENS: usize = 8192;
/// Bytes of logits that are looked at together.
const LOGITS: usize = 24 << 20;

/// How well a model shows the behaviour: what there is to explain, before anything is explained.
///
/// Read from the model's next-token prediction on both prompts of each pair. With answers: whether the
/// right one is above the wrong ones and whether it is on top, and the metric on positive and on negative
/// prompts. With or without: how far the two predictions are apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Behaviour {
    /// Pairs of prompts.
    pub pairs: usize,
    /// What [`positives`](Self::positives) and [`negatives`](Self::negatives) are: the metric of the run
    /// where it reads answers one by one, else what the answers allow; absent without answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metric: Option<Metric>,
    /// Pairs on whose positive prompt a right answer is above all wrong ones; absent without wrong
    /// answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answered: Option<Share>,
    /// Pairs on whose positive prompt a right answer is the most likely token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub on_top: Option<Share>,
    /// The metric on positive prompts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub positives: Option<Estimate>,
    /// The metric on negative prompts, with the answers of the positive ones.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub negatives: Option<Estimate>,
    /// Pairs whose positive prompt has the higher metric.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub above: Option<Share>,
    /// Jeffreys divergence between the predictions after the two prompts of a pair, in nats:
    /// `Σ (p − q) ln(p / q)`, the sum of both KL divergences.
    pub divergence: Estimate,
    /// What speaks against looking any further, in sentences.
    pub warnings: Vec<String>,
    /// Pair by pair.
    pub of_pairs: Vec<PairBehaviour>,
}

/// A share of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Share {
    /// Pairs of which it is true.
    pub count: usize,
    /// Of so many.
    pub of: usize,
    /// `count / of`.
    pub share: f64,
    /// The score interval at 95 % (Wilson 1927, J. Am. Stat. Assoc. 22:209).
    pub interval: Interval,
}

/// A mean over pairs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The middle 95 % of the mean over 1000 bootstrap resamples of the pairs.
    pub interval: Interval,
}

/// What a model makes of one pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PairBehaviour {
    /// Whether it counts as answered: a right answer above all wrong ones or, where no wrong ones are
    /// given, on top. Absent without answers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub correct: Option<bool>,
    /// The metric on the positive prompt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub positive: Option<f64>,
    /// The metric on the negative prompt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub negative: Option<f64>,
    /// Probability of the right answers together after the positive prompt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub probability: Option<f64>,
    /// Probability of the alternatives together after the positive prompt.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub alternative: Option<f64>,
    /// Jeffreys divergence between the predictions after the two prompts, in nats.
    pub divergence: f64,
    /// The three most likely tokens after the positive prompt, with their probabilities.
    pub top: Vec<(u32, f64)>,
    /// The same after the negative prompt.
    pub negative_top: Vec<(u32, f64)>,
}

const LEVEL: f64 = 0.95;
/// Its quantile of the normal distribution.
const NORMAL: f64 = 1.959_964;
const RESAMPLES: usize = 1000;
/// Most likely tokens that are kept.
const TOP: usize = 3;

impl Behaviour {
    /// Below this share of pairs answered right there is no behaviour to explain.
    pub const ANSWERED: f64 = 0.6;
    /// Predictions that differ by fewer nats leave little to explain.
    pub const DIVERGENCE: f64 = 0.1;
    /// Answers less likely than this on average are suspect.
    pub const IMPOSSIBLE: f64 = 1e-3;

    /// Reads a model's predictions on all pairs.
    ///
    /// `alternatives` holds for each pair tokens that may have been meant by its answers, such as a word
    /// with the space before it, and is empty where there are none; their probability is measured beside
    /// that of the answers. Bootstrap resamples are those of `seed.stream("behaviour")`.
    ///
    /// # Complexity
    /// One forward pass for each prompt, unembedded where the answer is read.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn measure<B: Backend>(
        evidence: &CausalEvidence<B>,
        alternatives: &[Vec<u32>],
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Self> {
        evidence.located(Self::read(evidence, alternatives, seed, progress))
    }

    fn read<B: Backend>(
        evidence: &CausalEvidence<B>,
        alternatives: &[Vec<u32>],
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let pairs = evidence.pairs();
        let metric = metric(evidence.metric(), pairs);
        let stage = progress.stage("reading the model's answers", 2 * pairs.len() as u64);
        let outcome = Self::read_pairs(evidence, metric, alternatives, progress);
        drop(stage);
        Ok(Self::of(metric, pairs, outcome?, seed.stream("behaviour")))
    }

    /// What the predictions after both prompts say, pair by pair.
    fn read_pairs<B: Backend>(
        evidence: &CausalEvidence<B>,
        metric: Option<Metric>,
        alternatives: &[Vec<u32>],
        progress: &dyn Progress,
    ) -> Result<Vec<PairBehaviour>> {
        let (model, device) = (evidence.model(), evidence.device());
        let (pairs, vocabulary) = (evidence.pairs(), model.config().d_vocab_out);
        let mut of_pairs = Vec::with_capacity(pairs.len());
        let of_pair = 2 * size_of::<f32>() * vocabulary.max(1);
        let together = (LOGITS / of_pair).max(1);
        for start in (0..pairs.len()).step_by(together) {
            let some = start..(start + together).min(pairs.len());
            let count = some.len();
            let chosen = &pairs[some.clone()];
            // The positive prompts, then the negative ones.
            let prompts = chosen.iter().map(|pair| &pair.clean);
            let prompts = prompts.chain(chosen.iter().map(|pair| &pair.corrupt));
            let prompts: Vec<&Vec<u32>> = prompts.collect();
            let side = |side: usize| some.clone().map(move |pair| evidence.read_at(pair)[side]);
            let at: Vec<usize> = side(0).chain(side(1)).collect();
            let logits = logits_at(model, &prompts, &at, TOKENS, device, progress)?;
            let targets = chosen.iter();
            let targets = targets.map(|pair| (pair.right.as_slice(), pair.wrong.as_slice()));
            let targets = Targets::new(targets, vocabulary);
            let sides = logits.chunks(count).map(|logits| {
                let logits = TensorData::new(logits.concat(), [count, vocabulary]);
                Tensor::<B, 2>::from_data(logits, device)
            });
            let sides: Vec<Tensor<B, 2>> = sides.collect();
            let values = metric.map(|metric| {
                let of = |side: &Tensor<B, 2>| host(targets.values(metric, side.clone(), None));
                sides.iter().map(of).collect::<Result<Vec<_>>>()
            });
            let values = values.transpose()?;
            let sides = sides.into_iter().map(|logits| host(log_softmax(logits, 1)));
            let sides = sides.collect::<Result<Vec<_>>>()?;
            for (row, pair) in some.enumerate() {
                let value =
                    |side: usize| values.as_ref().map(|values| f64::from(values[side][row]));
                let [p, q] = [0, 1].map(|side| &sides[side][row * vocabulary..][..vocabulary]);
                let meant = alternatives.get(pair).map_or(&[][..], Vec::as_slice);
                of_pairs.push(PairBehaviour {
                    positive: value(0),
                    negative: value(1),
                    ..PairBehaviour::of(&pairs[pair], meant, p, q)
                });
            }
        }
        Ok(of_pairs)
    }

    fn of(
        metric: Option<Metric>,
        tokens: &[TokenPair],
        of_pairs: Vec<PairBehaviour>,
        seed: Seed,
    ) -> Self {
        let estimate = |of: fn(&PairBehaviour) -> Option<f64>| {
            let values: Option<Vec<f64>> = of_pairs.iter().map(of).collect();
            values.and_then(|values| Estimate::of(&values, seed))
        };
        let share = |of: &dyn Fn(usize) -> Option<bool>| {
            let flags: Option<Vec<bool>> = (0..of_pairs.len()).map(of).collect();
            flags.map(|flags| Share::new(flags.iter().filter(|flag| **flag).count(), flags.len()))
        };
        let rivals = metric.is_some() && tokens.iter().all(|pair| !pair.wrong.is_empty());
        let on_top = |at: usize| {
            let right = &tokens[at].right;
            let top = of_pairs[at].top.first()?;
            (!right.is_empty()).then(|| right.contains(&top.0))
        };
        let mut behaviour = Self {
            pairs: of_pairs.len(),
            metric,
            answered: if rivals {
                share(&|at| of_pairs[at].correct)
            } else {
                None
            },
            on_top: share(&on_top),
            positives: estimate(|pair| pair.positive),
            negatives: estimate(|pair| pair.negative),
            above: share(&|at| Some(of_pairs[at].positive? > of_pairs[at].negative?)),
            divergence: estimate(|pair| Some(pair.divergence)).unwrap_or_default(),
            warnings: Vec::new(),
            of_pairs,
        };
        behaviour.warnings = behaviour.warn();
        behaviour
    }

    /// Pairs that the model gets right: `None` without answers.
    pub fn correct(&self) -> Option<Vec<usize>> {
        let flags: Option<Vec<bool>> = self.of_pairs.iter().map(|pair| pair.correct).collect();
        let flags = flags?.into_iter().enumerate();
        Some(
            flags
                .filter_map(|(pair, correct)| correct.then_some(pair))
                .collect(),
        )
    }

    /// Pairs that the model gets wrong, in order; none without answers.
    pub fn failing(&self) -> Vec<usize> {
        let pairs = self.of_pairs.iter().enumerate();
        let failing = pairs.filter(|(_, pair)| pair.correct == Some(false));
        failing.map(|(at, _)| at).collect()
    }

    fn warn(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let answered = self.answered.or(self.on_top);
        if let Some(answered) = answered.filter(|answered| answered.share < Self::ANSWERED) {
            warnings.push(format!(
                "the model answers {} of the pairs (fewer than {}): there is no behaviour to explain",
                percent(answered.share),
                percent(Self::ANSWERED)
            ));
        } else if let Some(above) = self.above.filter(|above| above.share < Self::ANSWERED) {
            warnings.push(format!(
                "the metric is higher on the positive prompt in {} of the pairs only: the two classes do \
                 not differ in this behaviour",
                percent(above.share)
            ));
        }
        if self.metric.is_none() && self.divergence.mean < Self::DIVERGENCE {
            warnings.push(format!(
                "the model predicts nearly the same after both prompts of a pair ({} nats apart, less than \
                 {}): there is little to explain",
                figure(self.divergence.mean),
                Self::DIVERGENCE
            ));
        }
        if let Some((answers, alternatives)) = self.misspelt() {
            warnings.push(format!(
                "the right answers are nearly impossible (probability {} on average), but likely with a \
                 space before them ({}): are they written as the next token is, such as \" Paris\"?",
                figure(answers),
                figure(alternatives)
            ));
        }
        warnings
    }

    /// Mean probability of the answers and of the alternatives, where the former are nearly impossible
    /// and the latter are not.
    fn misspelt(&self) -> Option<(f64, f64)> {
        let mean = |of: fn(&PairBehaviour) -> Option<f64>| {
            let values: Vec<f64> = self.of_pairs.iter().filter_map(of).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let answers = mean(|pair| pair.probability)?;
        let alternatives = mean(|pair| pair.alternative)?;
        (answers < Self::IMPOSSIBLE && alternatives > 10.0 * answers.max(Self::IMPOSSIBLE))
            .then_some((answers, alternatives))
    }

    /// The result in sentences, without full stops and without the warnings.
    pub fn sentences(&self) -> Vec<String> {
        let range =
            |interval: Interval| format!("{} to {}", figure(interval.low), figure(interval.high));
        let share = |share: Share| {
            format!(
                "{} of {} ({}; 95 %: {:.0} to {})",
                share.count,
                count(share.of, "pair"),
                percent(share.share),
                100.0 * share.interval.low,
                percent(share.interval.high)
            )
        };
        let mut sentences = Vec::new();
        if let Some(answered) = self.answered {
            sentences.push(format!(
                "right answer above the wrong ones in {}",
                share(answered)
            ));
        }
        if let Some(on_top) = self.on_top {
            sentences.push(format!(
                "right answer most likely of all tokens in {}",
                share(on_top)
            ));
        }
        if let (Some(metric), Some(positives), Some(negatives)) =
            (self.metric, self.positives, self.negatives)
        {
            let above = self.above.map_or_else(String::new, |above| {
                format!(
                    "; positive above negative in {} of the pairs",
                    percent(above.share)
                )
            });
            sentences.push(format!(
                "{} {} ({}) on positives, {} ({}) on negatives{above}",
                named(metric.name()),
                figure(positives.mean),
                range(positives.interval),
                figure(negatives.mean),
                range(negatives.interval)
            ));
        }
        sentences.push(format!(
            "predictions after the two prompts of a pair are {} nats apart ({})",
            figure(self.divergence.mean),
            range(self.divergence.interval)
        ));
        sentences
    }
}

/// The metric that is said of each class; `None` without answers.
fn metric(run: Metric, pairs: &[TokenPair]) -> Option<Metric> {
    let all = |has: fn(&TokenPair) -> bool| pairs.iter().all(has);
    if !all(|pair| !pair.right.is_empty()) {
        return None;
    }
    Some(match run {
        Metric::Kl | Metric::Contrast | Metric::Accuracy if all(|pair| !pair.wrong.is_empty()) => {
            Metric::LogitDifference
        }
        Metric::Kl | Metric::Contrast | Metric::Accuracy => Metric::LogProbability,
        metric => metric,
    })
}

impl PairBehaviour {
    /// From log-probabilities after both prompts, `[vocabulary]` each.
    fn of(pair: &TokenPair, meant: &[u32], p: &[f32], q: &[f32]) -> Self {
        let together = |tokens: &[u32]| -> Option<f64> {
            let each = tokens
                .iter()
                .map(|&token| f64::from(p[token as usize]).exp());
            (!tokens.is_empty()).then(|| each.sum())
        };
        let best = |tokens: &[u32]| {
            let each = tokens.iter().map(|&token| p[token as usize]);
            each.fold(f32::NEG_INFINITY, f32::max)
        };
        let top = top(p);
        let correct = if pair.right.is_empty() {
            None
        } else if pair.wrong.is_empty() {
            Some(top.first().is_some_and(|top| pair.right.contains(&top.0)))
        } else {
            Some(best(&pair.right) > best(&pair.wrong))
        };
        let divergence = p.iter().zip(q).map(|(&p, &q)| {
            let (p, q) = (f64::from(p), f64::from(q));
            (p.exp() - q.exp()) * (p - q)
        });
        Self {
            correct,
            positive: None,
            negative: None,
            probability: together(&pair.right),
            alternative: together(meant),
            divergence: divergence.filter(|term| term.is_finite()).sum(),
            top,
            negative_top: self::top(q),
        }
    }
}

/// The most likely tokens, the first of equals first.
fn top(log_probabilities: &[f32]) -> Vec<(u32, f64)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(TOP + 1);
    for (token, &value) in log_probabilities.iter().enumerate() {
        if best.len() == TOP && best[TOP - 1].1 >= value {
            continue;
        }
        let at = best.partition_point(|(_, better)| *better >= value);
        best.insert(at, (token as u32, value));
        best.truncate(TOP);
    }
    let probabilities = best.into_iter();
    probabilities
        .map(|(token, value)| (token, f64::from(value).exp()))
        .collect()
}

impl Share {
    /// `count` of `of`.
    ///
    /// # Panics
    /// If `of` is 0.
    #[must_use]
    pub fn new(count: usize, of: usize) -> Self {
        assert!(of > 0, "a share of nothing");
        let (n, share) = (of as f64, count as f64 / of as f64);
        let z = NORMAL * NORMAL / n;
        let middle = (share + z / 2.0) / (1.0 + z);
        let half = (share * (1.0 - share) * z + z * z / 4.0).sqrt() / (1.0 + z);
        Self {
            count,
            of,
            share,
            interval: Interval {
                low: (middle - half).max(0.0),
                high: (middle + half).min(1.0),
                level: LEVEL,
            },
        }
    }
}

impl Estimate {
    /// The mean of some values; `None` without values, or where one is not finite.
    fn of(values: &[f64], seed: Seed) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mut rng = seed.rng();
        let means = (0..RESAMPLES).map(|_| {
            let drawn = (0..n).map(|_| values[draw::below(&mut rng, n)]);
            drawn.sum::<f64>() / n as f64
        });
        Some(Self {
            interval: Interval::percentile(&means.collect::<Vec<_>>(), LEVEL).ok()?,
            mean: values.iter().sum::<f64>() / n as f64,
        })
    }
}

impl Default for Estimate {
    fn default() -> Self {
        Self {
            mean: 0.0,
            interval: Interval {
                low: 0.0,
                high: 0.0,
                level: LEVEL,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token_pair(right: &[u32], wrong: &[u32]) -> TokenPair {
        TokenPair::new((0, 1), vec![1], vec![2])
            .with_right(right.to_vec())
            .with_wrong(wrong.to_vec())
    }

    fn logs(probabilities: [f32; 4]) -> [f32; 4] {
        probabilities.map(f32::ln)
    }

    #[test]
    fn a_pair_by_hand() {
        let (p, q) = (logs([0.5, 0.25, 0.125, 0.125]), logs([0.25; 4]));
        let pair = PairBehaviour::of(&token_pair(&[1], &[2]), &[0], &p, &q);
        assert_eq!(pair.correct, Some(true));
        let tokens: Vec<u32> = pair.top.iter().map(|top| top.0).collect();
        assert_eq!(tokens, [0, 1, 2]);
        assert!((pair.probability.unwrap() - 0.25).abs() < 1e-6);
        assert!((pair.alternative.unwrap() - 0.5).abs() < 1e-6);
        // ¼ ln 2 + 0 + 2 · ⅛ ln 2.
        assert!((pair.divergence - 0.5 * 2.0f64.ln()).abs() < 1e-6);
        assert_eq!(
            pair.negative_top.iter().map(|t| t.0).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        let rival = PairBehaviour::of(&token_pair(&[1], &[0]), &[], &p, &q);
        assert_eq!((rival.correct, rival.alternative), (Some(false), None));
        let alone = PairBehaviour::of(&token_pair(&[1], &[]), &[], &p, &q);
        assert_eq!(alone.correct, Some(false));
        let none = PairBehaviour::of(&token_pair(&[], &[]), &[], &p, &q);
        assert_eq!((none.correct, none.probability), (None, None));
    }

    /// Wilson's interval of 16 of 20, as R's `prop.test(16, 20, correct = FALSE)` gives it.
    #[test]
    fn shares_have_wilsons_interval() {
        let share = Share::new(16, 20);
        assert!((share.interval.low - 0.583_984_5).abs() < 1e-5, "{share:?}");
        assert!(
            (share.interval.high - 0.919_336_7).abs() < 1e-5,
            "{share:?}"
        );
        assert_eq!(Share::new(0, 5).interval.low, 0.0);
        assert!((Share::new(5, 5).interval.high - 1.0).abs() < 1e-12);
    }

    fn behaviour(right: usize, of: usize, metric: Option<Metric>) -> Behaviour {
        let pair = |at: usize| {
            let mut pair = PairBehaviour::of(
                &token_pair(&[1], &[2]),
                &[],
                &logs([0.5, 0.25, 0.125, 0.125]),
                &logs([0.25; 4]),
            );
            pair.correct = metric.map(|_| at < right);
            (pair.positive, pair.negative) = (metric.map(|_| 2.0), metric.map(|_| 0.5));
            pair.probability = Some(1e-6);
            pair.alternative = Some(0.3);
            pair
        };
        let tokens = vec![token_pair(&[1], &[2]); of];
        Behaviour::of(metric, &tokens, (0..of).map(pair).collect(), Seed::new(0))
    }

    #[test]
    fn too_few_right_answers_are_warned_of() {
        let good = behaviour(18, 20, Some(Metric::LogitDifference));
        assert_eq!(good.failing(), [18, 19]);
        assert_eq!(good.correct().unwrap().len(), 18);
        assert!(
            good.sentences()[0].starts_with(
                "right answer above the wrong ones in 18 of 20 pairs (90 %; 95 %: 70 to 97 %)"
            ),
            "{:?}",
            good.sentences()
        );
        assert!(good.sentences()[2].starts_with(
            "logit difference 2.00 (2.00 to 2.00) on positives, 0.50 (0.50 to 0.50) on negatives; \
                 positive above negative in 100 %"
        ));
        // Only the spelling is amiss.
        assert_eq!(good.warnings.len(), 1, "{:?}", good.warnings);
        assert!(good.warnings[0].contains("with a space before them (0.30)"));
        let bad = behaviour(27, 50, Some(Metric::LogitDifference));
        assert_eq!(
            bad.warnings[0],
            "the model answers 54 % of the pairs (fewer than 60 %): there is no behaviour to explain"
        );
    }

    #[test]
    fn without_answers_the_divergence_speaks() {
        let none = behaviour(0, 4, None);
        assert_eq!((none.correct(), none.positives), (None, None));
        assert!(none.failing().is_empty());
        assert!((none.divergence.mean - 0.5 * 2.0f64.ln()).abs() < 1e-6);
    }
}
