use serde::{Deserialize, Serialize};

use super::Outcome;

/// How one step found the dictionary, *before* its update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StepRecord {
    /// The step, from 0.
    pub step: u64,
    /// Rows of its batch.
    pub rows: usize,
    /// What is minimised: [`error`](Self::error), the auxiliary term and the penalty.
    pub loss: f64,
    /// The mean over rows of `|ŷ − y|²`, summed over `d_out`.
    pub error: f64,
    /// The auxiliary term, by which dead features learn.
    pub aux: f64,
    /// The share of this batch's variance that is not reconstructed, `Σ|ŷ − y|² / Σ|y − ȳ|²`; NaN where all rows are
    /// equal.
    pub fvu: f64,
    /// Mean number of active features of a row.
    pub l0: f64,
    /// Features that were dead before this step.
    pub dead: usize,
    /// Adam's step size.
    pub learning_rate: f64,
}

/// What was found on all rows since the trainer began, or since
/// [`reset_statistics`](super::StreamTrainer::reset_statistics). Each step is counted as it was before its update.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StreamStatistics {
    /// Steps.
    pub steps: u64,
    /// Rows.
    pub rows: u64,
    /// The mean of the losses of steps.
    pub loss: f64,
    /// The share of the variance that is not reconstructed, pooled: `Σ|ŷ − y|² / Σ|y − ȳ|²` over all rows and
    /// coordinates, with `ȳ` the mean of all rows. NaN where all rows are equal, or there are none.
    pub fvu: f64,
    /// Mean number of active features of a row.
    pub l0: f64,
    /// Features that are dead now.
    pub dead: usize,
    /// On which share of rows each feature was active, `[d_sae]`: for a histogram of densities.
    pub firing_rates: Vec<f64>,
}

/// Sums over steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    steps: u64,
    rows: u64,
    loss: f64,
    squared_error: f64,
    mean: Vec<f64>,
    spread: f64,
    fired: Vec<u64>,
}

impl Window {
    pub(super) fn new(d_out: usize, d_sae: usize) -> Self {
        Self {
            steps: 0,
            rows: 0,
            loss: 0.0,
            squared_error: 0.0,
            mean: vec![0.0; d_out],
            spread: 0.0,
            fired: vec![0; d_sae],
        }
    }

    pub(super) const fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn fits(&self, d_out: usize, d_sae: usize) -> bool {
        self.mean.len() == d_out && self.fired.len() == d_sae
    }

    /// Means and spreads are joined as Chan and others (1979) do it: nothing large cancels.
    pub(super) fn add(&mut self, outcome: &Outcome, loss: f64) {
        let (before, rows) = (self.rows as f64, outcome.rows as f64);
        let all = before + rows;
        let mut between = 0.0;
        for (mean, own) in self.mean.iter_mut().zip(&outcome.mean) {
            let apart = own - *mean;
            between += apart * apart;
            *mean += apart * rows / all;
        }
        self.spread += outcome.spread + between * before * rows / all;
        self.steps += 1;
        self.rows += outcome.rows as u64;
        self.loss += loss;
        self.squared_error += outcome.squared_error;
        for (sum, fired) in self.fired.iter_mut().zip(&outcome.fired) {
            *sum += fired;
        }
    }

    pub(super) fn read(&self, dead: usize) -> StreamStatistics {
        let rows = self.rows as f64;
        let rate = |fired: &u64| *fired as f64 / rows.max(1.0);
        let firing_rates: Vec<f64> = self.fired.iter().map(rate).collect();
        StreamStatistics {
            steps: self.steps,
            rows: self.rows,
            loss: self.loss / self.steps as f64,
            fvu: fvu(self.squared_error, self.spread),
            l0: self.fired.iter().sum::<u64>() as f64 / rows,
            dead,
            firing_rates,
        }
    }
}

pub(super) fn fvu(squared_error: f64, spread: f64) -> f64 {
    if spread > 0.0 {
        squared_error / spread
    } else {
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three batches of unequal sizes, far from 0, against all rows at once.
    #[test]
    fn spreads_are_pooled() {
        let y: Vec<f32> = (0..14).map(|i| 1e3 + (i * i % 11) as f32).collect();
        let mut window = Window::new(2, 1);
        for rows in [&y[..2], &y[2..8], &y[8..]] {
            window.add(&Outcome::of_targets(rows, 2), 0.0);
        }
        let whole = Outcome::of_targets(&y, 2);
        assert!((window.spread - whole.spread).abs() < 1e-9 * whole.spread);
        for (a, b) in window.mean.iter().zip(&whole.mean) {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
    }
}
