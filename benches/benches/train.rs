//! Head outputs of ten examples to a dictionary.

use burn::Dispatch;
use circuitscope::sae::{SaeConfig, TrainConfig, TrainJob, train, train_many};
use circuitscope::{NoProgress, Seed};
use circuitscope_benches::{SHAPES, TINY, devices, exec};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A tenth of the default, so that a bench takes seconds.
const STEPS: usize = 50;

fn training(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("train");
    group.sample_size(10);
    group.throughput(Throughput::Elements(STEPS as u64));
    for shape in SHAPES {
        let config = SaeConfig::new(shape.d_model).with_d_sae(shape.codes);
        for (backend, device) in devices() {
            let steps = TrainConfig::new()
                .with_steps(STEPS)
                .with_exec(exec::<Dispatch>(&device));
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

/// Twenty seeds in one call, and one after another.
fn many(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("train-20");
    group.sample_size(10);
    let config = SaeConfig::new(TINY.d_model).with_d_sae(TINY.codes);
    for (backend, device) in devices() {
        let steps = TrainConfig::new()
            .with_steps(STEPS)
            .with_exec(exec::<Dispatch>(&device));
        let x = TINY.rows::<Dispatch>(10 * TINY.grid.len(), &device);
        let job = |seed| TrainJob {
            config: config.clone(),
            x: x.clone(),
            seed: Seed::new(seed),
        };
        let jobs: Vec<_> = (0..20).map(job).collect();
        group.bench_function(BenchmarkId::new("at-once", backend), |bencher| {
            bencher.iter(|| train_many(&jobs, &steps, &NoProgress));
        });
        group.bench_function(BenchmarkId::new("one-by-one", backend), |bencher| {
            bencher.iter(|| {
                let each = |job: &TrainJob<_>| {
                    train(&job.config, &steps, job.x.clone(), job.seed, &NoProgress)
                };
                jobs.iter().map(each).collect::<Vec<_>>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, training, many);
criterion_main!(benches);
