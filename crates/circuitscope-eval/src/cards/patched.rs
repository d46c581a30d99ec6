//! What a prediction moves by when one head alone is patched.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use circuitscope_core::{HeadId, Progress, Seed};
use circuitscope_measures::cards::{Patched, Reference};

use super::read::OfPair;
use crate::causal::{Ablation, CausalEvidence, Metric};
use crate::{HeadCircuits, Result};

/// Pairs of one length that resampling takes at least: of fewer one prompt decides.
const FEWEST: usize = 4;

/// Exact effects of single heads on the contrast, the larger of two: given what the head puts out on the negative prompt, and given what
/// it puts out on another positive prompt of as many tokens. The second is measured where enough prompts have one length.
pub(super) fn patched<B: Backend>(
    causal: &CausalEvidence<B>,
    heads: &[HeadId],
    pairs: &[OfPair],
    count: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<Vec<Patched>> {
    // What the predictions hardly differ on says little.
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by(|&a, &b| pairs[b].total.total_cmp(&pairs[a].total));
    let mut furthest: Vec<usize> = order.iter().copied().take(count).collect();
    furthest.sort_unstable();
    let alike = of_one_length(causal, &order, count);
    let effects = |members: &[usize], ablation| {
        let on = causal.on(members, Metric::Contrast, ablation, seed)?;
        effects(&on, heads, members, pairs, progress)
    };
    let differs = effects(&furthest, Ablation::Negative)?;
    let used = if alike.len() < FEWEST {
        Vec::new()
    } else {
        effects(&alike, Ablation::Resample)?
    };
    let all = differs.into_iter().enumerate().map(|(at, differs)| {
        let of = |reference, mean, pairs| Patched {
            reference,
            mean,
            pairs,
        };
        match used.get(at) {
            Some(used) if used.abs() > differs.abs() => of(Reference::Used, *used, alike.len()),
            _ => of(Reference::Differs, differs, furthest.len()),
        }
    });
    Ok(all.collect())
}

/// Pairs whose positive prompts have the length that most have, of each prompt one; the first of `order`.
fn of_one_length<B: Backend>(
    causal: &CausalEvidence<B>,
    order: &[usize],
    most: usize,
) -> Vec<usize> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &at in order {
        let clean = &causal.pairs()[at].clean;
        let group = groups.entry(clean.len()).or_default();
        let mut others = group.iter();
        if others.all(|&other| causal.pairs()[other].clean != *clean) {
            group.push(at);
        }
    }
    // Of those as large, the shortest.
    let largest = groups.values().map(Vec::len).max().unwrap_or(0);
    let group = groups.into_values().find(|group| group.len() == largest);
    let mut group = group.unwrap_or_default();
    group.truncate(most);
    group.sort_unstable();
    group
}

/// For each head what the contrast loses on some pairs, which are those of `causal`, a share of what the predictions are apart.
fn effects<B: Backend>(
    causal: &CausalEvidence<B>,
    heads: &[HeadId],
    members: &[usize],
    pairs: &[OfPair],
    progress: &dyn Progress,
) -> Result<Vec<f64>> {
    let runs = HeadCircuits::new(causal, members.len(), progress)?;
    let grid = runs.grid();
    let without = |head: &HeadId| {
        let kept = grid.heads().map(|other| other != *head);
        kept.collect::<Vec<bool>>()
    };
    let sets: Vec<Vec<bool>> = heads.iter().map(without).collect();
    let stage = progress.stage("patching heads", sets.len() as u64);
    let values = runs.of_pairs(&sets, progress);
    drop(stage);
    let total: f64 = members
        .iter()
        .map(|&pair| f64::from(pairs[pair].total))
        .sum();
    let full = runs.full_of_pairs();
    let of_head = |values: Vec<f64>| {
        let lost = full.iter().zip(values).map(|(full, less)| full - less);
        lost.sum::<f64>() / total
    };
    Ok(values?.into_iter().map(of_head).collect())
}
