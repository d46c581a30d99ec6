//! From integer codes to scores: how often a head, or a pair of heads, says on positive examples
//! what it never says on negative ones.
//!
//! Everything starts from a [`CodeTable`]: for each example and head, the index of the head's
//! strongest dictionary feature, and for each example its label. From here on there are only
//! integers, and `f64` ratios of them, so the same codes give the same scores, bit for bit, on every
//! machine.
//!
//! Three scores are kept apart, because the code published with the paper (arXiv 2405.12522) gives
//! two of them the same name:
//!
//! | score | of | here |
//! |---|---|---|
//! | node score | a head | [`node_scores`] |
//! | edge score | a writer in an earlier layer and a reader in a later one | [`pair_scores`], then [`PairScores::directed`] |
//! | what the authors' code calls the edge score | a head again: how often it occurs among the top pairs | [`PairScores::paper_head_counts`] |
//!
//! A vector on which no feature is active has a code of its own, [`Code::Inactive`];
//! [`CodeTable::paper_compatible`] turns it into code 0, as the authors' `argmax` does.
//!
//! ```
//! use circuitscope_core::{HeadGrid, HeadId, Polarity::{Negative, Positive}};
//! use circuitscope_score::{CodeTable, node_scores, pair_scores};
//!
//! # fn main() -> Result<(), circuitscope_score::Error> {
//! // Two layers of one head. Alone, both heads use codes 1 and 2 on either side; together they
//! // agree on positives only.
//! let table = CodeTable::new(
//!     HeadGrid::new(2, 1),
//!     vec![Positive, Positive, Negative, Negative],
//!     vec![
//!         1, 1, //
//!         2, 2, //
//!         1, 2, //
//!         2, 1,
//!     ],
//! )?;
//! assert!(node_scores(&table)?.iter().all(|score| score.unique == 0));
//!
//! let edges = pair_scores(&table)?.directed();
//! assert_eq!(edges.len(), 1);
//! assert_eq!((edges[0].source, edges[0].destination), (HeadId::new(0, 0), HeadId::new(1, 0)));
//! assert_eq!((edges[0].unique, edges[0].union), (2, 4));
//! # Ok(())
//! # }
//! ```
//!
//! # Notation
//! `e` runs over examples, `h` over heads in layer-major order; `z[e, h]` is a code; `P_h` and `N_h`
//! are the sets of codes of head `h` on positive and on negative examples.

mod amplitude;
mod columns;
mod display;
mod error;
mod file;
mod flip;
mod information;
mod mutual;
mod node;
mod pair;
mod paper;
pub mod stats;
mod table;

pub use amplitude::amplitude_scores;
pub use display::{above_threshold, softmax};
pub use error::{Error, Result};
pub use file::tensor_names;
pub use flip::paired_flip_rate;
pub use information::{Carried, carried};
pub use mutual::mutual_information;
pub use node::{NodeScore, node_scores};
pub use pair::{EdgeScore, PairScores, pair_scores};
pub use table::{Code, CodeTable};

pub use circuitscope_core::INACTIVE;
