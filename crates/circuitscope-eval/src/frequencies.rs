use burn::tensor::backend::Backend;
use circuitscope_core::{HeadId, Polarity, Progress, Seed};
use circuitscope_measures::{Scores, Selection};
use circuitscope_score::stats::{Resample, half_samples};
use serde::{Deserialize, Serialize};

use crate::words::{count, join, percent};
use crate::{Error, Evidence, Measured, Result};

/// How often a rule chooses each head on half samples of the prompts
/// ([`half_samples`](circuitscope_score::stats::half_samples)).
///
/// Heads that it chooses nearly always are called *in*, those that it hardly ever chooses *out*, and of the others it
/// abstains, as certified circuits do (arXiv 2602.22968). Frequencies are of this sample of prompts: nothing is guaranteed of
/// other prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Frequencies {
    /// For each head, in index order, the share of half samples on which it is chosen.
    pub chosen: Vec<f64>,
    /// Half samples drawn.
    pub half_samples: usize,
}

/// The share of half samples from which on a head is in, and one less which it is out.
const IN: f64 = 0.95;

/// Pairs, or examples of each class, that have as many different halves as frequencies of 5 % need: six have 20.
const FEWEST: usize = 6;

impl Frequencies {
    /// Of a rule and what a method measured, on at most `samples` half samples drawn from stream `frequencies`; nothing where
    /// there are too few prompts to halve.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; those of scoring a sample.
    pub(crate) fn of<B: Backend>(
        rule: Selection,
        samples: usize,
        measured: &dyn Measured,
        evidence: &Evidence<B>,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Option<Self>> {
        let pairs = evidence.pairs().len();
        let of = |class| {
            evidence
                .labels()
                .iter()
                .filter(|label| **label == class)
                .count()
        };
        let units = if pairs > 0 {
            pairs
        } else {
            of(Polarity::Positive).min(of(Polarity::Negative))
        };
        if units < FEWEST {
            return Ok(None);
        }
        let seed = seed.stream("frequencies");
        let halves = match half_samples(evidence.labels(), evidence.pairs(), samples, seed) {
            Err(circuitscope_score::Error::TooFewToHalve { .. }) => return Ok(None),
            halves => halves?,
        };
        let grid = evidence.grid();
        let mut times = vec![0usize; grid.len()];
        let outcome = on_halves(&halves, measured, progress, |scores| {
            let chosen = rule.circuit(&scores);
            for at in chosen.heads().filter_map(|head| grid.index(head)) {
                times[at] += 1;
            }
            Ok(())
        });
        match outcome {
            // Enough for a score, but not when halved.
            Err(Error::TooFew { .. }) => return Ok(None),
            outcome => outcome?,
        }
        let share = |times: usize| times as f64 / halves.len() as f64;
        Ok(Some(Self {
            chosen: times.into_iter().map(share).collect(),
            half_samples: halves.len(),
        }))
    }

    /// In a sentence, without a full stop: which heads are in, and of which the rule abstains.
    pub(crate) fn sentence(&self, head: impl Fn(usize) -> HeadId) -> String {
        let mut order: Vec<usize> = (0..self.chosen.len()).collect();
        order.sort_by(|&a, &b| self.chosen[b].total_cmp(&self.chosen[a]));
        let sure = order.iter().filter(|&&at| self.chosen[at] >= IN);
        let sure: Vec<HeadId> = sure.map(|&at| head(at)).collect();
        let unsure = order.iter().filter(|&&at| {
            let share = self.chosen[at];
            share < IN && share > 1.0 - IN
        });
        let unsure: Vec<String> = unsure
            .map(|&at| format!("{} {}", head(at), percent(self.chosen[at])))
            .collect();
        let out = self.chosen.len() - sure.len() - unsure.len();
        let of = |heads: String| {
            if heads.is_empty() {
                "none".to_owned()
            } else {
                heads
            }
        };
        format!(
            "on {} the rule chooses in 95 % and more: {}; at times: {}; {} in 5 % or less. \
             These are frequencies on halves of these prompts, no guarantee",
            count(self.half_samples, "half sample"),
            of(join(&sure)),
            of(unsure.join(", ")),
            count(out, "head")
        )
    }
}

/// Gives `take` the scores of each half sample.
///
/// # Errors
/// [`Error::Cancelled`]; those of scoring a sample and of `take`.
pub(crate) fn on_halves(
    halves: &[Resample],
    measured: &dyn Measured,
    progress: &dyn Progress,
    mut take: impl FnMut(Scores) -> Result<()>,
) -> Result<()> {
    let rows: Vec<&[usize]> = halves.iter().map(Resample::rows).collect();
    let stage = progress.stage("half samples", halves.len() as u64);
    let outcome = measured.each(&rows, &mut |scores| {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        take(scores)?;
        progress.advance(1);
        Ok(())
    });
    drop(stage);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_and_what_is_not_said() {
        let frequencies = Frequencies {
            chosen: vec![0.0, 0.61, 1.0, 0.04, 0.95, 0.12],
            half_samples: 100,
        };
        assert_eq!(
            frequencies.sentence(|at| HeadId::new(at / 3, at % 3)),
            "on 100 half samples the rule chooses in 95 % and more: L0H2, L1H1; at times: L0H1 61 %, L1H2 12 %; \
             2 heads in 5 % or less. These are frequencies on halves of these prompts, no guarantee"
        );
    }
}
