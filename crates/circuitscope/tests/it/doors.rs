//! What another crate may bring: a method and a dictionary, through `discover` and `evaluate`.

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::tensor::activation::relu;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use burn_flex::Flex;
use circuitscope::eval::methods::{BoxedMethod, FixedDictionary, Inactive};
use circuitscope::eval::{
    About, Choice, Discover, EvaluateSettings, Evidence, Measured, Result, evaluate,
};
use circuitscope::measures::{MemoryStore, Scores, Selection};
use circuitscope::sae::{Encoder, INACTIVE};
use circuitscope::tasks::{GREATER_THAN, IOI};
use circuitscope::{CaptureSettings, DiscoverSettings, Error, PrepareSettings, discover_by};
use circuitscope::{NoProgress, Polarity, Progress, Seed};

use crate::judged;

/// How much a head's output varies over the positives, summed over the residual.
struct Variance;

static VARIANCE: About = About::new(
    "variance",
    "variance of the head's output over the positives",
)
.control()
.without_seed()
.without_null()
.choice(Choice::Rule(Selection::Top(3)));

impl<B: Backend> Discover<B> for Variance {
    fn about(&self) -> &About {
        &VARIANCE
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<B>,
        _: Seed,
        _: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        Ok(Box::new(move |rows: Option<&[usize]>| {
            let evidence = evidence.sampled(rows)?;
            let labels = evidence.labels().iter().zip(0i64..);
            let positive: Vec<i64> = labels
                .filter(|(label, _)| **label == Polarity::Positive)
                .map(|(_, row)| row)
                .collect();
            let count = positive.len();
            let rows = TensorData::new(positive, [count]);
            let rows = Tensor::<B, 1, Int>::from_data(rows, &evidence.device());
            let outputs = evidence.activations()?.select(0, rows);
            let variance = outputs.var(0).sum_dim(2).into_data();
            let nodes: Vec<f64> = variance.iter::<f64>().collect();
            Ok(Scores::of_nodes(evidence.grid(), nodes).with_products())
        }))
    }
}

/// The same method, by its own name, in both: `discover` takes its rule, `evaluate` its resamples.
#[test]
fn a_method_from_outside() {
    let judged = judged(
        &IOI,
        40,
        Seed::new(1),
        PrepareSettings::default(),
        CaptureSettings::default(),
    );

    let settings = DiscoverSettings::default();
    let mut told = None;
    let found = discover_by(
        &Variance,
        &judged.evidence,
        &settings,
        &NoProgress,
        |scores| {
            told = Some(scores.clone());
            Ok::<(), Error>(())
        },
    );
    let found = found.unwrap();
    assert_eq!(found.method, "variance");
    assert_eq!(found.chosen.circuit.heads().count(), 3);
    assert_eq!(told.as_ref(), Some(&found.scores));

    let methods: Vec<BoxedMethod<Autodiff<Flex>>> = vec![Box::new(Variance)];
    let how = EvaluateSettings::default().with_resamples(5);
    let mut store = MemoryStore::default();
    let seeds = [Seed::new(0), Seed::new(1)];
    let runs =
        evaluate::<Autodiff<Flex>>(&[judged], &methods, &seeds, how, &mut store, &NoProgress)
            .unwrap();
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert_eq!(run.method, "variance");
        assert!(run.control);
        assert_eq!(run.scores, found.scores);
        assert_eq!(run.resampled.as_ref().unwrap().node_auc.len(), 5);
        // Better than chance: heads that do something vary.
        assert!(run.judgement.node_auc > 0.6, "{}", run.judgement.node_auc);
    }
}

/// Both ends of every axis, above a threshold: a dictionary that nobody trained.
#[derive(Debug)]
struct Axes {
    width: usize,
    above: f32,
}

impl<B: Backend> Encoder<B> for Axes {
    fn d_in(&self) -> usize {
        self.width
    }

    fn n_codes(&self) -> usize {
        2 * self.width
    }

    fn encode(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        relu(Tensor::cat(vec![x.clone(), -x], 1).sub_scalar(self.above))
    }
}

/// A dictionary of one's own, through the paper's method: the codes are those of its features, and the report is of
/// it.
#[test]
fn a_dictionary_from_outside() {
    let judged = judged(
        &GREATER_THAN,
        30,
        Seed::new(1),
        PrepareSettings::default(),
        CaptureSettings::default(),
    );
    let evidence = &judged.evidence;
    let [examples, heads, d] = evidence.activations().unwrap().dims();
    let x: Tensor<Flex, 2> = evidence
        .activations()
        .unwrap()
        .reshape([examples * heads, d]);
    // A quarter of the vectors reach it on no axis.
    let reach = x.clone().abs().max_dim(1).into_data();
    let mut reach: Vec<f32> = reach.iter::<f32>().collect();
    reach.sort_by(f32::total_cmp);
    let axes = Arc::new(Axes {
        width: d,
        above: reach[reach.len() / 4],
    });
    let method =
        FixedDictionary::<Flex>::new(Arc::clone(&axes) as _, Inactive::IsACode).named("axes");

    let settings = DiscoverSettings::default().with_choice(Some(Choice::Rule(Selection::Top(3))));
    let found = discover_by(&method, evidence, &settings, &NoProgress, |_| {
        Ok::<(), Error>(())
    });
    let found = found.unwrap();
    assert_eq!(found.method, "axes");
    assert_eq!(found.chosen.circuit.heads().count(), 3);

    // Counted by hand.
    let codes = Encoder::<Flex>::codes(axes.as_ref(), x).unwrap();
    let inactive = codes.iter().filter(|code| **code == INACTIVE).count();
    assert!(0 < inactive && inactive < codes.len(), "{inactive}");
    let report = found.scores.dictionary.as_ref().unwrap();
    assert_eq!(report.n_codes, 2 * d);
    assert_eq!(report.inactive_share, inactive as f64 / codes.len() as f64);
    assert_eq!(report.loss, None);
    for (head, score) in found.scores.nodes.iter().enumerate() {
        let seen = |wanted: Polarity| {
            let rows = evidence
                .labels()
                .iter()
                .zip(codes.iter().skip(head).step_by(heads));
            let of = rows.filter(|(label, _)| **label == wanted);
            of.map(|(_, code)| *code)
                .collect::<std::collections::BTreeSet<i32>>()
        };
        let unique = seen(Polarity::Positive)
            .difference(&seen(Polarity::Negative))
            .count();
        assert_eq!(*score, unique as f64, "head {head}");
    }

    let methods: Vec<BoxedMethod<Autodiff<Flex>>> = vec![Box::new(method)];
    let how = EvaluateSettings::default().with_resamples(2);
    let mut store = MemoryStore::default();
    let seeds = [Seed::new(0)];
    let runs =
        evaluate::<Autodiff<Flex>>(&[judged], &methods, &seeds, how, &mut store, &NoProgress);
    let runs = runs.unwrap();
    assert_eq!(runs[0].method, "axes");
    assert_eq!(runs[0].scores, found.scores);
}

/// A dictionary of another width is refused, not run.
#[test]
fn a_dictionary_of_another_width() {
    let judged = judged(
        &IOI,
        5,
        Seed::new(1),
        PrepareSettings::default(),
        CaptureSettings::default(),
    );
    let axes = Arc::new(Axes {
        width: 3,
        above: 0.0,
    });
    let method = FixedDictionary::<Flex>::new(axes, Inactive::IsFeatureZero);
    let error = method
        .scores(&judged.evidence, Seed::new(0), &NoProgress)
        .unwrap_err();
    assert!(
        error.to_string().contains("the dictionary takes d_in = 3"),
        "{error}"
    );
}
