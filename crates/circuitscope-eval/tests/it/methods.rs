//! Every method on planted activations, where the answer is known.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{Exec, HeadGrid, HeadId, NoProgress, Polarity, Progress, Seed};
use circuitscope_eval::methods::{self, MethodSettings, SaeSettings, method, parse_list};
use circuitscope_eval::{Error, Evidence, Passes};
use circuitscope_measures::Scores;
use proptest::prelude::*;

type B = Autodiff<Flex>;

const GRID: HeadGrid = HeadGrid::new(3, 4);
const PAIRS: usize = 40;
const D: usize = 16;
/// Heads whose output says on positives which of eight things happened, and on negatives nothing.
pub(crate) const PLANTED: [HeadId; 2] = [HeadId::new(0, 2), HeadId::new(2, 1)];

/// Positives in the first half, negatives in the second. Every head writes a direction of its own;
/// planted heads add, on positives, one of eight directions that both of them share.
pub(crate) fn planted(seed: u64) -> Evidence<Flex> {
    let mut rng = Seed::new(seed).stream("test/planted").rng();
    let mut unit = || (rng.next_u64() >> 11) as f64 * 0.5f64.powi(53);
    let mut direction = || -> Vec<f32> { (0..D).map(|_| (2.0 * unit() - 1.0) as f32).collect() };
    let own: Vec<Vec<f32>> = (0..GRID.len()).map(|_| direction()).collect();
    let event: Vec<Vec<f32>> = (0..8).map(|_| direction()).collect();
    let mut data = Vec::new();
    for example in 0..2 * PAIRS {
        for head in GRID.heads() {
            let noise = direction();
            let base = &own[GRID.index(head).unwrap()];
            let loud = example < PAIRS && PLANTED.contains(&head);
            let extra = &event[example % 8];
            data.extend(
                (0..D).map(|i| base[i] + 0.02 * noise[i] + if loud { 3.0 * extra[i] } else { 0.0 }),
            );
        }
    }
    let activations = Tensor::from_data(
        TensorData::new(data, [2 * PAIRS, GRID.len(), D]),
        &FlexDevice,
    );
    let mut labels = vec![Polarity::Positive; PAIRS];
    labels.resize(2 * PAIRS, Polarity::Negative);
    let pairs = (0..PAIRS).map(|i| (i, PAIRS + i)).collect();
    let evidence = Evidence::new(GRID, activations.clone(), labels, pairs).unwrap();
    let evidence = evidence.with_exec(Exec::all_cores());
    evidence.clone().with_last(evidence).unwrap()
}

pub(crate) fn settings() -> MethodSettings {
    MethodSettings::default().with_sae(SaeSettings::default().with_n_codes(64).with_steps(100))
}

/// Methods that read activations alone.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let of_activations = methods::ALL.iter().filter(|about| !about.needs.model);
    of_activations.map(|about| about.name.as_ref())
}

fn scores(name: &str, evidence: &Evidence<Flex>, seed: u64) -> Scores {
    let method = method::<B>(name, &settings(), &FlexDevice).unwrap();
    assert_eq!(method.name(), name);
    method
        .scores(evidence, Seed::new(seed), &NoProgress)
        .unwrap()
}

#[test]
fn every_method_but_chance_finds_what_was_planted() {
    let evidence = planted(0);
    for name in names().filter(|name| *name != "random") {
        let scores = scores(name, &evidence, 1);
        let top: Vec<HeadId> = scores
            .ranking()
            .into_iter()
            .take(2)
            .map(|(head, _)| head)
            .collect();
        for head in PLANTED {
            assert!(top.contains(&head), "{name}: {:?}", scores.ranking());
        }
        // Centres of k-means tell apart what is noise, so that unplanted pairs seem unique, too.
        if name == "k-means" {
            continue;
        }
        let edges = scores.edges.unwrap();
        let at = |a: HeadId, b: HeadId| {
            edges[GRID.index(a).unwrap() * GRID.len() + GRID.index(b).unwrap()]
        };
        for (source, destination) in circuitscope_measures::directed_pairs(GRID) {
            let ends = [GRID.head(source), GRID.head(destination)];
            if !ends.iter().any(|head| PLANTED.contains(head)) {
                let other = edges[source * GRID.len() + destination];
                assert!(
                    at(PLANTED[0], PLANTED[1]) > other,
                    "{name}: {ends:?} scores {other}"
                );
            }
        }
        assert_eq!(
            at(PLANTED[1], PLANTED[0]),
            0.0,
            "{name}: edges run forward only"
        );
    }
}

