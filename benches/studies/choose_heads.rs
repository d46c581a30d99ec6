//! What each rule that chooses heads without a known circuit gives where the circuit is known: heads
//! chosen, false ones among them, true ones left out, on the reference model's four tasks.
//!
//! ```text
//! cargo bench -p circuitscope-benches --bench choose_heads
//! ```
//! The table is in `docs/methods/choosing.md`.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]
#![recursion_limit = "256"]

use std::error::Error;

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::methods::{MethodSettings, method};
use circuitscope::eval::{Choice, ChooseSettings, choose};
use circuitscope::measures::Selection;
use circuitscope::model::{LoadSettings, Processing};
use circuitscope::tasks::TASKS;
use circuitscope::{
    CaptureSettings, PrepareSettings, judged_task, known_circuits, load_reference, prepare_task,
};
use circuitscope::{Exec, HeadId, NoProgress, Seed};

type B = Autodiff<Flex>;

const METHODS: [&str; 8] = [
    "recommended",
    "sae",
    "untrained-ensemble",
    "recommended-activations",
    "k-means",
    "mean-difference",
    "eap",
    "hisp",
];
const CHOICES: [(&str, Choice); 5] = [
    ("otsu", Choice::Rule(Selection::Otsu)),
    ("fdr:0.05", Choice::FalseDiscoveryRate(0.05)),
    ("stability:0.9", Choice::Stability(0.9)),
    ("stability:0.6", Choice::Stability(0.6)),
    ("knee", Choice::Knee),
];

/// Prompts other than those that anything was chosen on.
const SEED: Seed = Seed::new(100);
/// Pairs that the knee runs.
const PAIRS: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let settings = LoadSettings::from(Processing::Folded).with_exec(Exec::all_cores());
    let loaded = load_reference::<Flex>(settings, &FlexDevice)?;
    let settings = CaptureSettings::default();
    let tasks = TASKS
        .iter()
        .map(|task| {
            let prompts = prepare_task(&loaded, task, 250, SEED, PrepareSettings::default())?;
            let truths = known_circuits(&loaded, task, None)?.truths;
            judged_task(
                &loaded,
                &prompts,
                truths,
                settings,
                &FlexDevice,
                &NoProgress,
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    println!(
        "| method | choice | IOI | greater-than | docstring | induction |\n|---|---|---|---|---|---|"
    );
    for name in METHODS {
        let mut cells = vec![Vec::new(); CHOICES.len()];
        for (task, judged) in TASKS.iter().zip(&tasks) {
            let settings = MethodSettings::for_task(task);
            let method = method::<B>(name, &settings, &FlexDevice)?;
            let evidence = &judged.evidence;
            let measured = method.measure(evidence, SEED, &NoProgress)?;
            let scores = measured.scores(None)?;
            let truth: Vec<HeadId> = judged.truths[0].circuit.heads().collect();
            for ((_, choice), cells) in CHOICES.into_iter().zip(&mut cells) {
                let (method, measured) = (method.as_ref(), measured.as_ref());
                let how = ChooseSettings::default()
                    .with_choice(Some(choice))
                    .with_pairs(PAIRS)
                    .with_seed(SEED);
                let chosen = choose(how, method, measured, &scores, evidence, &NoProgress);
                // Not every method has every choice.
                let Ok(chosen) = chosen else {
                    cells.push("–".to_owned());
                    continue;
                };
                let heads: Vec<HeadId> = chosen.circuit.heads().collect();
                let wrong = heads.iter().filter(|head| !truth.contains(head)).count();
                let missed = truth.iter().filter(|head| !heads.contains(head)).count();
                cells.push(format!("{}, {wrong} false, {missed} missed", heads.len()));
            }
        }
        for ((choice, _), cells) in CHOICES.into_iter().zip(cells) {
            println!("| `{name}` | `{choice}` | {} |", cells.join(" | "));
        }
    }
    Ok(())
}
