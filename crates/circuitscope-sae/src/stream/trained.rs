use std::sync::Arc;

use burn::tensor::backend::Backend;
use circuitscope_core::Seed;

use super::params::Params;
use super::{Objective, StreamConfig};
use crate::autoencoder::{HostWeights, uploaded};
use crate::init::transposed;
use crate::{Affine, Encoder, JumpRelu, Result, SparseAutoencoder, TopK};

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
    /// `[d_sae]`
    pub b_enc: Vec<f32>,
    /// `[d_out]`
    pub b_dec: Vec<f32>,
    /// `[d_sae]`: of `JumpRelu`, and of `BatchTopK`, where all are the running mean of the smallest activation that was kept
    /// (0 before the first step).
    pub threshold: Option<Vec<f32>>,
    /// `[d_out, d_in]`, where there is a skip connection.
    pub w_skip: Option<Vec<f32>>,
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
            firing_rates,
        }
    }

    /// The encoder of an autoencoder: [`TopK`], or [`JumpRelu`] for `JumpRelu` and `BatchTopK`. `None` for a
    /// transcoder, which is read from the folder it is saved in.
    ///
    /// # Errors
    /// None for what a trainer made.
    pub fn encoder<B: Backend>(&self, device: &B::Device) -> Result<Option<Arc<dyn Encoder<B>>>> {
        let config = &self.config;
        if config.transcoder {
            return Ok(None);
        }
        let host = HostWeights {
            d_in: config.d_in,
            d_sae: config.d_sae,
            w_enc: self.w_enc.clone(),
            w_dec: self.w_dec.clone(),
            b_enc: self.b_enc.clone(),
            b_dec: self.b_dec.clone(),
        };
        let weights = SparseAutoencoder::<B>::from_host(&host, device);
        let affine = Affine::new(weights).with_centring(config.centred);
        Ok(Some(match (config.objective, &self.threshold) {
            (Objective::TopK { k }, _) => Arc::new(TopK::new(affine, k)?),
            (_, threshold) => {
                let zeros = vec![0.0; config.d_sae];
                let threshold = threshold.as_ref().unwrap_or(&zeros);
                let threshold = uploaded::<B, 1>(threshold, [config.d_sae], device);
                Arc::new(JumpRelu::new(affine, threshold))
            }
        }))
    }
}
