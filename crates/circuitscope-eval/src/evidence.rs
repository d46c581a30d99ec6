use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use circuitscope_core::{HeadGrid, Polarity};
use circuitscope_hooks::HeadActivations;

use crate::causal::CausalEvidence;
use crate::methods::{Encoded, Recipe};
use crate::{Error, Result};

/// What every method starts from: one vector for each head and example, and which examples show
/// the behaviour.
///
/// Codes that a method made of it are kept, so that another method with the same dictionary need not
/// train it again; clones share them.
#[derive(Debug, Clone)]
pub struct Evidence<B: Backend> {
    grid: HeadGrid,
    activations: Tensor<B, 3>,
    labels: Vec<Polarity>,
    pairs: Vec<(usize, usize)>,
    encodings: Arc<Mutex<Vec<Encoding<B>>>>,
    causal: Option<Arc<CausalEvidence<B>>>,
    last: Option<Arc<Self>>,
}

/// Codes, and what made them.
type Encoding<B> = (Recipe, Arc<Encoded<B>>);

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
        let [examples, heads, _] = activations.dims();
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
            encodings: Arc::default(),
            causal: None,
            last: None,
        })
    }

    /// Adds the heads' outputs at the last position, for methods that read them beside the means.
    ///
    /// # Shapes
    /// - `last`: as the activations, `[examples, heads, d]`
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn with_last(mut self, last: Tensor<B, 3>) -> Result<Self> {
        let (labels, pairs) = (self.labels.clone(), self.pairs.clone());
        self.last = Some(Arc::new(Self::new(self.grid, last, labels, pairs)?));
        Ok(self)
    }

    /// The same examples by the heads' outputs at the last position, for method `method`.
    ///
    /// # Errors
    /// [`Error::NeedsLast`] if the evidence came without.
    pub fn at_last(&self, method: &'static str) -> Result<&Self> {
        self.last.as_deref().ok_or(Error::NeedsLast { method })
    }

    /// The codes of each of `recipes`: those kept, and else those that `make` returns for all that are
    /// missing, which are kept then.
    pub(crate) fn encoded(
        &self,
        recipes: &[Recipe],
        make: impl FnOnce(&[Recipe]) -> Result<Vec<Encoded<B>>>,
    ) -> Result<Vec<Arc<Encoded<B>>>> {
        // Nothing is changed halfway, so that a panic elsewhere leaves them as good as they were.
        let lock = || {
            self.encodings
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let missing: Vec<Recipe> = {
            let kept = lock();
            let is_kept = |recipe: &Recipe| kept.iter().any(|(made_by, _)| made_by == recipe);
            let missing = recipes.iter().filter(|recipe| !is_kept(recipe));
            missing.cloned().collect()
        };
        let made = make(&missing)?.into_iter().map(Arc::new);
        let mut kept = lock();
        kept.extend(missing.into_iter().zip(made));
        let find = |recipe: &Recipe| {
            let mut kept = kept.iter();
            let found = kept.find(|(made_by, _)| made_by == recipe);
            found.map(|(_, encoded)| Arc::clone(encoded))
        };
        let found = recipes.iter().filter_map(find).collect();
        Ok(found)
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
        let [_, heads, d] = self.activations.dims();
        let activations = self.rows(rows).reshape([rows.len(), heads, d]);
        let labels = rows.iter().map(|&row| self.labels[row]).collect();
        Self::new(self.grid, activations, labels, self.joined(rows, false))
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
    pub fn causal(&self, method: &'static str) -> Result<&CausalEvidence<B>> {
        self.causal.as_deref().ok_or(Error::NeedsModel { method })
    }

    /// Shape of the model.
    pub const fn grid(&self) -> HeadGrid {
        self.grid
    }

    /// `[examples, heads, d]`.
    pub const fn activations(&self) -> &Tensor<B, 3> {
        &self.activations
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
        self.activations.dims()[2]
    }

    /// The vectors of the given examples as rows: `[examples.len() * heads, d]`.
    pub fn rows(&self, examples: &[usize]) -> Tensor<B, 2> {
        let index: Vec<i64> = examples.iter().map(|&row| row as i64).collect();
        let device = self.activations.device();
        let index =
            Tensor::<B, 1, Int>::from_data(TensorData::new(index, [examples.len()]), &device);
        let heads = self.grid.len();
        self.activations
            .clone()
            .select(0, index)
            .reshape([examples.len() * heads, self.d()])
    }

    /// All vectors as rows: `[examples * heads, d]`.
    pub fn all_rows(&self) -> Tensor<B, 2> {
        let [examples, heads, d] = self.activations.dims();
        self.activations.clone().reshape([examples * heads, d])
    }

    /// Length of each vector: `[examples, heads]`.
    pub(crate) fn lengths(&self) -> Tensor<B, 2> {
        let squares = self.activations.clone().powi_scalar(2);
        squares.sum_dim(2).sqrt().squeeze_dim(2)
    }

    /// Mean square of each entry over all examples: `[heads, d]`.
    pub(crate) fn second_moments(&self) -> Tensor<B, 2> {
        let squares = self.activations.clone().powi_scalar(2);
        squares.mean_dim(0).squeeze_dim(0)
    }

    /// Share of positive and of negative examples.
    pub(crate) fn class_shares(&self) -> [f64; 2] {
        let all = self.labels.len() as f64;
        [Polarity::Positive, Polarity::Negative]
            .map(|class| self.labels.iter().filter(|label| **label == class).count() as f64 / all)
    }

    /// Mean vector of each head over the examples of one class: `[heads, d]`.
    pub fn class_mean(&self, polarity: Polarity) -> Tensor<B, 2> {
        let members = self
            .labels
            .iter()
            .filter(|label| **label == polarity)
            .count();
        let weight = |label: &Polarity| {
            if *label == polarity {
                1.0 / members as f32
            } else {
                0.0
            }
        };
        let weights: Vec<f32> = self.labels.iter().map(weight).collect();
        let [examples, heads, d] = self.activations.dims();
        let weights = Tensor::from_data(
            TensorData::new(weights, [1, examples]),
            &self.activations.device(),
        );
        // [1, examples] x [examples, heads * d] -> [1, heads * d]
        let flat = self.activations.clone().reshape([examples, heads * d]);
        weights.matmul(flat).reshape([heads, d])
    }
}
