//! What another crate may bring: a method, through `discover` and `evaluate`.

use burn::backend::Autodiff;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use burn_flex::{Flex, FlexDevice};
use circuitscope::core::{NoProgress, Polarity, Progress, Seed};
use circuitscope::eval::methods::BoxedMethod;
use circuitscope::eval::{
    About, Choice, Discover, EvaluateSettings, Evidence, Measured, Result, evaluate,
};
use circuitscope::measures::{MemoryStore, Scores, Selection};
use circuitscope::model::Processing;
use circuitscope::tasks::Task;
use circuitscope::{
    CaptureSettings, DiscoverSettings, Error, PrepareSettings, discover_by, judged_task,
    known_circuits, load_reference, prepare_task,
};

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
    let loaded = load_reference::<Flex>(Processing::Folded, &FlexDevice).unwrap();
    let how = PrepareSettings::default();
    let prompts = prepare_task(&loaded, Task::Ioi, 40, Seed::new(1), how).unwrap();
    let truths = known_circuits(&loaded, Task::Ioi, None).unwrap();
    let settings = CaptureSettings::default();
    let judged = judged_task(
        &loaded,
        &prompts,
        truths,
        settings,
        &FlexDevice,
        &NoProgress,
    )
    .unwrap();

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
    let how = EvaluateSettings {
        resamples: 5,
        ..EvaluateSettings::default()
    };
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
