//! Circuits of whole heads, against the slower way of switching their edges, and their judgement.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use burn::tensor::Tensor;
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{HeadId, NoProgress, Progress, Seed};
use circuitscope_eval::causal::{Ablation, CausalEvidence, Metric, PatchedRuns, TokenPair};
use circuitscope_eval::{Behaviour, Error, HeadCircuits, QualitySettings, circuit_quality};

use crate::causal::{ON_ANY_PAIRS, decoder, pairs};

fn causal(metric: Metric, ablation: Ablation) -> CausalEvidence<Flex> {
    let model = decoder(21);
    CausalEvidence::new(model, pairs(), metric, ablation, 1 << 30, &FlexDevice).unwrap()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// What replaces a head for everyone is what all its edges switched off give.
#[test]
fn a_head_ablated_is_all_its_edges_switched_off() {
    for ablation in ON_ANY_PAIRS {
        let causal = causal(Metric::LogitDifference, ablation);
        let graph = causal.graph();
        let runs = HeadCircuits::new(&causal, 4, &NoProgress).unwrap();
        let edges = PatchedRuns::new(&causal, 4).unwrap();
        assert_eq!(runs.pairs(), 4);
        for kept in [
            [true; 6],
            [false; 6],
            [true, false, true, false, false, true],
            [false, true, true, true, false, false],
        ] {
            let mut set = vec![1.0f32; graph.readers() * graph.writers()];
            for (at, _) in kept.iter().enumerate().filter(|(_, kept)| !**kept) {
                let writer = graph.head_writer(graph.grid().head(at));
                for reader in 0..graph.readers() {
                    set[reader * graph.writers() + writer] = 0.0;
                }
            }
            let metrics = [Metric::LogitDifference, Metric::Kl];
            let expected = edges.run(&[&set], 0, &metrics).unwrap();
            let found = runs.run(&kept, &metrics).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                for (a, b) in found.iter().zip(&expected[0]) {
                    assert!((a - b).abs() < 1e-4, "{ablation}, {kept:?}: {a} {b}");
                }
            }
        }
    }
}

#[test]
fn a_circuit_is_judged_in_the_metric() {
    let causal = causal(Metric::LogitDifference, Ablation::Negative);
    let runs = HeadCircuits::new(&causal, 4, &NoProgress).unwrap();
    let circuit = [HeadId::new(1, 2), HeadId::new(0, 1)];
    let how = QualitySettings::default().with_random(10);
    let judge =
        |seed| circuit_quality(&causal, &circuit, how, Seed::new(seed), &NoProgress).unwrap();
    let quality = judge(0);
    let of = |kept: [bool; 6]| runs.keeping(&kept).unwrap();
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
    close(
        quality.full,
        mean(&runs.run(&[true; 6], &[Metric::LogitDifference]).unwrap()[0]),
    );
    close(quality.empty, of([false; 6]));
    close(
        quality.circuit,
        of([false, true, false, false, false, true]),
    );
    close(quality.without, of([true, false, true, true, true, false]));
    assert_eq!(
        (quality.size, quality.pairs, quality.random.len()),
        (2, 4, 10)
    );
    let heads: Vec<HeadId> = quality.marginal.iter().map(|(head, _)| *head).collect();
    assert_eq!(heads, circuit, "in the order of rank");
    close(
        quality.marginal[0].1,
        quality.circuit - of([false, true, false, false, false, false]),
    );
    let share = (quality.circuit - quality.empty) / (quality.full - quality.empty);
    close(quality.head_share.unwrap(), share);
    // Random circuits come from the seed.
    assert_eq!(judge(0), quality);
    assert_ne!(judge(1).random, quality.random);
    assert!(quality.random.iter().all(|value| value.is_finite()));
}

#[test]
fn only_so_many_members_are_measured() {
    let causal = causal(Metric::Kl, Ablation::Zero);
    let circuit: Vec<HeadId> = causal.graph().grid().heads().collect();
    let how = QualitySettings::default()
        .with_members(2)
        .with_random(3)
        .with_pairs(2);
    let quality = circuit_quality(&causal, &circuit, how, Seed::new(0), &NoProgress).unwrap();
    assert_eq!((quality.marginal.len(), quality.random.len()), (2, 3));
    // All heads are the whole model, whose divergence from itself is nothing.
    assert!(
        quality.circuit.abs() < 1e-5 && quality.full.abs() < 1e-5,
        "{quality:?}"
    );
    assert_eq!(quality.random_as_good(), 3, "random circuits of all heads");
}

/// Stops after some steps.
#[derive(Default)]
struct StopAfter {
    steps: AtomicU64,
    limit: u64,
}

