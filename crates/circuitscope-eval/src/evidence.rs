use std::rc::Rc;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_core::{Exec, HeadGrid, Metric, NoProgress, Polarity, Progress};
use circuitscope_hooks::HeadActivations;

use crate::cache::Cache;
use crate::causal::{CausalEvidence, host};
use crate::{About, ActivationSource, Error, Result};

/// What every method starts from: one vector for each head and example, and which examples show
/// the behaviour.
///
/// Codes that a method made of it are kept, so that another method with the same dictionary need not
/// train it again; clones share them, and evidence made of some of the examples starts without.
#[derive(Debug, Clone)]
pub struct Evidence<B: Backend> {
    grid: HeadGrid,
    activations: Activations<B>,
    labels: Vec<Polarity>,
    pairs: Vec<(usize, usize)>,
    made: Rc<Cache>,
    causal: Option<Arc<CausalEvidence<B>>>,
    last: Option<Last<B>>,
    exec: Exec,
}

/// One vector for each example and head.
#[derive(Debug, Clone)]
enum Activations<B: Backend> {
    /// `[examples, heads, d]`
    Held(Tensor<B, 3>),
    Streamed(Arc<dyn ActivationSource<B>>),
}

impl<B: Backend> Activations<B> {
    fn shape(&self) -> [usize; 3] {
        match self {
            Self::Held(held) => held.dims(),
            Self::Streamed(source) => source.shape(),
        }
    }
}

/// The same examples at the last position, and what was made of them.
#[derive(Debug, Clone)]
struct Last<B: Backend> {
    activations: Activations<B>,
    made: Rc<Cache>,
}

impl<B: Backend> Evidence<B> {
    /// Checks and joins the parts.
    ///
    /// `activations` is `[examples, heads, d]`; `pairs` holds (row of a positive, row of its matched
    /// negative) and is empty where examples are not matched.
    ///
    /// # Errors
    /// [`Error::EmptyClass`] if all labels are alike, [`Error::Shape`] if the parts do not fit.
    pub fn new(
        grid: HeadGrid,
        activations: Tensor<B, 3>,
        labels: Vec<Polarity>,
        pairs: Vec<(usize, usize)>,
    ) -> Result<Self> {
        Self::joining(grid, Activations::Held(activations), labels, pairs)
    }

    /// The same with activations that are not held: methods that read them more than once have them made
    /// more than once.
    ///
    /// # Errors
    /// As [`Evidence::new`].
    pub fn streamed(
        grid: HeadGrid,
        source: Arc<dyn ActivationSource<B>>,
        labels: Vec<Polarity>,
        pairs: Vec<(usize, usize)>,
    ) -> Result<Self> {
        Self::joining(grid, Activations::Streamed(source), labels, pairs)
    }

    fn joining(
        grid: HeadGrid,
        activations: Activations<B>,
        labels: Vec<Polarity>,
        pairs: Vec<(usize, usize)>,
    ) -> Result<Self> {
        let [examples, heads, _] = activations.shape();
        if heads != grid.len() {
            return Err(Error::Shape {
                what: "heads of the activations",
                found: heads,
                expected: grid.len(),
            });
        }
        if labels.len() != examples {
            return Err(Error::Shape {
                what: "labels",
                found: labels.len(),
                expected: examples,
            });
        }
        for polarity in [Polarity::Positive, Polarity::Negative] {
            if !labels.contains(&polarity) {
                return Err(Error::EmptyClass { polarity });
            }
        }
        let fits = |&(positive, negative): &(usize, usize)| {
            labels.get(positive) == Some(&Polarity::Positive)
                && labels.get(negative) == Some(&Polarity::Negative)
        };
        if let Some(at) = pairs.iter().position(|pair| !fits(pair)) {
            return Err(Error::Pair { at });
        }
        Ok(Self {
            grid,
            activations,
            labels,
            pairs,
            made: Rc::default(),
            causal: None,
            last: None,
            exec: Exec::serial(),
        })
    }

    /// Adds the same examples with the heads' outputs at the last position, for methods that read them
    /// beside the means. Of `last` nothing but activations is taken, and what was made of them.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are not as many examples, or they are of another width;
    /// [`Error::OtherExamples`] if they have other labels.
    pub fn with_last(mut self, last: Self) -> Result<Self> {
        for (what, found, expected) in [
            (
                "examples at the last position",
                last.labels.len(),
                self.labels.len(),
            ),
            (
                "heads at the last position",
                last.grid.len(),
                self.grid.len(),
            ),
            ("width of outputs at the last position", last.d(), self.d()),
        ] {
            if found != expected {
                return Err(Error::Shape {
                    what,
                    found,
                    expected,
                });
            }
        }
        let mut labels = last.labels.iter().zip(&self.labels);
        if let Some(example) = labels.position(|(found, expected)| found != expected) {
            return Err(Error::OtherExamples {
                example,
                found: last.labels[example],
                expected: self.labels[example],
            });
        }
        self.last = Some(Last {
            activations: last.activations,
            made: last.made,
        });
        Ok(self)
    }

