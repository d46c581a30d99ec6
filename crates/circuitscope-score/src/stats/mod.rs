//! How sure one may be of a score: resamples of the examples, intervals, tests against controls and
//! against chance, and thresholds that need no known circuit.
//!
//! | question | here | source |
//! |---|---|---|
//! | how much does a number vary with the prompts? | [`half_samples`], [`Deviations`] | Shao & Wu 1989; Politis, Romano & Wolf 1999 |
//! | do the chosen circuits agree? | [`jaccard`], [`mean_pairwise_jaccard`], beside [`chance_jaccard`] | |
//! | is a method ahead of a control? | [`PairedComparison`] | the same, of the difference |
//! | does a head score more than by chance? | [`LabelNull`] | Phipson & Smyth 2010 |
//! | which of many such heads to keep? | [`benjamini_hochberg`], [`Discoveries`] | Benjamini & Hochberg 1995 |
//! | which heads are chosen again and again? | [`half_samples`], [`Stability`] | Meinshausen & Bühlmann 2010 |
//! | do two numbers of the same prompts depend on each other? | [`Hsic`] | Gretton et al. 2007 |
//! | is a share of draws above another? | [`binomial_at_least`] | |
//! | where does a curve bend? | [`knee`] | Satopaa et al. 2011 |
//!
//! Every random choice comes from a [`Seed`](circuitscope_core::Seed): resample `i` of a seed is the
//! same however many are drawn.
//!
//! ```
//! use circuitscope_core::{HeadGrid, Polarity::{Negative, Positive}, Seed};
//! use circuitscope_score::{CodeTable, node_scores};
//! use circuitscope_score::stats::{Deviations, half_samples};
//!
//! # fn main() -> Result<(), circuitscope_score::Error> {
//! // Four matched pairs; the head has a code of its own for each positive.
//! let labels = [[Positive; 4], [Negative; 4]].concat();
//! let pairs = [(0, 4), (1, 5), (2, 6), (3, 7)];
//! let table = CodeTable::new(HeadGrid::new(1, 1), labels.clone(), vec![1, 2, 3, 4, 0, 0, 0, 0])?;
//! let unique = |table: &CodeTable| Ok::<f64, circuitscope_score::Error>(node_scores(table)?[0].unique.into());
//! let halves = half_samples(&labels, &pairs, 100, Seed::new(0))?;
//! let of_halves = halves.iter().map(|half| unique(&table.select(half.rows())?));
//! let of_halves = of_halves.collect::<Result<Vec<_>, _>>()?;
//! // Every half of the pairs has two of the four codes: the count grows with the data, and varies not at all.
//! let deviations = Deviations::new(unique(&table)?, &of_halves, halves[0].scale())?;
//! let interval = deviations.interval(0.95)?;
//! assert_eq!((interval.low, interval.high), (4.0, 4.0));
//! # Ok(())
//! # }
//! ```

mod binomial;
mod deviations;
mod fdr;
mod hsic;
mod interval;
mod knee;
mod null;
mod paired;
mod resample;
mod stability;

pub use binomial::binomial_at_least;
pub use deviations::Deviations;
pub use fdr::{Discoveries, benjamini_hochberg};
pub use hsic::Hsic;
pub use interval::{Interval, chance_jaccard, jaccard, mean_pairwise_jaccard, quantile};
pub use knee::{Bend, Knee, knee};
pub use null::{LabelNull, relabellings};
pub use paired::PairedComparison;
pub use resample::{Resample, half_samples};
pub use stability::{Stability, StableHeads};
