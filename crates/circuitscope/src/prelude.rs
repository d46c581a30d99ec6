//! What most programs that link circuitscope need, in one line.
//!
//! ```
//! use circuitscope::burn::backend::Autodiff;
//! use circuitscope::prelude::*;
//!
//! type B = burn_flex::Flex;
//!
//! # fn main() -> Result<(), circuitscope::Error> {
//! let device = Default::default();
//! let model = load_reference::<B>(Processing::Folded, &device)?;
//! let prompts = prepare_task(&model, &IOI, 10, Seed::new(0), PrepareSettings::default())?;
//! let evidence = capture(&model, &prompts, CaptureSettings::default(), &device, &NoProgress)?;
//!
//! let best = Choice::Rule(Selection::Top(3));
//! let settings = DiscoverSettings::default().with_choice(Some(best));
//! let found = discover::<Autodiff<B>>(&evidence, &settings, &device, &NoProgress)?;
//! let heads: Vec<HeadId> = found.chosen.circuit.heads().collect();
//! assert_eq!(heads.len(), 3);
//! # Ok(())
//! # }
//! ```

pub use circuitscope_core::{
    Circuit, Exec, HeadGrid, HeadId, Metric, NoProgress, Polarity, Progress, Seed,
};
pub use circuitscope_eval::causal::Ablation;
pub use circuitscope_eval::methods::{
    BoxedMethod, MethodSettings, PatchingSettings, SaeSettings, method,
};
pub use circuitscope_eval::{
    Choice, Discover, EvaluateSettings, Evidence, JudgedTask, Measured, evaluate,
};
pub use circuitscope_hooks::Site;
pub use circuitscope_measures::{Judgement, Scores, Selection, judge};
pub use circuitscope_model::{LoadSettings, Loaded, Precision, Processing};
pub use circuitscope_tasks::{
    DOCSTRING, GREATER_THAN, GroundTruth, INDUCTION, IOI, Prompt, PromptPair, Slot, TASKS,
    TaskSpec, write_pairs,
};

pub use crate::{
    CaptureSettings, DiscoverSettings, Discovery, PrepareSettings, PreparedPrompts, capture,
    discover, judged_task, load_reference, prepare, prepare_task,
};
