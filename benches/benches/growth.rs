//! How the cost grows with prompts, heads and codes: each is doubled three times, the others stay.
//! `cargo xtask bench-report` fits the exponents.

use burn::Dispatch;
use circuitscope::model::capture_head_means;
use circuitscope::sae::{Encoder as _, SaeConfig};
use circuitscope::score::pair_scores;
use circuitscope::{HeadGrid, NoProgress, Seed};
use circuitscope_benches::{Shape, devices, sync};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const BASE: Shape = Shape {
    name: "base",
    grid: HeadGrid::new(4, 8),
    d_model: 256,
    d_vocab: 500,
    pairs: 32,
    tokens: 16,
    codes: 128,
};

const FACTORS: [usize; 4] = [1, 2, 4, 8];

fn growth(criterion: &mut Criterion) {
    let devices = devices();
    let Some((backend, device)) = devices.into_iter().next() else {
        return;
    };
    let mut group = criterion.benchmark_group("growth");
    group.sample_size(10);
    for factor in FACTORS {
        let more_prompts = Shape {
            pairs: factor * BASE.pairs,
            ..BASE
        };
        let sequences = more_prompts.sequences();
        let model = BASE.model::<Dispatch>(&device);
        let name = format!("capture-by-prompts/{backend}");
        group.bench_function(BenchmarkId::new(name, factor), |bencher| {
            bencher.iter(|| {
                let means = capture_head_means(&model, &sequences, 4096, &device, &NoProgress);
                sync::<Dispatch>(&device);
                means.map(drop)
            });
        });

        let more_codes = Shape {
            codes: factor * BASE.codes,
            ..BASE
        };
        let x = BASE.rows::<Dispatch>(BASE.prompts() * BASE.grid.len(), &device);
        let config = SaeConfig::new(BASE.d_model).with_d_sae(more_codes.codes);
        let sae = config.init::<Dispatch>(Seed::new(0), &device);
        let sae = sae.unwrap_or_else(|error| panic!("{error}"));
        let name = format!("encode-by-codes/{backend}");
        group.bench_function(BenchmarkId::new(name, factor), |bencher| {
            bencher.iter(|| sae.codes(x.clone()));
        });

        let table = more_prompts.codes(factor * 64);
        group.bench_function(
            BenchmarkId::new("edges-by-prompts/host", factor),
            |bencher| {
                bencher.iter(|| pair_scores(&table));
            },
        );
        let table = more_codes.codes(250);
        group.bench_function(BenchmarkId::new("edges-by-codes/host", factor), |bencher| {
            bencher.iter(|| pair_scores(&table));
        });
        let more_heads = Shape {
            grid: HeadGrid::new(factor * BASE.grid.n_layers, BASE.grid.n_heads),
            ..BASE
        };
        let table = more_heads.codes(250);
        group.bench_function(BenchmarkId::new("edges-by-heads/host", factor), |bencher| {
            bencher.iter(|| pair_scores(&table));
        });
    }
    group.finish();
}

criterion_group!(benches, growth);
criterion_main!(benches);
