//! What each choice of method `recommended` gains, on the reference model's four tasks: prompts of some
//! seeds to choose on, prompts of others to report.
//!
//! ```text
//! cargo build --workspace --examples --locked && target/debug/examples/compare_scores
//! ```
//! The table is in `docs/methods/recommended.md`.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![recursion_limit = "256"]

use std::error::Error;

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope::core::{NoProgress, Seed};
use circuitscope::eval::methods::{
    BoxedMethod, CodeScore, Ensemble, MethodSettings, SaeSettings, method,
};
use circuitscope::eval::{JudgedTask, judge};
use circuitscope::model::Processing;
use circuitscope::tasks::Task;
use circuitscope::{CaptureSettings, judged_task, load_reference};

type B = Autodiff<Flex>;

/// Prompts to choose on, and prompts to report.
const SEEDS: [[u64; 3]; 2] = [[0, 1, 2], [100, 101, 102]];
/// Pairs of prompts.
const SIZES: [usize; 2] = [250, 10];

const ENSEMBLES: [(&str, (usize, usize), CodeScore); 9] = [
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

fn methods(task: Task) -> Result<Vec<Named>, Box<dyn Error>> {
    let sae = SaeSettings {
        l1_coefficient: if task == Task::Docstring { 0.05 } else { 0.02 },
        ..SaeSettings::default()
    };
    let settings = MethodSettings {
        sae: sae.clone(),
        ..MethodSettings::default()
    };
    let mut all: Vec<Named> = Vec::new();
    for (name, members, score) in ENSEMBLES {
        let ensemble = Ensemble::<B>::of(name, members, score, sae.clone(), FlexDevice);
        all.push((name, Box::new(ensemble)));
    }
    for name in CONTROLS {
        all.push((name, method::<B>(name, &settings, &FlexDevice)?));
    }
    Ok(all)
}

fn main() -> Result<(), Box<dyn Error>> {
    let loaded = load_reference::<Flex>(Processing::Folded, &FlexDevice)?;
    for size in SIZES {
        for (part, seeds) in ["chosen on", "reported on"].into_iter().zip(SEEDS) {
            println!("\n{size} + {size} prompts, {part} seeds {seeds:?}: node AUC");
            let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
            for task in Task::ALL {
                let methods = methods(task)?;
                let mut sums = vec![0.0; methods.len()];
                for seed in seeds {
                    let judged: JudgedTask<Flex> = judged_task(
                        &loaded,
                        task,
                        size,
                        Seed::new(seed),
                        CaptureSettings::default(),
                        &FlexDevice,
                        &NoProgress,
                    )?;
                    for ((_, method), sum) in methods.iter().zip(&mut sums) {
                        let scores =
                            method.scores(&judged.evidence, Seed::new(seed), &NoProgress)?;
                        *sum += judge(&scores, &judged.truths[0])?.node_auc / seeds.len() as f64;
                    }
                }
                for (at, (name, _)) in methods.iter().enumerate() {
                    if rows.len() <= at {
                        rows.push((name, Vec::new()));
                    }
                    rows[at].1.push(sums[at]);
                }
            }
            println!("| score | IOI | greater-than | docstring | induction | mean |");
            println!("|---|---|---|---|---|---|");
            for (name, values) in rows {
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let cells: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
                println!("| {name} | {} | {mean:.3} |", cells.join(" | "));
            }
        }
    }
    Ok(())
}
