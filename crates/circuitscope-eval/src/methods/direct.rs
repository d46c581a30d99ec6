use burn::tensor::backend::Backend;
use circuitscope_core::{Metric, Progress, Seed};

use super::PatchingSettings;
use super::of_pairs::of_pairs;
use crate::causal::{PairEffects, host};
use crate::{About, Discover, Evidence, Measured, Needs, Passes, Result};

/// What is known of it.
pub(super) static ABOUT: About =
    About::new(NAME, "what a head adds to the answer's logit directly")
        .without_seed()
        .needs(Needs::answers(), Passes::EachPair(1));

/// Direct logit attribution: what a writer's output at the last position adds to the mean logit of the
/// right answers less that of the wrong ones, without passing through any later layer, the scale of
/// the final norm as it is (Elhage et al. 2021, *A mathematical framework for transformer circuits*;
/// used for name movers in arXiv 2211.00593, §3.1).
///
/// It sees the last step of a circuit only: heads that work through other heads score little.
///
/// # Complexity
/// One forward pass for each prompt.
#[derive(Debug, Clone)]
pub struct DirectLogitAttribution {
    settings: PatchingSettings,
}

impl DirectLogitAttribution {
    /// On as many pairs as `settings` say.
    #[must_use]
    pub const fn new(settings: PatchingSettings) -> Self {
        Self { settings }
    }
}

const NAME: &str = "direct-logit-attribution";

impl<B: Backend> Discover<B> for DirectLogitAttribution {
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
        let (graph, model) = (causal.graph(), causal.model());
        let count = self.settings.pairs(causal.pairs().len(), false);
        let (rows, effects) = causal.each_pair(NAME, count, 1.0, progress, |batch| {
            let here = causal.outputs(model, &batch.clean)?;
            let [prompts, pos, d_model] = here.input.dims();
            let writers = graph.writers();
            let parts = here.writers().reshape([prompts, writers, pos, d_model]);
            let parts = batch.clean.last(parts.swap_dims(1, 2));
            let parts = parts.reshape([prompts, writers, d_model]);
            let stream = batch.clean.last(here.last);
            let weights = match causal.metric() {
                Metric::Contrast => causal.reference(Metric::Contrast, batch)?,
                _ => None,
            };
            let weights = weights.unwrap_or_else(|| batch.targets.contrast(causal.device()));
            let added = model.direct_logits(stream, parts, weights);
            Ok(host(added)?.chunks(writers).map(<[_]>::to_vec).collect())
        })?;
        let effects = PairEffects {
            graph,
            rows,
            nodes: Some(effects),
            edges: None,
        };
        Ok(of_pairs(effects, evidence))
    }
}
