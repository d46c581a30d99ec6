//! Judging, summaries, and resuming.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorData};
use burn_flex::{Flex, FlexDevice};
use circuitscope_core::{Circuit, Edge, HeadGrid, HeadId, NoProgress, Polarity, Progress, Seed};
use circuitscope_eval::methods::BoxedMethod;
use circuitscope_eval::{
    About, Discover, Error, EvaluateSettings, Evidence, JudgedTask, Measured, Result, evaluate,
};
use circuitscope_measures::{FolderStore, MemoryStore, RunKey, RunStore, Scores, judge, summarise};
use circuitscope_tasks::GroundTruth;
use serde_json::json;

type B = Autodiff<Flex>;
const GRID: HeadGrid = HeadGrid::new(2, 2);

fn truth(variant: &str, heads: &[HeadId], edges: &[Edge]) -> GroundTruth {
    let mut circuit = Circuit::from_heads(GRID, heads.iter().copied());
    circuit.edges.extend(edges);
    GroundTruth::new("induction", "made up", "this test", circuit).with_variant(variant.to_owned())
}

fn task() -> JudgedTask<Flex> {
    let (a, b) = (HeadId::new(0, 1), HeadId::new(1, 0));
    let activations = TensorData::new(vec![0.0f32; 16], [4, 4, 1]);
    let activations = Tensor::from_data(activations, &FlexDevice);
    let labels = [Polarity::Positive, Polarity::Negative].repeat(2);
    JudgedTask {
        task: "made-up".to_owned(),
        evidence: Evidence::new(GRID, activations, labels, vec![(0, 1), (2, 3)]).unwrap(),
        truths: vec![
            truth("first", &[a, b], &[Edge::new(a, b)]),
            truth("second", &[a], &[]),
        ],
    }
}

/// Scores that depend on the seed alone, and a count of how often it ran.
struct Fixed {
    about: About,
    nodes: fn(u64) -> Vec<f64>,
    runs: std::rc::Rc<Cell<usize>>,
}

impl Discover<Flex> for Fixed {
    fn about(&self) -> &About {
        &self.about
    }

    fn measure<'a>(
        &'a self,
        evidence: &'a Evidence<Flex>,
        seed: Seed,
        _: &'a dyn Progress,
    ) -> Result<Box<dyn Measured + 'a>> {
        self.runs.set(self.runs.get() + 1);
        Ok(Box::new(move |_: Option<&[usize]>| {
            let nodes = (self.nodes)(seed.value());
            let ends = nodes.clone();
            Ok(Scores::of_nodes(evidence.grid(), nodes).with_edges(|a, b| ends[a] * ends[b]))
        }))
    }
}

fn methods(runs: &std::rc::Rc<Cell<usize>>) -> Vec<BoxedMethod<B>> {
    let fixed = |name, control, nodes| {
        let about = About::new(name, "fixed");
        Box::new(Fixed {
            about: if control { about.control() } else { about },
            nodes,
            runs: runs.clone(),
        }) as _
    };
    vec![
        fixed("good", false, |_| vec![0.0, 2.0, 3.0, 1.0]),
        fixed("bad", false, |seed| vec![2.0, 1.0, 0.0, seed as f64]),
        fixed("control", true, |_| vec![1.0, 1.0, 1.0, 1.0]),
    ]
}

