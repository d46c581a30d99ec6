#![doc = include_str!("../README.md")]
#![recursion_limit = "256"]

mod align;
mod answers;
mod behaviour;
mod cards;
mod circuits;
pub mod conformance;
#[cfg(feature = "cpu")]
pub mod cpu;
mod crossed;
mod discover;
mod error;
pub mod found;
mod given_dictionary;
mod judged_by;
mod named;
pub mod prelude;
mod prepare;
mod prepared;
mod provenance;
mod results;
mod start;
mod stream;
pub mod text;

/// The tensor library whose backends and devices everything here takes, in the version that this is built with.
pub use burn;
pub use circuitscope_core::{
    Circuit, Edge, Exec, Graph, HeadGrid, HeadId, INACTIVE, Metric, NoProgress, Node, ParseError,
    Polarity, Port, Progress, Seed, Stage, TRAINING, UnknownName, did_you_mean, draw, names,
    nearest, workers,
};
pub use circuitscope_eval as eval;
pub use circuitscope_features as features;
pub use circuitscope_files as files;
pub use circuitscope_hooks as hooks;
pub use circuitscope_measures as measures;
pub use circuitscope_model as model;
pub use circuitscope_reference as reference;
pub use circuitscope_report as report;
pub use circuitscope_sae as sae;
pub use circuitscope_score as score;
pub use circuitscope_tasks as tasks;

pub use answers::{ChangedAnswers, MetricChoice, metric_choice};
pub use behaviour::{FailingPrompt, PromptBehaviour, SeenPrompt};
pub use cards::cards;
pub use circuits::{
    CircuitChoice, KnownAs, KnownCircuits, circuits_if_known, is_reference, judged_as, known_as,
    known_circuits, read_circuits,
};
pub use crossed::{CrossSettings, cross_tasks, two_tasks};
pub use discover::{DiscoverSettings, Discovery, discover, discover_by, discover_with};
pub use error::{Error, Result};
pub use given_dictionary::{DictionaryOrigin, GivenDictionary, encodes_heads};
pub use judged_by::JudgedBy;
pub use named::{ModelSource, REFERENCE};
pub use prepare::{
    CaptureSettings, DISCOVER_PAIRS, EVAL_PAIRS, capture, causal_evidence, causal_where_possible,
    judged_task, load_reference, prepare_task, task_prompts, vocabulary,
};
pub use prepared::{PrepareSettings, PreparedPrompts, prepare};
pub use provenance::{Provenance, available_memory, human_bytes, peak_memory};
pub use results::{
    EvalProvenance, EvalSettings, RESULTS_FILE, Results, Schema, behaviour_file, model_name, whose,
};
pub use start::PromptStart;
