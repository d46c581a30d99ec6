use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, Node, Progress, Seed};
use circuitscope_measures::{GraphScores, Scores};

use super::PatchingSettings;
use crate::causal::{Metric, PatchedRuns, mean};
use crate::method::fixed;
use crate::{About, Discover, Error, Evidence, Measured, Needs, Passes, Result};

/// What is known of it.
pub(super) static ABOUT: About = About::new(
    NAME,
    "largest threshold at which greedy edge removal keeps an edge",
)
.without_seed()
.resamples(0)
.without_null()
.needs(Needs::model(), Passes::EachEdge);

/// Automatic circuit discovery, ACDC (Conmy et al. 2023, arXiv 2304.14997, algorithm 1), swept over
/// thresholds.
///
/// From the logits backwards, reader by reader, each edge is ablated; it stays ablated if the metric
/// falls by less than τ on the mean of the prompts. An edge scores the largest τ at which it is kept,
/// so that the ranking holds all circuits of the sweep (τ = 0.001, 0.01, 0.03 and 0.1 of the metric's
/// fall when everything is ablated); a head scores the largest of its outgoing
/// edges.
///
/// Edges into a node that no longer reaches the logits have no effect: they are dropped without a pass.
///
/// # Complexity
/// One forward pass for each edge, from the reader's layer on. It holds every prompt once for each threshold
/// whose circuit is not idle there and differs from that of the threshold before.
#[derive(Debug, Clone)]
pub struct Acdc {
    settings: PatchingSettings,
}

impl Acdc {
    /// On the first pairs, half as many as `settings` say.
    #[must_use]
    pub const fn new(settings: PatchingSettings) -> Self {
        Self { settings }
    }
}

const NAME: &str = "acdc";

/// Thresholds of the sweep, in units of the metric's fall from the full model to the ablated one.
const THRESHOLDS: [f64; 4] = [0.001, 0.01, 0.03, 0.1];

/// A circuit that is being pruned.
struct Pruned {
    /// Largest fall of the metric for which an edge is dropped.
    tau: f64,
    /// 1 for each edge that is kept, `[readers * writers]`.
    set: Vec<f32>,
    /// The metric with these edges.
    value: f64,
}

impl Pruned {
    /// Whether nothing that still reaches the logits reads what `writers` put out.
    fn is_idle(&self, graph: &Graph, writers: &[usize]) -> bool {
        let unread = |&writer: &usize| {
            (0..graph.readers()).all(|reader| {
                writer >= graph.visible(reader)
                    || self.set[reader * graph.writers() + writer] == 0.0
            })
        };
        writers.iter().all(unread)
    }
}

/// Prunes the full circuit at each of the thresholds `taus`. All of them go through the edges together: one
/// forward pass for each edge holds all circuits that are still different.
fn prune<B: Backend>(
    runs: &PatchedRuns<'_, B>,
    metric: Metric,
    taus: &[f64],
    progress: &dyn Progress,
) -> Result<Vec<Pruned>> {
    let graph = runs.graph();
    let writers = graph.writers();
    let value = mean(&runs.clean(metric)?);
    let full = |&tau: &f64| Pruned {
        tau,
        set: vec![1.0; graph.readers() * writers],
        value,
    };
    let mut circuits: Vec<Pruned> = taus.iter().map(full).collect();
    let mut from = runs.from_layer(graph.n_layers - 1)?;
    for reader in (0..graph.readers()).rev() {
        let (node, _) = graph.reader(reader);
        let entries = reader * writers..(reader + 1) * writers;
        let layer = match node {
            Node::Head(head) => head.layer,
            Node::Mlp(layer) => layer,
            _ => graph.n_layers - 1,
        };
        if layer != from.layer() {
            from = runs.from_layer(layer)?;
        }
        // A group of heads shares a reader: it is idle only if all of them are.
        let edges = graph.edges_between(0, reader).into_iter();
        let members: Vec<usize> = edges
            .filter_map(|edge| graph.writer_index(edge.destination))
            .collect();
        let mut live = Vec::new();
        for circuit in &mut circuits {
            if node != Node::Logits && circuit.is_idle(&graph, &members) {
                circuit.set[entries.clone()].fill(0.0);
            } else {
                live.push(circuit);
            }
        }
        for writer in (0..graph.visible(reader)).rev() {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let at = entries.start + writer;
            for circuit in &mut live {
                circuit.set[at] = 0.0;
            }
            let mut sets: Vec<&[f32]> = live.iter().map(|circuit| &circuit.set[..]).collect();
            // Neighbouring thresholds have long the same circuit.
            sets.dedup();
            let values = if sets.is_empty() {
                Vec::new()
            } else {
                from.run(&sets, &[metric])?.swap_remove(0)
            };
            let of = |circuit: &Pruned| sets.iter().position(|set| *set == circuit.set);
            let without: Vec<f64> = live
                .iter()
                .filter_map(|circuit| of(circuit).map(|set| mean(&values[set])))
                .collect();
            for (circuit, without) in live.iter_mut().zip(without) {
                if circuit.value - without < circuit.tau {
                    circuit.value = without;
                } else {
                    circuit.set[at] = 1.0;
                }
            }
            progress.advance(1);
        }
    }
    Ok(circuits)
}

impl<B: Backend> Discover<B> for Acdc {
    fn about(&self) -> &About {
        &ABOUT
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        _: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let causal = evidence.causal_for(&ABOUT)?;
        let (graph, metric) = (causal.graph(), causal.metric());
        // Thousands of passes one after another: half of what other costly methods take.
        let pairs = self.settings.pairs(causal.pairs().len(), true).div_ceil(2);
        let runs = PatchedRuns::new(causal, pairs)?.with_progress(progress);
        let fall = runs.baseline(metric)?.fall();
        let mut edges = vec![0.0; graph.readers() * graph.writers()];
        let stage = progress.stage(NAME, graph.n_edges() as u64);
        let taus = THRESHOLDS.map(|share| share * fall.abs());
        let circuits = prune(&runs, metric, &taus, progress);
        drop(stage);
        for (share, circuit) in THRESHOLDS.into_iter().zip(circuits?) {
            for (writer, reader) in graph.edges() {
                if circuit.set[reader * graph.writers() + writer] == 1.0 {
                    let edge: &mut f64 = &mut edges[writer * graph.readers() + reader];
                    *edge = edge.max(share);
                }
            }
        }
        let scores = GraphScores {
            graph,
            nodes: None,
            edges: Some(edges),
        };
        Ok(fixed(Scores::of_graph(scores)))
    }
}
