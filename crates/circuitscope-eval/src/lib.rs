//! Methods that find circuits, controls that keep them honest, and the measures that judge both.
//!
//! A method is a [`Discover`]: it turns [`Evidence`] (one vector for each head and example, with
//! labels) into [`Scores`](circuitscope_measures::Scores). [`judge`](circuitscope_measures::judge) compares scores with a known circuit; [`evaluate`] runs many
//! methods on many tasks with many seeds and keeps every result as soon as it is there;
//! [`summarise`](circuitscope_measures::summarise) makes the table. Controls are methods like any other, stand in the same table, and
//! a method that is not clearly above one of them is marked so ([`SummaryRow::not_above`](circuitscope_measures::SummaryRow::not_above)).
//!
//! Adding a method is one file in `methods/` and one line in its table.
//!
//! ```
//! use burn::tensor::{Distribution, Tensor};
//! use circuitscope_core::{HeadGrid, HeadId, NoProgress, Polarity, Seed};
//! use circuitscope_eval::{Discover, Evidence, methods::MeanDifference};
//!
//! type B = burn_flex::Flex;
//! # fn main() -> Result<(), circuitscope_eval::Error> {
//! // Two layers of two heads; only L1H0 tells positives (first two rows) from negatives.
//! let grid = HeadGrid::new(2, 2);
//! let quiet = [[0.0, 1.0]; 4];
//! let mut loud = quiet;
//! loud[2] = [5.0, 1.0];
//! let activations = Tensor::<B, 3>::from_data([loud, loud, quiet, quiet], &Default::default());
//! let labels = [Polarity::Positive, Polarity::Positive, Polarity::Negative, Polarity::Negative];
//! let evidence = Evidence::new(grid, activations, labels.to_vec(), vec![(0, 2), (1, 3)])?;
//!
//! let scores = MeanDifference::default().scores(&evidence, Seed::new(0), &NoProgress)?;
//! assert_eq!(scores.ranking()[0], (HeadId::new(1, 0), 5.0));
//! # Ok(())
//! # }
//! ```

#![recursion_limit = "256"]

mod ablate;
mod about;
mod behaviour;
mod cache;
mod cards;
pub mod causal;
mod choice;
mod choose;
mod cross;
mod encodings;
mod error;
mod evaluate;
mod evidence;
mod faithful;
mod frequencies;
mod hypotheses;
mod means;
mod method;
pub mod methods;
mod null;
mod quality;
mod significance;
mod sizes;
mod source;
mod words;

pub use ablate::HeadCircuits;
pub use about::{About, Gradient, Needs, Passes};
pub use behaviour::{Behaviour, Estimate, PairBehaviour, Share};
pub use cards::{CardSettings, PromptParts, cards};
pub use choice::{Choice, UnknownChoice};
pub use choose::{ChooseSettings, Chosen, KneeChoice, StableChoice, Verdict, choose};
pub use cross::kept_shares;
pub use error::{Error, Result, Unaligned};
pub use evaluate::{EVALUATING, EvaluateSettings, JudgedTask, evaluate, run};
pub use evidence::Evidence;
pub use faithful::measure_faithfulness;
pub use frequencies::Frequencies;
pub use hypotheses::{CircuitTests, Draws, Equivalence, MemberTest, TestSettings, test_circuit};
pub use method::{Discover, Measured};
pub use null::{Null, null};
pub use quality::{CircuitQuality, QualitySettings, circuit_quality};
pub use significance::{Significance, significance};
pub use sizes::{KeptBySize, kept_by_size};
pub use source::ActivationSource;
