//! A model with something added to one activation at one position, run to its logits: exact ablations.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::Progress;
use circuitscope_hooks::{AnyTensor, Site, Tap};
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

/// Adds vectors to the rows of a batch, and keeps the logits.
struct Adds<B: Backend> {
    /// `[batch * pos, d]`
    by_site: BTreeMap<Site, Tensor<B, 2>>,
    logits: Option<Tensor<B, 3>>,
}

impl<B: Backend> Tap<B> for Adds<B> {
    fn wants(&self, site: Site) -> bool {
        site == Site::Logits || self.by_site.contains_key(&site)
    }

    fn tap<const D: usize>(&mut self, site: Site, x: Tensor<B, D>) -> Tensor<B, D> {
        if site == Site::Logits {
            self.logits = AnyTensor::new(x.clone()).get::<3>();
            return x;
        }
        match self.by_site.remove(&site) {
            Some(add) => {
                let dims = x.dims();
                x + add.reshape(dims)
            }
            None => x,
        }
    }
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
        let by_site = added.into_iter().map(|(site, values)| {
            let rows = of.len() * pos;
            let shape = [rows, values.len() / rows];
            (
                site,
                Tensor::from_data(TensorData::new(values, shape), device),
            )
        });
        let mut adds = Adds {
            by_site: by_site.collect(),
            logits: None,
        };
        model.forward(&batch, &mut adds);
        if let Some(site) = adds.by_site.into_keys().next() {
            return Err(circuitscope_hooks::Error::NeverFired { site }.into());
        }
        let never = circuitscope_hooks::Error::NeverFired { site: Site::Logits };
        let logits = adds.logits.ok_or(never)?;
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
