use burn::module::{AutodiffModule as _, Module as _};
use burn::tensor::activation::sigmoid;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Graph, Progress, Seed, draw};
use circuitscope_hooks::{Capture, EdgePatch, Site, StreamOutputs, Tap, wide};
use circuitscope_measures::{GraphScores, Scores};
use circuitscope_model::Decoder;

use super::PatchingSettings;
use crate::causal::{CausalEvidence, PatchedRuns, Prepared, host, last_logits};
use crate::method::fixed;
use crate::{About, Discover, Error, Evidence, Gradient, Measured, Needs, Passes, Result};

/// What is known of `subnetwork-probing`.
pub(super) static NODES: About = About::new("subnetwork-probing", "learned gates of nodes")
    .resamples(0)
    .without_null()
    .needs(Needs::gradient(Gradient::Elsewhere), Passes::Steps(4));
/// Of `edge-pruning`.
pub(super) static EDGES: About = About::new("edge-pruning", "learned gates of edges")
    .resamples(0)
    .without_null()
    .needs(Needs::gradient(Gradient::Elsewhere), Passes::Steps(4));

/// What carries a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nodes,
    Edges,
}

/// Methods that learn which parts may be ablated: a gate for each part, trained by gradient descent to
/// keep the metric with as few parts as possible.
///
/// - `subnetwork-probing`: a gate for each node (Cao et al. 2021, arXiv 2104.03514; as a circuit method
///   in arXiv 2304.14997, appendix D);
/// - `edge-pruning`: a gate for each edge (Bhaskar et al. 2024, arXiv 2406.16778).
///
/// Gates are hard concrete (Louizos et al. 2018, arXiv 1712.01312, eq. 10-12, with β = 2/3, γ = −0.1,
/// ζ = 1.1). The loss is the metric's fall, in units of its fall when everything is ablated, plus the
/// mean probability that the gate of a part is open. A part scores its `log α` less the smallest there is. Every
/// step sees up to 6 pairs of one length, each as likely as any other, drawn from stream `masks/{method}`, which
/// draws the gates' noise, too.
///
/// # Complexity
/// `mask_steps` forward and backward passes over a few prompts; those of `edge-pruning` read every
/// input separately.
#[derive(Debug, Clone)]
pub struct MaskLearning<B: AutodiffBackend> {
    kind: Kind,
    settings: PatchingSettings,
    device: B::Device,
}

/// Pairs that one step sees.
const PAIRS: usize = 6;

const BETA: f64 = 2.0 / 3.0;
const GAMMA: f64 = -0.1;
const ZETA: f64 = 1.1;
/// `log α` at the start: gates are open.
const START: f32 = 2.0;
const LEARNING_RATE: f64 = 0.1;

impl<B: AutodiffBackend> MaskLearning<B> {
    /// Subnetwork probing.
    pub const fn nodes(settings: PatchingSettings, device: B::Device) -> Self {
        Self {
            kind: Kind::Nodes,
            settings,
            device,
        }
    }

    /// Edge pruning.
    pub const fn edges(settings: PatchingSettings, device: B::Device) -> Self {
        Self {
            kind: Kind::Edges,
            settings,
            device,
        }
    }

    /// Which gates are of a part that exists: of all pairs of a reader and a writer, those of an edge.
    fn real(&self, graph: Graph) -> Vec<bool> {
        match self.kind {
            Kind::Nodes => vec![true; graph.writers()],
            Kind::Edges => {
                let mut real = vec![false; graph.readers() * graph.writers()];
                for (writer, reader) in graph.edges() {
                    real[reader * graph.writers() + writer] = true;
                }
                real
            }
        }
    }

    /// Metric of one batch under some gates, prompt by prompt.
    fn gated(
        &self,
        model: &Decoder<B>,
        graph: Graph,
        part: &Prepared<B::InnerBackend>,
        causal: &CausalEvidence<B::InnerBackend>,
        gates: Tensor<B, 1>,
    ) -> Tensor<B, 1> {
        let other = tracked(&part.other);
        match self.kind {
            Kind::Nodes => NodeGates {
                graph,
                other,
                gates,
                of: Gated::All,
            }
            .values(model, part, causal, &self.device),
            Kind::Edges => {
                let mask = gates.reshape([1, graph.readers(), graph.writers()]);
                let patch = EdgePatch::new(graph, other, mask);
                values(model, part, causal, &self.device, patch)
            }
        }
    }
}

