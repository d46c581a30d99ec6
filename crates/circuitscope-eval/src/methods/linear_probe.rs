use burn::tensor::activation::sigmoid;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Polarity, Progress, Seed, draw};
use circuitscope_measures::Scores;

use crate::causal::host;
use crate::{About, Discover, Error, Evidence, Measured, Result};

/// What is known of it. Each resample is fitted anew.
pub(super) static ABOUT: About = About::new(
    "linear-probe",
    "held-out log-likelihood of a linear classifier of the head's output",
)
.control()
.resamples(10)
.without_null();

/// Control: how well a linear classifier of a head's output tells positives from negatives that it was
/// not fitted on (Alain and Bengio 2016, arXiv 1610.01644).
///
/// A logistic regression for each head, on outputs centred and scaled to mean squared length 1, with
/// an ℓ2 penalty of 0.001, by 100 steps of accelerated gradient descent from zero. Five
/// folds, in which the prompts of a pair stay together (stream `linear-probe`). The score is the mean
/// log-likelihood of held-out examples less that of guessing, in nats: at most ln 2, below 0 where the
/// classifier is confidently wrong. Accuracy would make ties of all heads that are never wrong.
///
/// A pair scores the product of its heads' scores, those below 0 taken as 0.
///
/// # Complexity
/// `O(steps · folds · examples · heads · d)`, all heads and folds at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinearProbe;

/// Weight of the squared length of the classifier in its loss.
const PENALTY: f64 = 1e-3;
/// Steps of gradient descent.
const STEPS: usize = 100;
const FOLDS: usize = 5;

/// The fold of each example.
fn folds<B: Backend>(evidence: &Evidence<B>, seed: Seed) -> Vec<usize> {
    let mut units: Vec<Vec<usize>> = evidence.pairs().iter().map(|&(p, n)| vec![p, n]).collect();
    let mut paired = vec![false; evidence.labels().len()];
    for &row in units.iter().flatten() {
        paired[row] = true;
    }
    units.extend(
        (0..paired.len())
            .filter(|&row| !paired[row])
            .map(|row| vec![row]),
    );
    draw::reorder(&mut seed.stream("linear-probe").rng(), &mut units);
    let mut fold = vec![0; paired.len()];
    for (at, unit) in units.iter().enumerate() {
        for &row in unit {
            fold[row] = at % FOLDS;
        }
    }
    fold
}

/// Mean held-out log-likelihood of each head, less that of guessing.
fn held_out<B: Backend>(
    evidence: &Evidence<B>,
    fold: &[usize],
    progress: &dyn Progress,
) -> Result<Vec<f64>> {
    let x = evidence.activations()?.swap_dims(0, 1);
    let [heads, n, _] = x.dims();
    let device = x.device();
    let x = x.clone() - x.mean_dim(1);
    let length = x.clone().powi_scalar(2).sum_dim(2).mean_dim(1);
    let x = x / length.clamp_min(f32::MIN_POSITIVE).sqrt();
    // A constant column is the bias.
    let x = Tensor::cat(vec![x, Tensor::ones([heads, n, 1], &device)], 2);
    let width = x.dims()[2];

    let label = |label: &Polarity| match label {
        Polarity::Positive => 1.0f32,
        Polarity::Negative => 0.0,
    };
    let labels: Vec<f32> = evidence.labels().iter().map(label).collect();
    let y = Tensor::<B, 3>::from_data(TensorData::new(labels.clone(), [1, n, 1]), &device);
    if fold.iter().all(|other| *other == fold[0]) {
        return Err(Error::TooFew {
            what: "pairs of which some are held out and judged by the others",
            found: 1,
            expected: 2,
        });
    }
    let fitted: Vec<f32> = fold
        .iter()
        .flat_map(|&fold| (0..FOLDS).map(move |of| if of == fold { 0.0 } else { 1.0 }))
        .collect();
    let fitted = Tensor::<B, 3>::from_data(TensorData::new(fitted, [1, n, FOLDS]), &device);
    let counts = fitted.clone().sum_dim(1);
    let weights = fitted / counts;

    // The loss curves at most by ¼ · (mean squared length + 1) + penalty.
    let rate = 1.0 / (0.25 * 2.0 + 2.0 * PENALTY);
    let transposed = x.clone().swap_dims(1, 2);
    let mut w = Tensor::<B, 3>::zeros([heads, width, FOLDS], &device);
    let mut ahead = w.clone();
    for step in 0..STEPS {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let error = (sigmoid(x.clone().matmul(ahead.clone())) - y.clone()) * weights.clone();
        let slope = transposed.clone().matmul(error) + ahead.clone().mul_scalar(2.0 * PENALTY);
        let next = ahead - slope.mul_scalar(rate);
        let momentum = step as f64 / (step as f64 + 3.0);
        ahead = next.clone() + (next.clone() - w).mul_scalar(momentum);
        w = next;
    }
    let logits = host(x.matmul(w))?;
    let scores = logits.chunks(n * FOLDS).map(|head| {
        let terms = (0..n).map(|row| {
            let z = f64::from(head[row * FOLDS + fold[row]]);
            let signed = if labels[row] > 0.5 { z } else { -z };
            // ln σ(signed), without overflow.
            -(-signed).max(0.0) - (-signed.abs()).exp().ln_1p()
        });
        terms.sum::<f64>() / n as f64 + core::f64::consts::LN_2
    });
    Ok(scores.collect())
}

impl<B: Backend> Discover<B> for LinearProbe {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        Ok(Box::new(Probe {
            evidence,
            folds: folds(evidence, seed),
            progress,
        }))
    }
}

struct Probe<'a, B: Backend> {
    evidence: &'a Evidence<B>,
    /// Of each example.
    folds: Vec<usize>,
    progress: &'a dyn Progress,
}

impl<B: Backend> Probe<'_, B> {
    /// The score of the examples `rows` of `evidence`, which holds those of the probe.
    fn of(&self, evidence: &Evidence<B>, rows: Option<&[usize]>) -> Result<Scores> {
        let evidence = evidence.sampled(rows)?;
        // Copies of an example stand together: none is held out while another is fitted.
        let folds = rows.map_or_else(
            || self.folds.clone(),
            |rows| rows.iter().map(|&row| self.folds[row]).collect(),
        );
        let nodes = held_out(&evidence, &folds, self.progress)?;
        let ends: Vec<f64> = nodes.iter().map(|score| score.max(0.0)).collect();
        Ok(Scores::of_nodes(evidence.grid(), nodes)
            .with_edges(|source, destination| ends[source] * ends[destination]))
    }
}

impl<B: Backend> Measured for Probe<'_, B> {
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        self.of(self.evidence, rows)
    }

    /// Every fit reads its examples a hundred times: they are made once for all.
    fn each(
        &self,
        resamples: &[&[usize]],
        take: &mut dyn FnMut(Scores) -> Result<()>,
    ) -> Result<()> {
        let held = self.evidence.held()?;
        let mut all = resamples.iter();
        all.try_for_each(|rows| take(self.of(&held, Some(rows))?))
    }
}