impl Progress for StopAfter {
    fn advance(&self, steps: u64) {
        self.steps.fetch_add(steps, Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.steps.load(Relaxed) >= self.limit
    }
}

/// No more circuits are run after the user asked to stop than run side by side.
#[test]
fn judging_stops_between_circuits() {
    let causal = causal(Metric::LogitDifference, Ablation::Negative);
    let progress = StopAfter {
        limit: 3,
        ..StopAfter::default()
    };
    let how = QualitySettings::default();
    let circuit = [HeadId::new(0, 0)];
    let error = circuit_quality(&causal, &circuit, how, Seed::new(0), &progress).unwrap_err();
    assert!(matches!(error, Error::Cancelled));
    assert!(progress.steps.load(Relaxed) <= 8);
}

#[test]
fn a_head_of_another_model_is_refused() {
    let causal = causal(Metric::LogitDifference, Ablation::Negative);
    let how = QualitySettings::default();
    let error = circuit_quality(
        &causal,
        &[HeadId::new(7, 0)],
        how,
        Seed::new(0),
        &NoProgress,
    );
    assert!(matches!(error, Err(Error::NoSuchNode { .. })));
}

/// Against probabilities worked out from all logits of the model.
#[test]
fn behaviour_is_what_the_logits_say() {
    let causal = causal(Metric::ProbabilityDifference, Ablation::Negative);
    let seen = Cell::new(0);
    let behaviour = Behaviour::measure(&causal, &vec![vec![3]; 4], Seed::new(0), &NoProgress);
    let behaviour = behaviour.unwrap();
    assert_eq!(behaviour.pairs, 4);
    for (pair, found) in causal.pairs().iter().zip(&behaviour.of_pairs) {
        let p = probabilities(&causal, &pair.clean);
        let q = probabilities(&causal, &pair.corrupt);
        let sum = |p: &[f64], tokens: &[u32]| tokens.iter().map(|&t| p[t as usize]).sum::<f64>();
        let close = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-5, "{a:?} {b}");
        let value = |p: &[f64]| sum(p, &pair.right) - sum(p, &pair.wrong);
        close(found.positive, value(&p));
        close(found.negative, value(&q));
        close(found.probability, sum(&p, &pair.right));
        close(found.alternative, p[3]);
        let jeffreys: f64 = p.iter().zip(&q).map(|(p, q)| (p - q) * (p / q).ln()).sum();
        close(Some(found.divergence), jeffreys);
        let best = |tokens: &[u32]| tokens.iter().map(|&t| p[t as usize]).fold(0.0, f64::max);
        assert_eq!(found.correct, Some(best(&pair.right) > best(&pair.wrong)));
        let top = (0..p.len()).max_by(|a, b| p[*a].total_cmp(&p[*b])).unwrap();
        assert_eq!(found.top[0].0 as usize, top);
        assert_eq!((found.top.len(), found.negative_top.len()), (3, 3));
        seen.set(seen.get() + 1);
    }
    assert_eq!(seen.get(), 4);
    let mean = behaviour
        .of_pairs
        .iter()
        .map(|pair| pair.positive.unwrap())
        .sum::<f64>()
        / 4.0;
    assert!((behaviour.positives.unwrap().mean - mean).abs() < 1e-12);
    assert!(behaviour.positives.unwrap().interval.contains(mean));
}

/// One prompt, by the model's own logits.
fn probabilities(causal: &CausalEvidence<Flex>, tokens: &[u32]) -> Vec<f64> {
    use circuitscope_model::{PaddingSide, TokenBatch};
    let batch = TokenBatch::new(&[tokens], PaddingSide::Right, &FlexDevice).unwrap();
    let logits: Tensor<Flex, 3> = causal.model().logits(&batch);
    let last: Vec<f32> = batch.last(logits).into_data().to_vec().unwrap();
    let exp: Vec<f64> = last.iter().map(|x| f64::from(*x).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|x| x / sum).collect()
}

#[test]
fn without_answers_only_predictions_are_compared() {
    let pairs: Vec<TokenPair> = pairs()
        .into_iter()
        .map(|pair| pair.with_right(Vec::new()).with_wrong(Vec::new()))
        .collect();
    let model = decoder(21);
    let causal = CausalEvidence::new(
        model,
        pairs,
        Metric::Kl,
        Ablation::Zero,
        1 << 30,
        &FlexDevice,
    );
    let behaviour = Behaviour::measure(&causal.unwrap(), &[], Seed::new(0), &NoProgress).unwrap();
    assert_eq!(
        (behaviour.metric, behaviour.on_top, behaviour.answered),
        (None, None, None)
    );
    assert_eq!(behaviour.correct(), None);
    assert!(behaviour.divergence.mean > 0.0);
    assert_eq!(behaviour.sentences().len(), 1);
}
