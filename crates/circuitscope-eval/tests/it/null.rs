//! Whether scores are more than chance, where it is known.

use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{HeadGrid, NoProgress, Polarity, Seed, draw};
use circuitscope_eval::methods::method;
use circuitscope_eval::{Choice, ChooseSettings, Chosen, Evidence, Null, Verdict, choose, null};
use circuitscope_measures::Selection;

use crate::methods::{names, planted, settings};

type B = Autodiff<Flex>;

/// Activations without any signal.
fn noise(grid: HeadGrid, pairs: usize, matched: bool, seed: u64) -> Evidence<Flex> {
    let (d, n) = (8, 2 * pairs);
    let mut rng = Seed::new(seed).stream("test/noise").rng();
    let data = (0..n * grid.len() * d).map(|_| draw::normal_pair(&mut rng)[0] as f32);
    let data = TensorData::new(data.collect::<Vec<_>>(), [n, grid.len(), d]);
    evidence(grid, Tensor::from_data(data, &FlexDevice), matched)
}

fn evidence(grid: HeadGrid, x: Tensor<Flex, 3>, matched: bool) -> Evidence<Flex> {
    let pairs = x.dims()[0] / 2;
    let labels = [
        vec![Polarity::Positive; pairs],
        vec![Polarity::Negative; pairs],
    ]
    .concat();
    let matched = if matched {
        (0..pairs).map(|at| (at, pairs + at)).collect()
    } else {
        Vec::new()
    };
    let evidence = Evidence::new(grid, x, labels, matched).unwrap();
    evidence.clone().with_last(evidence).unwrap()
}

fn chosen(name: &str, evidence: &Evidence<Flex>, how: ChooseSettings) -> Chosen {
    let method = method::<B>(name, &settings(), &FlexDevice).unwrap();
    let measured = method.measure(evidence, how.seed, &NoProgress).unwrap();
    let scores = measured.scores(None).unwrap();
    let (method, measured) = (method.as_ref(), measured.as_ref());
    choose(how, method, measured, &scores, evidence, &NoProgress).unwrap()
}

fn null_of(name: &str, evidence: &Evidence<Flex>) -> Option<Null> {
    let method = method::<B>(name, &settings(), &FlexDevice).unwrap();
    let measured = method.measure(evidence, Seed::new(0), &NoProgress).unwrap();
    null(measured.as_ref(), evidence, Seed::new(0), &NoProgress).unwrap()
}

/// Methods that tell the classes apart, and whose scores other labels would change.
fn with_null() -> impl Iterator<Item = &'static str> {
    let without = [
        "random",
        "paired-flip-rate",
        "linear-probe",
        "activation-norm",
        "activation-variance",
        "activation-variance-all",
    ];
    names().filter(move |name| !without.contains(name))
}

#[test]
fn planted_heads_are_more_than_chance() {
    let evidence = planted(4);
    for name in with_null() {
        let null = null_of(name, &evidence).unwrap();
        assert!(!null.within_chance(), "{name}: {}", null.sentence());
        assert_eq!(null.relabellings, null.by_chance.len());
    }
    // Its null is that of chance itself, or there is none.
    assert!(null_of("paired-flip-rate", &evidence).is_none());
    assert!(null_of("random", &evidence).is_some());
}

/// At a level of .05 one in twenty sets of noise is taken for something.
#[test]
fn noise_shows_no_circuit() {
    let grid = HeadGrid::new(6, 9);
    for name in [
        "recommended-activations",
        "sae",
        "mean-difference",
        "k-means",
        "random",
    ] {
        let mut shown = 0;
        for seed in 0..6 {
            let evidence = noise(grid, 20, seed % 2 == 0, seed);
            let how = ChooseSettings::default().with_seed(Seed::new(seed));
            let chosen = chosen(name, &evidence, how);
            if chosen.verdict == Verdict::WithinChance {
                assert_eq!(chosen.circuit.heads().count(), 0);
                let said = chosen.sentences();
                assert!(
                    said.iter().any(|said| said.ends_with("no circuit shown")
                        && said.contains("within what shuffled labels give")),
                    "{said:?}"
                );
            } else {
                shown += 1;
            }
        }
        assert!(shown <= 1, "{name}: {shown} of 6");
    }
}

