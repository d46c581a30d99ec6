//! What the model says without a feature, where the feature is strongest.

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use circuitscope_core::{Progress, Seed, draw};
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
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AblationEffect {
    /// By how much the loss of the next token rises, in nats.
    pub loss: f64,
    /// Divergence of the next token's distribution from what it was, `KL(before ‖ after)`, in nats.
    pub kl: f64,
}

/// A feature taken away where it is strongest, what the dictionary does not reconstruct staying as it is; and what it stands beside, at the
/// same places.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FeatureAblation {
    /// Places, the strongest ones that are followed by a token.
    pub places: usize,
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

/// One for each feature that is strong somewhere before another token.
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
            let followed = |place: &&(usize, usize, f32)| place.1 + 1 < contexts[place.0].len();
            let places = found.strongest.iter().filter(followed);
            places.take(how.ablations).copied().collect()
        })
        .collect();
    let alive = encoded.alive(how.least_firings);
    let mut rng = Seed::stream(how.seed, "ablation").rng();
    let z = encoded.z();
    let (d, mean) = (z.d, z.mean());
    let at: BTreeMap<(usize, usize), usize> = z.places.iter().copied().zip(0..).collect();
    let writes = |feature: usize, activation: f32| -> Vec<f32> {
        let atom = encoded.atom(feature).iter();
        atom.map(|w| (-f64::from(activation) * w) as f32).collect()
    };
    let mut runs = Vec::new();
    for (found, places) in found.iter().zip(&places) {
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
            let others: Vec<usize> = alive
                .iter()
                .copied()
                .filter(|feature| *feature != found.feature)
                .collect();
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
        let mut sums = [AblationEffect::default(); KINDS];
        for (context, position, _) in &places {
            let Some([before, after @ ..]) = said.next() else {
                break;
            };
            let next = contexts[*context][*position + 1] as usize;
            for (sum, after) in sums.iter_mut().zip(after) {
                // A model may have fewer logits than tokens.
                if let (Some(before), Some(after)) = (before.get(next), after.get(next)) {
                    sum.loss += before - after;
                }
                sum.kl += divergence(before, after);
            }
        }
        let mean = |of: &[AblationEffect]| {
            let count = (of.len() * places.len()) as f64;
            AblationEffect {
                loss: of.iter().map(|one| one.loss).sum::<f64>() / count,
                kl: of.iter().map(|one| one.kl).sum::<f64>() / count,
            }
        };
        all.push((!places.is_empty()).then(|| FeatureAblation {
            places: places.len(),
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
