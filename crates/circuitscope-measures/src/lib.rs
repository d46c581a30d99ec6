//! What methods say of a model's heads, what that is worth against a known answer, and how it is kept.
//!
//! [`Scores`] are what every method gives; a [`Selection`] chooses heads from them, [`judge`] compares them with a
//! known circuit, and a [`RunStore`] keeps each judged [`RunRecord`], of which [`summarise`] makes the table.
//! [`formats`] reads and writes scores as other tools do. Nothing here needs a tensor library or a device.
//!
//! # Conventions
//!
//! Published numbers differ by convention as much as by method, so none is implicit here:
//!
//! | measure | convention |
//! |---|---|
//! | [`Ranking::auc`] | trapezoid rule, as scikit-learn's `roc_curve` and `auc`: a tie between a true and a false entry counts one half |
//! | [`Ranking::auc_pessimistic`] | area under the lower staircase, as ACDC's figures: such a tie counts nothing |
//! | [`circuits_auc_pessimistic`] | the same through single circuits, without those that another beats in both rates: reproduces ACDC's published table |
//! | [`Ranking::average_precision`] | sum over thresholds, without interpolation, as scikit-learn's `average_precision_score` |
//! | [`Ranking::best_f1`] | F1 = harmonic mean of precision and recall |
//! | [`Ranking::best_paper_f1`] | harmonic mean of sensitivity and *specificity*, which the code of arXiv 2405.12522 prints as F1 |
//! | [`spearman`] | Pearson's r of ranks, equal values sharing the mean of theirs, as scipy's `spearmanr` |
//! | [`mean_std`] | population standard deviation (divisor n) |
//!
//! ```
//! use circuitscope_measures::Ranking;
//!
//! # fn main() -> Result<(), circuitscope_measures::Error> {
//! // Four heads; the first two are in the circuit. The second ties with a head that is not.
//! let ranking = Ranking::new(&[true, true, false, false], &[9.0, 5.0, 5.0, 1.0])?;
//! assert_eq!(ranking.auc(), 7.0 / 8.0);
//! assert_eq!(ranking.auc_pessimistic(), 6.0 / 8.0);
//! assert_eq!(ranking.best_f1().f1, 0.8);
//! assert_eq!(ranking.best_f1().size, 3);
//! # Ok(())
//! # }
//! ```

pub mod cards;
pub mod compare;
mod correlation;
mod cross;
mod curves;
mod discovery;
mod error;
mod faithfulness;
pub mod formats;
mod json;
mod judge;
mod ranking;
mod roc;
mod runs;
mod scores;
mod select;
mod spread;
mod store;
mod summary;

pub use compare::Comparison;
pub use correlation::{average_ranks, pearson, spearman};
pub use cross::{CrossTask, KeptShare};
pub use curves::{Curve, Faithfulness, Point};
pub use discovery::{CircuitFigures, DISCOVERY_FILE, DiscoveryFile, FoundHead};
pub use error::{Error, Result};
pub use faithfulness::{Baseline, MIB_SIZES, Order, accuracy_area, circuit_size, cmd, cpr};
pub use json::{read_json, read_kept, write_json};
pub use judge::{Judgement, Spread, judge};
pub use ranking::{BestF1, Ranking};
pub use roc::{RocPoint, circuits_auc, circuits_auc_pessimistic, mean_roc};
pub use runs::{Resampled, RunKey, RunOutline, RunRecord};
pub use scores::{ContrastScores, DictionaryReport, GraphScores, Scores, directed_pairs};
pub use select::Selection;
pub use spread::mean_std;
pub use store::{FolderStore, MemoryStore, RunStore, SETTINGS_FILE};
pub use summary::{Against, SummaryRow, summarise};
