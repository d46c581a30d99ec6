use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, Node, Port, Progress, Seed};
use circuitscope_hooks::{Intervene, Intervention, NodeOutputs, Op, Site};

use super::PatchingSettings;
use crate::causal::{CausalEvidence, PairEffects, PatchedRuns, Prepared, last_logits};
use crate::{Discover, Error, Evidence, Measured, Result};

/// Exact activation patching: every node, and every edge, ablated on its own (Vig et al. 2020, arXiv
/// 2004.12265; edges as in path patching, Goldowsky-Dill et al. 2023, arXiv 2304.05969, and ACDC).
///
/// The effect of a part is the metric of the full model less the metric with only that part ablated:
/// a node for all its readers, an edge for one of them, everything downstream recomputed. This is what
/// attribution methods approximate.
///
/// A head is ablated as a node at its `z`, so that a norm after attention (Gemma 2 and 3) is computed anew;
/// an edge carries what the head adds to the residual stream, with that norm's scale as it is in each of the
/// two runs: exact for the reader, linearised in the norm.
///
/// # Complexity
/// One forward pass for each node and each edge and prompt, from the layer that first sees the
/// difference: `O(writers · readers)` passes; edges into the logits need none. Changes at one site run
/// side by side in one batch.
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

/// A node ablated, or a writer ablated for some reader: what is at the site, less the difference.
#[derive(Debug, Clone, Copy)]
struct Change {
    writer: usize,
    /// Which head of the site; 0 where it has none.
    slot: usize,
    /// Where the effect is kept: a node, or an edge into this reader.
    reader: Option<usize>,
}

/// All changes of one site.
#[derive(Debug)]
struct Place {
    site: Site,
    /// The layer to start at; `None` for changes that the logits read at once.
    layer: Option<usize>,
    changes: Vec<Change>,
}

fn places(graph: &Graph) -> Vec<Place> {
    let nodes = (0..graph.writers()).map(|writer| {
        let (site, layer, slot) = match graph.writer(writer) {
            Node::Head(head) => (Site::Z(head.layer), head.layer, head.head),
            Node::Mlp(layer) => (Site::MlpOut(layer), layer, 0),
            Node::Input | Node::Logits => (Site::ResidPre(0), 0, 0),
        };
        Place {
            site,
            layer: Some(layer),
            changes: vec![Change {
                writer,
                slot,
                reader: None,
            }],
        }
    });
    let edges = (0..graph.readers()).map(|reader| {
        let (site, layer, slot) = match graph.reader(reader) {
            (Node::Head(head), Some(port)) => {
                let site = match port {
                    Port::Q => Site::QInput(head.layer),
                    Port::K => Site::KInput(head.layer),
                    Port::V => Site::VInput(head.layer),
                };
                let slot = reader - graph.port_readers(head.layer, port).start;
                (site, Some(head.layer), slot)
            }
            (Node::Mlp(layer), _) => (Site::MlpIn(layer), Some(layer), 0),
            _ => (Site::ResidPost(graph.n_layers - 1), None, 0),
        };
        let changes = (0..graph.visible(reader)).map(|writer| Change {
            writer,
            slot,
            reader: Some(reader),
        });
        Place {
            site,
            layer,
            changes: changes.collect(),
        }
    });
    let mut merged: Vec<Place> = Vec::new();
    for place in nodes.chain(edges) {
        match merged.last_mut().filter(|last| last.site == place.site) {
            Some(last) => last.changes.extend(place.changes),
            None => merged.push(place),
        }
    }
    merged
}

/// Clean less ablated run.
#[derive(Debug)]
struct Difference<B: Backend> {
    nodes: NodeOutputs<B>,
    /// `[prompts, writers, pos * d_model]`.
    writers: Tensor<B, 3>,
}

