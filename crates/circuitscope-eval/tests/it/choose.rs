//! Choosing heads where it is known which ones were planted.

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{HeadId, NoProgress, Seed};
use circuitscope_eval::causal::{Ablation, CausalEvidence, Metric};
use circuitscope_eval::methods::method;
use circuitscope_eval::{Choice, ChooseSettings, Chosen, Error, Evidence, Result, choose};
use circuitscope_measures::Selection;

use crate::causal::{decoder, pairs};
use crate::methods::{PLANTED, planted, settings};

type B = Autodiff<Flex>;

fn chosen(
    name: &str,
    evidence: &Evidence<Flex>,
    choice: impl Into<Option<Choice>>,
) -> Result<Chosen> {
    let method = method::<B>(name, &settings(), &FlexDevice)?;
    let measured = method.measure(evidence, Seed::new(0), &NoProgress)?;
    let scores = measured.scores(None)?;
    let how = ChooseSettings::default().with_choice(choice.into());
    let (method, measured) = (method.as_ref(), measured.as_ref());
    choose(how, method, measured, &scores, evidence, &NoProgress)
}

#[test]
fn stable_heads_are_the_planted_ones() {
    let evidence = planted(4);
    for name in ["sae", "recommended-activations", "mean-difference"] {
        let chosen = chosen(name, &evidence, Choice::Stability(0.9)).unwrap();
        let heads: Vec<HeadId> = chosen.circuit.heads().collect();
        assert_eq!(heads, PLANTED, "{name}");
        let stability = chosen.stability.unwrap();
        assert_eq!(stability.frequencies.len(), evidence.grid().len());
        assert!(stability.expected_false <= 1.0);
    }
    let error = chosen("sae", &evidence, Choice::Stability(0.4)).unwrap_err();
    assert!(error.to_string().contains("above 0.5"), "{error}");
}

#[test]
fn what_a_choice_lacks_is_said() {
    let evidence = planted(4);
    let error = chosen("sae", &evidence, Choice::Knee).unwrap_err();
    assert!(matches!(error, Error::KneeNeedsModel));
    let error = chosen("linear-probe", &evidence, Choice::FalseDiscoveryRate(0.1));
    assert!(matches!(error, Err(Error::NoNull { .. })));
    let plain = chosen("sae", &evidence, Choice::Rule(Selection::Top(2))).unwrap();
    assert_eq!(plain.circuit.heads().count(), 2);
    assert_eq!((plain.significance, plain.knee), (None, None));
    assert!(plain.null.is_some());
}

/// The curve starts with nothing kept and ends with everything kept; the choice is a prefix of the
/// ranking.
#[test]
fn the_knee_is_on_the_curve_of_faithfulness() {
    let model = decoder(21);
    let metric = Metric::LogitDifference;
    let causal = CausalEvidence::new(
        model,
        pairs(),
        metric,
        Ablation::Negative,
        1 << 30,
        &FlexDevice,
    );
    let evidence = crate::causal::evidence(causal.unwrap());
    let found = chosen("activation-patching", &evidence, Choice::Knee).unwrap();
    let curve = found.knee.unwrap();
    assert_eq!(curve.sizes, [0, 1, 2, 3, 4, 5, 6]);
    assert!(curve.head_shares[0].abs() < 1e-9);
    assert!((curve.head_shares[6] - 1.0).abs() < 1e-4);
    let method = method::<B>("activation-patching", &settings(), &FlexDevice).unwrap();
    let scores = method.scores(&evidence, Seed::new(0), &NoProgress).unwrap();
    let count = found.circuit.heads().count();
    let mut best = curve.order[..count].to_vec();
    best.sort();
    assert_eq!(found.circuit.heads().collect::<Vec<_>>(), best);
    // By rank, but for heads without which the model does better.
    let against: Vec<HeadId> = curve.against().iter().map(|x| x.0).collect();
    let ranking = scores.ranking().into_iter().map(|x| x.0);
    let (last, first): (Vec<HeadId>, Vec<HeadId>) =
        ranking.partition(|head| against.contains(head));
    assert_eq!(curve.order, [first, last].concat());
    let graph = scores.graph.as_ref().unwrap();
    let nodes = graph.nodes.as_ref().unwrap();
    for (head, effect) in &curve.effects {
        let exact = nodes[graph.graph.head_writer(*head)];
        assert!(
            (exact - effect).abs() < 1e-4,
            "{head}: {effect} for {exact}"
        );
        let whole = curve.full - curve.values[0];
        assert!(effect * whole < 0.0 || !against.contains(head));
    }
    assert_eq!((curve.pairs, curve.values.len()), (4, 7));
    // What is taken where nothing is asked for.
    let default = chosen("activation-patching", &evidence, None).unwrap();
    assert_eq!(default.selection, Choice::Knee);

    let error = chosen("acdc", &evidence, Choice::Stability(0.9)).unwrap_err();
    assert!(matches!(&error, Error::NoResamples { method } if method == "acdc"));
}
