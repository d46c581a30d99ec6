//! Training on streams of rows.

mod checkpoint;
mod gradients;
mod saved;
mod steps;
mod synthetic;

use circuitscope_core::{Exec, Seed};
use circuitscope_sae::{Objective, StreamConfig, StreamTrainer};

use crate::{B, device, uniform};

const ROWS: usize = 70;
const D: usize = 12;
const D_OUT: usize = 10;
const FEATURES: usize = 40;

const TOPK: Objective = Objective::TopK { k: 3 };
const BATCHTOPK: Objective = Objective::BatchTopK { k: 3 };

fn jumprelu() -> Objective {
    Objective::JumpRelu {
        l0_coefficient: 0.3,
        l0_warm_up: 3,
        bandwidth: 0.5,
        threshold: 0.2,
    }
}

fn standard() -> Objective {
    Objective::Standard {
        l1_coefficient: 0.3,
        l1_warm_up: 3,
    }
}

fn gated(frozen_decoder: bool) -> Objective {
    Objective::Gated {
        l1_coefficient: 0.3,
        l1_warm_up: 3,
        frozen_decoder,
    }
}

/// Small, with features that are dead after two steps.
fn autoencoder(objective: Objective) -> StreamConfig {
    StreamConfig::new(D, FEATURES, objective)
        .with_learning_rate(1e-2)
        .with_dead_after(2)
        .with_aux_coefficient(0.7)
}

fn transcoder(objective: Objective) -> StreamConfig {
    StreamConfig::transcoder(D, D_OUT, FEATURES, objective)
        .with_learning_rate(1e-2)
        .with_dead_after(2)
        .with_skip(true)
}

/// Rows around points other than 0; the same for the same number.
fn x(batch: u64) -> Vec<f32> {
    let mut rows = uniform(100 + batch, ROWS, D);
    for row in rows.chunks_mut(D) {
        row.iter_mut()
            .zip(0..)
            .for_each(|(x, at)| *x += 0.1 * at as f32);
    }
    rows
}

fn y(config: &StreamConfig, batch: u64) -> Option<Vec<f32>> {
    config
        .transcoder
        .then(|| uniform(200 + batch, ROWS, config.d_out))
}

fn start(config: &StreamConfig) -> StreamTrainer<B> {
    let (x, y) = (x(0), y(config, 0));
    StreamTrainer::new(config, &x, y.as_deref(), Seed::new(5), &device()).unwrap()
}

fn steps(trainer: &mut StreamTrainer<B>, batches: core::ops::Range<u64>) {
    for batch in batches {
        let y = y(trainer.config(), batch);
        trainer.step_host(&x(batch), y.as_deref()).unwrap();
    }
}

/// All settings that differ in what is computed.
fn all() -> Vec<StreamConfig> {
    let objectives = [
        TOPK,
        BATCHTOPK,
        jumprelu(),
        standard(),
        gated(true),
        gated(false),
    ];
    let mut all = Vec::new();
    for objective in objectives {
        all.push(autoencoder(objective));
        all.push(
            autoencoder(objective)
                .with_unit_norm(false)
                .with_centred(false),
        );
        if !matches!(objective, Objective::Gated { .. }) {
            all.push(transcoder(objective));
        }
    }
    all.push(transcoder(TOPK).with_skip(false).with_unit_norm(true));
    all
}

fn on_host(config: &StreamConfig) -> StreamConfig {
    config.clone().with_exec(Exec::host(2))
}

/// `|a − b|` over `|b|`, of whole lists.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |list: &mut dyn Iterator<Item = f64>| list.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    let size = norm(&mut b.iter().map(|b| f64::from(*b)));
    if apart == 0.0 { 0.0 } else { apart / size }
}
