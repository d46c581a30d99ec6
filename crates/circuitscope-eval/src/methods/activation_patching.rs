use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, HeadId, Node, Port, Progress, Seed};
use circuitscope_hooks::{Intervene, Intervention, Op, Site};
use circuitscope_measures::Scores;

use super::of_pairs::of_pairs;
use super::{PatchedEdges, PatchingSettings};
use crate::causal::{
    CausalEvidence, Effects, PairEffects, PatchedRuns, Prepared, SingleWriters, last_logits,
    side_by_side,
};
use crate::{About, Discover, Error, Evidence, Measured, Needs, Passes, Result};

/// What is known of it.
pub(super) static ABOUT: About = About::new(
    NAME,
    "exact effect of ablating each node, and edges that are asked for, on its own",
)
.without_seed()
.needs(Needs::model(), Passes::EachNode);

/// Exact activation patching: every node, and every edge that is asked for, ablated on its own (Vig et
/// al. 2020, arXiv 2004.12265; edges as in path patching, Goldowsky-Dill et al. 2023, arXiv 2304.05969,
/// and ACDC).
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
/// One forward pass for each node and prompt, from where the node writes and from the first position
/// that differs between the prompts of a pair; all heads of a layer run side by side in one batch. Edges
/// take as many passes as there are of them, from the layer that first sees the difference:
/// `O(writers · readers)` for all ([`PatchedEdges::All`]); edges into the logits need none.
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

/// A writer ablated for one reader: what the site reads, less the writer's difference.
#[derive(Debug, Clone, Copy)]
struct Change {
    writer: usize,
    reader: usize,
    /// Which head of the site; 0 where it has none.
    slot: usize,
}

/// All changes of one site.
#[derive(Debug)]
struct Place {
    site: Site,
    /// The layer to start at; `None` for changes that the logits read at once.
    layer: Option<usize>,
    changes: Vec<Change>,
}

/// The edges between `heads` and from them to the logits, or all.
fn places(graph: &Graph, heads: Option<&[HeadId]>) -> Vec<Place> {
    let asked = |node: Node| match (heads, node) {
        (None, _) | (Some(_), Node::Logits) => true,
        (Some(heads), Node::Head(head)) => heads.contains(&head),
        (Some(_), _) => false,
    };
    // A reader that heads share is asked for with any of them.
    let reads = |reader: usize| {
        let edges = graph.edges_between(0, reader).into_iter();
        edges.map(|edge| edge.destination).any(asked)
    };
    let mut merged: Vec<Place> = Vec::new();
    for reader in (0..graph.readers()).filter(|reader| reads(*reader)) {
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
        let writers = (0..graph.visible(reader)).filter(|writer| asked(graph.writer(*writer)));
        let changes = writers.map(|writer| Change {
            writer,
            reader,
            slot,
        });
        match merged.last_mut().filter(|last| last.site == site) {
            Some(last) => last.changes.extend(changes),
            None => merged.push(Place {
                site,
                layer,
                changes: changes.collect(),
            }),
        }
    }
    merged
}

