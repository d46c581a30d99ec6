//! A model with something added to one activation at one position, run to its logits: exact ablations.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::Progress;
use circuitscope_hooks::{AnyTensor, Capture, Intervene, Intervention, Op, Site};
use circuitscope_model::{Decoder, PaddingSide, TokenBatch, pack_by_length};

use crate::frozen::floats;
use crate::{Error, Result};

/// A run: the logits after the last of the tokens are looked at.
pub(crate) struct Changed<'a> {
    pub(crate) tokens: &'a [u32],
    /// What is added, where; nothing in a run of the model as it is.
    pub(crate) change: Option<Change>,
}

/// A vector that is added to an activation: heads side by side are one vector.
pub(crate) struct Change {
    pub(crate) site: Site,
    pub(crate) position: usize,
    pub(crate) add: Vec<f32>,
}

/// Runs the model and gives each run's logits after its last token to `each`, with the run's place; in no particular order.
pub(crate) fn logits_of<B: Backend>(
    model: &Decoder<B>,
    runs: &[Changed<'_>],
    batch_tokens: usize,
    device: &B::Device,
    progress: &dyn Progress,
    mut each: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let lengths: Vec<usize> = runs.iter().map(|run| run.tokens.len()).collect();
    for of in pack_by_length(&lengths, batch_tokens) {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        let prompts: Vec<&[u32]> = of.iter().map(|&at| runs[at].tokens).collect();
        let pos = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let batch = TokenBatch::new(&prompts, PaddingSide::Right, device)?;
        let mut added: BTreeMap<Site, Vec<f32>> = BTreeMap::new();
        for (row, &at) in of.iter().enumerate() {
            let Some(change) = &runs[at].change else {
                continue;
            };
            let d = change.add.len();
            let all = added
                .entry(change.site)
                .or_insert_with(|| vec![0.0; of.len() * pos * d]);
            all[(row * pos + change.position) * d..][..d].copy_from_slice(&change.add);
        }
        let interventions = added.into_iter().map(|(site, values)| {
            let d = values.len() / (of.len() * pos);
            let values = Tensor::<B, 1>::from_data(TensorData::from(values.as_slice()), device);
            // Heads side by side are one vector.
            let values = match site.head_axis() {
                Some(_) => {
                    let heads = model.config().n_heads;
                    AnyTensor::new(values.reshape([of.len(), pos, heads, d / heads]))
                }
                None => AnyTensor::new(values.reshape([of.len(), pos, d])),
            };
            Intervention::new(site, Op::Add(values))
        });
        let mut intervene = Intervene::new(interventions);
        let mut capture = Capture::new([Site::Logits]);
        model.forward(&batch, &mut (&mut intervene, &mut capture));
        let logits = capture.finish()?.remove(&Site::Logits);
        let logits = logits.and_then(|logits| logits.get::<3>());
        let logits = logits.ok_or(circuitscope_hooks::Error::NeverFired { site: Site::Logits })?;
        let [_, _, vocab] = logits.dims();
        let last = prompts.iter().enumerate().map(|(row, prompt)| {
            let at = prompt.len() - 1;
            let one = logits.clone().slice([row..row + 1, at..at + 1, 0..vocab]);
            one.reshape([1, vocab])
        });
        let values = floats(Tensor::<B, 2>::cat(last.collect(), 0))?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite);
        }
        for (&at, logits) in of.iter().zip(values.chunks_exact(vocab)) {
            each(at, logits);
        }
        progress.advance(of.len() as u64);
    }
    Ok(())
}
