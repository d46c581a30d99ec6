//! Matryoshka masks where the metric is linear in what heads put out.

use circuitscope_model::Norm;

use super::*;

/// One layer of attention without norm or MLPs: each head's share of the metric is its own.
fn linear() -> Evidence<Flex> {
    let mut config = DecoderConfig::gpt2(1, 6, 12, 8, D_VOCAB);
    config.mlp = None;
    config.norm = Norm::None;
    let model = config
        .init(Seed::new(5), &FlexDevice)
        .with_exec(Exec::all_cores());
    let grid = HeadGrid::new(1, 6);
    let labels = [[Polarity::Positive; 4], [Polarity::Negative; 4]].concat();
    let activations = Tensor::zeros([8, grid.len(), 12], &FlexDevice);
    let rows = (0..4).map(|at| (at, at + 4)).collect();
    let evidence = Evidence::new(grid, activations, labels, rows).unwrap();
    evidence.with_causal(causal(&model, Metric::LogitDifference, Ablation::Negative))
}

fn nodes_of(name: &str, evidence: &Evidence<Flex>, steps: usize) -> Vec<f64> {
    let patching = PatchingSettings::default().with_matryoshka_steps(steps);
    let settings = MethodSettings::default().with_patching(patching);
    let method = method::<B>(name, &settings, &FlexDevice).unwrap();
    let scores = method.scores(evidence, Seed::new(1), &NoProgress).unwrap();
    scores.nodes
}

/// Without learning, every step's gradient is the same multiple of the head's effect less the mean effect of its pair: over
/// many steps, scores are effects, moved and scaled.
#[test]
fn without_learning_scores_are_effects() {
    let evidence = linear();
    let effects = graph_of("activation-patching", &evidence, 1);
    let grid = HeadGrid::new(1, 6);
    let effects: Vec<f64> = grid
        .heads()
        .map(|head| effects.nodes.as_ref().unwrap()[effects.graph.head_writer(head)])
        .collect();
    let found = nodes_of("matryoshka-no-learning", &evidence, 600);
    let spread = |values: &[f64]| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        values
            .iter()
            .map(|value| (value - low) / (high - low))
            .collect::<Vec<f64>>()
    };
    // Pairs are drawn, so that they do not count alike to the last digit.
    for (found, expected) in spread(&found).iter().zip(spread(&effects)) {
        assert!((found - expected).abs() < 0.1, "{found} {expected}");
    }
}

/// Learned, the order is that of effects, the head that works against the metric last.
#[test]
fn the_learned_order_is_that_of_effects() {
    let evidence = linear();
    let effects = graph_of("activation-patching", &evidence, 1);
    let effects = effects.nodes.unwrap()[1..7].to_vec();
    let found = nodes_of("matryoshka-masks", &evidence, 500);
    let best = |values: &[f64]| (0..6).max_by(|&a, &b| values[a].total_cmp(&values[b]));
    let last = |values: &[f64]| (0..6).min_by(|&a, &b| values[a].total_cmp(&values[b]));
    assert_eq!(best(&found), best(&effects), "{found:?} {effects:?}");
    assert_eq!(last(&found), last(&effects), "{found:?} {effects:?}");
}
