use burn::module::{AutodiffModule as _, Module as _};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Graph, Progress, Seed, draw};
use circuitscope_measures::Scores;
use circuitscope_model::Decoder;

use super::PatchingSettings;
use super::masks::{Adam, Gated, NodeGates, tracked};
use crate::causal::{CausalEvidence, PatchedRuns, host};
use crate::method::fixed;
use crate::{About, Discover, Error, Evidence, Gradient, Measured, Needs, Passes, Result};

/// What is known of `matryoshka-masks`.
pub(super) static LEARNED: About = About::new(
    "matryoshka-masks",
    "learned order of heads, in which they enter circuits of every size",
)
.resamples(0)
.without_null()
.needs(Needs::gradient(Gradient::Elsewhere), Passes::Steps(4));
/// Of `matryoshka-no-learning`.
pub(super) static UNLEARNED: About = About::new(
    "matryoshka-no-learning",
    "the same without learning: mean gradient of the first order, in which all heads are alike",
)
.resamples(0)
.without_null()
.needs(Needs::gradient(Gradient::Elsewhere), Passes::Steps(4));

/// Matryoshka masks of heads (arXiv 2609.25518): one order of the heads whose beginnings are circuits of every size.
///
/// Every head has a score `s`, 0 at first. A step draws a size `k` from 1 to the number of heads, evenly, and a pair of
/// prompts; heads are gated with `m_i = σ((s_i − τ) / T)`, T = ½, τ such that `Σ m_i = k`: what a head puts out is mixed
/// with what takes its place, `m_i h_i + (1 − m_i) r_i`, everything after it computed anew. The loss is the metric, negative, in
/// units of its fall when everything is ablated; its gradient goes through τ:
/// `∂L/∂s_j = (p_j / T) (g_j − Σ g_i p_i / Σ p_i)`, `g = ∂L/∂m`, `p = m (1 − m)`. Adam of rate 0.05 descends it. A head
/// scores its `s` less the smallest there is. MLPs and the input are kept.
///
/// Without learning, `s` stays 0, and a head scores minus the mean of the gradient: integrated gradients along the path of
/// equal masks. What learning adds is what the first is above the second.
///
/// Sizes and pairs are drawn from stream `masks/{method}`.
///
/// # Complexity
/// [`PatchingSettings::matryoshka_steps`] forward and backward passes over one prompt.
#[derive(Debug, Clone)]
pub struct Matryoshka<B: AutodiffBackend> {
    learns: bool,
    settings: PatchingSettings,
    device: B::Device,
}

/// T.
const TEMPERATURE: f64 = 0.5;
const LEARNING_RATE: f64 = 0.05;
/// Halvings of the interval in which τ lies.
const HALVINGS: usize = 50;

impl<B: AutodiffBackend> Matryoshka<B> {
    /// The learned order.
    pub const fn learned(settings: PatchingSettings, device: B::Device) -> Self {
        Self {
            learns: true,
            settings,
            device,
        }
    }

    /// Its control, in which nothing is learned.
    pub const fn unlearned(settings: PatchingSettings, device: B::Device) -> Self {
        Self {
            learns: false,
            settings,
            device,
        }
    }
}

