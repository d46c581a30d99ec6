//! How much of a capture is matrix products: its rate against that of products of the same shapes, in one run.
//! Arguments name the backends; without any, all that are compiled in run.

#![recursion_limit = "256"]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::time::Instant;

use burn::{Dispatch, DispatchDevice};
use circuitscope::core::NoProgress;
use circuitscope::model::capture_head_means;
use circuitscope_benches::{GPT2_SMALL, Shape, devices, sync};

/// 400 prompts of 16 tokens that have nothing in common.
const SHAPE: Shape = Shape {
    pairs: 200,
    ..GPT2_SMALL
};

/// Rows of the products that are timed: tokens of a batch.
const ROWS: usize = 1024;

/// Inner and outer size of the products of a block with every token, and in how many blocks they run. The
/// last block ends with what its heads read out.
fn products() -> [(usize, usize, usize); 4] {
    let (d, layers) = (SHAPE.d_model, SHAPE.grid.n_layers);
    [
        (d, 3 * d, layers),
        (d, d, layers - 1),
        (d, 4 * d, layers - 1),
        (4 * d, d, layers - 1),
    ]
}

/// Shortest of three runs, after one that does not count, in seconds.
fn best(device: &DispatchDevice, mut work: impl FnMut()) -> f64 {
    let mut once = || {
        let start = Instant::now();
        work();
        sync::<Dispatch>(device);
        start.elapsed().as_secs_f64()
    };
    once();
    (0..3).map(|_| once()).fold(f64::INFINITY, f64::min)
}

fn main() -> anyhow::Result<()> {
    let tokens = (SHAPE.prompts() * SHAPE.tokens) as f64;
    let flops = |inner: usize, outer: usize| 2.0 * (inner * outer) as f64;
    let all: f64 = products()
        .iter()
        .map(|&(inner, outer, blocks)| tokens * blocks as f64 * flops(inner, outer))
        .sum();
    println!("{:.2} TFLOP in products with every token", all / 1e12);
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for (name, device) in devices() {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut alone = 0.0;
        for (inner, outer, blocks) in products() {
            let matrix = |rows, width| {
                let shape = Shape {
                    d_model: width,
                    ..SHAPE
                };
                shape.rows::<Dispatch>(rows, &device)
            };
            let (x, w) = (matrix(ROWS, inner), matrix(inner, outer));
            let seconds = best(&device, || drop(x.clone().matmul(w.clone())));
            let rate = ROWS as f64 * flops(inner, outer) / seconds;
            println!(
                "{name}: {ROWS}x{inner} by {inner}x{outer}: {:.1} GFLOP/s",
                rate / 1e9
            );
            alone += tokens * blocks as f64 * flops(inner, outer) / rate;
        }
        let model = SHAPE.model::<Dispatch>(&device);
        let sequences = SHAPE.sequences();
        let mut outcome = Ok(());
        let capture = best(&device, || {
            let means = capture_head_means(&model, &sequences, 4096, &device, &NoProgress);
            outcome = means.map(drop);
        });
        outcome?;
        println!(
            "{name}: capture {capture:.2} s, {:.1} GFLOP/s; products alone {alone:.2} s, {:.1} GFLOP/s; share {:.0} %",
            all / capture / 1e9,
            all / alone / 1e9,
            100.0 * alone / capture
        );
    }
    Ok(())
}
