//! What chosen heads signal, against the method whose gradients say where they matter.

use circuitscope_eval::{HeadSignals, Reference, SignalSettings, signals};

use super::*;

fn heads() -> Vec<HeadId> {
    vec![HeadId::new(1, 2), HeadId::new(0, 0), HeadId::new(1, 0)]
}

fn found(causal: &CausalEvidence<Flex>, seed: u64) -> Vec<HeadSignals> {
    let how = SignalSettings::default().with_n_codes(16);
    let found = signals::<B>(
        causal,
        &heads(),
        how,
        Seed::new(seed),
        &FlexDevice,
        &NoProgress,
    );
    found.unwrap()
}

/// Codes share out what a head does, and a head does what `recommended` says.
#[test]
fn effects_of_codes_add_up_to_the_heads() {
    for config in [Ablation::Negative, Ablation::Zero] {
        let causal = causal(&decoder(12), Metric::LogitDifference, config);
        let found = found(&causal, 3);
        assert_eq!(
            found.iter().map(|head| head.head).collect::<Vec<_>>(),
            heads()
        );
        let evidence = evidence(causal);
        let recommended = method::<B>("recommended", &settings(1), &FlexDevice).unwrap();
        let scores = recommended
            .scores(&evidence, Seed::new(3), &NoProgress)
            .unwrap();
        let contrast = scores.contrast.unwrap();
        let grid = HeadGrid::new(2, 3);
        let signed = scores.graph.unwrap().signed_heads();
        for head in found {
            let at = grid.index(head.head).unwrap();
            let (differs, used) = (contrast.differs[at], contrast.used[at]);
            let larger = if used > differs {
                Reference::Used
            } else {
                Reference::Differs
            };
            assert_eq!(head.reference, larger);
            // The mean of effects is no larger than that of their sizes, and has the sign of the score.
            assert!(head.effect.abs() <= differs.max(used) / contrast.total + 1e-6);
            if larger == Reference::Differs {
                assert_eq!(head.effect < 0.0, signed[at] < 0.0, "{head:?}");
            }
            let sum: f64 = head.codes.iter().map(|code| code.effect).sum();
            assert!((sum - head.effect).abs() < 1e-6, "{sum} {}", head.effect);
            assert_eq!(
                head.codes.iter().map(|code| code.positives).sum::<usize>(),
                4
            );
            for code in &head.codes {
                assert!(code.positives > 0 && code.negatives <= 4);
                assert!(code.at_token > 0 && code.at_token <= code.positives);
                assert_eq!(code.promotes.len(), 3);
                assert!(pairs().iter().any(|pair| pair.clean.contains(&code.token)));
            }
            assert!(
                head.codes
                    .is_sorted_by(|a, b| a.effect.abs() >= b.effect.abs())
            );
        }
    }
}

/// The same seed, the same codes; codes do not depend on which other heads are asked for with them, nor on answers.
#[test]
fn codes_are_those_of_the_head() {
    let causal = causal(&decoder(12), Metric::LogitDifference, Ablation::Negative);
    assert_eq!(found(&causal, 1), found(&causal, 1));
    assert_ne!(found(&causal, 1), found(&causal, 2));
    let how = SignalSettings::default().with_n_codes(16);
    let one = &heads()[1..2];
    let alone = signals::<B>(&causal, one, how, Seed::new(1), &FlexDevice, &NoProgress);
    assert_eq!(alone.unwrap()[0], found(&causal, 1)[1]);
    let none = signals::<B>(&causal, &[], how, Seed::new(1), &FlexDevice, &NoProgress);
    assert!(none.unwrap().is_empty());
}
