//! The parameters, or something of each of them: gradients, moments.

use circuitscope_core::Seed;

use super::StreamConfig;
use crate::init::{narrow, normalise_rows, normals};
use crate::stream::Objective;

/// One list of numbers for each parameter, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Params {
    /// Of the encoder, `[d_sae, d_in]`: a row for each feature, which is `W_encᵀ`.
    pub(super) w_enc: Vec<f32>,
    /// `[d_sae, d_out]`
    pub(super) w_dec: Vec<f32>,
    /// `[d_sae]`
    pub(super) b_enc: Vec<f32>,
    /// `[d_out]`
    pub(super) b_dec: Vec<f32>,
    /// `[d_sae]`; empty unless the objective is `JumpRelu`.
    pub(super) threshold: Vec<f32>,
    /// `[d_out, d_in]`; empty without it.
    pub(super) w_skip: Vec<f32>,
    /// `[d_sae]`; empty unless the objective is `Gated`, whose gate has `b_enc`.
    pub(super) b_mag: Vec<f32>,
    /// `[d_sae]`; empty unless the objective is `Gated`.
    pub(super) r_mag: Vec<f32>,
}

/// How many there are.
pub(super) const PARAMS: usize = 8;

/// Name and sizes of each parameter of `Params`, in the order of its fields. What a configuration does not have has
/// size 0.
pub(super) fn shapes(config: &StreamConfig) -> [(&'static str, Vec<usize>); PARAMS] {
    let StreamConfig {
        d_in, d_out, d_sae, ..
    } = *config;
    let thresholds = match config.objective {
        Objective::JumpRelu { .. } => d_sae,
        _ => 0,
    };
    let gates = match config.objective {
        Objective::Gated { .. } => d_sae,
        _ => 0,
    };
    [
        ("w_enc", vec![d_sae, d_in]),
        ("w_dec", vec![d_sae, d_out]),
        ("b_enc", vec![d_sae]),
        ("b_dec", vec![d_out]),
        ("threshold", vec![thresholds]),
        ("w_skip", vec![if config.skip { d_out } else { 0 }, d_in]),
        ("b_mag", vec![gates]),
        ("r_mag", vec![gates]),
    ]
}

impl Params {
    pub(super) fn zeros(config: &StreamConfig) -> Self {
        Self::of(shapes(config).map(|(_, shape)| vec![0.0; shape.iter().product()]))
    }

    pub(super) fn of(lists: [Vec<f32>; PARAMS]) -> Self {
        let [w_enc, w_dec, b_enc, b_dec, threshold, w_skip, b_mag, r_mag] = lists;
        Self {
            w_enc,
            w_dec,
            b_enc,
            b_dec,
            threshold,
            w_skip,
            b_mag,
            r_mag,
        }
    }

    pub(super) fn lists(&self) -> [&[f32]; PARAMS] {
        let Self {
            w_enc,
            w_dec,
            b_enc,
            b_dec,
            threshold,
            w_skip,
            b_mag,
            r_mag,
        } = self;
        [w_enc, w_dec, b_enc, b_dec, threshold, w_skip, b_mag, r_mag]
    }

    /// What training starts from; `mean` is that of the first rows that are to be reconstructed.
    pub(super) fn init(config: &StreamConfig, mean: &[f64], seed: Seed) -> Self {
        let StreamConfig {
            d_in, d_out, d_sae, ..
        } = *config;
        let rows = |stream: &str, width: usize| {
            let mut rng = seed.stream(stream).rng();
            let mut rows = normals(&mut rng, d_sae * width);
            normalise_rows(&mut rows, width);
            narrow(&rows)
        };
        let mut params = Self::zeros(config);
        params.b_dec = narrow(mean);
        if config.transcoder {
            params.w_enc = rows("sae/stream/w_enc", d_in);
            if config.unit_norm {
                params.w_dec = rows("sae/stream/w_dec", d_out);
            }
        } else {
            params.w_dec = rows("sae/stream/w_dec", d_out);
            params.w_enc.clone_from(&params.w_dec);
        }
        if let Objective::JumpRelu { threshold, .. } = config.objective {
            params.threshold.fill(threshold as f32);
        }
        params
    }
}
