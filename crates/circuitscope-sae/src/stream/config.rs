use circuitscope_core::Exec;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::config::{in_range, positive};
use crate::{Error, Result};

/// What makes feature activations in training, and what is minimised beside the error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Objective {
    /// The positive part of the k largest pre-activations of a row (Gao et al. 2024, arXiv 2406.04093).
    TopK {
        /// Features kept of a row.
        k: usize,
    },
    /// The k · rows largest positive parts of a batch (Bussmann et al. 2024, arXiv 2412.06410). A trained one is a
    /// `jumprelu` dictionary with one threshold.
    BatchTopK {
        /// Features kept of a row, on average.
        k: usize,
    },
    /// What is above a threshold of each feature, with a penalty on how many that are (Rajamanoharan et al. 2024,
    /// arXiv 2407.14435): adds `l0_coefficient` times the mean number of active features to the loss.
    JumpRelu {
        /// Weight λ of the penalty.
        l0_coefficient: f64,
        /// Over how many of the first steps λ rises from 0, linearly.
        l0_warm_up: u64,
        /// Width ε of the window around the threshold in which pre-activations move it.
        bandwidth: f64,
        /// What thresholds start from.
        threshold: f64,
    },
    /// The positive part of every pre-activation, with a penalty on how large they are: adds `l1_coefficient` times the mean
    /// of `Σ_i f_i |W_dec,i|` over rows to the loss. SAELens' `standard`.
    Standard {
        /// Weight λ of the penalty.
        l1_coefficient: f64,
        /// Over how many of the first steps λ rises from 0, linearly.
        l1_warm_up: u64,
    },
    /// A gate that says whether and a magnitude that says how much, with weights in common (Rajamanoharan et al. 2024,
    /// arXiv 2404.16014). With `π` the pre-activation of the gate, adds `l1_coefficient` times the mean of `Σ_i max(π_i, 0) |W_dec,i|`
    /// and the mean of `|max(π, 0) W_dec + b_dec − y|²` to the loss. Not for transcoders, which no format has gates for.
    Gated {
        /// Weight λ of the penalty.
        l1_coefficient: f64,
        /// Over how many of the first steps λ rises from 0, linearly.
        l1_warm_up: u64,
        /// Whether `W_dec` and `b_dec` are constants in the last term, as in the paper. In SAELens they are not.
        frozen_decoder: bool,
    },
}

impl Objective {
    /// [`JumpRelu`](Self::JumpRelu) with SAELens' window .05 and first threshold .01, without warm-up.
    #[must_use]
    pub const fn jump_relu(l0_coefficient: f64) -> Self {
        Self::JumpRelu {
            l0_coefficient,
            l0_warm_up: 0,
            bandwidth: 0.05,
            threshold: 0.01,
        }
    }

    /// [`Standard`](Self::Standard), without warm-up.
    #[must_use]
    pub const fn standard(l1_coefficient: f64) -> Self {
        Self::Standard {
            l1_coefficient,
            l1_warm_up: 0,
        }
    }

    /// [`Gated`](Self::Gated) as in its paper, without warm-up.
    #[must_use]
    pub const fn gated(l1_coefficient: f64) -> Self {
        Self::Gated {
            l1_coefficient,
            l1_warm_up: 0,
            frozen_decoder: true,
        }
    }

    /// Whether dead features learn the error that the others leave.
    pub(super) const fn revives(self) -> bool {
        matches!(self, Self::TopK { .. } | Self::BatchTopK { .. })
    }
}

