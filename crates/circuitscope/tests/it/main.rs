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
mod streaming;
mod tracr_edges;

use circuitscope::core::Exec;
use circuitscope::model::{LoadSettings, Processing};

/// As the program loads a model on a CPU.
fn on_all_cores(processing: Processing) -> LoadSettings {
    LoadSettings::from(processing).with_exec(Exec::all_cores())
}
