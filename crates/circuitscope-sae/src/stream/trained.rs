use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::Seed;

use super::params::Params;
use super::{Objective, StreamConfig};
use crate::autoencoder::{HostWeights, uploaded};
use crate::init::transposed;
use crate::{Affine, Encoder, Gated, JumpRelu, Result, SparseAutoencoder, Standard, TopK};

/// A dictionary that a [`StreamTrainer`](super::StreamTrainer) made, in SAELens' layout.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TrainedDictionary {
    /// How it was trained.
    pub config: StreamConfig,
    /// From which seed.
    pub seed: Seed,
    /// In how many steps.
    pub steps: u64,
    /// `[d_in, d_sae]`
    pub w_enc: Vec<f32>,
    /// `[d_sae, d_out]`
    pub w_dec: Vec<f32>,
    /// `[d_sae]`: of the gate, of `Gated`.
    pub b_enc: Vec<f32>,
    /// `[d_out]`
    pub b_dec: Vec<f32>,
    /// `[d_sae]`: of `JumpRelu`, and of `BatchTopK`, where all are the running mean of the smallest activation that was kept
    /// (0 before the first step).
    pub threshold: Option<Vec<f32>>,
    /// `[d_out, d_in]`, where there is a skip connection.
    pub w_skip: Option<Vec<f32>>,
    /// `[d_sae]` of `Gated`.
    pub b_mag: Option<Vec<f32>>,
    /// `[d_sae]` of `Gated`.
    pub r_mag: Option<Vec<f32>>,
    /// On which share of the rows that the trainer's statistics have seen each feature was active, `[d_sae]`; none
    /// before the first step.
    pub firing_rates: Option<Vec<f64>>,
}

impl TrainedDictionary {
    pub(super) fn of(
        config: &StreamConfig,
        seed: Seed,
        steps: u64,
        weights: Params,
        threshold: Option<f64>,
        firing_rates: Option<Vec<f64>>,
    ) -> Self {
        let some = |list: Vec<f32>| (!list.is_empty()).then_some(list);
        let of_batch = matches!(config.objective, Objective::BatchTopK { .. });
        let threshold = if of_batch {
            Some(vec![threshold.unwrap_or(0.0) as f32; config.d_sae])
        } else {
            some(weights.threshold)
        };
        Self {
            config: config.clone(),
            seed,
            steps,
            w_enc: transposed(&weights.w_enc, config.d_sae, config.d_in),
            w_dec: weights.w_dec,
            b_enc: weights.b_enc,
            b_dec: weights.b_dec,
            threshold,
            w_skip: some(weights.w_skip),
            b_mag: some(weights.b_mag),
            r_mag: some(weights.r_mag),
            firing_rates,
        }
    }

    /// The encoder: [`TopK`], [`JumpRelu`] for `JumpRelu` and `BatchTopK`, [`Standard`] or [`Gated`].
    ///
    /// # Errors
    /// None for what a trainer made.
    pub fn encoder<B: Backend>(&self, device: &B::Device) -> Result<Arc<dyn Encoder<B>>> {
        let &StreamConfig {
            d_in, d_out, d_sae, ..
        } = &self.config;
        let list = |values: Option<&Vec<f32>>| {
            let zeros = || vec![0.0; d_sae];
            let values = values.cloned().unwrap_or_else(zeros);
            uploaded::<B, 1>(&values, [d_sae], device)
        };
        let affine = if self.config.transcoder {
            let affine = Affine::transcoder(
                uploaded(&self.w_enc, [d_in, d_sae], device),
                uploaded(&self.w_dec, [d_sae, d_out], device),
                uploaded(&self.b_enc, [d_sae], device),
                uploaded(&self.b_dec, [d_out], device),
            );
            match &self.w_skip {
                Some(w_skip) => affine.with_skip(uploaded(w_skip, [d_out, d_in], device)),
                None => affine,
            }
        } else {
            let host = HostWeights {
                d_in,
                d_sae,
                w_enc: self.w_enc.clone(),
                w_dec: self.w_dec.clone(),
                b_enc: self.b_enc.clone(),
                b_dec: self.b_dec.clone(),
            };
            let weights = SparseAutoencoder::<B>::from_host(&host, device);
            Affine::new(weights).with_centring(self.config.centred)
        };
        Ok(match self.config.objective {
            Objective::TopK { k } => Arc::new(TopK::new(affine, k)?),
            Objective::BatchTopK { .. } | Objective::JumpRelu { .. } => {
                Arc::new(JumpRelu::new(affine, list(self.threshold.as_ref())))
            }
            Objective::Standard { .. } => Arc::new(Standard::new(affine)),
            Objective::Gated { .. } => Arc::new(Gated::new(
                affine,
                list(self.b_mag.as_ref()),
                list(self.r_mag.as_ref()),
            )),
        })
    }
}
