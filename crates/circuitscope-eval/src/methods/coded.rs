use circuitscope_core::{Polarity, workers};
use circuitscope_measures::Scores;
use circuitscope_score::CodeTable;

use crate::{Measured, Result};

/// Scores made of codes alone: resamples and other labels cost no more than counting.
pub(super) struct Coded<F, N> {
    /// The codes of one dictionary or several.
    pub(super) tables: Vec<CodeTable>,
    /// Scores of the tables, which all hold the same examples.
    pub(super) score: F,
    /// What a test of significance compares: see [`Measured::relabelled`].
    pub(super) nodes: N,
}

impl<F, N> Measured for Coded<F, N>
where
    F: Fn(&[CodeTable]) -> Result<Scores>,
    N: Fn(&[CodeTable]) -> Result<Vec<f64>> + Sync,
{
    fn scores(&self, rows: Option<&[usize]>) -> Result<Scores> {
        let Some(rows) = rows else {
            return (self.score)(&self.tables);
        };
        let selected = self.tables.iter().map(|table| table.select(rows));
        (self.score)(&selected.collect::<Result<Vec<_>, _>>()?)
    }

    /// On all cores.
    fn relabelled(&self, labellings: &[Vec<Polarity>]) -> Option<Result<Vec<Vec<f64>>>> {
        let (tables, nodes) = (&self.tables, &self.nodes);
        let mut all = vec![Vec::new(); labellings.len()];
        let under = |(): &(), at: usize, _: &_| {
            let tables = tables.iter();
            let tables = tables.map(|table| table.with_labels(labellings[at].clone()));
            nodes(&tables.collect::<Result<Vec<_>, _>>()?)
        };
        let outcome = workers::run(
            workers::cores(),
            labellings.len(),
            || (),
            under,
            |at, scores| {
                all[at] = scores;
                Ok(())
            },
        );
        Some(outcome.map(|()| all))
    }
}

/// Copies what was found for some examples, head by head, to their places among all.
pub(super) fn place<T: Copy>(all: &mut [T], examples: &[usize], found: &[T]) {
    let heads = found.len() / examples.len().max(1);
    for (&example, found) in examples.iter().zip(found.chunks_exact(heads.max(1))) {
        all[example * heads..(example + 1) * heads].copy_from_slice(found);
    }
}