/// Who asks for a number of heads gets them, and is told.
#[test]
fn a_number_of_heads_is_shown_whatever_they_score() {
    let evidence = noise(HeadGrid::new(6, 9), 20, true, 1);
    let how = ChooseSettings::default().with_choice(Some(Choice::Rule(Selection::Top(3))));
    let chosen = chosen("recommended-activations", &evidence, how);
    assert_eq!(chosen.circuit.heads().count(), 3);
    assert!(chosen.null.unwrap().within_chance());
}

/// The usual design of clean and corrupted prompts that change places: both classes are the same vectors.
#[test]
fn the_same_sentences_in_another_order_are_nothing() {
    let grid = HeadGrid::new(4, 6);
    let positives = noise(grid, 10, true, 7)
        .activations()
        .unwrap()
        .narrow(0, 0, 20);
    let rotated = Tensor::cat(
        vec![
            positives.clone().narrow(0, 1, 19),
            positives.clone().narrow(0, 0, 1),
        ],
        0,
    );
    let evidence = evidence(grid, Tensor::cat(vec![positives, rotated], 0), true);
    for name in [
        "mean-difference",
        "relative-difference",
        "standardised-difference",
        "recommended-activations",
        "sae",
    ] {
        for choice in [None, Some(Choice::Rule(Selection::Otsu))] {
            let how = ChooseSettings::default().with_choice(choice);
            let chosen = chosen(name, &evidence, how);
            assert_eq!(chosen.circuit.heads().count(), 0, "{name}");
        }
    }
    let method = method::<B>("mean-difference", &settings(), &FlexDevice).unwrap();
    let scores = method.scores(&evidence, Seed::new(0), &NoProgress).unwrap();
    assert!(
        scores.nodes.iter().all(|score| *score == 0.0),
        "{:?}",
        scores.nodes
    );
}

#[test]
fn few_pairs_say_nothing_and_hide_nothing() {
    let all = planted(4);
    let rows: Vec<usize> = (0..3).chain(40..43).collect();
    let evidence = all.sampled(Some(&rows)).unwrap();
    let chosen = chosen("mean-difference", &evidence, ChooseSettings::default());
    let null = chosen.null.as_ref().unwrap();
    assert!(null.too_few && !null.within_chance());
    assert!(null.sentence().starts_with("warning: so few prompts"));
    assert!(chosen.circuit.heads().count() > 0);
}

/// A rule that nobody asked for does not name most of a model.
#[test]
fn a_third_of_the_model_is_no_default_answer() {
    // Half of the heads tell the classes apart.
    let grid = HeadGrid::new(4, 4);
    let quiet = noise(grid, 20, true, 3).activations().unwrap();
    let mut shift = vec![0.0f32; 40 * 16 * 8];
    for (at, value) in shift.iter_mut().enumerate() {
        let (example, head) = (at / (16 * 8), at / 8 % 16);
        *value = if example < 20 && head % 2 == 0 {
            9.0
        } else {
            0.0
        };
    }
    let shift = Tensor::from_data(TensorData::new(shift, [40, 16, 8]), &FlexDevice);
    let evidence = evidence(grid, quiet + shift, true);
    let with = |choice, max_heads| {
        let how = ChooseSettings::default()
            .with_choice(choice)
            .with_max_heads(max_heads);
        chosen("mean-difference", &evidence, how)
    };
    let default = with(None, None);
    assert_eq!(default.verdict, Verdict::TooMany(8));
    assert_eq!(default.circuit.heads().count(), 0);
    assert!(default.sentences()[0].starts_with("8 of 16 heads would be chosen"));
    let asked = with(Some(Choice::Rule(Selection::Otsu)), None);
    assert_eq!(asked.circuit.heads().count(), 8);
    assert!(asked.sentences()[0].starts_with("warning: 8 of 16 heads"));
    let cut = with(None, Some(3));
    assert_eq!((cut.circuit.heads().count(), cut.cut_from), (3, Some(8)));
    assert!(cut.circuit.heads().all(|head| head.head % 2 == 0));
}
