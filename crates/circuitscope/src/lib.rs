#![doc = include_str!("../../../README.md")]
#![recursion_limit = "256"]

mod align;
mod answers;
mod behaviour;
mod circuits;
pub mod conformance;
mod discover;
mod error;
mod prepare;
mod prepared;
mod stream;

pub use circuitscope_core as core;
pub use circuitscope_eval as eval;
pub use circuitscope_hooks as hooks;
pub use circuitscope_measures as measures;
pub use circuitscope_model as model;
pub use circuitscope_report as report;
pub use circuitscope_sae as sae;
pub use circuitscope_score as score;
pub use circuitscope_tasks as tasks;

pub use answers::{ChangedAnswers, MetricChoice, metric_choice};
pub use behaviour::{FailingPrompt, PromptBehaviour, SeenPrompt};
pub use circuits::{KnownAs, is_reference, known_as, known_circuits};
pub use discover::{DiscoverSettings, Discovery, discover, discover_by, discover_with};
pub use error::{Error, Result};
pub use prepare::{
    CaptureSettings, TaskPrompts, capture, causal_evidence, default_metric, judged_task,
    load_reference, prepare_task, task_prompts, vocabulary,
};
pub use prepared::{PrepareSettings, PreparedPrompts, prepare};
