//! Dictionaries trained on streams of rows, a batch at a time: more rows than fit in memory, features that die and
//! are revived, runs that are interrupted.
//!
//! [`StreamTrainer`] takes rows from anywhere, in the order in which they come. `docs/methods/dictionaries.md` has the
//! objectives in full, and what differs from SAELens.

mod checkpoint;
mod config;
mod device;
mod gate;
mod host;
mod params;
mod select;
mod statistics;
mod trained;
mod trainer;
mod vector;

use rayon::prelude::*;

pub use checkpoint::CHECKPOINT_FILE;
pub use config::{Objective, StreamConfig};
pub use statistics::{StepRecord, StreamStatistics};
pub use trained::TrainedDictionary;
pub use trainer::{StreamGradients, StreamTrainer};

/// Rows in the host's memory.
#[derive(Debug, Clone, Copy)]
struct Batch<'a> {
    /// `[rows, d_in]`
    x: &'a [f32],
    /// `[rows, d_out]`
    y: &'a [f32],
    rows: usize,
}

/// What a batch gave, beside gradients.
#[derive(Debug, Clone, PartialEq)]
struct Outcome {
    rows: usize,
    /// `Σ|ŷ − y|²` over all rows.
    squared_error: f64,
    /// The auxiliary term of the loss.
    aux: f64,
    /// What the penalty is a multiple of: a mean over rows.
    penalised: f64,
    /// On how many rows each feature was active.
    fired: Vec<u64>,
    /// The smallest activation that was kept.
    least_kept: Option<f32>,
    /// The mean row of `y`.
    mean: Vec<f64>,
    /// `Σ|y − mean|²` over all rows.
    spread: f64,
}

impl Outcome {
    /// With what is known of the rows that are to be reconstructed, `[rows, d_out]`.
    fn of_targets(y: &[f32], d_out: usize) -> Self {
        let rows = y.len() / d_out;
        let mean = mean_row(y, d_out);
        let spread: Vec<f64> = y
            .par_chunks(64 * d_out)
            .map(|rows| {
                let squares = |row: &[f32]| -> f64 {
                    let deviation = row.iter().zip(&mean).map(|(y, mean)| f64::from(*y) - mean);
                    deviation.map(|deviation| deviation * deviation).sum()
                };
                rows.chunks_exact(d_out).map(squares).sum()
            })
            .collect();
        Self {
            rows,
            squared_error: 0.0,
            aux: 0.0,
            penalised: 0.0,
            fired: Vec::new(),
            least_kept: None,
            spread: spread.iter().sum(),
            mean,
        }
    }
}

/// The mean of rows of this width.
fn mean_row(rows: &[f32], width: usize) -> Vec<f64> {
    let parts: Vec<Vec<f64>> = rows
        .par_chunks(64 * width)
        .map(|rows| {
            let mut sum = vec![0.0; width];
            for row in rows.chunks_exact(width) {
                for (sum, value) in sum.iter_mut().zip(row) {
                    *sum += f64::from(*value);
                }
            }
            sum
        })
        .collect();
    let mut mean = vec![0.0; width];
    for part in parts {
        mean.iter_mut()
            .zip(part)
            .for_each(|(mean, part)| *mean += part);
    }
    let count = (rows.len() / width).max(1) as f64;
    for mean in &mut mean {
        *mean /= count;
    }
    mean
}

impl StreamConfig {
    /// The weight of the auxiliary term with so many dead features: `c min(1, dead / k_aux)`.
    fn aux_weight(&self, dead: usize) -> Option<f64> {
        let share = (dead as f64 / self.k_aux as f64).min(1.0);
        let weight = self.aux_coefficient * share;
        (self.objective.revives() && weight > 0.0).then_some(weight)
    }
}