/// `[changes * prompts, pos, d_model]`, or with the heads of the site before the last axis: minus the
/// difference where the change is, zero elsewhere.
fn shift<B: Backend>(
    part: &Prepared<B>,
    difference: &Difference<B>,
    place: &Place,
    changes: &[Change],
    slots: Option<usize>,
) -> Tensor<B, 4> {
    let [prompts, pos, d_model] = part.here.input.dims();
    let rows = changes.iter().map(|change| {
        let of_node = difference
            .nodes
            .at(place.site)
            .filter(|_| change.reader.is_none());
        let one = match of_node {
            Some(nodes) => nodes.clone().narrow(2, change.slot, 1).neg(),
            None => {
                let one = difference.writers.clone().narrow(1, change.writer, 1);
                one.neg().reshape([prompts, pos, 1, d_model])
            }
        };
        match slots {
            None => one,
            Some(slots) => {
                debug_assert!(change.slot < slots, "{}", place.site);
                let width = one.dims()[3];
                let zeros = Tensor::zeros([prompts, pos, slots, width], &one.device());
                let ranges = [0..prompts, 0..pos, change.slot..change.slot + 1, 0..width];
                zeros.slice_assign(ranges, one)
            }
        }
    });
    Tensor::cat(rows.collect(), 0)
}

/// Logits under each of `changes`: `[changes * prompts, vocabulary]`.
fn changed_logits<B: Backend>(
    causal: &CausalEvidence<B>,
    part: &Prepared<B>,
    difference: &Difference<B>,
    place: &Place,
    changes: &[Change],
) -> Tensor<B, 2> {
    let graph = causal.graph();
    let slots = match place.site {
        Site::QInput(_) | Site::Z(_) => Some(graph.n_heads),
        Site::KInput(_) | Site::VInput(_) => Some(graph.n_key_value_heads),
        _ => None,
    };
    let shift = shift(part, difference, place, changes, slots);
    let flat = |x: Tensor<B, 4>| {
        let [rows, pos, _, d_model] = x.dims();
        x.reshape([rows, pos, d_model])
    };
    let (model, copies) = (causal.model(), changes.len());
    let Some(layer) = place.layer else {
        let stream = flat(shift) + part.here.last.clone().repeat_dim(0, copies);
        return last_logits(model, &part.batch.clean.repeated(copies), stream);
    };
    let add = match slots {
        Some(_) => Op::Add(shift.into()),
        None => Op::Add(flat(shift).into()),
    };
    let change = Intervene::new([Intervention::new(place.site, add)]);
    part.logits(model, copies, layer, change)
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
        let graph = causal.graph();
        let runs = PatchedRuns::new(causal, self.settings.pairs(causal.pairs().len(), true))?;
        let places = places(&graph);
        let total: usize = places.iter().map(|place| place.changes.len()).sum();
        let (mut nodes, mut edges) = (Vec::new(), Vec::new());
        progress.begin(NAME, (total * runs.parts().len()) as u64);
        for part in runs.parts() {
            let prompts = part.batch.members.len();
            let clean = part.values(causal.metric(), part.clean.clone())?;
            let here = causal.node_outputs(&part.batch.clean)?;
            let difference = Difference {
                nodes: here.minus(&causal.ablated_nodes(&part.batch)?),
                writers: part.here.writers() - part.other.writers(),
            };
            let mut of_nodes = vec![vec![0.0; graph.writers()]; prompts];
            let mut of_edges = vec![vec![0.0; graph.writers() * graph.readers()]; prompts];
            let pos = part.here.input.dims()[1];
            let side_by_side = (causal.rows_per_batch(pos) / prompts).max(1);
            for place in &places {
                for changes in place.changes.chunks(side_by_side) {
                    if progress.cancelled() {
                        progress.end();
                        return Err(Error::Cancelled);
                    }
                    let logits = changed_logits(causal, part, &difference, place, changes);
                    let values = part.values(causal.metric(), logits)?;
                    for (change, values) in changes.iter().zip(values.chunks(prompts)) {
                        for (pair, value) in values.iter().enumerate() {
                            let effect = (clean[pair] - value) as f32;
                            match change.reader {
                                None => of_nodes[pair][change.writer] = effect,
                                Some(reader) => {
                                    let at = change.writer * graph.readers() + reader;
                                    of_edges[pair][at] = effect;
                                }
                            }
                        }
                    }
                    progress.advance(changes.len() as u64);
                }
            }
            nodes.extend(of_nodes);
            edges.extend(of_edges);
        }
        progress.end();
        let effects = PairEffects {
            graph,
            rows: runs.rows(),
            nodes: Some(nodes),
            edges: Some(edges),
        };
        Ok(effects.measured(evidence))
    }
}
