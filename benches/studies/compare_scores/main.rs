//! What each choice of method `recommended` gains: on the reference model's four tasks, on a compiled
//! program where its files are at hand, and on planted activations; prompts of some seeds to choose on,
//! prompts of others to report. Node AUC, mean over three draws.
//!
//! ```text
//! cargo bench -p circuitscope-benches --bench compare_scores
//! ```
//! takes half an hour; with an argument, only the scores whose name contains it. The table is in `docs/methods/recommended.md`.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![recursion_limit = "256"]

mod planted;

use std::error::Error;
use std::path::Path;

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::Evidence;
use circuitscope::eval::methods::{BoxedMethod, CodeScore, Ensemble, MethodSettings, method};
use circuitscope::measures::Ranking;
use circuitscope::model::{
    LoadSettings, Loaded, Processing, capture_head_means_and_last, load_dir,
};
use circuitscope::tasks::{TASKS, TaskSpec, task};
use circuitscope::{
    CaptureSettings, PrepareSettings, judged_task, known_circuits, load_reference, prepare_task,
};
use circuitscope::{Exec, NoProgress, Polarity, Seed, draw};
use circuitscope_testkit::{Golden, shared_fixtures};
use planted::PLANTS;

type B = Autodiff<Flex>;

/// Prompts to choose on, and prompts to report.
const SEEDS: [[u64; 3]; 2] = [[0, 1, 2], [100, 101, 102]];
/// Pairs of prompts.
const SIZES: [usize; 2] = [250, 10];

const ENSEMBLES: [(&str, (usize, usize), CodeScore); 12] = [
    ("1 trained, unique", (1, 0), CodeScore::Unique),
    ("5 trained, unique", (5, 0), CodeScore::Unique),
    ("10 untrained, unique", (0, 10), CodeScore::Unique),
    ("5 + 10, unique", (5, 10), CodeScore::Unique),
    (
        "1 trained, information",
        (1, 0),
        CodeScore::MutualInformation,
    ),
    (
        "5 trained, information",
        (5, 0),
        CodeScore::MutualInformation,
    ),
    (
        "10 untrained, information",
        (0, 10),
        CodeScore::MutualInformation,
    ),
    ("3 + 10, information", (3, 10), CodeScore::MutualInformation),
    ("5 + 10, information", (5, 10), CodeScore::MutualInformation),
    ("1 trained, amplitude", (1, 0), CodeScore::Amplitude),
    ("5 trained, amplitude", (5, 0), CodeScore::Amplitude),
    ("10 untrained, amplitude", (0, 10), CodeScore::Amplitude),
];

/// The same on means over positions and on the last position together.
const WITH_LAST: [(&str, (usize, usize), CodeScore); 2] = [
    ("5 trained, unique, and last", (5, 0), CodeScore::Unique),
    ("10 untrained, unique, and last", (0, 10), CodeScore::Unique),
];

const CONTROLS: [&str; 8] = [
    "untrained",
    "k-means",
    "mean-difference",
    "standardised-difference",
    "relative-difference",
    "linear-probe",
    "activation-norm",
    "paired-flip-rate",
];

