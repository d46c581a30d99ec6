use burn::tensor::backend::Backend;
use circuitscope_core::{Polarity, Progress, Seed};
use circuitscope_measures::Scores;

use crate::{About, Error, Evidence, Result};

/// A way to score heads, and where defined pairs of heads, from evidence.
///
/// Higher is more likely in the circuit. Implementations are deterministic: the same evidence and
/// seed give the same scores on the same backend and machine.
///
/// A method works in two stages, so that its spread over prompts can be told without doing all its
/// work again: [`measure`](Self::measure) does what is costly once, on all examples (training,
/// forward and backward passes); the [`Measured`] it returns scores any resample of the examples.
pub trait Discover<B: Backend> {
    /// What is known of it: name, needs, cost.
    fn about(&self) -> &About;

    /// The name used on the command line and in every file.
    fn name(&self) -> &str {
        &self.about().name
    }

    /// Does the costly part on all examples.
    ///
    /// # Errors
    /// If the evidence does not suit the method, or `progress` asks to stop.
    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>>;

    /// Scores the heads on all examples.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    fn scores(
        &self,
        evidence: &Evidence<B>,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Scores> {
        self.measure(evidence, seed, progress)?.scores(None)
    }
}

/// What a method has measured, ready to be scored on all examples or on a resample of them.
///
/// Any `Fn(Option<&[usize]>) -> Result<Scores>` is one.
pub trait Measured {
    /// Scores the heads on the examples `rows`, some of which may occur several times; on all
    /// examples for `None`.
    ///
    /// # Errors
    /// If the examples do not suit the method.
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores>;

    /// Scores the heads on each of several resamples, in their order, and hands each to `take`. Methods that read
    /// activations do it in one pass over them.
    ///
    /// # Errors
    /// As [`scores`](Self::scores); the first of `take`.
    fn each(
        &self,
        resamples: &[&[usize]],
        take: &mut dyn FnMut(Scores) -> Result<()>,
    ) -> Result<()> {
        let mut all = resamples.iter();
        all.try_for_each(|rows| take(self.scores(Some(rows))?))
    }

    /// What a test of significance compares between the true labels and others of the same examples, for each of
    /// some labellings: `[labellings][heads]`, larger the more a head tells the classes apart, and of each head by
    /// itself (a score that is standardised over heads would be moved by the others). `None` for methods that would
    /// have to start anew, or whose scores do not depend on the labels, so that they have no null of labels.
    fn relabelled(&self, labellings: &[Vec<Polarity>]) -> Option<Result<Vec<Vec<f64>>>> {
        let _ = labellings;
        None
    }
}

impl<F: Fn(Option<&[usize]>) -> Result<Scores>> Measured for F {
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        self(rows)
    }
}

/// Labellings that are scored between two questions whether to stop.
const TOGETHER: usize = 64;

/// Of each head under the true labels, and under each of some others.
type UnderLabels = (Vec<f64>, Vec<Vec<f64>>);

/// [`Measured::relabelled`] under the true labels and then under others, of which `progress` is told.
pub(crate) fn under_labels(
    measured: &dyn Measured,
    labels: &[Polarity],
    others: Vec<Vec<Polarity>>,
    progress: &dyn Progress,
) -> Option<Result<UnderLabels>> {
    let mut all = vec![labels.to_vec()];
    all.extend(others);
    let mut found = Vec::with_capacity(all.len());
    for some in all.chunks(TOGETHER) {
        if progress.cancelled() {
            return Some(Err(Error::Cancelled));
        }
        match measured.relabelled(some)? {
            Ok(scores) => found.extend(scores),
            Err(error) => return Some(Err(error)),
        }
        progress.advance(some.len() as u64);
    }
    let observed = found.remove(0);
    Some(Ok((observed, found)))
}

/// Scores as they are, whatever the resample: for methods that would have to run the model again.
pub(crate) fn fixed(scores: Scores) -> Box<dyn Measured> {
    Box::new(move |_: Option<&[usize]>| Ok(scores.clone()))
}