/// `m_i` for scores `s`, with `Σ m_i = k`.
fn masks(scores: &[f32], k: f64) -> Vec<f64> {
    let at = |threshold: f64| {
        let mask = |score: &f32| sigmoid((f64::from(*score) - threshold) / TEMPERATURE);
        scores.iter().map(mask).collect::<Vec<f64>>()
    };
    let lowest = scores.iter().copied().fold(f32::INFINITY, f32::min);
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // σ(±20) is 0 or 1 to 2·10⁻⁹.
    let (mut low, mut high) = (f64::from(lowest) - 10.0, f64::from(highest) + 10.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if at(middle).iter().sum::<f64>() > k {
            low = middle;
        } else {
            high = middle;
        }
    }
    at(f64::midpoint(low, high))
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `∂L/∂s` from `∂L/∂m`, with the sum of masks held.
fn through_threshold(masks: &[f64], of_masks: &[f64]) -> Vec<f64> {
    let p: Vec<f64> = masks.iter().map(|m| m * (1.0 - m)).collect();
    let all: f64 = p.iter().sum();
    let mean = p.iter().zip(of_masks).map(|(p, g)| p * g).sum::<f64>() / all.max(f64::MIN_POSITIVE);
    let each = p.iter().zip(of_masks);
    each.map(|(p, g)| p / TEMPERATURE * (g - mean)).collect()
}

/// Gates of all writers: those of heads, 1 elsewhere.
fn gates(graph: Graph, masks: &[f64]) -> Vec<f32> {
    let mut gates = vec![1.0; graph.writers()];
    for (head, mask) in graph.grid().heads().zip(masks) {
        gates[graph.head_writer(head)] = *mask as f32;
    }
    gates
}

impl<B: AutodiffBackend> Discover<B::InnerBackend> for Matryoshka<B> {
    fn about(&self) -> &About {
        if self.learns { &LEARNED } else { &UNLEARNED }
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B::InnerBackend>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let about = Discover::<B::InnerBackend>::about(self);
        let method = about.name.as_ref();
        let causal: &CausalEvidence<B::InnerBackend> = evidence.causal_for(about)?;
        let graph = causal.graph();
        let heads = graph.grid().len();
        let pairs = self.settings.pairs(causal.pairs().len(), true);
        let runs = PatchedRuns::in_batches(causal, pairs, 1)?.with_progress(progress);
        let parts = runs.parts()?;
        let fall = runs.baseline(causal.metric())?.fall().abs();
        let unit = fall.max(f64::from(f32::EPSILON));

        let model = Decoder::<B>::from_inner(causal.model().clone()).no_grad();
        let mut rng = seed.stream(&format!("masks/{method}")).rng();
        let mut scores = vec![0.0f32; heads];
        let mut adam = Adam::new(heads, LEARNING_RATE);
        let mut sum = vec![0.0; heads];
        let steps = self.settings.matryoshka_steps;
        let stage = progress.stage(method, steps as u64);
        for _ in 0..steps {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let part = &parts[draw::below(&mut rng, parts.len())];
            let k = 1.0 + (heads - 1) as f64 * draw::unit(&mut rng);
            let masks = masks(&scores, k);
            let all = TensorData::new(gates(graph, &masks), [graph.writers()]);
            let all = Tensor::<B, 1>::from_data(all, &self.device).require_grad();
            let tap = NodeGates {
                graph,
                other: tracked(&part.other),
                gates: all.clone(),
                of: Gated::Heads,
            };
            let values = tap.values(&model, part, causal, &self.device);
            let gradients = values.mean().div_scalar(-unit).backward();
            let of_writers: Vec<f32> = match all.grad(&gradients) {
                Some(gradient) => host(gradient)?,
                None => vec![0.0; graph.writers()],
            };
            let of_masks = graph.grid().heads();
            let of_masks: Vec<f64> = of_masks
                .map(|head| f64::from(of_writers[graph.head_writer(head)]))
                .collect();
            let gradient = through_threshold(&masks, &of_masks);
            if self.learns {
                let gradient: Vec<f32> = gradient.iter().map(|slope| *slope as f32).collect();
                adam.step(&mut scores, &gradient);
            }
            for (sum, slope) in sum.iter_mut().zip(gradient) {
                *sum -= slope;
            }
            progress.advance(1);
        }
        drop(stage);

        let found: Vec<f64> = if self.learns {
            scores.into_iter().map(f64::from).collect()
        } else {
            sum.iter().map(|sum| sum / steps.max(1) as f64).collect()
        };
        let lowest = found.iter().copied().fold(f64::INFINITY, f64::min);
        let scores = found.iter().map(|score| score - lowest).collect();
        Ok(fixed(Scores::of_nodes(graph.grid(), scores)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f32; 5] = [0.3, -1.2, 2.0, 0.0, 0.7];

    #[test]
    fn masks_are_as_many_as_asked_for() {
        for k in [1.0, 1.7, 3.0, 4.9] {
            let masks = masks(&SCORES, k);
            assert!((masks.iter().sum::<f64>() - k).abs() < 1e-9, "{k}");
            assert!(masks[2] > masks[4] && masks[4] > masks[0], "{k}");
        }
        // All alike: each is on to the share k of n, and at all sizes but the whole it can learn.
        assert!(
            masks(&[0.0; 4], 1.0)
                .iter()
                .all(|mask| (mask - 0.25).abs() < 1e-9)
        );
    }

    /// Against differences of a loss that is linear in the masks: the threshold moves with every score.
    #[test]
    fn the_gradient_goes_through_the_threshold() {
        let slopes = [0.5, -2.0, 1.0, 3.0, -0.25];
        let loss = |scores: &[f32], k: f64| -> f64 {
            let masks = masks(scores, k);
            masks.iter().zip(&slopes).map(|(m, g)| m * g).sum()
        };
        for k in [1.3, 2.5, 4.0] {
            let gradient = through_threshold(&masks(&SCORES, k), &slopes);
            assert!(
                gradient.iter().sum::<f64>().abs() < 1e-12,
                "moving all moves none"
            );
            for at in 0..SCORES.len() {
                let moved = |by: f32| {
                    let mut scores = SCORES;
                    scores[at] += by;
                    loss(&scores, k)
                };
                let expected = (moved(0.01) - moved(-0.01)) / 0.02;
                assert!((gradient[at] - expected).abs() < 1e-4, "{k}, {at}");
            }
        }
    }
}
