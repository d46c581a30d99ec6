//! What a prediction moves by when one head alone is patched.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use circuitscope_core::{HeadId, Progress, Seed};
use circuitscope_measures::cards::{Patched, Reference};

use super::CardSettings;
use super::read::OfPair;
use crate::causal::{Ablation, CausalEvidence, Metric};
use crate::{HeadCircuits, Result};

/// Exact effects of single heads on the contrast, the larger of two: given what the head puts out on the negative prompt, and given what
/// it puts out on another positive prompt of as many tokens. The second is measured where enough prompts have one length.
pub(super) fn patched<B: Backend>(
    causal: &CausalEvidence<B>,
    heads: &[HeadId],
    pairs: &[OfPair],
    how: &CardSettings,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<Patched>> {
    let first: Vec<usize> = (0..pairs.len()).take(how.patched_pairs).collect();
    let differs = effects(
        causal,
        heads,
        &first,
        pairs,
        Ablation::Negative,
        seed,
        progress,
    )?;
    let alike = of_one_length(causal, pairs.len(), how.patched_pairs);
    let used = if alike.len() < 2 {
        Vec::new()
    } else {
        effects(
            causal,
            heads,
            &alike,
            pairs,
            Ablation::Resample,
            seed,
            progress,
        )?
    };
    let all = differs.into_iter().enumerate().map(|(at, differs)| {
        let of = |reference, (mean, size), pairs| Patched {
            reference,
            mean,
            size,
            pairs,
        };
        let differs = of(Reference::Differs, differs, first.len());
        match used.get(at) {
            Some(used) if used.1 > differs.size => of(Reference::Used, *used, alike.len()),
            _ => differs,
        }
    });
    Ok(all.collect())
}

/// Pairs whose positive prompts have the length that most have, of each prompt one.
fn of_one_length<B: Backend>(causal: &CausalEvidence<B>, count: usize, most: usize) -> Vec<usize> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, pair) in causal.pairs()[..count].iter().enumerate() {
        let group = groups.entry(pair.clean.len()).or_default();
        if group
            .iter()
            .all(|&other| causal.pairs()[other].clean != pair.clean)
        {
            group.push(at);
        }
    }
    // Of those as large, the shortest.
    let largest = groups.values().map(Vec::len).max().unwrap_or(0);
    let group = groups.into_values().find(|group| group.len() == largest);
    let mut group = group.unwrap_or_default();
    group.truncate(most);
    group
}

/// For each head the mean over some pairs of what the contrast loses, and of its size, as shares of what the predictions
/// are apart.
fn effects<B: Backend>(
    causal: &CausalEvidence<B>,
    heads: &[HeadId],
    members: &[usize],
    pairs: &[OfPair],
    ablation: Ablation,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<(f64, f64)>> {
    let causal = causal.on(members, Metric::Contrast, ablation, seed)?;
    let runs = HeadCircuits::new(&causal, members.len(), progress)?;
    let grid = runs.grid();
    let without = |head: &HeadId| {
        let kept = grid.heads().map(|other| other != *head);
        kept.collect::<Vec<bool>>()
    };
    let sets: Vec<Vec<bool>> = heads.iter().map(without).collect();
    let stage = progress.stage("patching heads", sets.len() as u64);
    let values = runs.of_pairs(&sets, progress)?;
    drop(stage);
    let total: f64 = members
        .iter()
        .map(|&pair| f64::from(pairs[pair].total))
        .sum();
    let full = runs.full_of_pairs();
    let of_head = |values: Vec<f64>| {
        let lost = full.iter().zip(values).map(|(full, less)| full - less);
        lost.fold((0.0, 0.0), |(sum, sizes): (f64, f64), lost| {
            (sum + lost / total, sizes + lost.abs() / total)
        })
    };
    Ok(values.into_iter().map(of_head).collect())
}
