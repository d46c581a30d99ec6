//! Attention of every head on random tokens said twice.

use burn::tensor::backend::Backend;
use circuitscope_core::{Progress, Seed, draw};
use circuitscope_hooks::{AnyTensor, Site, wide};
use circuitscope_measures::cards::HeadPatterns;
use circuitscope_model::{PaddingSide, TokenBatch};

use super::read::Watch;
use crate::causal::{CausalEvidence, host};
use crate::{Error, Result};

/// Tokens that are said twice.
const LENGTH: usize = 25;

/// The attention of every head, layer by layer, on `count` prompts of up to 25 random tokens said twice, after the token that all
/// prompts of the evidence begin with, if they do. Drawn from stream `cards/repeated`.
///
/// Nothing where the model reads fewer than five tokens.
pub(super) fn repeated<B: Backend>(
    causal: &CausalEvidence<B>,
    count: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<HeadPatterns>> {
    let model = causal.model();
    let config = model.config();
    let length = LENGTH.min((config.n_ctx - 1) / 2);
    if length < 2 || count == 0 {
        return Ok(Vec::new());
    }
    if progress.cancelled() {
        return Err(Error::Cancelled);
    }
    let mut firsts = causal.pairs().iter().map(|pair| pair.clean[0]);
    let begin = firsts
        .next()
        .filter(|first| firsts.all(|other| other == *first));
    let mut rng = seed.stream("cards/repeated").rng();
    let prompts = (0..count).map(|_| {
        let mut once: Vec<u32> = Vec::new();
        while once.len() < length {
            let token = draw::below(&mut rng, config.d_vocab) as u32;
            if Some(token) != begin {
                once.push(token);
            }
        }
        let twice = [once.clone(), once].concat();
        begin.into_iter().chain(twice).collect::<Vec<u32>>()
    });
    let prompts: Vec<Vec<u32>> = prompts.collect();
    let before = prompts[0].len() - 2 * length;
    let batch = TokenBatch::new(&prompts, PaddingSide::Right, causal.device())?;
    let mut found = Vec::new();
    let sites = (0..config.n_layers).map(Site::Pattern);
    let watch = Watch::new(sites, |site, x: AnyTensor<B>| {
        let x = x.get::<4>().map(wide);
        let x = x.ok_or(circuitscope_hooks::Error::NeverFired { site })?;
        let [rows, heads, pos, _] = x.dims();
        let data = host(x)?;
        for head in 0..heads {
            let at = |row: usize, t: usize, s: usize| {
                f64::from(data[((row * heads + head) * pos + t) * pos + s])
            };
            // From positions t to t − back.
            let mean = |first: usize, back: &dyn Fn(usize) -> usize| {
                let places = (0..rows).flat_map(|row| (first..pos).map(move |t| (row, t)));
                let sum: f64 = places.map(|(row, t)| at(row, t, t - back(t))).sum();
                sum / (rows * (pos - first)) as f64
            };
            let second = before + length;
            found.push(HeadPatterns {
                previous_token: mean(1, &|_| 1),
                duplicate_token: mean(second, &|_| length),
                induction: mean(second, &|_| length - 1),
                first_token: mean(1, &|t| t),
            });
        }
        Ok(())
    });
    watch.over(None, model, &batch)?;
    Ok(found)
}
