use std::collections::BTreeSet;

use circuitscope_core::Polarity;

use crate::{CodeTable, Error, Result};

/// How strongly each head speaks in codes of its own: the mean over positives of the amplitude of
/// codes that never occur on negatives, 0 where the code does.
///
/// Unlike the count of unique codes it weighs a code by how often and how strongly it occurs. One
/// entry for each head, in layer-major order. Beyond the paper.
///
/// # Errors
/// [`Error::EmptyClass`]; [`Error::NoAmplitudes`] for a table without them.
///
/// # Examples
/// ```
/// use circuitscope_core::{HeadGrid, Polarity::{Negative, Positive}};
/// use circuitscope_score::{CodeTable, amplitude_scores};
///
/// # fn main() -> Result<(), circuitscope_score::Error> {
/// let labels = vec![Positive, Positive, Negative];
/// let table = CodeTable::new(HeadGrid::new(1, 1), labels, vec![1, 2, 2])?;
/// // Code 1 is the only one that is seen on positives alone.
/// let table = table.with_amplitudes(vec![3.0, 9.0, 9.0])?;
/// assert_eq!(amplitude_scores(&table)?, [1.5]);
/// # Ok(())
/// # }
/// ```
pub fn amplitude_scores(table: &CodeTable) -> Result<Vec<f64>> {
    table.require_both_classes()?;
    let amplitudes = table.amplitudes().ok_or(Error::NoAmplitudes)?;
    let heads = table.grid().len();
    let examples = |polarity: Polarity| {
        let labels = table.labels().iter().enumerate();
        labels
            .filter(move |(_, label)| **label == polarity)
            .map(|(example, _)| example)
    };
    let positives = examples(Polarity::Positive).count() as f64;
    let scores = (0..heads).map(|head| {
        let code = |example: usize| table.codes()[example * heads + head];
        let negative: BTreeSet<i32> = examples(Polarity::Negative).map(code).collect();
        let own =
            examples(Polarity::Positive).filter(|&example| !negative.contains(&code(example)));
        let sum: f64 = own
            .map(|example| f64::from(amplitudes[example * heads + head]))
            .sum();
        sum / positives
    });
    Ok(scores.collect())
}
