//! Prompts that call for a behaviour, matched prompts that do not, and the circuits known for it.
//!
//! A circuit is found by comparing what the heads of a model do on two classes of prompts, so the
//! classes must differ in the behaviour and in nothing else. Every generator here draws *pairs*:
//! the negative prompt is its positive with the few words changed that the behaviour hangs on, it
//! has the same length in tokens, and it carries the same answers. [`generate`] draws them for a
//! [`TaskSpec`] in a [`Vocabulary`], one of [`TASKS`] or one that [`read_task`] finds in a folder; [`read_pairs`] and [`read_lines`] read the user's own, [`write_pairs`]
//! writes any of them.
//!
//! What is found is judged against a [`GroundTruth`]: published circuits exist in several
//! versions that disagree in a head or two, so each is a named variant with its source, and edges
//! are expanded from the rules in which they were published.
//!
//! The words, templates and circuits are data files under `datasets/`, compiled into the crate; a
//! README beside them says where each comes from. The crate depends on no tensor library and no
//! tokenizer: where tokens matter, it takes a function ([`TokenEncoder`]).
//!
//! ```
//! use circuitscope_core::Seed;
//! use circuitscope_tasks::{GREATER_THAN, INDUCTION, Vocabulary, check_answers, generate, ground_truths};
//!
//! # fn main() -> Result<(), circuitscope_tasks::Error> {
//! // Words of the reference model are its tokens; another model's tokenizer goes here.
//! let tokens = |text: &str| Ok(text.split(' ').map(|word| word.len() as u32).collect());
//! let set = generate(&INDUCTION, Vocabulary::Reference, 250, Seed::new(0), Some(&tokens))?;
//! assert!(check_answers(&set, &tokens)?.is_empty(), "every answer is one token");
//!
//! // Positives first, then negatives; `pairs` says which belong together.
//! let prompts = set.labelled();
//! assert_eq!(prompts.texts.len(), 500);
//! assert_eq!(prompts.pairs[0], (0, 250));
//!
//! let circuit = &ground_truths(&GREATER_THAN, "gpt2-small")?[0].circuit;
//! assert_eq!(circuit.heads().count(), 9);
//! # Ok(())
//! # }
//! ```

mod check;
mod data;
mod error;
mod folder;
mod generate;
mod generator;
mod ground_truth;
mod known;
mod lexicon;
mod next;
mod prompt;
mod registry;
mod spec;
mod template;
mod templates;
mod user;
mod vocabulary;
mod warning;

pub use check::{SplitAnswer, check_answers};
pub use error::{BoxError, Error, LineProblem, Result};
pub use folder::{TASK_FILE, read_task};
pub use generate::{DOCSTRING, GREATER_THAN, INDUCTION, IOI, MAX_DRAWS, draw, generate};
pub use generator::{Generator, MakeGenerator};
pub use ground_truth::{AcdcEdge, GroundTruth, ground_truths, read_circuits};
pub use known::{KNOWN_MODELS, KnownModel, MODELS};
pub use next::{TokenEncoder, following};
pub use prompt::{
    AnswerToken, Answers, LabelledPrompts, Origin, Place, Prompt, PromptPair, PromptSet, Slot, Span,
};
pub use registry::{TASKS, task};
pub use spec::{OwnCircuit, TaskSpec};
pub use user::{parse_pairs, read_lines, read_pairs, read_prompts, write_pairs};
pub use vocabulary::Vocabulary;
pub use warning::{PromptWarning, few_examples, prompt_warnings};