    /// The same examples by the heads' outputs at the last position, for method `method`.
    ///
    /// # Errors
    /// [`Error::NeedsLast`] if the evidence came without.
    pub fn at_last(&self, method: &str) -> Result<Self> {
        let last = self.last.as_ref().ok_or_else(|| Error::NeedsLast {
            method: method.to_owned(),
        })?;
        Ok(Self {
            grid: self.grid,
            activations: last.activations.clone(),
            labels: self.labels.clone(),
            pairs: self.pairs.clone(),
            made: Rc::clone(&last.made),
            causal: None,
            last: None,
            exec: self.exec,
        })
    }

    /// What methods made of this evidence at a cost, so that others need not make it again.
    pub(crate) fn made(&self) -> &Cache {
        &self.made
    }

    /// The evidence of the examples `rows`, some of which may occur several times; all of it for
    /// `None`. Two copies of a pair are two pairs.
    ///
    /// # Errors
    /// [`Error::EmptyClass`] if all of them are of one class.
    ///
    /// # Panics
    /// If there is no such example.
    pub fn sampled(&self, rows: Option<&[usize]>) -> Result<Self> {
        let Some(rows) = rows else {
            return Ok(self.clone());
        };
        let activations = self.examples(rows)?;
        let labels = rows.iter().map(|&row| self.labels[row]).collect();
        let sampled = Self::new(self.grid, activations, labels, self.joined(rows, false))?;
        Ok(sampled.with_exec(self.exec))
    }

    /// The same activations, held: what is read often is then made once. What else comes with the evidence is
    /// left out.
    ///
    /// # Errors
    /// If they cannot be made.
    pub(crate) fn held(&self) -> Result<Self> {
        let (labels, pairs) = (self.labels.clone(), self.pairs.clone());
        let held = Self::new(self.grid, self.activations()?, labels, pairs)?;
        Ok(held.with_exec(self.exec))
    }

    /// The pairs of which both prompts are among `rows`, as often as they occur there, by their
    /// original rows.
    pub fn sampled_pairs(&self, rows: &[usize]) -> Vec<(usize, usize)> {
        self.joined(rows, true)
    }

    /// The k-th copy of a positive joined with the k-th copy of its negative.
    fn joined(&self, rows: &[usize], original: bool) -> Vec<(usize, usize)> {
        let mut places = vec![Vec::new(); self.labels.len()];
        for (at, &row) in rows.iter().enumerate() {
            places[row].push(if original { row } else { at });
        }
        let copies = |&(positive, negative): &(usize, usize)| {
            let pairs = places[positive].iter().zip(&places[negative]);
            pairs.map(|(&p, &n)| (p, n)).collect::<Vec<_>>()
        };
        self.pairs.iter().flat_map(copies).collect()
    }

    /// Moves an activations file to a device. Its examples are not matched in pairs.
    ///
    /// # Errors
    /// As [`Evidence::new`].
    pub fn from_file(file: HeadActivations, device: &B::Device) -> Result<Self> {
        let shape = [file.examples(), file.grid.len(), file.d];
        let activations = Tensor::from_data(TensorData::new(file.data, shape), device);
        Self::new(file.grid, activations, file.labels, Vec::new())
    }

    /// With the work on the activations, above all the training of dictionaries, laid out in another way than
    /// [`Exec::serial`].
    #[must_use]
    pub const fn with_exec(mut self, exec: Exec) -> Self {
        self.exec = exec;
        self
    }

    /// How the work on the activations is laid out.
    pub const fn exec(&self) -> Exec {
        self.exec
    }

    /// Adds what methods need that change or differentiate the model.
    #[must_use]
    pub fn with_causal(mut self, causal: CausalEvidence<B>) -> Self {
        self.causal = Some(Arc::new(causal));
        self
    }

    /// The model with matched prompts, for method `method`.
    ///
    /// # Errors
    /// [`Error::NeedsModel`] if the evidence came without.
    pub fn causal(&self, method: &str) -> Result<&CausalEvidence<B>> {
        self.causal.as_deref().ok_or_else(|| Error::NeedsModel {
            method: method.to_owned(),
        })
    }

