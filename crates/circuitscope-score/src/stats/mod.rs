//! How sure one may be of a score: resamples of the examples, intervals, tests against controls and
//! against chance, and thresholds that need no known circuit.
//!
//! | question | here | source |
//! |---|---|---|
//! | how much does a number vary with the prompts? | [`bootstrap`], [`Interval::percentile`] | Efron & Tibshirani 1993, §13 |
//! | do the chosen circuits agree? | [`jaccard`], [`mean_pairwise_jaccard`] | |
//! | is a method ahead of a control? | [`PairedComparison`] | Efron & Tibshirani 1993, §15-16 |
//! | does a head score more than by chance? | [`LabelNull`] | Phipson & Smyth 2010 |
//! | which of many such heads to keep? | [`benjamini_hochberg`], [`Discoveries`] | Benjamini & Hochberg 1995 |
//! | which heads are chosen again and again? | [`half_samples`], [`Stability`] | Meinshausen & Bühlmann 2010 |
//! | where does a curve bend? | [`knee`] | Satopaa et al. 2011 |
//!
//! Every random choice comes from a [`Seed`](circuitscope_core::Seed): resample `i` of a seed is the
//! same however many are drawn.
//!
//! ```
//! use circuitscope_core::{HeadGrid, Polarity::{Negative, Positive}, Seed};
//! use circuitscope_score::{CodeTable, node_scores};
//! use circuitscope_score::stats::{Interval, bootstrap};
//!
//! # fn main() -> Result<(), circuitscope_score::Error> {
//! // Four matched pairs; the head has a code of its own for each positive.
//! let labels = [[Positive; 4], [Negative; 4]].concat();
//! let pairs = [(0, 4), (1, 5), (2, 6), (3, 7)];
//! let table = CodeTable::new(HeadGrid::new(1, 1), labels.clone(), vec![1, 2, 3, 4, 0, 0, 0, 0])?;
//! let mut unique = Vec::new();
//! for resample in bootstrap(&labels, &pairs, 100, Seed::new(0))? {
//!     unique.push(node_scores(&table.select(resample.rows())?)?[0].unique.into());
//! }
//! // Four draws of four pairs seldom hold all of them.
//! let interval = Interval::percentile(&unique, 0.95)?;
//! assert!(interval.low >= 1.0 && interval.high <= 4.0);
//! # Ok(())
//! # }
//! ```

mod fdr;
mod interval;
mod knee;
mod null;
mod paired;
mod resample;
mod stability;

pub use fdr::{Discoveries, benjamini_hochberg};
pub use interval::{Interval, jaccard, mean_pairwise_jaccard, quantile};
pub use knee::{Bend, Knee, knee};
pub use null::{LabelNull, relabellings};
pub use paired::PairedComparison;
pub use resample::{Resample, bootstrap, half_samples};
pub use stability::{Stability, StableHeads};