#[test]
fn same_seed_same_scores_and_another_seed_another_dictionary() {
    let evidence = planted(1);
    for name in names() {
        assert_eq!(
            scores(name, &evidence, 3),
            scores(name, &evidence, 3),
            "{name}"
        );
    }
    for name in ["sae", "untrained", "random"] {
        assert_ne!(
            scores(name, &evidence, 3),
            scores(name, &evidence, 4),
            "{name}"
        );
    }
}

#[test]
fn what_each_method_reports_of_its_dictionary() {
    let evidence = planted(2);
    let trained = scores("sae", &evidence, 0).dictionary.unwrap();
    assert_eq!(trained.n_codes, 64);
    assert!(trained.loss.is_some() && trained.l0.is_some() && trained.dead.is_some());
    assert!(trained.codes_used > 1 && trained.codes_used <= 64);
    let untrained = scores("untrained", &evidence, 0).dictionary.unwrap();
    assert!(untrained.loss.is_none(), "nothing was trained");
    assert!(scores("mean-difference", &evidence, 0).dictionary.is_none());
}

#[test]
fn faults_have_names() {
    let evidence = planted(3);
    let unpaired = Evidence::new(
        GRID,
        evidence.activations().unwrap(),
        evidence.labels().to_vec(),
        Vec::new(),
    )
    .unwrap();
    let flips = method::<B>("paired-flip-rate", &settings(), &FlexDevice).unwrap();
    let error = flips
        .scores(&unpaired, Seed::new(0), &NoProgress)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "method `paired-flip-rate` needs prompts in pairs"
    );

    let mut greedy = settings();
    greedy.sae.train_examples = 1000;
    let sae = method::<B>("sae", &greedy, &FlexDevice).unwrap();
    let error = sae
        .scores(&evidence, Seed::new(0), &NoProgress)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "examples to train the dictionary on: found 80, expected 1000"
    );

    let one_class = vec![Polarity::Positive; 2 * PAIRS];
    let error =
        Evidence::new(GRID, evidence.activations().unwrap(), one_class, Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no negative examples: the method compares positive with negative ones"
    );
    let crossed = vec![(PAIRS, 0)];
    let error = Evidence::new(
        GRID,
        evidence.activations().unwrap(),
        evidence.labels().to_vec(),
        crossed,
    );
    assert!(matches!(error, Err(Error::Pair { at: 0 })));

    let error = method::<B>("sea", &settings(), &FlexDevice)
        .map(drop)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("unknown method `sea` (did you mean `sae`?): expected recommended, ")
    );
}

/// The table: each name once, controls last, and what is made has the name and the particulars that it was listed
/// with.
#[test]
fn methods_are_what_the_table_says() {
    let mut names = std::collections::BTreeSet::new();
    for about in methods::ALL {
        assert!(names.insert(&about.name), "{}", about.name);
        assert!(!about.summary.is_empty() && !about.summary.ends_with('.'));
        let made = method::<B>(&about.name, &settings(), &FlexDevice).unwrap();
        assert_eq!(made.about(), *about);
        assert_eq!(
            about.needs.model,
            about.passes != Passes::None,
            "{}",
            about.name
        );
        if let Some(other) = about.without_model {
            assert!(!methods::about(&other.name).unwrap().needs.model);
        }
    }
    let controls = methods::ALL.iter().map(|about| about.control);
    assert!(controls.is_sorted());
}

