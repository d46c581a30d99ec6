//! Head outputs of ten examples to a dictionary.

use burn::Dispatch;
use circuitscope::core::{NoProgress, Seed};
use circuitscope::sae::{SaeConfig, TrainConfig, train};
use circuitscope_benches::{SHAPES, devices};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A tenth of the default, so that a bench takes seconds.
const STEPS: usize = 50;

fn training(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("train");
    group.sample_size(10);
    group.throughput(Throughput::Elements(STEPS as u64));
    for shape in SHAPES {
        let config = SaeConfig::new(shape.d_model).with_d_sae(shape.codes);
        let steps = TrainConfig::new().with_steps(STEPS);
        for (backend, device) in devices() {
            let x = shape.rows::<Dispatch>(10 * shape.grid.len(), &device);
            group.bench_function(BenchmarkId::new(shape.name, backend), |bencher| {
                // The losses come back to the host: nothing stays queued.
                bencher.iter(|| {
                    let x = x.clone();
                    train(&config, &steps, x, Seed::new(0), &NoProgress)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, training);
criterion_main!(benches);