#[test]
fn measures_by_hand() {
    let task = task();
    // Ranking L1H0 (true), L0H1 (true), L1H1, L0H0: a perfect one.
    let perfect =
        Scores::of_nodes(GRID, vec![0.0, 2.0, 3.0, 1.0]).with_edges(|a, b| (10 * a + b) as f64);
    let judgement = judge(&perfect, &task.truths[0]).unwrap();
    assert_eq!(
        (
            judgement.node_auc,
            judgement.best_f1,
            judgement.best_f1_size
        ),
        (1.0, 1.0, 2)
    );
    // Edges 0→2 (2), 0→3 (3), 1→2 (12, true), 1→3 (13): one false edge of three stands higher.
    assert!((judgement.edge_auc.unwrap() - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(judgement.paper_edge_auc, None);
    // The second account names one head and no edge.
    let second = judge(&perfect, &task.truths[1]).unwrap();
    assert!((second.node_auc - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(second.edge_auc, None);

    let other = Scores::of_nodes(HeadGrid::new(1, 2), vec![0.0, 1.0]);
    assert!(matches!(
        judge(&other, &task.truths[0]),
        Err(circuitscope_measures::Error::Shape { .. })
    ));
}

#[test]
fn summary_marks_what_no_control_is_below() {
    let runs = std::rc::Rc::default();
    let seeds = [Seed::new(0), Seed::new(3)];
    let records = evaluate::<B>(
        &[task()],
        &methods(&runs),
        &seeds,
        EvaluateSettings::default(),
        &mut MemoryStore::default(),
        &NoProgress,
    )
    .unwrap();
    assert_eq!(records.len(), 6);
    assert_eq!(records[0].other_truths[0].truth, "second");
    let rows = summarise(&records);
    let row = |name: &str| rows.iter().find(|row| row.method == name).unwrap();
    assert_eq!(row("good").node_auc.mean, 1.0);
    assert!(row("good").not_above.is_empty());
    // Its scores do not depend on the prompts, so that every half of them says the same.
    let interval = row("good").node_interval.unwrap();
    assert_eq!((interval.low, interval.high), (1.0, 1.0));
    assert_eq!(row("good").jaccard.unwrap().mean, 1.0);
    let against = &row("good").against[0];
    assert_eq!(against.control, "control");
    let comparison = against.comparison;
    assert_eq!((comparison.mean, comparison.interval.low), (0.5, 0.5));
    assert!(comparison.is_ahead());
    assert_eq!(row("good").node_average_precision.mean, 1.0);
    assert_eq!(row("good").precision_at_size.mean, 1.0);
    assert_eq!(row("control").node_auc.mean, 0.5);
    // All scores equal, two of four heads true.
    assert_eq!(row("control").node_average_precision.mean, 0.5);
    assert_eq!(row("control").precision_at_size.mean, 0.5);
    assert_eq!(row("bad").not_above, ["control"]);
    assert!(
        row("bad").node_auc.std > 0.0,
        "its scores depend on the seed"
    );
    assert!(
        row("control").not_above.is_empty(),
        "controls are not marked"
    );
    // Ahead, but on these prompts alone.
    let mut once = records;
    for record in once.iter_mut().filter(|record| record.method == "good") {
        record.resampled = None;
    }
    let rows = summarise(&once);
    let good = rows.iter().find(|row| row.method == "good").unwrap();
    assert_eq!(good.node_auc.mean, 1.0);
    assert_eq!(
        (&good.not_above[..], good.against.len()),
        (&["control".to_owned()][..], 0)
    );
}

#[test]
fn finished_runs_are_not_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let runs = std::rc::Rc::new(Cell::new(0));
    let settings = json!({"examples": 1, "codes": 4});
    let go = || {
        let mut store = FolderStore::open(folder.path(), &settings).unwrap();
        evaluate::<B>(
            &[task()],
            &methods(&runs),
            &[Seed::new(0), Seed::new(1)],
            EvaluateSettings::default(),
            &mut store,
            &NoProgress,
        )
    };
    let first = go().unwrap();
    assert_eq!(runs.get(), 6);
    assert_eq!(go().unwrap(), first);
    assert_eq!(runs.get(), 6, "all were kept");
    fs_err::remove_file(folder.path().join("runs/made-up.bad.1.json")).unwrap();
    let again = go().unwrap();
    assert_eq!(runs.get(), 7, "only the missing one ran");
    assert_eq!(again[3].judgement, first[3].judgement);

    let error = FolderStore::open(folder.path(), &json!({"examples": 1, "codes": 5})).unwrap_err();
    assert!(
        error.to_string().contains("made with codes = 4, not 5"),
        "{error}"
    );
    fs_err::write(folder.path().join("runs/made-up.bad.1.json"), "{").unwrap();
    let error = go().unwrap_err().to_string();
    assert!(
        error.contains("made-up.bad.1.json") && error.contains("delete it to run again"),
        "{error}"
    );
}

/// Stops after some steps.
struct StopAfter(AtomicUsize);

impl Progress for StopAfter {
    fn advance(&self, _: u64) {
        self.0.fetch_sub(1, Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

/// Hears what a stage is at.
#[derive(Default)]
struct Heard(std::sync::Mutex<Vec<String>>);

impl Progress for Heard {
    fn at(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }
}

#[test]
fn each_run_says_of_which_task_method_and_seed_it_is() {
    let runs = std::rc::Rc::new(Cell::new(0));
    let heard = Heard::default();
    let mut store = MemoryStore::default();
    evaluate::<B>(
        &[task()],
        &methods(&runs)[..1],
        &[Seed::new(0), Seed::new(1)],
        EvaluateSettings::default().with_resamples(0),
        &mut store,
        &heard,
    )
    .unwrap();
    assert_eq!(
        heard.0.into_inner().unwrap(),
        ["made-up · good, seed 0", "made-up · good, seed 1"]
    );
}

#[test]
fn an_interrupted_evaluation_keeps_what_was_done() {
    let runs = std::rc::Rc::new(Cell::new(0));
    let mut store = MemoryStore::default();
    let seeds = [Seed::new(0), Seed::new(1)];
    let stopped = evaluate::<B>(
        &[task()],
        &methods(&runs),
        &seeds,
        EvaluateSettings::default().with_resamples(0),
        &mut store,
        &StopAfter(AtomicUsize::new(2)),
    );
    assert!(matches!(stopped, Err(Error::Cancelled)));
    assert_eq!(runs.get(), 2);
    let key = RunKey {
        task: "made-up".into(),
        method: "good".into(),
        seed: 1,
    };
    assert!(store.load(&key).unwrap().is_some());
    evaluate::<B>(
        &[task()],
        &methods(&runs),
        &seeds,
        EvaluateSettings::default(),
        &mut store,
        &NoProgress,
    )
    .unwrap();
    assert_eq!(runs.get(), 6, "four were left");
}