/// Metric of one batch under a tap, prompt by prompt.
fn values<B: AutodiffBackend>(
    model: &Decoder<B>,
    part: &Prepared<B::InnerBackend>,
    causal: &CausalEvidence<B::InnerBackend>,
    device: &B::Device,
    tap: impl Tap<B>,
) -> Tensor<B, 1> {
    let last = Site::ResidPost(causal.graph().n_layers - 1);
    let batch = causal.batch::<B>(part.batch.members.clone(), device);
    let mut run = (tap, Capture::new([last]));
    model.forward(&batch.clean, &mut run);
    let stream = run.1.take(last).and_then(|stream| stream.get::<3>());
    let stream = stream.unwrap_or_else(|| unreachable!("the pass ends at the last stream"));
    let logits = last_logits(model, &batch.clean, stream);
    let metric = causal.metric();
    let reference = part.reference(metric).cloned().map(Tensor::from_inner);
    batch.targets.values(metric, logits, reference.as_ref())
}

/// The outputs of a run as constants of the differentiated pass.
pub(super) fn tracked<B: AutodiffBackend>(
    run: &StreamOutputs<B::InnerBackend>,
) -> StreamOutputs<B> {
    let all = |x: &[Tensor<B::InnerBackend, 3>]| {
        x.iter()
            .cloned()
            .map(Tensor::from_inner)
            .collect::<Vec<_>>()
    };
    StreamOutputs {
        input: Tensor::from_inner(run.input.clone()),
        heads: run.heads.iter().cloned().map(Tensor::from_inner).collect(),
        mlps: all(&run.mlps),
        attn_in: all(&run.attn_in),
        mlp_in: all(&run.mlp_in),
        last: Tensor::from_inner(run.last.clone()),
    }
}

/// Mixes every writer's output with its ablated one, in f32 at least.
#[derive(Debug)]
pub(super) struct NodeGates<B: Backend> {
    pub(super) graph: Graph,
    /// What takes the place of what writers put out.
    pub(super) other: StreamOutputs<B>,
    /// `[writers]`.
    pub(super) gates: Tensor<B, 1>,
    /// Which gates are read.
    pub(super) of: Gated,
}

/// Writers that have a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gated {
    /// Heads and MLPs.
    All,
    /// Heads alone.
    Heads,
}

impl<B: AutodiffBackend> NodeGates<B> {
    /// Metric of one batch, prompt by prompt.
    pub(super) fn values(
        self,
        model: &Decoder<B>,
        part: &Prepared<B::InnerBackend>,
        causal: &CausalEvidence<B::InnerBackend>,
        device: &B::Device,
    ) -> Tensor<B, 1> {
        values(model, part, causal, device, self)
    }
}

impl<B: Backend> Tap<B> for NodeGates<B> {
    fn wants(&self, site: Site) -> bool {
        match site {
            Site::HeadOut(_) => true,
            Site::MlpOut(_) => self.graph.mlps && self.of == Gated::All,
            _ => false,
        }
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        let dims = x.dims();
        let (gates, other): (Tensor<B, 4>, Tensor<B, D>) = match site {
            Site::HeadOut(layer) => {
                let writers = self.graph.head_writers(layer);
                let shape = [1, 1, writers.len(), 1];
                let gates = self.gates.clone().slice_dim(0, writers).reshape(shape);
                (gates, self.other.heads[layer].clone().reshape(dims))
            }
            Site::MlpOut(layer) => {
                let writer = self.graph.mlp_writer(layer);
                let gate = self.gates.clone().slice_dim(0, writer..writer + 1);
                let other = self.other.mlps[layer].clone().reshape(dims);
                (gate.reshape([1, 1, 1, 1]), other)
            }
            _ => return x,
        };
        let mut shape = [1; D];
        if D == 4 {
            shape[2] = gates.dims()[2];
        }
        let gates = gates.reshape(shape);
        other.clone() + (wide(x) - other) * gates
    }
}

