//! What the model says without a feature, where the feature is strongest.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Progress, draw};
use circuitscope_hooks::Site;
use circuitscope_model::Decoder;
use circuitscope_sae::Encoder;
use serde::{Deserialize, Serialize};

use super::ExplainSettings;
use super::encoded::{Encoded, Found};
use crate::Result;
use crate::changed::{Change, Changed, logits_of};
use crate::frozen::floats;

/// What a change of `z` at one position does to what is said after it, on average over places.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AblationEffect {
    /// By how much the loss of the token that follows rises, in nats; none where nothing follows.
    pub loss: Option<f64>,
    /// Divergence of the next token's distribution from what it was, `KL(before ‖ after)`, in nats.
    pub kl: f64,
}

/// A feature taken away where it is strongest, what the dictionary does not reconstruct staying as it is; and what it stands beside, at the
/// same places.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FeatureAblation {
    /// Places, the strongest ones.
    pub places: usize,
    /// Those of them that are followed by a token.
    pub followed: usize,
    /// `z − f W_dec` of the feature.
    pub feature: AblationEffect,
    /// The same of a feature drawn at random from those that are active often enough, with this one's activation: two draws a place.
    pub random: AblationEffect,
    /// What the dictionary does not reconstruct taken away.
    pub error: AblationEffect,
    /// The mean over all positions in the place of `z`: the whole layer's attention.
    pub mean: AblationEffect,
}

/// Random features of a place.
const DRAWS: usize = 2;
/// Runs of a place beside the one as it is.
const KINDS: usize = 3 + DRAWS;

/// One for each feature that is active somewhere.
pub(super) fn ablations<B: Backend>(
    model: &Decoder<B>,
    (layer, dictionary): (usize, &dyn Encoder<B>),
    contexts: &[Vec<u32>],
    (encoded, found): (&Encoded<'_>, &[Found]),
    how: &ExplainSettings,
    device: &B::Device,
    progress: &dyn Progress,
) -> Result<Vec<Option<FeatureAblation>>> {
    let places: Vec<Vec<(usize, usize, f32)>> = found
        .iter()
        .map(|found| {
            let places = found.strongest.iter().take(how.ablations);
            places.copied().collect()
        })
        .collect();
    let alive = encoded.alive(how.least_firings);
    let mut rng = how.seed.stream("ablation").rng();
    let z = encoded.z();
    let (d, mean) = (z.d, z.mean());
    let at: BTreeMap<(usize, usize), usize> = z.places.iter().copied().zip(0..).collect();
    let writes = |feature: usize, activation: f32| -> Vec<f32> {
        let atom = encoded.atom(feature).iter();
        atom.map(|w| (-f64::from(activation) * w) as f32).collect()
    };
    let mut runs = Vec::new();
    for (found, places) in found.iter().zip(&places) {
        let others: Vec<usize> = alive
            .iter()
            .copied()
            .filter(|feature| *feature != found.feature)
            .collect();
        for (context, position, activation) in places {
            let row = &z.rows[at[&(*context, *position)] * d..][..d];
            let x = Tensor::<B, 2>::from_data(TensorData::new(row.to_vec(), [1, d]), device);
            let made = dictionary.reconstruct(x).map(floats).transpose()?;
            let error = made.map_or_else(
                || vec![0.0; d],
                |made| made.iter().zip(row).map(|(made, x)| made - x).collect(),
            );
            let to_mean = mean.iter().zip(row).map(|(mean, x)| mean - x).collect();
            let mut adds = vec![writes(found.feature, *activation), error, to_mean];
            for _ in 0..DRAWS {
                // Where no other feature is alive, nothing is taken away.
                adds.push(if others.is_empty() {
                    vec![0.0; d]
                } else {
                    writes(others[draw::index(&mut rng, others.len())], *activation)
                });
            }
            let changes = adds.into_iter().map(|add| Change {
                site: Site::Z(layer),
                position: *position,
                add,
            });
            for change in [None].into_iter().chain(changes.map(Some)) {
                runs.push(Changed {
                    tokens: &contexts[*context][..=*position],
                    change,
                });
            }
        }
    }
    let stage = progress.stage("ablating", runs.len() as u64);
    let mut said: Vec<Vec<f64>> = vec![Vec::new(); runs.len()];
    let outcome = logits_of(
        model,
        &runs,
        how.batch_tokens,
        device,
        progress,
        |run, logits| said[run] = log_probabilities(logits),
    );
    drop(stage);
    outcome?;
    let mut said = said.chunks_exact(1 + KINDS);
    let mut all = Vec::with_capacity(found.len());
    for places in places {
        let mut sums = [[0.0; 2]; KINDS];
        let mut followed = 0;
        for (context, position, _) in &places {
            let Some([before, after @ ..]) = said.next() else {
                break;
            };
            // A model may have fewer logits than tokens.
            let next = contexts[*context].get(*position + 1);
            let next = next
                .map(|token| *token as usize)
                .filter(|token| *token < before.len());
            followed += usize::from(next.is_some());
            for ([kl, loss], after) in sums.iter_mut().zip(after) {
                *loss += next.map_or(0.0, |next| before[next] - after[next]);
                *kl += divergence(before, after);
            }
        }
        let mean = |of: &[[f64; 2]]| {
            let sum = |which: usize| of.iter().map(|one| one[which]).sum::<f64>();
            AblationEffect {
                loss: (followed > 0).then(|| sum(1) / (of.len() * followed) as f64),
                kl: sum(0) / (of.len() * places.len()) as f64,
            }
        };
        all.push((!places.is_empty()).then(|| FeatureAblation {
            places: places.len(),
            followed,
            feature: mean(&sums[..1]),
            error: mean(&sums[1..2]),
            mean: mean(&sums[2..3]),
            random: mean(&sums[3..]),
        }));
    }
    Ok(all)
}

fn log_probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - largest).exp())
        .sum();
    let of = |logit: &f32| f64::from(logit - largest) - total.ln();
    logits.iter().map(of).collect()
}

fn divergence(before: &[f64], after: &[f64]) -> f64 {
    let term = |(p, q): (&f64, &f64)| p.exp() * (p - q);
    before.iter().zip(after).map(term).sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_by_hand() {
        let half = log_probabilities(&[1.0, 1.0]);
        assert!((half[0] - 0.5f64.ln()).abs() < 1e-12);
        let other = log_probabilities(&[0.0, 3.0f32.ln()]);
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((divergence(&half, &other) - expected).abs() < 1e-6);
        assert_eq!(divergence(&half, &half), 0.0);
    }
}