/// What a method is said to need is what it needs: without, it fails; with it alone, it does not.
#[test]
fn needs_are_needs() {
    let whole = planted(6);
    // Without outputs at the last position.
    let bare = |pairs| {
        let (labels, held) = (whole.labels().to_vec(), whole.activations().unwrap());
        Evidence::new(whole.grid(), held, labels, pairs).unwrap()
    };
    for about in methods::ALL {
        let needs = about.needs;
        let pairs = if needs.pairs {
            whole.pairs().to_vec()
        } else {
            Vec::new()
        };
        let mut evidence = bare(pairs);
        if needs.last {
            evidence = evidence.with_last(bare(Vec::new())).unwrap();
        }
        let made = method::<B>(&about.name, &settings(), &FlexDevice).unwrap();
        let scores = |evidence| made.scores(evidence, Seed::new(0), &NoProgress);
        if needs.model {
            assert!(
                matches!(scores(&evidence), Err(Error::NeedsModel { .. })),
                "{}",
                about.name
            );
            continue;
        }
        scores(&evidence).unwrap();
        let least = scores(&bare(Vec::new()));
        assert_eq!(least.is_ok(), !needs.pairs && !needs.last, "{}", about.name);
        let measured = made.measure(&evidence, Seed::new(0), &NoProgress).unwrap();
        let relabelled = measured.relabelled(&[evidence.labels().to_vec()]);
        assert_eq!(relabelled.is_some(), about.relabels, "{}", about.name);
    }
}

/// No copy of an example is judged by what is fitted on another copy: doubling all examples tells nothing new.
#[test]
fn copies_do_not_help_the_probe() {
    let evidence = planted(7);
    let rows: Vec<usize> = (0..evidence.labels().len()).collect();
    let doubled = [&rows[..], &rows[..]].concat();
    let probe = method::<B>("linear-probe", &settings(), &FlexDevice).unwrap();
    let measured = probe.measure(&evidence, Seed::new(0), &NoProgress).unwrap();
    let once = measured.scores(Some(&rows)).unwrap().nodes;
    let twice = measured.scores(Some(&doubled)).unwrap().nodes;
    assert_eq!(measured.scores(None).unwrap().nodes, once);
    for (once, twice) in once.iter().zip(&twice) {
        assert!(
            (once - twice).abs() < 1e-4 * once.abs().max(1.0),
            "{once} {twice}"
        );
    }
}

/// Against the definition, and 0 where a head always puts out the same.
#[test]
fn variance_of_outputs() {
    let evidence = planted(8);
    let d = evidence.d();
    let data: Vec<f32> = evidence
        .activations()
        .unwrap()
        .into_data()
        .to_vec()
        .unwrap();
    for (name, examples) in [
        ("activation-variance", PAIRS),
        ("activation-variance-all", 2 * PAIRS),
    ] {
        let found = scores(name, &evidence, 0).nodes;
        for (head, found) in found.iter().enumerate() {
            let mut variance = 0.0;
            for i in 0..d {
                let at = |example: usize| f64::from(data[(example * GRID.len() + head) * d + i]);
                let mean = (0..examples).map(at).sum::<f64>() / examples as f64;
                let squares = (0..examples).map(|example| (at(example) - mean).powi(2));
                variance += squares.sum::<f64>() / examples as f64;
            }
            assert!(
                (found - variance).abs() < 1e-4 * variance,
                "{name}: {found} {variance}"
            );
        }
    }
    let always = Tensor::<Flex, 3>::full([4, GRID.len(), 3], 0.1, &FlexDevice) * 7.3;
    let labels = [Polarity::Positive, Polarity::Negative];
    let labels = [labels, labels].concat();
    let evidence = Evidence::new(GRID, always, labels, Vec::new()).unwrap();
    assert!(
        scores("activation-variance", &evidence, 0)
            .nodes
            .iter()
            .all(|score| *score == 0.0)
    );
}

