//! The stages of the method one after another, generic over the backend: what
//! `examples/direct.rs` and `examples/dispatch.rs` instantiate, to compare the two ways
//! (`docs/decisions/0002-dispatch.md`).

use std::time::Instant;

use anyhow::Result;
use burn::tensor::backend::Backend;
use circuitscope::model::capture_head_means;
use circuitscope::sae::{Encoder as _, SaeConfig, TrainConfig, train};
use circuitscope::{NoProgress, Seed};

use crate::{SHAPES, Shape, exec, sync};

/// What was timed, and the best of three runs, in seconds.
pub type Timing = (String, f64);

/// Times single operations and whole stages.
///
/// # Errors
/// If a stage fails.
pub fn run<B: Backend>(device: &B::Device) -> Result<Vec<Timing>> {
    let mut timings = operations::<B>(device);
    for shape in SHAPES {
        timings.extend(stages::<B>(&shape, device)?);
    }
    Ok(timings)
}

fn operations<B: Backend>(device: &B::Device) -> Vec<Timing> {
    let mut timings = Vec::new();
    // The small ones show what a call costs, the large ones what the kernels do.
    for (size, times) in [(8usize, 10_000), (64, 2_000), (1024, 4)] {
        let shape = Shape {
            d_model: size,
            ..SHAPES[0]
        };
        let x = shape.rows::<B>(size, device);
        let seconds = best(|| {
            for _ in 0..times {
                drop(x.clone().matmul(x.clone()));
            }
            sync::<B>(device);
        });
        timings.push((format!("{times} matmul {size}x{size}"), seconds));
        let seconds = best(|| {
            let mut y = x.clone();
            for _ in 0..times {
                y = y.mul(x.clone()).add(x.clone());
            }
            drop(y);
            sync::<B>(device);
        });
        timings.push((format!("{times} mul+add {size}x{size}"), seconds));
    }
    timings
}

fn stages<B: Backend>(shape: &Shape, device: &B::Device) -> Result<Vec<Timing>> {
    let name = shape.name;
    let model = shape.model::<B>(device);
    let sequences = shape.sequences();
    let mut outcome = Ok(());
    let capture = best(|| {
        let means = capture_head_means(&model, &sequences, 4096, device, &NoProgress);
        sync::<B>(device);
        outcome = means.map(drop);
    });
    outcome?;
    let x = shape.rows::<B>(10 * shape.grid.len(), device);
    let config = SaeConfig::new(shape.d_model).with_d_sae(shape.codes);
    let steps = TrainConfig::new()
        .with_steps(50)
        .with_exec(exec::<B>(device));
    let mut outcome = Ok(());
    let training = best(|| {
        let trained = train(&config, &steps, x.clone(), Seed::new(0), &NoProgress);
        outcome = trained.map(drop);
    });
    outcome?;
    let sae = config.init::<B>(Seed::new(0), device)?;
    let rows = shape.rows::<B>(shape.prompts() * shape.grid.len(), device);
    let mut outcome = Ok(());
    let encoding = best(|| outcome = sae.codes(rows.clone()).map(drop));
    outcome?;
    Ok(vec![
        (
            format!("capture {name} ({} prompts)", shape.prompts()),
            capture,
        ),
        (format!("train {name} (50 steps)"), training),
        (format!("encode {name}"), encoding),
    ])
}

/// Shortest of three runs, after one that does not count.
fn best(mut work: impl FnMut()) -> f64 {
    work();
    (0..3)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}
