use burn::tensor::backend::Backend;
use circuitscope_core::{Circuit, HeadId, Progress, Seed};
use circuitscope_score::stats::{Bend, Stability, half_samples, knee};
use serde::{Deserialize, Serialize};

use crate::causal::{CausalEvidence, PatchedRuns, mean};
use crate::faithful::kept_heads;
use crate::measures::faithfulness;
use crate::{
    Discover, Error, Evidence, Measured, Result, Scores, Selection, Significance, significance,
};

/// How heads are chosen where no circuit is known.
///
/// What each gives on models whose circuits are known is in `docs/methods/choosing.md`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Heads that stand out from random relabellings of the prompts at this false discovery rate
    /// ([`significance`]). Only methods that score codes have such a null.
    FalseDiscoveryRate(f64),
    /// Heads that are among the best on at least this share of half samples of the prompts
    /// ([`Stability`]). Only methods that score a resample without starting anew can tell.
    Stability(f64),
    /// The best heads up to where faithfulness stops growing fast ([`knee`] of faithfulness over the
    /// number of heads kept): needs the model and answers, and knows what the metric knows.
    Knee,
    /// By the scores alone.
    #[serde(untagged)]
    Rule(Selection),
}

/// Chosen heads, and what the choice rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The heads, as a circuit without edges.
    pub circuit: Circuit,
    /// Of [`Choice::FalseDiscoveryRate`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub significance: Option<Significance>,
    /// Of [`Choice::Stability`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stability: Option<StableChoice>,
    /// Of [`Choice::Knee`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub knee: Option<KneeChoice>,
}

/// How often each head is among the best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StableChoice {
    /// For each head, in index order, the share of half samples on which it is among the best.
    pub frequencies: Vec<f64>,
    /// How many heads are the best.
    pub best: usize,
    /// Half samples drawn.
    pub half_samples: usize,
    /// Bound on the number of heads chosen for no reason, under the assumptions of
    /// [`Stability::stable`].
    pub expected_false: f64,
}

/// The curve that bends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KneeChoice {
    /// Number of heads kept, from none to all.
    pub sizes: Vec<usize>,
    /// Faithfulness of each ([`faithfulness`]).
    pub faithfulness: Vec<f64>,
}

/// Half samples that [`Choice::Stability`] takes.
const HALF_SAMPLES: usize = 100;