#[test]
fn lists_of_methods() {
    let names = |list: &str| {
        let found = parse_list(list).unwrap();
        found
            .into_iter()
            .map(|about| about.name.as_ref())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("all"), methods::names().collect::<Vec<_>>());
    assert_eq!(names("random, sae,random"), ["random", "sae"]);
    assert!(names("quick").contains(&"recommended") && !names("quick").contains(&"acdc"));
    assert!(parse_list("sae,,random").is_err());
}

struct StopAtOnce;

impl Progress for StopAtOnce {
    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn training_stops_when_asked() {
    let sae = method::<B>("sae", &settings(), &FlexDevice).unwrap();
    assert!(sae.scores(&planted(4), Seed::new(0), &StopAtOnce).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// `class_mean` against the definition.
    #[test]
    fn class_means(values in proptest::collection::vec(-2f32..2.0, 4 * 2 * 3)) {
        let grid = HeadGrid::new(1, 2);
        let x = Tensor::<Flex, 3>::from_data(TensorData::new(values.clone(), [4, 2, 3]), &FlexDevice);
        let labels =
            vec![Polarity::Positive, Polarity::Negative, Polarity::Positive, Polarity::Positive];
        let evidence = Evidence::new(grid, x, labels, Vec::new()).unwrap();
        let mean: Vec<f32> = evidence.class_mean(Polarity::Positive).unwrap().into_data().to_vec().unwrap();
        for (i, mean) in mean.iter().enumerate() {
            let expected = (values[i] + values[12 + i] + values[18 + i]) / 3.0;
            prop_assert!((mean - expected).abs() < 1e-5);
        }
    }
}

/// Counts what is reported as done.
#[derive(Default)]
struct Work(AtomicU64);

impl Progress for Work {
    fn advance(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }
}

/// Methods with the same dictionary and seed train it once, and score as if each had.
#[test]
fn a_shared_dictionary_is_trained_once() {
    let evidence = planted(0);
    let work = |name: &str, evidence: &Evidence<Flex>, seed: u64| {
        let work = Work::default();
        let method = method::<B>(name, &settings(), &FlexDevice).unwrap();
        let scores = method.scores(evidence, Seed::new(seed), &work).unwrap();
        (work.0.into_inner(), scores)
    };
    let (trained, _) = work("sae-corrected", &evidence, 3);
    assert!(trained > 0);
    let (again, shared) = work("paired-flip-rate", &evidence, 3);
    assert_eq!(again, 0);
    assert_eq!(work("paired-flip-rate", &planted(0), 3), (trained, shared));
    assert_eq!(
        work("paired-flip-rate", &evidence, 4).0,
        trained,
        "another seed"
    );
    assert_eq!(work("sae", &evidence, 3).0, trained, "another dictionary");
    assert!(
        work("sae-corrected", &planted(1), 3).0 > 0,
        "other evidence"
    );
}

/// With the same vectors at both places an ensemble that reads both is the one that reads one; without
/// the last position it says what it lacks.
#[test]
fn the_last_position_is_a_second_view() {
    let evidence = planted(3);
    let both = scores("mean-and-last", &evidence, 5);
    let one = scores("untrained-ensemble", &evidence, 5);
    for (both, one) in both.nodes.iter().zip(&one.nodes) {
        assert!((both - one).abs() < 1e-9);
    }
    let (labels, pairs) = (evidence.labels().to_vec(), evidence.pairs().to_vec());
    let zeros = evidence.activations().unwrap().zeros_like();
    let fresh = |x| Evidence::new(GRID, x, labels.clone(), pairs.clone()).unwrap();
    let silent = fresh(evidence.activations().unwrap());
    let with_zeros = silent.clone().with_last(fresh(zeros)).unwrap();
    assert_ne!(scores("mean-and-last", &with_zeros, 5), both);
    let method = method::<B>("mean-and-last", &settings(), &FlexDevice).unwrap();
    let error = method.scores(&silent, Seed::new(0), &NoProgress);
    assert!(matches!(
        &error,
        Err(Error::NeedsLast { method }) if method == "mean-and-last"
    ));
}