/// How a dictionary is trained on a stream of rows: sizes, objective, optimiser.
///
/// Minimises the mean over the rows of a batch of `|ŷ − y|²`, summed over `d_out`, and what
/// [`objective`](Self::objective) and the auxiliary term add. `y` is `x`, or another activation for a
/// [transcoder](Self::transcoder).
///
/// # Examples
/// ```
/// use circuitscope_sae::{Objective, StreamConfig};
///
/// let config = StreamConfig::new(576, 2304, Objective::TopK { k: 32 }).with_learning_rate(1e-3);
/// assert_eq!((config.d_in, config.d_out, config.batch_rows), (576, 576, 4096));
/// assert!(config.unit_norm && config.centred);
///
/// let config = StreamConfig::transcoder(576, 384, 2304, Objective::TopK { k: 32 });
/// assert_eq!(config.d_out, 384);
/// assert!(!config.unit_norm && !config.centred);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_")]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "settings that do not depend on each other, written to files by these names"
)]
pub struct StreamConfig {
    /// Width of the rows that are encoded.
    pub d_in: usize,
    /// Width of the rows that are reconstructed; `d_in` unless this is a transcoder.
    pub d_out: usize,
    /// Number of features.
    pub d_sae: usize,
    /// What makes feature activations.
    pub objective: Objective,
    /// Whether another activation `y` is made of `x`.
    pub transcoder: bool,
    /// Whether a transcoder has a linear map `x W_skipᵀ` beside its features. Default false.
    pub skip: bool,
    /// Whether `b_dec` is subtracted from the input: SAELens' `apply_b_dec_to_input`. Default true, and never for
    /// transcoders.
    pub centred: bool,
    /// Whether rows of `W_dec` are held at length 1. A step removes the part of the gradient along the row, and scales
    /// it back. Default true, and false for transcoders.
    pub unit_norm: bool,
    /// Rows of a step, at most. Default 4,096.
    pub batch_rows: usize,
    /// Adam's step size after the warm-up. Default 3e-4.
    pub learning_rate: f64,
    /// Over how many of the first steps it rises linearly. Default 0.
    pub warm_up: u64,
    /// All steps, for the decay at their end. Default 0: unknown.
    pub steps: u64,
    /// Over how many of the last of these it falls linearly to 0. Default 0.
    pub decay: u64,
    /// Decay of Adam's mean of gradients. Default .9.
    pub beta_1: f64,
    /// Decay of Adam's mean of squared gradients. Default .999.
    pub beta_2: f64,
    /// What Adam adds to the root of the latter. Default 1e-8.
    pub epsilon: f64,
    /// Weight of the auxiliary term of `TopK` and `BatchTopK`, by which dead features learn the error that
    /// the others leave. Default 1.
    pub aux_coefficient: f64,
    /// How many dead features of a row reconstruct that error, at most. Default half of `d_in`.
    pub k_aux: usize,
    /// A feature is dead once it was active on no row of so many steps in a row. Default 1,000.
    pub dead_after: u64,
    /// How the work is laid out; not part of files. Default [`Exec::serial`], which is right on any device.
    #[serde(skip)]
    pub exec: Exec,
}

impl StreamConfig {
    /// An autoencoder of `d_sae` features.
    #[must_use]
    pub fn new(d_in: usize, d_sae: usize, objective: Objective) -> Self {
        Self {
            d_in,
            d_out: d_in,
            d_sae,
            objective,
            transcoder: false,
            skip: false,
            centred: true,
            unit_norm: true,
            batch_rows: 4096,
            learning_rate: 3e-4,
            warm_up: 0,
            steps: 0,
            decay: 0,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            aux_coefficient: 1.0,
            k_aux: (d_in / 2).max(1),
            dead_after: 1000,
            exec: Exec::serial(),
        }
    }

    /// A transcoder: features of rows of width `d_in` make rows of width `d_out`.
    #[must_use]
    pub fn transcoder(d_in: usize, d_out: usize, d_sae: usize, objective: Objective) -> Self {
        Self {
            d_out,
            transcoder: true,
            centred: false,
            unit_norm: false,
            ..Self::new(d_in, d_sae, objective)
        }
    }

