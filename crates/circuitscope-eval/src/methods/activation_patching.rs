use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed};

use super::PatchingSettings;
use crate::causal::{PairEffects, PatchedRuns};
use crate::{Discover, Error, Evidence, Measured, Result};

/// Exact activation patching: every node, and every edge, ablated on its own (Vig et al. 2020, arXiv
/// 2004.12265; edges as in path patching, Goldowsky-Dill et al. 2023, arXiv 2304.05969, and ACDC).
///
/// The effect of a part is the metric of the full model less the metric with only that part ablated:
/// a node for all its readers, an edge for one of them, everything downstream recomputed. This is what
/// attribution methods approximate.
///
/// # Complexity
/// One forward pass for each node and each edge and prompt, from the reader's layer on:
/// `O(writers · readers)` passes. Several edges of one layer run side by side in one batch.
#[derive(Debug, Clone)]
pub struct ActivationPatching {
    settings: PatchingSettings,
}

impl ActivationPatching {
    /// On the first pairs, as many as `settings` say.
    #[must_use]
    pub const fn new(settings: PatchingSettings) -> Self {
        Self { settings }
    }
}

const NAME: &str = "activation-patching";

/// A node's or an edge's entries in a set of edges, and the first layer that sees a difference.
struct Ablated {
    entries: Vec<usize>,
    layer: usize,
}

impl<B: Backend> Discover<B> for ActivationPatching {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "exact effect of ablating each node and each edge on its own"
    }

    fn is_control(&self) -> bool {
        false
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        _: Seed,
        progress: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        let causal = evidence.causal(NAME)?;
        let graph = causal.graph();
        let runs = PatchedRuns::new(causal, self.settings.pairs(causal.pairs().len(), true))?;
        let clean = runs.clean(causal.metric())?;
        let (writers, readers) = (graph.writers(), graph.readers());
        let layer_of = |reader: usize| match graph.reader(reader).0 {
            circuitscope_core::Node::Head(head) => head.layer,
            circuitscope_core::Node::Mlp(layer) => layer,
            _ => graph.n_layers - 1,
        };
        let nodes = (0..writers).map(|writer| Ablated {
            entries: (0..readers)
                .map(|reader| reader * writers + writer)
                .collect(),
            layer: match graph.writer(writer) {
                circuitscope_core::Node::Head(head) => head.layer,
                circuitscope_core::Node::Mlp(layer) => layer,
                _ => 0,
            },
        });
        let edges: Vec<(usize, usize)> = graph.edges().collect();
        let parts: Vec<Ablated> = nodes
            .chain(edges.iter().map(|&(writer, reader)| Ablated {
                entries: vec![reader * writers + writer],
                layer: layer_of(reader),
            }))
            .collect();

        let mut node_effects = vec![vec![0.0; writers]; clean.len()];
        let mut edge_effects = vec![vec![0.0; writers * readers]; clean.len()];
        let mut done = 0_usize;
        progress.begin(NAME, parts.len() as u64);
        // Neighbours start at the same layer: they share a batch.
        let same_layer = |a: &Ablated, b: &Ablated| a.layer == b.layer;
        for group in parts
            .chunk_by(same_layer)
            .flat_map(|group| group.chunks(64))
        {
            if progress.cancelled() {
                progress.end();
                return Err(Error::Cancelled);
            }
            let sets: Vec<Vec<f32>> = group
                .iter()
                .map(|part| {
                    let mut set = vec![1.0; writers * readers];
                    for &entry in &part.entries {
                        set[entry] = 0.0;
                    }
                    set
                })
                .collect();
            let values = runs
                .run(&sets, group[0].layer, &[causal.metric()])?
                .remove(0);
            for values in values {
                for (pair, (&clean, value)) in clean.iter().zip(values).enumerate() {
                    let effect = (clean - value) as f32;
                    match done.checked_sub(writers) {
                        None => node_effects[pair][done] = effect,
                        Some(at) => {
                            let (writer, reader) = edges[at];
                            edge_effects[pair][writer * readers + reader] = effect;
                        }
                    }
                }
                done += 1;
            }
            progress.advance(group.len() as u64);
        }
        progress.end();
        let effects = PairEffects {
            graph,
            rows: runs.rows(),
            nodes: Some(node_effects),
            edges: Some(edge_effects),
        };
        Ok(effects.measured(evidence))
    }
}
