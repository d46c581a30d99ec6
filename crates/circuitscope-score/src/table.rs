use circuitscope_core::{HeadGrid, INACTIVE, Polarity};
use serde::Serialize;

use crate::{Error, Result};

/// What a dictionary says of one head on one example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Code {
    /// No feature is active.
    Inactive,
    /// Index of the strongest feature.
    Feature(u32),
}

/// One code for each example and head, and one label for each example.
///
/// Scores never depend on the order of examples: positives are told from negatives by their label.
///
/// # Shapes
/// - codes: `[examples, heads]`, row-major, heads in layer-major order
/// - labels: `[examples]`
/// - amplitudes, where known: as codes
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CodeTable {
    grid: HeadGrid,
    labels: Vec<Polarity>,
    codes: Vec<i32>,
    /// How active each code's feature is.
    #[serde(skip)]
    amplitudes: Option<Vec<f32>>,
}

impl CodeTable {
    /// Checks and keeps codes: a feature index, or [`INACTIVE`].
    ///
    /// # Shapes
    /// - `labels`: `[examples]`
    /// - `codes`: `[examples, heads]`, row-major
    ///
    /// # Errors
    /// [`Error::NoHeads`], [`Error::CodeCount`], or [`Error::Code`] for a number below −1. A class
    /// without examples is an error of the scores, not of the table.
    ///
    /// # Examples
    /// ```
    /// use circuitscope_core::{HeadGrid, Polarity};
    /// use circuitscope_score::{Code, CodeTable};
    ///
    /// # fn main() -> Result<(), circuitscope_score::Error> {
    /// let table = CodeTable::new(HeadGrid::new(1, 2), vec![Polarity::Positive], vec![7, -1])?;
    /// assert_eq!(table.code(0, 0), Code::Feature(7));
    /// assert_eq!(table.code(0, 1), Code::Inactive);
    ///
    /// let error = CodeTable::new(HeadGrid::new(1, 2), vec![Polarity::Positive], vec![7]);
    /// assert_eq!(
    ///     error.unwrap_err().to_string(),
    ///     "found 1 codes, expected 1 examples × 2 heads = 2"
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(grid: HeadGrid, labels: Vec<Polarity>, codes: Vec<i32>) -> Result<Self> {
        let heads = grid.len();
        if heads == 0 {
            return Err(Error::NoHeads {
                n_layers: grid.n_layers,
                n_heads: grid.n_heads,
            });
        }
        if codes.len() != labels.len() * heads {
            return Err(Error::CodeCount {
                found: codes.len(),
                examples: labels.len(),
                heads,
            });
        }
        if let Some(at) = codes.iter().position(|&code| code < INACTIVE) {
            return Err(Error::Code {
                example: at / heads,
                head: grid.head(at % heads),
                found: codes[at].into(),
            });
        }
        Ok(Self {
            grid,
            labels,
            codes,
            amplitudes: None,
        })
    }

    /// The same with the activation of each code's feature, 0 where none is active.
    ///
    /// # Shapes
    /// - `amplitudes`: `[examples, heads]`, row-major
    ///
    /// # Errors
    /// [`Error::CodeCount`] for another number of them, [`Error::Amplitude`] for one that is not finite.
    pub fn with_amplitudes(mut self, amplitudes: Vec<f32>) -> Result<Self> {
        if amplitudes.len() != self.codes.len() {
            return Err(Error::CodeCount {
                found: amplitudes.len(),
                examples: self.examples(),
                heads: self.grid.len(),
            });
        }
        if let Some(at) = amplitudes.iter().position(|value| !value.is_finite()) {
            return Err(Error::Amplitude {
                example: at / self.grid.len(),
                head: at % self.grid.len(),
                found: amplitudes[at],
            });
        }
        self.amplitudes = Some(amplitudes);
        Ok(self)
    }

    /// The activation of each code's feature, `[examples, heads]`, where known.
    pub fn amplitudes(&self) -> Option<&[f32]> {
        self.amplitudes.as_deref()
    }

    /// Shape of the model.
    pub const fn grid(&self) -> HeadGrid {
        self.grid
    }

    /// Number of examples.
    pub const fn examples(&self) -> usize {
        self.labels.len()
    }

    /// One label for each example.
    pub fn labels(&self) -> &[Polarity] {
        &self.labels
    }

