use circuitscope_core::HeadId;
use serde::{Deserialize, Serialize};

use crate::columns::Columns;
use crate::{CodeTable, Result};

/// How many codes a head keeps for positive examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeScore {
    /// The head.
    pub head: HeadId,
    /// `|P_h \ N_h|`: codes seen on positives and never on negatives. The paper's score.
    pub unique: u32,
    /// `|P_h ∪ N_h|`: codes seen at all. At least 1.
    pub union: u32,
    /// `|P_h|`: codes seen on positives.
    pub positive: u32,
    /// `|N_h|`: codes seen on negatives.
    pub negative: u32,
    /// `unique / union`, between 0 and 1.
    pub normalised: f64,
}

/// Scores every head by the codes that are unique to positive examples (arXiv 2405.12522, node
/// level): `|P_h \ N_h|`, and the same divided by `|P_h ∪ N_h|`.
///
/// One entry for each head, in layer-major order. For the authors' numbers, score
/// [`CodeTable::paper_compatible`].
///
/// # Errors
/// [`Error::EmptyClass`](crate::Error::EmptyClass).
///
/// # Examples
/// ```
/// use circuitscope_core::{HeadGrid, Polarity::{Negative, Positive}};
/// use circuitscope_score::{CodeTable, node_scores};
///
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// let labels = vec![Positive, Positive, Negative];
/// let table = CodeTable::new(HeadGrid::new(1, 1), labels, vec![3, -1, 3])?;
/// let score = node_scores(&table)?[0];
/// assert_eq!((score.unique, score.union, score.normalised), (1, 2, 0.5));
/// # Ok(())
/// # }
/// ```
pub fn node_scores(table: &CodeTable) -> Result<Vec<NodeScore>> {
    table.require_both_classes()?;
    let columns = Columns::of(table);
    let scores = table
        .grid()
        .heads()
        .zip(&columns.columns)
        .map(|(head, column)| {
            let mut sides = vec![(false, false); column.distinct];
            for (at, &code) in column.codes.iter().enumerate() {
                let (positive, negative) = &mut sides[code as usize];
                *(if at < columns.negatives {
                    negative
                } else {
                    positive
                }) = true;
            }
            let count = |keep: fn(&(bool, bool)) -> bool| {
                sides.iter().filter(|side| keep(side)).count() as u32
            };
            let unique = count(|side| side.0 && !side.1);
            let union = column.distinct as u32;
            NodeScore {
                head,
                unique,
                union,
                positive: count(|side| side.0),
                negative: count(|side| side.1),
                normalised: f64::from(unique) / f64::from(union),
            }
        });
    Ok(scores.collect())
}