/// `[changes * prompts, pos, d_model]`, or with the heads of the site before `d_model`: minus the
/// writer's difference where the change is, zero elsewhere.
fn shift<B: Backend>(
    part: &Prepared<B>,
    difference: &Tensor<B, 3>,
    place: &Place,
    changes: &[Change],
    slots: Option<usize>,
) -> Tensor<B, 4> {
    let [prompts, pos, d_model] = part.here.input.dims();
    let rows = changes.iter().map(|change| {
        let one = difference.clone().narrow(1, change.writer, 1).neg();
        let one = one.reshape([prompts, pos, 1, d_model]);
        match slots {
            None => one,
            Some(slots) => {
                debug_assert!(change.slot < slots, "{}", place.site);
                let zeros = Tensor::zeros([prompts, pos, slots, d_model], &one.device());
                let ranges = [0..prompts, 0..pos, change.slot..change.slot + 1, 0..d_model];
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
    difference: &Tensor<B, 3>,
    place: &Place,
    changes: &[Change],
) -> Tensor<B, 2> {
    let graph = causal.graph();
    let slots = match place.site {
        Site::QInput(_) => Some(graph.n_heads),
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

/// Effects of all writers, for each pair, and the rows of the pairs.
fn node_effects<B: Backend>(
    causal: &CausalEvidence<B>,
    pairs: usize,
    progress: &dyn Progress,
) -> Result<Effects> {
    let (graph, metric) = (causal.graph(), causal.metric());
    let (mut rows, mut nodes) = (Vec::new(), Vec::new());
    causal.average(false, progress)?;
    let batches = causal.alike(pairs, usize::MAX);
    let total: usize = batches.iter().map(Vec::len).sum();
    let stage = progress.stage(NAME, (total * graph.writers()) as u64);
    let outcome = batches.iter().try_for_each(|members| {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let runs = SingleWriters::new(causal, members)?;
        let clean = runs.clean(causal.model(), metric)?;
        let pieces = runs.pieces(causal);
        let mut effects = vec![vec![0.0; graph.writers()]; members.len()];
        side_by_side(
            causal,
            pieces.len(),
            progress,
            |model, at| runs.without(model, &pieces[at], metric),
            |at, values| {
                let writers = pieces[at].writers(&graph);
                for (writer, values) in writers.zip(values.chunks(members.len())) {
                    for ((effects, full), less) in effects.iter_mut().zip(&clean).zip(values) {
                        effects[writer] = (full - less) as f32;
                    }
                }
                progress.advance(values.len() as u64);
            },
        )?;
        rows.extend(members.iter().map(|&pair| causal.pairs()[pair].rows));
        nodes.extend(effects);
        Ok(())
    });
    drop(stage);
    outcome.map(|()| (rows, nodes))
}

/// Effects of edges: for each pair `[writers * readers]`, 0 where none was asked for.
fn edge_effects<B: Backend>(
    causal: &CausalEvidence<B>,
    pairs: usize,
    heads: Option<&[HeadId]>,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f32>>> {
    let graph = causal.graph();
    let places = places(&graph, heads);
    let runs = PatchedRuns::new(causal, pairs)?.with_progress(progress);
    let count: usize = places.iter().map(|place| place.changes.len()).sum();
    let parts = runs.parts()?;
    let mut edges = Vec::new();
    let stage = progress.stage("patching edges", (count * parts.len()) as u64);
    for part in parts {
        let prompts = part.batch.members.len();
        let clean = part.values(causal.metric(), part.clean.clone())?;
        let difference = part.here.writers() - part.other.writers();
        let mut of_part = vec![vec![0.0; graph.writers() * graph.readers()]; prompts];
        let pos = part.here.input.dims()[1];
        let side_by_side = (causal.rows_per_batch(pos) / prompts).max(1);
        for place in &places {
            for changes in place.changes.chunks(side_by_side) {
                if progress.cancelled() {
                    return Err(Error::Cancelled);
                }
                let logits = changed_logits(causal, part, &difference, place, changes);
                let values = part.values(causal.metric(), logits)?;
                for (change, values) in changes.iter().zip(values.chunks(prompts)) {
                    let at = change.writer * graph.readers() + change.reader;
                    for (pair, value) in values.iter().enumerate() {
                        of_part[pair][at] = (clean[pair] - value) as f32;
                    }
                }
                progress.advance(changes.len() as u64);
            }
        }
        edges.extend(of_part);
    }
    drop(stage);
    Ok(edges)
}

impl<B: Backend> Discover<B> for ActivationPatching {
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
        let pairs = self.settings.pairs(causal.pairs().len(), true);
        let (rows, nodes) = node_effects(causal, pairs, progress)?;
        let mut effects = PairEffects {
            graph: causal.graph(),
            rows,
            nodes: Some(nodes),
            edges: None,
        };
        effects.edges = match self.settings.edges {
            PatchedEdges::None => None,
            PatchedEdges::All => Some(edge_effects(causal, pairs, None, progress)?),
            PatchedEdges::Among(heads) => {
                let scores = Scores::of_graph(effects.mean(&vec![1.0; effects.rows.len()]));
                let best = scores.ranking().into_iter().take(heads);
                let best: Vec<HeadId> = best.map(|(head, _)| head).collect();
                Some(edge_effects(causal, pairs, Some(&best), progress)?)
            }
        };
        Ok(of_pairs(effects, evidence))
    }
}
