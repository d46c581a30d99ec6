//! Rows whose features are known: random directions that fire now and then. What a dictionary made of them is
//! measured against the truth, which no model's activations allow.

use circuitscope_core::Seed;
use circuitscope_core::draw::{normal_pair, unit};
use derive_setters::Setters;
use rand_chacha::ChaCha8Rng;

use crate::config::{in_range, positive};
use crate::init::{narrow, normalise_rows, normals};
use crate::{Error, Result};

/// How rows are made: `Σ a_i direction_i + noise`, with random directions of length 1. Each feature fires on its own with
/// one probability; its magnitude `a` is uniform in [.5, 1.5) then, and 0 otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct Synthetic {
    /// Number of directions.
    pub n_features: usize,
    /// Width of rows.
    pub d: usize,
    /// With which probability a feature fires on a row. Default .05.
    pub probability: f64,
    /// Standard deviation of the noise in each coordinate. Default 0.
    pub noise: f64,
}

impl Synthetic {
    /// `n_features` directions in `d` dimensions.
    #[must_use]
    pub const fn new(n_features: usize, d: usize) -> Self {
        Self {
            n_features,
            d,
            probability: 0.05,
            noise: 0.0,
        }
    }

    /// Draws the directions.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting that is out of range.
    ///
    /// # Determinism
    /// Directions come from the seed's stream `synthetic/directions`, rows from `synthetic/rows`, one after the other:
    /// how many are asked for at once does not change them.
    ///
    /// # Examples
    /// ```
    /// use circuitscope_core::Seed;
    /// use circuitscope_sae::synthetic::Synthetic;
    ///
    /// let mut stream = Synthetic::new(6, 4).stream(Seed::new(0))?;
    /// let first: f32 = stream.directions()[..4].iter().map(|x| x * x).sum();
    /// assert!((first - 1.0).abs() < 1e-6);
    /// assert_eq!(stream.next_rows(10).len(), 40);
    /// # Ok::<(), circuitscope_sae::Error>(())
    /// ```
    pub fn stream(self, seed: Seed) -> Result<SyntheticRows> {
        positive("n_features", self.n_features)?;
        positive("d", self.d)?;
        let (probability, noise) = (self.probability, self.noise);
        let share = (0.0..=1.0).contains(&probability);
        in_range("probability", probability, share, "a number in [0, 1]")?;
        in_range("noise", noise, noise >= 0.0, "a finite number, at least 0")?;
        let mut rng = seed.stream("synthetic/directions").rng();
        let mut directions = normals(&mut rng, self.n_features * self.d);
        normalise_rows(&mut directions, self.d);
        Ok(SyntheticRows {
            settings: self,
            directions: narrow(&directions),
            rng: seed.stream("synthetic/rows").rng(),
        })
    }
}

/// Rows without end.
#[derive(Debug, Clone)]
pub struct SyntheticRows {
    settings: Synthetic,
    directions: Vec<f32>,
    rng: ChaCha8Rng,
}

impl SyntheticRows {
    /// The true features, `[n_features, d]`, row by row, each of length 1.
    pub fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// The next rows, `[rows, d]`, row by row.
    pub fn next_rows(&mut self, rows: usize) -> Vec<f32> {
        let Synthetic {
            d,
            probability,
            noise,
            ..
        } = self.settings;
        let mut values = vec![0.0f32; rows * d];
        for row in values.chunks_exact_mut(d) {
            for direction in self.directions.chunks_exact(d) {
                if unit(&mut self.rng) < probability {
                    let magnitude = (0.5 + unit(&mut self.rng)) as f32;
                    for (value, along) in row.iter_mut().zip(direction) {
                        *value += magnitude * along;
                    }
                }
            }
            if noise > 0.0 {
                for pair in row.chunks_mut(2) {
                    for (value, normal) in pair.iter_mut().zip(normal_pair(&mut self.rng)) {
                        *value += (noise * normal) as f32;
                    }
                }
            }
        }
        values
    }
}

/// How well learned atoms are the true directions: each gets one partner, such that the sum of their cosines is as
/// large as it can be (the Hungarian method), and the mean of these cosines over all pairs is the result. The field calls it MCC
/// (Song et al. 2025, arXiv 2505.20254; SAELens' `mean_correlation_coefficient`). SAELens takes absolute cosines; here an
/// atom that points the other way is none of a feature whose magnitude is positive.
///
/// # Shapes
/// - `learned`: `[n, d]`, `truth`: `[m, d]`, row by row, of any length; an atom of zeros has cosine 0 with everything.
///   There are `min(n, m)` pairs.
///
/// # Errors
/// [`Error::Config`] if one is not made of rows of width `d`, [`Error::Empty`] if one has none, [`Error::NonFinite`].
///
/// # Examples
/// ```
/// use circuitscope_sae::synthetic::mean_max_cosine;
///
/// let truth = [1.0, 0.0, 0.0, 1.0];
/// assert_eq!(mean_max_cosine(&[0.0, 3.0, 2.0, 0.0], &truth, 2)?, 1.0);
/// // Two atoms of one feature are one match.
/// assert_eq!(mean_max_cosine(&[1.0, 0.0, 1.0, 0.0], &truth, 2)?, 0.5);
/// # Ok::<(), circuitscope_sae::Error>(())
/// ```
pub fn mean_max_cosine(learned: &[f32], truth: &[f32], d: usize) -> Result<f64> {
    positive("d", d)?;
    let mut sides = [learned, truth];
    sides.sort_by_key(|side| side.len());
    let [few, many] = [unit_rows(sides[0], d)?, unit_rows(sides[1], d)?];
    let cosine = |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let costs: Vec<Vec<f64>> = few
        .iter()
        .map(|a| many.iter().map(|b| -cosine(a, b)).collect())
        .collect();
    let partners = assignment(&costs);
    let matched = partners.iter().enumerate().map(|(a, &b)| -costs[a][b]);
    Ok(matched.sum::<f64>() / few.len() as f64)
}

