//! Whether heads lead for how loud they are, or by chance.

use std::collections::BTreeMap;

use circuitscope::measures::spearman;

use super::found::Found;

/// Rank correlation of scores and norms from which on it is warned of.
const LOUD: f64 = 0.7;
/// Heads below which such a correlation may well be chance.
const ENOUGH: usize = 8;

impl Found {
    /// Mean lengths of heads' outputs in index order, where they were measured.
    pub(super) fn norms(&self) -> Option<Vec<f64>> {
        let grid = self.grid();
        let norms = self.heads.iter().map(|ranked| {
            let index = grid.index(ranked.head)?;
            Some((index, ranked.norm?))
        });
        let norms: Option<BTreeMap<usize, f64>> = norms.collect();
        let norms: Vec<f64> = norms?.into_values().collect();
        (norms.len() == grid.len()).then_some(norms)
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
    pub(super) fn is_untold(&self) -> bool {
        let chosen = self.chosen.as_ref().filter(|chosen| chosen.knee.is_none());
        let null = chosen.and_then(|chosen| chosen.null.as_ref());
        null.is_some_and(|null| null.too_few)
    }
}
