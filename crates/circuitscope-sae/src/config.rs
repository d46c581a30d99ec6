use circuitscope_core::Exec;
use serde::{Deserialize, Serialize};

use crate::{Dictionary, Error, Result};

/// Size and objective of a [`SparseAutoencoder`](crate::SparseAutoencoder).
///
/// ```
/// use circuitscope_sae::{Dictionary, SaeConfig};
///
/// let config = SaeConfig::new(768).with_l1_coefficient(0.05);
/// assert_eq!((config.d_in, config.d_sae), (768, 200));
/// assert_eq!(config.dictionary, Dictionary::PaperCompatible);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SaeConfig {
    /// Width of the activations.
    pub d_in: usize,
    /// Number of features. Default 200.
    pub d_sae: usize,
    /// Weight λ of the sparsity penalty. Default 0.02; the paper's docstring task takes 0.05.
    pub l1_coefficient: f64,
    /// Which vectors of the decoder have unit length. Default: as the authors' code.
    pub dictionary: Dictionary,
}

impl SaeConfig {
    /// The paper's settings for activations of width `d_in`.
    #[must_use]
    pub const fn new(d_in: usize) -> Self {
        Self {
            d_in,
            d_sae: 200,
            l1_coefficient: 0.02,
            dictionary: Dictionary::PaperCompatible,
        }
    }

    /// With `d_sae` features.
    #[must_use]
    pub const fn with_d_sae(mut self, d_sae: usize) -> Self {
        self.d_sae = d_sae;
        self
    }

    /// With the sparsity penalty weighted by `l1_coefficient`.
    #[must_use]
    pub const fn with_l1_coefficient(mut self, l1_coefficient: f64) -> Self {
        self.l1_coefficient = l1_coefficient;
        self
    }

    /// With `dictionary`.
    #[must_use]
    pub const fn with_dictionary(mut self, dictionary: Dictionary) -> Self {
        self.dictionary = dictionary;
        self
    }

    /// # Errors
    /// [`Error::Config`] if a size is zero or λ is negative or not finite.
    pub(crate) fn validate(&self) -> Result<()> {
        positive("d_in", self.d_in)?;
        positive("d_sae", self.d_sae)?;
        // Codes are `i32`.
        if i32::try_from(self.d_sae).is_err() {
            return Err(Error::Config {
                field: "d_sae",
                found: self.d_sae.to_string(),
                expected: "at most 2147483647",
            });
        }
        in_range(
            "l1_coefficient",
            self.l1_coefficient,
            self.l1_coefficient >= 0.0,
            "a finite number, at least 0",
        )
    }
}

/// How to train: full batch, Adam, a fixed number of steps.
///
/// The defaults are the paper's, which are PyTorch's for Adam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TrainConfig {
    /// Number of optimiser steps, each over all training vectors. Default 500.
    pub steps: usize,
    /// Adam's step size. Default 1e-3.
    pub learning_rate: f64,
    /// Decay of Adam's mean of gradients. Default 0.9.
    pub beta_1: f64,
    /// Decay of Adam's mean of squared gradients. Default 0.999.
    pub beta_2: f64,
    /// What Adam adds to the root of the latter. Default 1e-8.
    pub epsilon: f64,
    /// How the work is laid out; not part of files. Default [`Exec::serial`], which is right on any device.
    #[serde(skip)]
    pub exec: Exec,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 500,
            learning_rate: 1e-3,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            exec: Exec::serial(),
        }
    }
}

impl TrainConfig {
    /// The paper's settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With `steps` steps.
    #[must_use]
    pub const fn with_steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// With its work laid out in another way: [`Exec::all_cores`] for a backend that computes in the host's memory.
    #[must_use]
    pub const fn with_exec(mut self, exec: Exec) -> Self {
        self.exec = exec;
        self
    }

    /// With step size `learning_rate`.
    #[must_use]
    pub const fn with_learning_rate(mut self, learning_rate: f64) -> Self {
        self.learning_rate = learning_rate;
        self
    }

    /// # Errors
    /// [`Error::Config`] if a setting is out of range. Zero steps are allowed: they give the
    /// untrained dictionary.
    pub(crate) fn validate(&self) -> Result<()> {
        let Self {
            steps: _,
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            exec: _,
        } = *self;
        in_range(
            "learning_rate",
            learning_rate,
            learning_rate > 0.0,
            "a finite number above 0",
        )?;
        in_range(
            "beta_1",
            beta_1,
            (0.0..1.0).contains(&beta_1),
            "a number in [0, 1)",
        )?;
        in_range(
            "beta_2",
            beta_2,
            (0.0..1.0).contains(&beta_2),
            "a number in [0, 1)",
        )?;
        in_range("epsilon", epsilon, epsilon > 0.0, "a finite number above 0")
    }
}

pub(crate) fn positive(field: &'static str, value: usize) -> Result<()> {
    if value == 0 {
        return Err(Error::Config {
            field,
            found: value.to_string(),
            expected: "at least 1",
        });
    }
    Ok(())
}

pub(crate) fn in_range(
    field: &'static str,
    value: f64,
    fits: bool,
    expected: &'static str,
) -> Result<()> {
    if value.is_finite() && fits {
        return Ok(());
    }
    Err(Error::Config {
        field,
        found: value.to_string(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_range_settings_are_named() {
        let message = |result: Result<()>| result.unwrap_err().to_string();
        assert_eq!(
            message(SaeConfig::new(0).validate()),
            "d_in is 0: expected at least 1"
        );
        assert_eq!(
            message(SaeConfig::new(4).with_l1_coefficient(f64::NAN).validate()),
            "l1_coefficient is NaN: expected a finite number, at least 0"
        );
        assert_eq!(
            message(TrainConfig::new().with_learning_rate(0.0).validate()),
            "learning_rate is 0: expected a finite number above 0"
        );
        for beta in [1.0, -0.1, f64::INFINITY] {
            let config = TrainConfig {
                beta_2: beta,
                ..TrainConfig::new()
            };
            assert!(config.validate().is_err(), "{beta}");
        }
        assert!(TrainConfig::new().with_steps(0).validate().is_ok());
    }
}