/// Adam on one vector (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1).
#[derive(Debug)]
pub(super) struct Adam {
    rate: f64,
    first: Vec<f64>,
    second: Vec<f64>,
    step: i32,
}

impl Adam {
    /// Of so many weights.
    pub(super) fn new(weights: usize, rate: f64) -> Self {
        Self {
            rate,
            first: vec![0.0; weights],
            second: vec![0.0; weights],
            step: 0,
        }
    }

    /// One step down `gradient`.
    pub(super) fn step(&mut self, weights: &mut [f32], gradient: &[f32]) {
        self.step += 1;
        let corrected = |moment: f64, beta: f64| moment / (1.0 - beta.powi(self.step));
        for (at, weight) in weights.iter_mut().enumerate() {
            let slope = f64::from(gradient[at]);
            self.first[at] = 0.9 * self.first[at] + 0.1 * slope;
            self.second[at] = 0.999 * self.second[at] + 0.001 * slope * slope;
            let size = corrected(self.second[at], 0.999).sqrt() + 1e-8;
            *weight -= (self.rate * corrected(self.first[at], 0.9) / size) as f32;
        }
    }
}

/// Mean probability that the gate of a part that exists is open.
fn penalty<B: Backend>(log_alpha: Tensor<B, 1>, exist: Tensor<B, 1>, shift: f64) -> Tensor<B, 1> {
    let open = sigmoid(log_alpha - shift) * exist.clone();
    open.sum() / exist.sum()
}

/// The part that holds the pair `pair`, of parts of these sizes.
fn part_of(sizes: &[usize], mut pair: usize) -> usize {
    let found = sizes.iter().position(|size| {
        let here = pair < *size;
        pair = pair.saturating_sub(*size);
        here
    });
    found.unwrap_or(0)
}

