//! Head outputs to codes.

use burn::Dispatch;
use circuitscope::Seed;
use circuitscope::sae::{Encoder as _, SaeConfig};
use circuitscope_benches::{SHAPES, devices};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.sample_size(10);
    for shape in SHAPES {
        let rows = shape.prompts() * shape.grid.len();
        group.throughput(Throughput::Elements(rows as u64));
        let config = SaeConfig::new(shape.d_model).with_d_sae(shape.codes);
        for (backend, device) in devices() {
            let x = shape.rows::<Dispatch>(rows, &device);
            let sae = config.init::<Dispatch>(Seed::new(0), &device);
            let sae = sae.unwrap_or_else(|error| panic!("{error}"));
            group.bench_function(BenchmarkId::new(shape.name, backend), |bencher| {
                // The codes come back to the host: nothing stays queued.
                bencher.iter(|| sae.codes(x.clone()));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
