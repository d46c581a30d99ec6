//! Whether heads lead for how loud they are, or by chance.

use std::collections::BTreeMap;

use circuitscope_measures::spearman;

use super::{Found, RankedHead};

/// Rank correlation of scores and norms from which on it is warned of.
const LOUD: f64 = 0.7;
/// Heads below which such a correlation may well be chance.
const ENOUGH: usize = 8;

impl Found {
    /// A value of every head in index order, where all heads have it.
    pub(super) fn by_index(&self, value: impl Fn(&RankedHead) -> Option<f64>) -> Option<Vec<f64>> {
        let grid = self.grid();
        let values = self.heads.iter().map(|ranked| {
            let index = grid.index(ranked.head)?;
            Some((index, value(ranked)?))
        });
        let values: Option<BTreeMap<usize, f64>> = values.collect();
        let values: Vec<f64> = values?.into_values().collect();
        (values.len() == grid.len()).then_some(values)
    }

    /// Mean lengths of heads' outputs in index order, where they were measured.
    pub fn norms(&self) -> Option<Vec<f64>> {
        self.by_index(|ranked| ranked.norm)
    }

    /// Whether heads lead for the size of what they put out.
    pub(super) fn loudness(&self) -> Option<String> {
        let norms: Option<Vec<f64>> = self.heads.iter().map(|ranked| ranked.norm).collect();
        let scores: Vec<f64> = self.heads.iter().map(|ranked| ranked.score).collect();
        let rho =
            spearman(&scores, &norms?).filter(|rho| *rho >= LOUD && scores.len() >= ENOUGH)?;
        Some(format!(
            "warning: the ranking follows the norm, the mean length of what a head puts out (rank correlation {rho:.2}): \
             loud heads lead by this method on any prompts"
        ))
    }

    /// Whether it cannot be told from chance what stands out here: the prompts are too few, and no circuit was run to choose.
    pub fn is_untold(&self) -> bool {
        let chosen = self.chosen.as_ref().filter(|chosen| chosen.knee.is_none());
        let null = chosen.and_then(|chosen| chosen.null.as_ref());
        null.is_some_and(|null| null.too_few)
    }
}