/// Gates between 0 and 1 for `log_alpha`, with noise `u` from (0, 1).
fn hard_concrete<B: Backend>(log_alpha: Tensor<B, 1>, u: Tensor<B, 1>) -> Tensor<B, 1> {
    let noise = u.clone().log() - (u.neg() + 1.0).log();
    let s = sigmoid((log_alpha + noise).div_scalar(BETA));
    (s.mul_scalar(ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)
}

impl<B: AutodiffBackend> Discover<B::InnerBackend> for MaskLearning<B> {
    fn about(&self) -> &About {
        match self.kind {
            Kind::Nodes => &NODES,
            Kind::Edges => &EDGES,
        }
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B::InnerBackend>,
        seed: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let about = Discover::<B::InnerBackend>::about(self);
        let method = about.name.as_ref();
        let causal = evidence.causal_for(about)?;
        let graph = causal.graph();
        let runs = PatchedRuns::in_batches(
            causal,
            self.settings.pairs(causal.pairs().len(), true),
            PAIRS,
        )?
        .with_progress(progress);
        let parts = runs.parts()?;
        let size = graph.readers() * graph.writers();
        let unit = runs
            .baseline(causal.metric())?
            .fall()
            .abs()
            .max(f64::from(f32::EPSILON));

        let model = Decoder::<B>::from_inner(causal.model().clone()).no_grad();
        let gates = match self.kind {
            Kind::Nodes => graph.writers(),
            Kind::Edges => size,
        };
        let mut rng = seed.stream(&format!("masks/{method}")).rng();
        let mut log_alpha = vec![START; gates];
        let mut adam = Adam::new(gates, LEARNING_RATE);
        // P(gate > 0) = σ(log α − β log(−γ/ζ)).
        let shift = BETA * (-GAMMA / ZETA).ln();
        let real = self.real(graph);
        let exist = real.iter().map(|real| f32::from(u8::from(*real)));
        let exist = TensorData::new(exist.collect::<Vec<_>>(), [gates]);
        let exist = Tensor::<B, 1>::from_data(exist, &self.device);
        let sizes: Vec<usize> = parts.iter().map(|part| part.batch.members.len()).collect();
        let stage = progress.stage(method, self.settings.mask_steps as u64);
        for _ in 0..self.settings.mask_steps {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let part = part_of(&sizes, draw::index(&mut rng, sizes.iter().sum()));
            let part = &parts[part];
            let noise: Vec<f32> = (0..gates)
                .map(|_| draw::between(&mut rng, 1e-6, 1.0 - 1e-6))
                .collect();
            let vector = |values: Vec<f32>| {
                Tensor::<B, 1>::from_data(TensorData::new(values, [gates]), &self.device)
            };
            let alpha = vector(log_alpha.clone()).require_grad();
            let open = hard_concrete(alpha.clone(), vector(noise));
            let values = self.gated(&model, graph, part, causal, open);
            let penalty = penalty(alpha.clone(), exist.clone(), shift);
            let loss = values.mean().div_scalar(-unit) + penalty;
            let gradients = loss.backward();
            let gradient = alpha.grad(&gradients).map(host);
            let Some(gradient) = gradient else {
                unreachable!("the penalty depends on every gate")
            };
            adam.step(&mut log_alpha, &gradient?);
            progress.advance(1);
        }
        drop(stage);

        let found = log_alpha.iter().zip(&real).filter(|(_, real)| **real);
        let lowest = found.map(|(alpha, _)| *alpha).fold(f32::INFINITY, f32::min);
        let score = |gate: usize| f64::from(log_alpha[gate] - lowest);
        let scores = match self.kind {
            Kind::Nodes => GraphScores {
                graph,
                nodes: Some((0..gates).map(score).collect()),
                edges: None,
            },
            Kind::Edges => {
                let mut edges = vec![0.0; size];
                for (writer, reader) in graph.edges() {
                    edges[writer * graph.readers() + reader] =
                        score(reader * graph.writers() + writer);
                }
                GraphScores {
                    graph,
                    nodes: None,
                    edges: Some(edges),
                }
            }
        };
        Ok(fixed(Scores::of_graph(scores)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_flex::{Flex, FlexDevice};

    /// Gates that stand for no edge weigh nothing: with all others open the penalty is 1, with all closed 0.
    #[test]
    fn the_penalty_is_that_of_edges() {
        let vector = |values: [f32; 4]| Tensor::<Flex, 1>::from_data(values, &FlexDevice);
        let penalty = |alpha: [f32; 4], exist: [f32; 4]| -> f32 {
            penalty(vector(alpha), vector(exist), -1.6).into_scalar()
        };
        for exist in [[1.0; 4], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]] {
            assert!((penalty([30.0; 4], exist) - 1.0).abs() < 1e-6, "{exist:?}");
            assert!(penalty([-30.0; 4], exist) < 1e-6, "{exist:?}");
        }
        assert!((penalty([30.0, 30.0, -30.0, -30.0], [1.0, 0.0, 0.0, 1.0]) - 0.5).abs() < 1e-6);
    }

    /// Each pair is as likely as any other, whatever the size of its part.
    #[test]
    fn pairs_are_drawn_alike() {
        let parts: Vec<usize> = (0..9).map(|pair| part_of(&[6, 1, 2], pair)).collect();
        assert_eq!(parts, [0, 0, 0, 0, 0, 0, 1, 2, 2]);
    }

    #[test]
    fn gates_open_and_close() {
        let gates = |log_alpha: f32| -> Vec<f32> {
            let noise = Tensor::<Flex, 1>::from_data([0.1, 0.5, 0.9], &FlexDevice);
            let log_alpha = Tensor::from_data([log_alpha; 3], &FlexDevice);
            hard_concrete(log_alpha, noise)
                .into_data()
                .to_vec()
                .unwrap()
        };
        assert_eq!(gates(10.0), [1.0; 3]);
        assert_eq!(gates(-10.0), [0.0; 3]);
        // Without noise and with log α = 0, s = ½ is stretched to ½.
        assert!((gates(0.0)[1] - 0.5).abs() < 1e-6);
        assert!(gates(0.0)[0] < gates(0.0)[1] && gates(0.0)[1] < gates(0.0)[2]);
    }

    #[test]
    fn adam_takes_steps_of_the_learning_rate_first() {
        let mut adam = Adam::new(2, LEARNING_RATE);
        let mut weights = [1.0f32, 1.0];
        adam.step(&mut weights, &[3.0, -0.5]);
        assert!((weights[0] - 0.9).abs() < 1e-6 && (weights[1] - 1.1).abs() < 1e-6);
    }
}
