//! The shipped reference model, and the way from prompts to a circuit.
#![expect(
    clippy::print_stdout,
    reason = "the figures are shown with --nocapture"
)]
#![expect(clippy::unwrap_used, reason = "test helpers fail by panicking")]

mod attribution;
mod causal_methods;
mod doors;
mod families;
mod planted_program;
mod reference_model;
mod roles;
mod streaming;
mod tracr_edges;

use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::JudgedTask;
use circuitscope::model::{LoadSettings, Processing};
use circuitscope::tasks::TaskSpec;
use circuitscope::{
    CaptureSettings, PrepareSettings, judged_task, known_circuits, load_reference, prepare_task,
};
use circuitscope::{Exec, NoProgress, Seed};

/// As the program loads a model on a CPU.
fn on_all_cores(processing: Processing) -> LoadSettings {
    LoadSettings::from(processing).with_exec(Exec::all_cores())
}

/// A task in the reference model, with its known circuit.
fn judged(
    task: &TaskSpec,
    pairs: usize,
    seed: Seed,
    how: PrepareSettings,
    capture: CaptureSettings,
) -> JudgedTask<Flex> {
    let loaded = load_reference::<Flex>(on_all_cores(Processing::Folded), &FlexDevice).unwrap();
    let prompts = prepare_task(&loaded, task, pairs, seed, how).unwrap();
    let truths = known_circuits(&loaded, task, None).unwrap().truths;
    let judged = judged_task(&loaded, &prompts, truths, capture, &FlexDevice, &NoProgress);
    judged.unwrap()
}
