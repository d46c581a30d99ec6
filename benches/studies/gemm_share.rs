//! How much of a capture is matrix products: its rate against that of products of the same shapes, in one run.
//! Arguments name the backends; without any, all that are compiled in run.

#![recursion_limit = "256"]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::time::Instant;

use burn::{Dispatch, DispatchDevice};
use circuitscope::model::{
    Activation, DecoderConfig, Mlp, Norm, Positions, RopeScaling, Rotary, RotaryPairs,
    capture_head_means,
};
use circuitscope::{HeadGrid, NoProgress, Seed};
use circuitscope_benches::{GPT2_SMALL, Shape, devices, exec, sync};

/// 400 prompts of 16 tokens that have nothing in common.
const GPT2: Shape = Shape {
    pairs: 200,
    ..GPT2_SMALL
};

/// The same for SmolLM2-135M.
const SMOLLM2: Shape = Shape {
    name: "smollm2-135m",
    grid: HeadGrid::new(30, 9),
    d_model: 576,
    d_vocab: 49152,
    ..GPT2
};

fn config(shape: Shape) -> DecoderConfig {
    let HeadGrid { n_layers, n_heads } = shape.grid;
    let gpt2 = DecoderConfig::gpt2(n_layers, n_heads, shape.d_model, 64, shape.d_vocab);
    if shape == GPT2 {
        return gpt2;
    }
    gpt2.with_n_key_value_heads(3)
        .with_mlp(Some(Mlp::new(1536, Activation::Silu).with_gated(true)))
        .with_norm(Norm::Rms)
        .with_positions(Positions::Rotary(Rotary::new(64, 1e5, RotaryPairs::Halves)))
}

/// Rows of the products that are timed: tokens of a batch.
const ROWS: usize = 1024;

/// Inner and outer size of the products of a block with every token, and how often they run. The last block
/// ends with what its heads read out.
fn products(config: &DecoderConfig) -> [(usize, usize, usize); 4] {
    let (d, layers) = (config.d_model, config.n_layers);
    let heads = config.n_heads + 2 * config.n_key_value_heads;
    let (mlp, inputs) = config
        .mlp
        .map_or((0, 0), |mlp| (mlp.d_mlp, 1 + usize::from(mlp.gated)));
    [
        (d, heads * config.d_head, layers),
        (config.n_heads * config.d_head, d, layers - 1),
        (d, mlp, inputs * (layers - 1)),
        (mlp, d, layers - 1),
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
    // `cargo bench` adds `--bench`.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|name| name != "--bench")
        .collect();
    for shape in [GPT2, SMOLLM2] {
        for (name, device) in devices() {
            if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
                measure(shape, name, &device)?;
            }
        }
    }
    Ok(())
}

fn measure(shape: Shape, name: &str, device: &DispatchDevice) -> anyhow::Result<()> {
    let config = config(shape);
    let tokens = (shape.prompts() * shape.tokens) as f64;
    let flops = |inner: usize, outer: usize| 2.0 * (inner * outer) as f64;
    let (mut all, mut alone) = (0.0, 0.0);
    for (inner, outer, times) in products(&config) {
        let matrix = |rows, width| {
            let shape = Shape {
                d_model: width,
                ..shape
            };
            shape.rows::<Dispatch>(rows, device)
        };
        let (x, w) = (matrix(ROWS, inner), matrix(inner, outer));
        let seconds = best(device, || drop(x.clone().matmul(w.clone())));
        let rate = ROWS as f64 * flops(inner, outer) / seconds;
        println!(
            "{name}, {}: {ROWS}x{inner} by {inner}x{outer}: {:.1} GFLOP/s",
            shape.name,
            rate / 1e9
        );
        let work = tokens * times as f64 * flops(inner, outer);
        all += work;
        alone += work / rate;
    }
    let model = config
        .init::<Dispatch>(Seed::new(0), device)
        .with_exec(exec::<Dispatch>(device));
    let sequences = shape.sequences();
    let mut outcome = Ok(());
    let capture = best(device, || {
        let means = capture_head_means(&model, &sequences, 4096, device, &NoProgress);
        outcome = means.map(drop);
    });
    outcome?;
    println!(
        "{name}, {}: {:.2} TFLOP: capture {capture:.2} s, {:.1} GFLOP/s; products alone {alone:.2} s, {:.1} GFLOP/s; \
         share {:.0} %",
        shape.name,
        all / 1e12,
        all / capture / 1e9,
        all / alone / 1e9,
        100.0 * alone / capture
    );
    Ok(())
}
