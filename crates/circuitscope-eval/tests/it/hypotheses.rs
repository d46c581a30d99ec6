//! Tests of circuits, on a small random model.

use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{HeadId, NoProgress, Seed};
use circuitscope_eval::causal::{Ablation, CausalEvidence, Metric};
use circuitscope_eval::{HeadCircuits, TestSettings, test_circuit};

use crate::causal::{decoder, pairs};

fn causal(metric: Metric) -> CausalEvidence<Flex> {
    let (model, ablation) = (decoder(21), Ablation::Negative);
    CausalEvidence::new(model, pairs(), metric, ablation, 1 << 30, &FlexDevice).unwrap()
}

/// All heads are the model: nothing differs from it, and no draw is ahead or behind.
#[test]
fn the_whole_model_is_equivalent_to_itself() {
    let causal = causal(Metric::LogitDifference);
    let all: Vec<HeadId> = causal.graph().grid().heads().collect();
    let how = TestSettings::default().with_random(20);
    let tests = test_circuit(&causal, &all, how, Seed::new(0), &NoProgress).unwrap();
    assert_eq!((tests.equivalence.of, tests.equivalence.p_value), (0, 1.0));
    assert!(tests.minimality.is_none());
    assert_eq!((tests.sufficiency.ahead, tests.sufficiency.of), (0, 20));
    assert_eq!(tests.partial_necessity.ahead, 0);
    assert_eq!(tests.sufficiency.p_value, 1.0);
}

/// What each test counts, from runs of single circuits.
#[test]
fn draws_are_counted_as_defined() {
    let causal = causal(Metric::LogitDifference);
    let circuit = [HeadId::new(1, 2), HeadId::new(0, 1), HeadId::new(1, 0)];
    let how = TestSettings::default().with_random(60);
    let test = |seed| test_circuit(&causal, &circuit, how, Seed::new(seed), &NoProgress).unwrap();
    let tests = test(3);
    assert_eq!(test(3), tests);

    let runs = HeadCircuits::new(&causal, 20, &NoProgress).unwrap();
    let grid = causal.graph().grid();
    let inside = |head: HeadId| circuit.contains(&head);
    let run = |kept: &dyn Fn(HeadId) -> bool| {
        let kept: Vec<bool> = grid.heads().map(kept).collect();
        let values = runs.run(&kept, &[Metric::LogitDifference]).unwrap();
        values.into_iter().next().unwrap()
    };
    let apart = |a: &[f64], b: &[f64]| {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64
    };
    let (full, kept) = (run(&|_| true), run(&inside));
    let above = kept.iter().zip(&full).filter(|(a, b)| a > b).count();
    assert_eq!(tests.equivalence.above, above);

    // Heads that a member is set beside are those outside, each in about a third of the draws: a member ahead of all
    // of them is so in all draws, one ahead of none in none.
    let outside: Vec<f64> = grid
        .heads()
        .filter(|head| !inside(*head))
        .map(|head| apart(&run(&|other| inside(other) || other == head), &kept))
        .collect();
    for member in tests.minimality.as_ref().unwrap() {
        let change = apart(&run(&|other| inside(other) && other != member.head), &kept);
        assert!((change - member.change).abs() < 1e-6, "{member:?}");
        let ahead = outside.iter().filter(|other| change > **other).count();
        let expected = match ahead {
            0 => 0..=0,
            3 => 60..=60,
            some => 10 * some..=30 * some,
        };
        assert!(
            expected.contains(&member.draws.ahead),
            "{member:?}, {ahead}"
        );
    }
}

#[test]
fn a_divergence_from_the_model_cannot_be_tested() {
    let error = test_circuit(
        &causal(Metric::Kl),
        &[HeadId::new(0, 0)],
        TestSettings::default(),
        Seed::new(0),
        &NoProgress,
    );
    let said = error.unwrap_err().to_string();
    assert!(
        said.starts_with("tests of a circuit: metric `kl`"),
        "{said}"
    );
}