    /// The model with matched prompts, if they are all that a method needs.
    ///
    /// # Errors
    /// [`Error::NeedsModel`]; those of [`About::check_metric`]; [`Error::MethodNeedsAnswers`].
    pub fn causal_for(&self, about: &About) -> Result<&CausalEvidence<B>> {
        let causal = self.causal(&about.name)?;
        about.check_metric(causal.metric())?;
        // The contrast takes the place of answers.
        if about.needs.answers && causal.metric() != Metric::Contrast {
            causal.require_answers(&about.name)?;
        }
        Ok(causal)
    }

    /// The model with matched prompts, if the evidence came with it.
    pub(crate) fn causal_if_any(&self) -> Option<&CausalEvidence<B>> {
        self.causal.as_deref()
    }

    /// Shape of the model.
    pub const fn grid(&self) -> HeadGrid {
        self.grid
    }

    /// All activations, `[examples, heads, d]`. Where they are not held, they are made, and take the memory
    /// that was to be saved.
    ///
    /// # Errors
    /// If they cannot be made.
    pub fn activations(&self) -> Result<Tensor<B, 3>> {
        match &self.activations {
            Activations::Held(held) => Ok(held.clone()),
            Activations::Streamed(source) => {
                let all: Vec<usize> = (0..self.labels.len()).collect();
                source.read(&all)
            }
        }
    }

    /// Where the activations are.
    pub fn device(&self) -> B::Device {
        match &self.activations {
            Activations::Held(held) => held.device(),
            Activations::Streamed(source) => source.device(),
        }
    }

    /// One label for each example.
    pub fn labels(&self) -> &[Polarity] {
        &self.labels
    }

    /// (positive, negative) rows that were made from one another.
    pub fn pairs(&self) -> &[(usize, usize)] {
        &self.pairs
    }

    /// Width of each vector.
    pub fn d(&self) -> usize {
        self.activations.shape()[2]
    }

    /// The vectors of the given examples as rows: `[examples.len() * heads, d]`.
    ///
    /// # Errors
    /// If they are not held and cannot be made.
    pub fn rows(&self, examples: &[usize]) -> Result<Tensor<B, 2>> {
        let shape = [examples.len() * self.grid.len(), self.d()];
        Ok(self.examples(examples)?.reshape(shape))
    }

    /// The vectors of the given examples, `[examples.len(), heads, d]`.
    fn examples(&self, examples: &[usize]) -> Result<Tensor<B, 3>> {
        match &self.activations {
            Activations::Held(held) => {
                let index: Vec<i64> = examples.iter().map(|&row| row as i64).collect();
                let index = TensorData::new(index, [examples.len()]);
                let index = Tensor::<B, 1, Int>::from_data(index, &held.device());
                Ok(held.clone().select(0, index))
            }
            Activations::Streamed(source) => source.read(examples),
        }
    }

    /// Hands all activations to `take`, group by group: indices of examples, and their vectors
    /// `[examples, heads, d]`. Held ones are one group.
    ///
    /// # Errors
    /// Those of `take`, [`Error::Cancelled`], or if activations cannot be made.
    pub fn for_each_block(
        &self,
        progress: &dyn Progress,
        mut take: impl FnMut(&[usize], Tensor<B, 3>) -> Result<()>,
    ) -> Result<()> {
        match &self.activations {
            Activations::Held(held) => {
                let all: Vec<usize> = (0..self.labels.len()).collect();
                take(&all, held.clone())
            }
            Activations::Streamed(source) => {
                let stage = progress.stage("capturing", self.labels.len() as u64);
                let outcome = source.blocks().iter().try_for_each(|block| {
                    if progress.cancelled() {
                        return Err(Error::Cancelled);
                    }
                    take(block, source.read(block)?)?;
                    progress.advance(block.len() as u64);
                    Ok(())
                });
                drop(stage);
                outcome
            }
        }
    }

    /// The sum of `part` over all groups of examples.
    pub(crate) fn summed<const D: usize>(
        &self,
        mut part: impl FnMut(&[usize], Tensor<B, 3>) -> Tensor<B, D>,
    ) -> Result<Tensor<B, D>> {
        let mut sum: Option<Tensor<B, D>> = None;
        self.for_each_block(&NoProgress, |examples, x| {
            let part = part(examples, x);
            sum = Some(match sum.take() {
                Some(sum) => sum + part,
                None => part,
            });
            Ok(())
        })?;
        sum.ok_or(Error::EmptyClass {
            polarity: Polarity::Positive,
        })
    }