/// Scores all examples with what a method has measured, and chooses heads.
///
/// `pairs` is the number of pairs that [`Choice::Knee`] runs.
///
/// # Errors
/// [`Error::NoNull`], [`Error::NoResamples`], [`Error::NeedsModel`] where a method or the evidence does
/// not have what the choice asks for; [`Error::Score`] for a share that is none; [`Error::Cancelled`].
pub fn choose<B: Backend>(
    choice: Choice,
    method: &dyn Discover<B>,
    measured: &dyn Measured,
    evidence: &Evidence<B>,
    pairs: usize,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<(Scores, Chosen)> {
    let scores = measured.scores(None)?;
    let mut chosen = Chosen {
        circuit: Circuit::from_heads(scores.grid, []),
        significance: None,
        stability: None,
        knee: None,
    };
    match choice {
        Choice::Rule(selection) => chosen.circuit = selection.circuit(&scores),
        Choice::FalseDiscoveryRate(rate) => {
            // Finer p-values than one in a head's share of the rate need as many relabellings.
            let heads = scores.nodes.len() as f64;
            let count = ((heads / rate.max(0.001)).ceil() as usize).clamp(199, 9_999);
            let seed = seed.stream("significance");
            let name = method.name();
            let found = significance(name, measured, evidence, rate, count, seed, progress)?;
            chosen.circuit = found.circuit(&scores);
            chosen.significance = Some(found);
        }
        Choice::Stability(threshold) => {
            if method.resamples() == 0 {
                return Err(Error::NoResamples {
                    method: method.name(),
                });
            }
            let (selected, stability) = stable(threshold, measured, evidence, seed, progress)?;
            let heads = selected.into_iter().map(|at| scores.grid.head(at));
            chosen.circuit = Circuit::from_heads(scores.grid, heads);
            chosen.stability = Some(stability);
        }
        Choice::Knee => {
            let causal = evidence.causal(method.name())?;
            let (selected, curve) = bend(causal, &scores, pairs, progress)?;
            chosen.circuit = Circuit::from_heads(scores.grid, selected);
            chosen.knee = Some(curve);
        }
    }
    Ok((scores, chosen))
}

fn stable<B: Backend>(
    threshold: f64,
    measured: &dyn Measured,
    evidence: &Evidence<B>,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<(Vec<usize>, StableChoice)> {
    let best = Stability::largest_q(evidence.grid().len(), threshold, 1.0)?.max(1);
    let seed = seed.stream("stability");
    let halves = half_samples(evidence.labels(), evidence.pairs(), HALF_SAMPLES, seed)?;
    let mut scores = Vec::with_capacity(halves.len());
    progress.begin("half samples", halves.len() as u64);
    for half in &halves {
        if progress.cancelled() {
            progress.end();
            return Err(Error::Cancelled);
        }
        scores.push(measured.scores(Some(half.rows()))?.nodes);
        progress.advance(1);
    }
    progress.end();
    let stability = Stability::new(&scores, best)?;
    let found = stability.stable(threshold)?;
    let choice = StableChoice {
        frequencies: stability.frequencies().to_vec(),
        best,
        half_samples: halves.len(),
        expected_false: found.expected_false,
    };
    Ok((found.selected, choice))
}

/// Numbers of heads to keep: every one while they are few, then growing by an eighth.
fn sizes(heads: usize) -> Vec<usize> {
    let mut sizes = vec![0];
    while let Some(&last) = sizes.last().filter(|last| **last < heads) {
        sizes.push((last + 1).max(last * 9 / 8).min(heads));
    }
    sizes
}

fn bend<B: Backend>(
    causal: &CausalEvidence<B>,
    scores: &Scores,
    pairs: usize,
    progress: &dyn Progress,
) -> Result<(Vec<HeadId>, KneeChoice)> {
    let runs = PatchedRuns::new(causal, pairs)?;
    let metric = causal.metric();
    let ranking = scores.ranking();
    let sizes = sizes(ranking.len());
    let full = mean(&runs.clean(metric)?);
    let mut values = Vec::with_capacity(sizes.len());
    progress.begin("circuits", sizes.len() as u64);
    for &size in &sizes {
        if progress.cancelled() {
            progress.end();
            return Err(Error::Cancelled);
        }
        let best = ranking[..size].iter().map(|(head, _)| *head);
        let kept = Circuit::from_heads(scores.grid, best).head_mask();
        values.push(runs.mean_of(&kept_heads(&runs, &kept), 0, metric)?);
        progress.advance(1);
    }
    progress.end();
    let empty = values[0];
    let curve = values
        .into_iter()
        .map(|value| faithfulness(value, empty, full))
        .collect::<Result<Vec<_>, _>>()?;
    let x: Vec<f64> = sizes.iter().map(|&size| size as f64).collect();
    // A curve without a bend has no number of heads to recommend: none stands out.
    let size = match knee(&x, &curve, Bend::Above)? {
        Some(knee) => knee.x as usize,
        None => 0,
    };
    let selected = ranking[..size].iter().map(|(head, _)| *head).collect();
    let choice = KneeChoice {
        sizes,
        faithfulness: curve,
    };
    Ok((selected, choice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_from_none_to_all() {
        assert_eq!(sizes(3), [0, 1, 2, 3]);
        let many = sizes(144);
        assert_eq!((many[16], many[17]), (16, 18));
        assert!(many.windows(2).all(|step| step[0] < step[1]));
        assert_eq!(many.last(), Some(&144));
        assert!(many.len() < 40, "{}", many.len());
    }

    #[test]
    fn choices_are_written_by_name() {
        let json = |choice: Choice| serde_json::to_string(&choice).unwrap();
        assert_eq!(json(Choice::Rule(Selection::Otsu)), r#""otsu""#);
        assert_eq!(json(Choice::Rule(Selection::Top(3))), r#"{"top":3}"#);
        assert_eq!(json(Choice::Knee), r#""knee""#);
        assert_eq!(json(Choice::Stability(0.9)), r#"{"stability":0.9}"#);
        for choice in [
            Choice::Rule(Selection::Otsu),
            Choice::Rule(Selection::Softmax(0.5)),
            Choice::Knee,
            Choice::FalseDiscoveryRate(0.05),
        ] {
            assert_eq!(
                serde_json::from_str::<Choice>(&json(choice)).unwrap(),
                choice
            );
        }
    }
}