type Named = (&'static str, BoxedMethod<B>);

/// λ is the paper's, which differs for docstring.
fn methods(subject: &str) -> Result<Vec<Named>, Box<dyn Error>> {
    let settings =
        task(subject).map_or_else(|_| MethodSettings::default(), MethodSettings::for_task);
    let sae = settings.sae.clone();
    let mut all: Vec<Named> = Vec::new();
    let ensemble = |(name, members, score)| Ensemble::of(name, members, score, sae.clone());
    for row in ENSEMBLES {
        all.push((row.0, Box::new(ensemble(row))));
    }
    for row in WITH_LAST {
        all.push((row.0, Box::new(ensemble(row).and_last())));
    }
    for name in CONTROLS {
        all.push((name, method::<B>(name, &settings, &FlexDevice)?));
    }
    // `cargo bench` adds `--bench`.
    let mut arguments = std::env::args().skip(1);
    if let Some(part) = arguments.find(|argument| argument != "--bench") {
        all.retain(|(name, _)| name.contains(&part));
    }
    Ok(all)
}

/// Evidence, and which heads are true.
type Subject = (Evidence<Flex>, Vec<bool>);

/// A task of the reference model.
fn of_task(
    loaded: &Loaded<Flex>,
    task: &TaskSpec,
    pairs: usize,
    seed: Seed,
) -> Result<Subject, Box<dyn Error>> {
    let settings = CaptureSettings::default().with_last_position(true);
    let prompts = prepare_task(loaded, task, pairs, seed, PrepareSettings::default())?;
    let judged = judged_task(
        loaded,
        &prompts,
        known_circuits(loaded, task, None)?.truths,
        settings,
        &FlexDevice,
        &NoProgress,
    )?;
    let truth = judged.truths[0].circuit.head_mask();
    Ok((judged.evidence, truth))
}

/// A compiled program that has heads outside of its circuit: valid inputs against disturbed ones of
/// its data set, drawn anew for each seed.
fn of_program(folder: &Path, pairs: usize, seed: Seed) -> Result<Subject, Box<dyn Error>> {
    let loaded = load_dir::<Flex>(folder, Processing::Raw, &FlexDevice, &NoProgress)?;
    let data = Golden::read(&folder.join("dataset.safetensors"));
    let rows = data.tokens("input_ids");
    let labels = data.tokens("label");
    let mut of_class = [Vec::new(), Vec::new()];
    for (row, label) in rows.iter().zip(labels.iter().flatten()) {
        of_class[*label as usize].push(row.clone());
    }
    let mut rng = seed.stream("program").rng();
    for class in &mut of_class {
        draw::shuffle(&mut rng, class);
        class.truncate(pairs);
    }
    let [negative, positive] = of_class;
    let mut chosen = vec![Polarity::Positive; positive.len()];
    chosen.resize(positive.len() + negative.len(), Polarity::Negative);
    let prompts = [positive, negative].concat();
    let model = &loaded.model;
    let [means, last] =
        capture_head_means_and_last(model, &prompts, 4096, &FlexDevice, &NoProgress)?;
    let evidence = |x| Evidence::new(model.config().grid(), x, chosen.clone(), Vec::new());
    let (evidence, last) = (evidence(means)?, evidence(last)?);
    let truth: serde_json::Value =
        serde_json::from_slice(&fs_err::read(folder.join("ground_truth.json"))?)?;
    let heads = truth["nodes"].as_array().into_iter().flatten();
    let heads = heads.filter(|node| node["kind"] == "head");
    let truth = heads.map(|node| node["on_path"] == true).collect();
    Ok((evidence.with_last(last)?, truth))
}

fn main() -> Result<(), Box<dyn Error>> {
    let settings = LoadSettings::from(Processing::Folded).with_exec(Exec::all_cores());
    let loaded = load_reference::<Flex>(settings, &FlexDevice)?;
    let program = shared_fixtures().map(|fixtures| fixtures.join("tracr/dyck1"));
    let mut subjects: Vec<&str> = TASKS.iter().map(|task| task.name.as_ref()).collect();
    subjects.extend(program.as_ref().map(|_| "dyck1"));
    subjects.extend(PLANTS.iter().map(|plant| plant.0));
    let subject = |name: &str, pairs: usize, seed: Seed| -> Result<Subject, Box<dyn Error>> {
        if let Some((_, plant)) = PLANTS.iter().find(|plant| plant.0 == name) {
            return Ok(planted::evidence(*plant, pairs, seed));
        }
        match (&program, name) {
            (Some(folder), "dyck1") => of_program(folder, pairs, seed),
            _ => of_task(&loaded, task(name)?, pairs, seed),
        }
    };
    for size in SIZES {
        for (part, seeds) in ["chosen on", "reported on"].into_iter().zip(SEEDS) {
            println!("\n### {size} + {size} prompts, {part} seeds {seeds:?}\n");
            let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
            for name in &subjects {
                let methods = methods(name)?;
                let mut sums = vec![0.0; methods.len()];
                for seed in seeds.map(Seed::new) {
                    let (evidence, truth) = subject(name, size, seed)?;
                    for ((method_name, method), sum) in methods.iter().zip(&mut sums) {
                        // Rows of the program's data set are not matched.
                        if evidence.pairs().is_empty() && *method_name == "paired-flip-rate" {
                            *sum = f64::NAN;
                            continue;
                        }
                        let scores = method.scores(&evidence, seed, &NoProgress)?;
                        let auc = Ranking::new(&truth, &scores.nodes)?.auc();
                        *sum += auc / seeds.len() as f64;
                    }
                }
                for (at, (name, _)) in methods.iter().enumerate() {
                    if rows.len() <= at {
                        rows.push((name, Vec::new()));
                    }
                    rows[at].1.push(sums[at]);
                }
            }
            println!("| score | {} | mean |", subjects.join(" | "));
            println!("|---|{}---|", "---|".repeat(subjects.len()));
            for (name, values) in rows {
                let known = values.iter().filter(|value| !value.is_nan());
                let mean = known.clone().sum::<f64>() / known.count() as f64;
                let cells: Vec<String> = values
                    .iter()
                    .map(|value| {
                        if value.is_nan() {
                            "–".to_owned()
                        } else {
                            format!("{value:.3}")
                        }
                    })
                    .collect();
                println!("| {name} | {} | {mean:.3} |", cells.join(" | "));
            }
        }
    }
    Ok(())
}