    /// Mean length of each head's vectors over all examples, in index order.
    ///
    /// # Errors
    /// If activations are not held and cannot be made, the device fails, or [`Error::Cancelled`].
    pub fn norms(&self, progress: &dyn Progress) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; self.grid.len()];
        self.for_each_block(progress, |_, x| {
            let of_block = host(lengths(x).sum_dim(0).squeeze_dims::<1>(&[0, 2]))?;
            for (sum, length) in sums.iter_mut().zip(of_block) {
                *sum += f64::from(length);
            }
            Ok(())
        })?;
        let all = self.labels.len() as f64;
        Ok(sums.into_iter().map(|sum| sum / all).collect())
    }

    /// Mean length of the vectors of each class, positives first, `[heads]` each.
    pub(crate) fn mean_lengths(&self) -> Result<[Tensor<B, 1>; 2]> {
        // [2, examples] x [examples, heads]
        let means = self.summed(|examples, x| {
            let lengths = lengths(x).squeeze_dim::<2>(2);
            let weights = [Polarity::Positive, Polarity::Negative];
            let weights = weights.map(|class| self.class_weights(class, examples));
            Tensor::cat(weights.to_vec(), 0).matmul(lengths)
        })?;
        Ok([0, 1].map(|at| means.clone().slice_dim(0, at..=at).squeeze_dim(0)))
    }

    /// Mean square of what entries differ by from the mean of their class, positives first, `[heads, d]`.
    pub(crate) fn within_classes(&self, means: &[Tensor<B, 2>; 2]) -> Result<Tensor<B, 2>> {
        let sum = self.summed(|examples, x| {
            let deviation = self.less(examples, x, means);
            deviation.powi_scalar(2).sum_dim(0).squeeze_dim::<2>(0)
        })?;
        Ok(sum.div_scalar(self.labels.len() as f64))
    }

    /// What some examples, `[examples, heads, d]`, are apart from a vector for each class, positives first,
    /// `[heads, d]` each.
    pub(crate) fn less(
        &self,
        examples: &[usize],
        x: Tensor<B, 3>,
        of_classes: &[Tensor<B, 2>; 2],
    ) -> Tensor<B, 3> {
        let of_classes: Tensor<B, 3> = Tensor::stack(of_classes.to_vec(), 0);
        let class = |&row: &usize| i64::from(self.labels[row] == Polarity::Negative);
        let classes: Vec<i64> = examples.iter().map(class).collect();
        let classes = TensorData::new(classes, [examples.len()]);
        let classes = Tensor::<B, 1, Int>::from_data(classes, &x.device());
        x - of_classes.select(0, classes)
    }

    /// Share of positive and of negative examples.
    pub(crate) fn class_shares(&self) -> [f64; 2] {
        let all = self.labels.len() as f64;
        self.class_counts().map(|count| count as f64 / all)
    }

    /// How many positives and negatives there are.
    pub(crate) fn class_counts(&self) -> [usize; 2] {
        [Polarity::Positive, Polarity::Negative]
            .map(|class| self.labels.iter().filter(|label| **label == class).count())
    }

    /// Mean vector of each head over the examples of one class: `[heads, d]`.
    ///
    /// # Errors
    /// If activations are not held and cannot be made.
    pub fn class_mean(&self, polarity: Polarity) -> Result<Tensor<B, 2>> {
        self.summed(|examples, x| {
            let [count, heads, d] = x.dims();
            // [1, examples] x [examples, heads * d] -> [1, heads * d]
            let weights = self.class_weights(polarity, examples);
            weights
                .matmul(x.reshape([count, heads * d]))
                .reshape([heads, d])
        })
    }

    /// What each of these examples weighs in a mean over one class, `[1, examples]`.
    fn class_weights(&self, polarity: Polarity, examples: &[usize]) -> Tensor<B, 2> {
        let members = self.labels.iter().filter(|label| **label == polarity);
        let share = 1.0 / members.count() as f32;
        let weight = |&row: &usize| {
            if self.labels[row] == polarity {
                share
            } else {
                0.0
            }
        };
        let weights: Vec<f32> = examples.iter().map(weight).collect();
        Tensor::from_data(
            TensorData::new(weights, [1, examples.len()]),
            &self.device(),
        )
    }
}

/// The length of each vector, `[examples, heads, 1]`.
pub(crate) fn lengths<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    x.powi_scalar(2).sum_dim(2).sqrt()
}
