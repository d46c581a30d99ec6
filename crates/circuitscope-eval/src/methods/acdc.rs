use burn::tensor::backend::Backend;
use circuitscope_core::{Node, Progress, Seed};

use super::PatchingSettings;
use crate::causal::{Metric, PatchedRuns, mean};
use crate::{Discover, Error, Evidence, GraphScores, Measured, Result};

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
/// For each threshold at most one forward pass for each edge and prompt, from the reader's layer on.
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

/// The edges that are kept at threshold `tau`, as `[readers * writers]`.
fn kept<B: Backend>(
    runs: &PatchedRuns<'_, B>,
    metric: Metric,
    tau: f64,
    progress: &dyn Progress,
) -> Result<Vec<f32>> {
    let graph = runs.graph();
    let writers = graph.writers();
    let mut set = vec![1.0; graph.readers() * writers];
    let mut value = mean(&runs.clean(metric)?);
    for reader in (0..graph.readers()).rev() {
        let (node, _) = graph.reader(reader);
        let entries = reader * writers..(reader + 1) * writers;
        let layer = match node {
            Node::Head(head) => head.layer,
            Node::Mlp(layer) => layer,
            _ => graph.n_layers - 1,
        };
        // A group of heads shares a reader: it is idle only if all of them are.
        let heads = |edge: circuitscope_core::Edge| graph.writer_index(edge.destination);
        let members = graph.edges_between(0, reader).into_iter().map(heads);
        let idle = node != Node::Logits
            && members.flatten().all(|writer| {
                (0..graph.readers()).all(|later| {
                    set[later * writers + writer] == 0.0 || writer >= graph.visible(later)
                })
            });
        if idle {
            set[entries].fill(0.0);
            progress.advance(graph.visible(reader) as u64);
            continue;
        }
        for writer in (0..graph.visible(reader)).rev() {
            if progress.cancelled() {
                return Err(Error::Cancelled);
            }
            let at = entries.start + writer;
            set[at] = 0.0;
            let without = runs.mean_of(&set, layer, metric)?;
            if value - without < tau {
                value = without;
            } else {
                set[at] = 1.0;
            }
            progress.advance(1);
        }
    }
    Ok(set)
}

impl<B: Backend> Discover<B> for Acdc {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "largest threshold at which greedy edge removal keeps an edge"
    }

    fn is_control(&self) -> bool {
        false
    }

    fn resamples(&self) -> usize {
        0
    }

    fn uses_seed(&self) -> bool {
        false
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        _: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let causal = evidence.causal(NAME)?;
        let (graph, metric) = (causal.graph(), causal.metric());
        // Thousands of passes one after another: half of what other costly methods take.
        let pairs = self.settings.pairs(causal.pairs().len(), true).div_ceil(2);
        let runs = PatchedRuns::new(causal, pairs)?;
        let (full, empty) = runs.full_and_empty(metric)?;
        let fall = full - empty;
        let mut edges = vec![0.0; graph.readers() * graph.writers()];
        let total = THRESHOLDS.len() * graph.n_edges();
        progress.begin(NAME, total as u64);
        for share in THRESHOLDS {
            let set = kept(&runs, metric, share * fall.abs(), progress);
            if set.is_err() {
                progress.end();
            }
            let set = set?;
            for reader in 0..graph.readers() {
                for writer in 0..graph.visible(reader) {
                    if set[reader * graph.writers() + writer] == 1.0 {
                        let edge: &mut f64 = &mut edges[writer * graph.readers() + reader];
                        *edge = edge.max(share);
                    }
                }
            }
        }
        progress.end();
        let scores = GraphScores {
            graph,
            nodes: None,
            edges: Some(edges),
        };
        Ok(scores.measured())
    }
}
