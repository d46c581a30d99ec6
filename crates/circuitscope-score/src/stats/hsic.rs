use circuitscope_core::{Seed, draw};
use serde::{Deserialize, Serialize};

use super::interval::{quantile, require_finite};
use crate::{Error, Result};

/// Whether two numbers measured on the same things depend on each other, in whatever way: the Hilbert-Schmidt
/// independence criterion with Gaussian kernels (Gretton et al. 2007, "A kernel statistical test of independence"), tested by permutations.
///
/// `HSIC = tr(K H L H) / (n − 1)²`, `K` and `L` the kernels of the two and `H` what centres; the width σ of a kernel
/// `exp(−(a − b)² / 2σ²)` is the median distance between two things. The p-value is `(1 + #{permutations with as large an
/// HSIC}) / (1 + permutations)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Hsic {
    /// The criterion, from 0.
    pub statistic: f64,
    /// Of "they are independent".
    pub p_value: f64,
}

impl Hsic {
    /// Of `x` and `y`, `[things]` each; permutation `i` is drawn from `seed.nth("hsic", i)`.
    ///
    /// # Errors
    /// [`Error::TooFew`] for fewer than 2 things, [`Error::Value`] for a number that is not finite.
    ///
    /// # Panics
    /// If there are not as many of `x` as of `y`.
    ///
    /// ```
    /// use circuitscope_core::Seed;
    /// use circuitscope_score::stats::Hsic;
    ///
    /// # fn main() -> Result<(), circuitscope_score::Error> {
    /// let x: Vec<f64> = (0..30).map(f64::from).collect();
    /// // A parabola: no correlation, and yet no independence.
    /// let y: Vec<f64> = x.iter().map(|x| (x - 14.5) * (x - 14.5)).collect();
    /// assert!(Hsic::new(&x, &y, 500, Seed::new(0))?.p_value < 0.01);
    /// assert_eq!(Hsic::new(&x, &[1.0; 30], 500, Seed::new(0))?.p_value, 1.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(x: &[f64], y: &[f64], permutations: usize, seed: Seed) -> Result<Self> {
        assert_eq!(x.len(), y.len(), "two numbers of every thing");
        let n = x.len();
        if n < 2 {
            return Err(Error::TooFew {
                what: "pairs of numbers",
                found: n,
                expected: 2,
            });
        }
        require_finite("number", x)?;
        require_finite("number", y)?;
        let (k, l) = (centred(kernel(x)?, n), kernel(y)?);
        let of = |order: &[usize]| {
            let rows = order.iter().enumerate();
            let sum: f64 = rows
                .map(|(i, &a)| {
                    let row = order.iter().enumerate();
                    row.map(|(j, &b)| k[i * n + j] * l[a * n + b]).sum::<f64>()
                })
                .sum();
            sum / ((n - 1) * (n - 1)) as f64
        };
        let mut order: Vec<usize> = (0..n).collect();
        let statistic = of(&order).max(0.0);
        // Rounding makes no independence of equal sums.
        let least = statistic - 1e-12;
        let mut as_large = 0;
        for at in 0..permutations {
            order.sort_unstable();
            let mut rng = seed.nth("hsic", at as u64).rng();
            draw::choose_first(&mut rng, &mut order, n);
            as_large += usize::from(of(&order) >= least);
        }
        Ok(Self {
            statistic,
            p_value: (1 + as_large) as f64 / (1 + permutations) as f64,
        })
    }
}

/// `[n * n]`; 1 everywhere where the median distance is 0.
fn kernel(values: &[f64]) -> Result<Vec<f64>> {
    let n = values.len();
    let distances = (1..n).flat_map(|b| (0..b).map(move |a| (a, b)));
    let distances: Vec<f64> = distances
        .map(|(a, b)| (values[a] - values[b]).abs())
        .collect();
    let width = quantile(&distances, 0.5)?;
    let pairs = values
        .iter()
        .flat_map(|a| values.iter().map(move |b| a - b));
    Ok(pairs
        .map(|off| {
            if width > 0.0 {
                (-off * off / (2.0 * width * width)).exp()
            } else {
                1.0
            }
        })
        .collect())
}

/// `H K H`.
fn centred(mut kernel: Vec<f64>, n: usize) -> Vec<f64> {
    let means: Vec<f64> = kernel
        .chunks(n)
        .map(|row| row.iter().sum::<f64>() / n as f64)
        .collect();
    let mean = means.iter().sum::<f64>() / n as f64;
    for (i, row) in kernel.chunks_mut(n).enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            *value += mean - means[i] - means[j];
        }
    }
    kernel
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, n: usize) -> Vec<f64> {
        let mut rng = Seed::new(seed).stream("test").rng();
        (0..n).map(|_| draw::unit(&mut rng)).collect()
    }

    /// Numbers drawn apart are called dependent at 5 % in about 5 of 100 cases.
    #[test]
    fn level() {
        let found = (0..200).filter(|&at| {
            let (x, y) = (draws(2 * at, 20), draws(2 * at + 1, 20));
            Hsic::new(&x, &y, 99, Seed::new(at)).unwrap().p_value <= 0.05
        });
        let found = found.count();
        assert!((2..=20).contains(&found), "{found} of 200");
    }

    /// `tr(K H L H) / (n − 1)²` of three things, by hand: with x = y = 0, 1, 2 the median distance is 1.
    #[test]
    fn statistic() {
        let (a, b) = ((-0.5f64).exp(), (-2.0f64).exp());
        let k = [[1.0, a, b], [a, 1.0, a], [b, a, 1.0]];
        let mut centred = [[0.0; 3]; 3];
        for i in 0..3 {
            for j in 0..3 {
                let mean = |values: [f64; 3]| values.iter().sum::<f64>() / 3.0;
                let all = mean(k.map(mean));
                centred[i][j] = k[i][j] - mean(k[i]) - mean(k[j]) + all;
            }
        }
        let sum: f64 = centred.as_flattened().iter().map(|x| x * x).sum();
        let found = Hsic::new(&[0.0, 1.0, 2.0], &[0.0, 1.0, 2.0], 9, Seed::new(0)).unwrap();
        assert!((found.statistic - sum / 4.0).abs() < 1e-12);
    }
}
