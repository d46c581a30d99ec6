//! Prompts to head outputs.

use burn::Dispatch;
use circuitscope::NoProgress;
use circuitscope::model::capture_head_means;
use circuitscope_benches::{SHAPES, devices, sync};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn capture(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("capture");
    group.sample_size(10);
    for shape in SHAPES {
        let sequences = shape.sequences();
        group.throughput(Throughput::Elements(shape.prompts() as u64));
        for (backend, device) in devices() {
            let model = shape.model::<Dispatch>(&device);
            group.bench_function(BenchmarkId::new(shape.name, backend), |bencher| {
                bencher.iter(|| {
                    let means = capture_head_means(&model, &sequences, 4096, &device, &NoProgress);
                    sync::<Dispatch>(&device);
                    means.map(drop)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, capture);
criterion_main!(benches);
