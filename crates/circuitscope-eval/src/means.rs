//! Means over the two classes of many samples of the examples at once.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::Polarity;

use crate::{Error, Evidence, Result};

/// Several samples of the examples, or the examples under several labels: what each example counts in the mean
/// over each class.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    /// For each sample how much each example counts among positives; then the same among negatives.
    weights: [Vec<Vec<f32>>; 2],
    /// For each sample the examples of each class.
    counts: Vec<[usize; 2]>,
    /// Whether examples keep their labels.
    pub(crate) keep_labels: bool,
}

const CLASSES: [Polarity; 2] = [Polarity::Positive, Polarity::Negative];

/// Bytes that the means of samples which are made together may take.
const TOGETHER: usize = 512 << 20;

impl Samples {
    /// Of examples labelled `labels`, those of `rows`, as often as they occur there.
    ///
    /// # Errors
    /// [`Error::EmptyClass`] for a sample without examples of one class.
    pub(crate) fn of_rows(labels: &[Polarity], rows: &[&[usize]]) -> Result<Self> {
        let count = |rows: &&[usize], class: Polarity| {
            let mut times = vec![0.0f32; labels.len()];
            for &row in rows.iter().filter(|row| labels[**row] == class) {
                times[row] += 1.0;
            }
            times
        };
        Self::new(
            rows.iter()
                .map(|rows| CLASSES.map(|class| count(rows, class))),
            true,
        )
    }

    /// All examples, under each of some labels.
    ///
    /// # Errors
    /// [`Error::EmptyClass`] where all labels are alike.
    pub(crate) fn of_labels(labellings: &[Vec<Polarity>]) -> Result<Self> {
        let count = |labels: &Vec<Polarity>, class: Polarity| {
            let once = labels
                .iter()
                .map(|label| f32::from(u8::from(*label == class)));
            once.collect::<Vec<f32>>()
        };
        let times = labellings
            .iter()
            .map(|labels| CLASSES.map(|class| count(labels, class)));
        Self::new(times, false)
    }

    fn new(times: impl Iterator<Item = [Vec<f32>; 2]>, keep_labels: bool) -> Result<Self> {
        let mut all = Self {
            weights: [Vec::new(), Vec::new()],
            counts: Vec::new(),
            keep_labels,
        };
        for times in times {
            let counts = times
                .each_ref()
                .map(|times| times.iter().sum::<f32>() as usize);
            if let Some(class) = counts.iter().position(|count| *count == 0) {
                return Err(Error::EmptyClass {
                    polarity: CLASSES[class],
                });
            }
            for ((all, mut times), count) in all.weights.iter_mut().zip(times).zip(counts) {
                let share = 1.0 / count as f32;
                for times in &mut times {
                    *times *= share;
                }
                all.push(times);
            }
            all.counts.push(counts);
        }
        Ok(all)
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.counts.len()
    }

    /// The fewest examples that a class of a sample has.
    pub(crate) fn fewest(&self) -> usize {
        self.counts.iter().flatten().copied().min().unwrap_or(0)
    }

    /// Share of positives and of negatives in each sample, `[samples]` each.
    pub(crate) fn shares(&self) -> [Vec<f32>; 2] {
        [0, 1].map(|class| {
            let share = |counts: &[usize; 2]| counts[class] as f32 / (counts[0] + counts[1]) as f32;
            self.counts.iter().map(share).collect()
        })
    }

    /// How many samples have their means of `width` numbers a head made together.
    pub(crate) fn together(heads: usize, width: usize) -> usize {
        (TOGETHER / (8 * heads * width).max(1)).max(1)
    }

    /// `[2 * samples, examples.len()]`.
    fn of_examples<B: Backend>(&self, examples: &[usize], device: &B::Device) -> Tensor<B, 2> {
        let rows = self.weights.iter().flatten();
        let data: Vec<f32> = rows
            .flat_map(|row| examples.iter().map(|&example| row[example]))
            .collect();
        let shape = [2 * self.len(), examples.len()];
        Tensor::from_data(TensorData::new(data, shape), device)
    }
}

impl<B: Backend> Evidence<B> {
    /// Means over both classes of every sample, in one pass over the activations: `[samples, heads, width]` of
    /// positives, and of negatives.
    ///
    /// `features` makes `[examples, heads, width]` of some examples and their activations `[examples, heads, d]`.
    ///
    /// # Errors
    /// If activations are not held and cannot be made.
    pub(crate) fn means_of(
        &self,
        samples: &Samples,
        mut features: impl FnMut(&[usize], Tensor<B, 3>) -> Tensor<B, 3>,
    ) -> Result<[Tensor<B, 3>; 2]> {
        let count = samples.len();
        let sum = self.summed(|examples, x| {
            let features = features(examples, x);
            let [n, heads, width] = features.dims();
            // [2 * samples, examples] x [examples, heads * width]
            let weights = samples.of_examples::<B>(examples, &features.device());
            let means = weights.matmul(features.reshape([n, heads * width]));
            means.reshape([2 * count, heads, width])
        })?;
        Ok([0, count].map(|at| sum.clone().slice_dim(0, at..at + count)))
    }
}
