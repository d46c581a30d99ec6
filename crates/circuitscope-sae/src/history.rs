use serde::{Deserialize, Serialize};

/// How training went. Entry `i` of every list belongs to step `i`, *before* its update, so that
/// the first entry describes the untrained dictionary.
///
/// With `m` training vectors `x` of width `d`, their reconstructions `x̂` and their feature
/// activations `f`:
///
/// - `mse` = Σ‖x̂ − x‖² / (m d), the mean over all entries;
/// - `l1` = Σ‖f‖₁ / m, the mean over the vectors;
/// - `loss` = `mse` + λ · `l1`;
/// - `l0`, the mean number of active features of a vector;
/// - `explained_variance` = 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², where `x̄` is the mean training vector:
///   all deviations are summed before the division, so that no coordinate counts more than its
///   variance. It is at most 1, and negative where the mean alone would do better. Where all
///   training vectors are equal it is 1 if they are reproduced exactly and 0 otherwise;
/// - `dead`, the number of features active on no training vector.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct History {
    /// What is minimised.
    pub loss: Vec<f64>,
    /// Mean squared error.
    pub mse: Vec<f64>,
    /// Mean L1 norm of the feature activations.
    pub l1: Vec<f64>,
    /// Mean number of active features.
    pub l0: Vec<f64>,
    /// Share of the variance that the reconstruction explains.
    pub explained_variance: Vec<f64>,
    /// Number of features that are active on no training vector.
    pub dead: Vec<usize>,
}

impl History {
    /// Number of recorded steps.
    pub fn len(&self) -> usize {
        self.loss.len()
    }

    /// Whether no step was recorded.
    pub fn is_empty(&self) -> bool {
        self.loss.is_empty()
    }
}

/// See [`History::explained_variance`]: from the mean squared error and the mean squared deviation
/// from the mean vector, both per entry.
pub(crate) fn explained_variance(mse: f64, variance: f64) -> f64 {
    if variance > 0.0 {
        1.0 - mse / variance
    } else if mse == 0.0 {
        1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explained_variance_of_limits() {
        assert_eq!(explained_variance(0.0, 2.0), 1.0);
        assert_eq!(explained_variance(2.0, 2.0), 0.0);
        assert_eq!(explained_variance(6.0, 2.0), -2.0);
        assert_eq!(explained_variance(0.0, 0.0), 1.0);
        assert_eq!(explained_variance(0.1, 0.0), 0.0);
    }
}
