use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use circuitscope_core::{Graph, Port, Progress, Seed};
use circuitscope_hooks::StreamOutputs;

use super::PatchingSettings;
use super::of_pairs::of_pairs;
use crate::causal::{PairBatch, PairEffects, host};
use crate::{About, Discover, Error, Evidence, Measured, Needs, Passes, Result};

/// What is known of it.
pub(super) static ABOUT: About =
    About::new(NAME, "share of what a reader reads that a writer made")
        .without_seed()
        .needs(Needs::model(), Passes::EachPair(1));

/// Information flow routes (Ferrando and Voita 2024, arXiv 2403.00824, eq. 4-5): how much of what a
/// reader reads a writer made.
///
/// With `y` the stream that is read and `x_w` a writer's output in it, the proximity of `w` is
/// `max(0, ‖y‖₁ − ‖y − x_w‖₁)`; an edge scores the writer's share of all proximities, averaged over
/// real positions, for the logits at the last one. All ports of a layer read one stream and score
/// alike.
///
/// Looks at positive prompts alone, and at no metric: it finds what is used, for whatever purpose.
///
/// # Complexity
/// One forward pass for each prompt, and `O(layers · writers · pos · d_model)`.
#[derive(Debug, Clone)]
pub struct InformationFlow {
    settings: PatchingSettings,
}

impl InformationFlow {
    /// On as many pairs as `settings` say.
    #[must_use]
    pub const fn new(settings: PatchingSettings) -> Self {
        Self { settings }
    }
}

const NAME: &str = "information-flow-routes";

/// Shares of the first `visible` writers, for each prompt, averaged with `weights` `[prompts, pos]`:
/// `[prompts, visible]`.
fn shares<B: Backend>(
    stream: &Tensor<B, 3>,
    writers: &Tensor<B, 4>,
    visible: usize,
    weights: &Tensor<B, 2>,
) -> Tensor<B, 2> {
    let size = stream.clone().abs().sum_dim(2);
    let columns = (0..visible).map(|writer| {
        let part = writers.clone().narrow(1, writer, 1).squeeze_dim::<3>(1);
        let rest = (stream.clone() - part).abs().sum_dim(2);
        (size.clone() - rest).clamp_min(0.0)
    });
    // [prompts, pos, visible]
    let proximity = Tensor::cat(columns.collect(), 2);
    let all = proximity.clone().sum_dim(2).clamp_min(f32::MIN_POSITIVE);
    let weights = weights.clone().unsqueeze_dim::<3>(2);
    (proximity / all * weights).sum_dim(1).squeeze_dim(1)
}

fn batch_effects<B: Backend>(
    graph: &Graph,
    run: &StreamOutputs<B>,
    batch: &PairBatch<B>,
) -> Result<Vec<Vec<f32>>> {
    let [prompts, pos, d_model] = run.input.dims();
    let writers = run.writers();
    let writers = writers.reshape([prompts, graph.writers(), pos, d_model]);
    let mask = batch.clean.positions().mask.clone();
    let every = mask.clone() / mask.clone().sum_dim(1);
    let last: Vec<f32> = batch
        .clean
        .positions()
        .last
        .iter()
        .flat_map(|&last| (0..pos).map(move |at| if at == last { 1.0 } else { 0.0 }))
        .collect();
    let last = burn::tensor::TensorData::new(last, [prompts, pos]);
    let last = Tensor::from_data(last, &mask.device());
    let mut effects = vec![vec![0.0; graph.writers() * graph.readers()]; prompts];
    let mut put = |readers: Vec<usize>, stream: &Tensor<B, 3>, weights: &Tensor<B, 2>| {
        let visible = graph.visible(readers[0]);
        let found = host(shares(stream, &writers, visible, weights))?;
        for (effects, found) in effects.iter_mut().zip(found.chunks(visible)) {
            for (writer, share) in found.iter().enumerate() {
                for reader in &readers {
                    effects[writer * graph.readers() + reader] = *share;
                }
            }
        }
        Ok::<(), Error>(())
    };
    for layer in 0..graph.n_layers {
        let ports = Port::ALL.into_iter();
        let readers = ports.flat_map(|port| graph.port_readers(layer, port));
        put(readers.collect(), &run.attn_in[layer], &every)?;
        if graph.mlps {
            put(vec![graph.mlp_reader(layer)], &run.mlp_in[layer], &every)?;
        }
    }
    put(vec![graph.logits()], &run.last, &last)?;
    Ok(effects)
}

impl<B: Backend> Discover<B> for InformationFlow {
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
        let graph = causal.graph();
        let count = self.settings.pairs(causal.pairs().len(), false);
        let (rows, effects) = causal.each_pair(NAME, count, 1.0, progress, |batch| {
            let run = causal.outputs(causal.model(), &batch.clean)?;
            batch_effects(&graph, &run, batch)
        })?;
        let effects = PairEffects {
            graph,
            rows,
            nodes: None,
            edges: Some(effects),
        };
        Ok(of_pairs(effects, evidence))
    }
}