    /// Adam's step size in step `step`, from 0.
    ///
    /// ```
    /// use circuitscope_sae::{Objective, StreamConfig};
    ///
    /// let config = StreamConfig::new(8, 16, Objective::TopK { k: 2 });
    /// let config = config.with_learning_rate(1.0).with_warm_up(4).with_steps(10).with_decay(2);
    /// let rates: Vec<f64> = (0..10).map(|step| config.rate(step)).collect();
    /// assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5]);
    /// ```
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        let falling = if self.decay == 0 {
            1.0
        } else {
            let left = self.steps.saturating_sub(step);
            (left as f64 / self.decay as f64).min(1.0)
        };
        self.learning_rate * risen(self.warm_up, step) * falling
    }

    /// The weight of the penalty in step `step`.
    pub(super) fn penalty(&self, step: u64) -> f64 {
        match self.objective {
            Objective::TopK { .. } | Objective::BatchTopK { .. } => 0.0,
            Objective::JumpRelu {
                l0_coefficient: weight,
                l0_warm_up: warm_up,
                ..
            }
            | Objective::Standard {
                l1_coefficient: weight,
                l1_warm_up: warm_up,
            }
            | Objective::Gated {
                l1_coefficient: weight,
                l1_warm_up: warm_up,
                ..
            } => weight * risen(warm_up, step),
        }
    }

    /// # Errors
    /// [`Error::Config`] naming the first setting that is out of range.
    pub(super) fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("d_in", self.d_in),
            ("d_out", self.d_out),
            ("d_sae", self.d_sae),
            ("batch_rows", self.batch_rows),
            ("k_aux", self.k_aux),
        ] {
            positive(field, value)?;
        }
        let wrong = |field, found: String, expected| {
            Err(Error::Config {
                field,
                found,
                expected,
            })
        };
        // Codes are `i32`.
        if i32::try_from(self.d_sae).is_err() {
            return wrong("d_sae", self.d_sae.to_string(), "at most 2147483647");
        }
        if !self.transcoder && self.d_out != self.d_in {
            let expected = "d_in, unless this is a transcoder";
            return wrong("d_out", self.d_out.to_string(), expected);
        }
        for (field, set, expected) in [
            (
                "skip",
                self.skip && !self.transcoder,
                "false without transcoder",
            ),
            (
                "centred",
                self.centred && self.transcoder,
                "false for a transcoder",
            ),
        ] {
            if set {
                return wrong(field, true.to_string(), expected);
            }
        }
        match self.objective {
            Objective::TopK { k } | Objective::BatchTopK { k } => {
                if !(1..=self.d_sae).contains(&k) {
                    return wrong("k", k.to_string(), "at least 1 and at most d_sae");
                }
            }
            Objective::JumpRelu {
                l0_coefficient: penalty,
                bandwidth,
                threshold,
                l0_warm_up: _,
            } => {
                let from_0 = "a finite number, at least 0";
                in_range("l0_coefficient", penalty, penalty >= 0.0, from_0)?;
                in_range("threshold", threshold, threshold >= 0.0, from_0)?;
                let above_0 = "a finite number above 0";
                in_range("bandwidth", bandwidth, bandwidth > 0.0, above_0)?;
            }
            Objective::Gated { .. } if self.transcoder => {
                let expected = "topk, batchtopk, jumprelu or standard for a transcoder";
                return wrong("objective", "gated".to_owned(), expected);
            }
            Objective::Standard {
                l1_coefficient: penalty,
                ..
            }
            | Objective::Gated {
                l1_coefficient: penalty,
                ..
            } => {
                let from_0 = "a finite number, at least 0";
                in_range("l1_coefficient", penalty, penalty >= 0.0, from_0)?;
            }
        }
        if self.decay > self.steps {
            let expected = "at most steps, the number of all steps";
            return wrong("decay", self.decay.to_string(), expected);
        }
        let (rate, epsilon, aux) = (self.learning_rate, self.epsilon, self.aux_coefficient);
        in_range("learning_rate", rate, rate > 0.0, "a finite number above 0")?;
        in_range("epsilon", epsilon, epsilon > 0.0, "a finite number above 0")?;
        let from_0 = "a finite number, at least 0";
        in_range("aux_coefficient", aux, aux >= 0.0, from_0)?;
        for (field, beta) in [("beta_1", self.beta_1), ("beta_2", self.beta_2)] {
            in_range(
                field,
                beta,
                (0.0..1.0).contains(&beta),
                "a number in [0, 1)",
            )?;
        }
        Ok(())
    }
}

/// From 0 to 1 over the first `steps` steps.
fn risen(steps: u64, step: u64) -> f64 {
    if steps == 0 {
        return 1.0;
    }
    ((step + 1) as f64 / steps as f64).min(1.0)
}