/// Rows of length 1; a row of zeros stays one.
fn unit_rows(rows: &[f32], d: usize) -> Result<Vec<Vec<f64>>> {
    if !rows.len().is_multiple_of(d) {
        return Err(Error::Config {
            field: "d",
            found: format!("{d}, for {} numbers", rows.len()),
            expected: "a divisor of how many numbers there are",
        });
    }
    if rows.is_empty() {
        return Err(Error::Empty);
    }
    if let Some(at) = rows.iter().position(|value| !value.is_finite()) {
        let row = at / d;
        return Err(Error::NonFinite { rows: row..row + 1 });
    }
    let unit = |row: &[f32]| {
        let norm = row
            .iter()
            .map(|x| f64::from(*x).powi(2))
            .sum::<f64>()
            .sqrt();
        let norm = if norm > 0.0 { norm } else { 1.0 };
        row.iter().map(|x| f64::from(*x) / norm).collect()
    };
    Ok(rows.chunks_exact(d).map(unit).collect())
}

/// The column of each row such that no two rows share one and the sum of costs is least, for at least as many columns
/// as rows: the Hungarian method with potentials, one row at a time (Kuhn 1955; Jonker & Volgenant 1987).
fn assignment(costs: &[Vec<f64>]) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let rows = costs.len();
    let columns = costs.first().map_or(0, Vec::len);
    // Column 0 stands for the row that is being placed; the others are one further.
    let mut row_of = vec![NONE; columns + 1];
    let (mut of_row, mut of_column) = (vec![0.0; rows], vec![0.0; columns + 1]);
    for row in 0..rows {
        row_of[0] = row;
        let mut column = 0;
        let mut slack = vec![f64::INFINITY; columns + 1];
        let mut from = vec![0; columns + 1];
        let mut seen = vec![false; columns + 1];
        while row_of[column] != NONE {
            seen[column] = true;
            let current = row_of[column];
            let (mut least, mut next) = (f64::INFINITY, 0);
            for other in 1..=columns {
                if seen[other] {
                    continue;
                }
                let reduced = costs[current][other - 1] - of_row[current] - of_column[other];
                if reduced < slack[other] {
                    slack[other] = reduced;
                    from[other] = column;
                }
                if slack[other] < least {
                    (least, next) = (slack[other], other);
                }
            }
            for other in 0..=columns {
                if seen[other] {
                    of_row[row_of[other]] += least;
                    of_column[other] -= least;
                } else {
                    slack[other] -= least;
                }
            }
            column = next;
        }
        while column != 0 {
            row_of[column] = row_of[from[column]];
            column = from[column];
        }
    }
    let mut partners = vec![0; rows];
    for (column, &row) in row_of.iter().enumerate().skip(1) {
        if row != NONE {
            partners[row] = column - 1;
        }
    }
    partners
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against all permutations of five of six columns.
    #[test]
    fn assignments_are_optimal() {
        fn best(costs: &[Vec<f64>], used: &mut Vec<bool>, row: usize) -> f64 {
            if row == costs.len() {
                return 0.0;
            }
            let mut least = f64::INFINITY;
            for column in 0..used.len() {
                if !used[column] {
                    used[column] = true;
                    least = least.min(costs[row][column] + best(costs, used, row + 1));
                    used[column] = false;
                }
            }
            least
        }
        for seed in 0..20 {
            let mut rng = Seed::new(seed).rng();
            let numbers = normals(&mut rng, 30);
            let costs: Vec<Vec<f64>> = numbers.chunks(6).map(<[f64]>::to_vec).collect();
            let found: f64 = assignment(&costs)
                .iter()
                .enumerate()
                .map(|(row, &column)| costs[row][column])
                .sum();
            let least = best(&costs, &mut vec![false; 6], 0);
            assert!((found - least).abs() < 1e-12, "{found} {least}");
        }
    }

    #[test]
    fn rows_do_not_depend_on_how_many_are_asked_for() {
        let mut whole = Synthetic::new(9, 5)
            .with_noise(0.1)
            .stream(Seed::new(3))
            .unwrap();
        let mut parts = whole.clone();
        let rows = whole.next_rows(7);
        let mut joined = parts.next_rows(3);
        joined.extend(parts.next_rows(4));
        assert_eq!(rows, joined);
    }
}