    /// All codes, `[examples, heads]`; [`INACTIVE`] where no feature is active.
    pub fn codes(&self) -> &[i32] {
        &self.codes
    }

    /// The code of one head on one example.
    ///
    /// # Panics
    /// If there is no such example or head.
    pub fn code(&self, example: usize, head: usize) -> Code {
        assert!(head < self.grid.len(), "head {head} of {}", self.grid.len());
        match self.codes[example * self.grid.len() + head] {
            INACTIVE => Code::Inactive,
            feature => Code::Feature(feature.unsigned_abs()),
        }
    }

    /// The same table as the authors' code would have it: their `argmax` of a vector without an
    /// active feature is 0, so inactive examples look like those of feature 0.
    #[must_use]
    pub fn paper_compatible(&self) -> Self {
        Self {
            codes: self.codes.iter().map(|&code| code.max(0)).collect(),
            ..self.clone()
        }
    }

    /// The examples `rows`, in that order and with repetitions: what a
    /// [`Resample`](crate::stats::Resample) of the examples says.
    ///
    /// # Errors
    /// [`Error::Row`].
    ///
    /// # Examples
    /// ```
    /// use circuitscope_core::{HeadGrid, Polarity::{Negative, Positive}};
    /// use circuitscope_score::CodeTable;
    ///
    /// # fn main() -> Result<(), circuitscope_score::Error> {
    /// let labels = vec![Positive, Negative, Negative];
    /// let table = CodeTable::new(HeadGrid::new(1, 1), labels, vec![7, 8, 9])?;
    /// let again = table.select(&[2, 0, 2])?;
    /// assert_eq!(again.codes(), [9, 7, 9]);
    /// assert_eq!(again.labels(), [Negative, Positive, Negative]);
    /// assert_eq!(
    ///     table.select(&[3]).unwrap_err().to_string(),
    ///     "row 0 of a selection: found example 3, expected one of 3"
    /// );
    /// # Ok(())
    /// # }
    /// ```
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        let examples = self.examples();
        if let Some(at) = rows.iter().position(|&row| row >= examples) {
            return Err(Error::Row {
                at,
                found: rows[at],
                examples,
            });
        }
        let heads = self.grid.len();
        let places = || rows.iter().map(|&row| row * heads..(row + 1) * heads);
        let amplitudes = self.amplitudes.as_ref().map(|all| {
            let chosen = places().flat_map(|place| &all[place]);
            chosen.copied().collect()
        });
        Ok(Self {
            grid: self.grid,
            labels: rows.iter().map(|&row| self.labels[row]).collect(),
            codes: places()
                .flat_map(|place| &self.codes[place])
                .copied()
                .collect(),
            amplitudes,
        })
    }

    /// The same codes under other labels, one for each example.
    ///
    /// # Errors
    /// [`Error::CodeCount`] for another number of labels.
    pub fn with_labels(&self, labels: Vec<Polarity>) -> Result<Self> {
        let table = Self::new(self.grid, labels, self.codes.clone())?;
        Ok(Self {
            amplitudes: self.amplitudes.clone(),
            ..table
        })
    }

    /// Fails unless both classes have examples.
    pub(crate) fn require_both_classes(&self) -> Result<()> {
        for polarity in [Polarity::Positive, Polarity::Negative] {
            if !self.labels.contains(&polarity) {
                return Err(Error::EmptyClass { polarity });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Polarity::{Negative, Positive};

    #[test]
    fn refuses_what_is_no_table() {
        let none = CodeTable::new(HeadGrid::new(0, 4), vec![], vec![]).unwrap_err();
        assert!(none.to_string().contains("0 layers × 4 heads"));

        let low = CodeTable::new(
            HeadGrid::new(2, 1),
            vec![Positive, Negative],
            vec![0, 1, -1, -2],
        );
        assert_eq!(
            low.unwrap_err().to_string(),
            "code of example 1, head L1H0: found -2, expected a feature index or -1 (inactive)"
        );
    }

    #[test]
    fn paper_view_changes_inactive_alone() {
        let table =
            CodeTable::new(HeadGrid::new(1, 3), vec![Positive], vec![INACTIVE, 0, 5]).unwrap();
        assert_eq!(table.paper_compatible().codes(), [0, 0, 5]);
        assert_eq!(table.codes(), [-1, 0, 5]);
    }
}
