//! Head outputs to a circuit: train, encode, score, choose.

use burn::{Dispatch, DispatchDevice};
use circuitscope::core::NoProgress;
use circuitscope::eval::methods::{MethodSettings, SaeSettings};
use circuitscope::{DiscoverSettings, discover};
use circuitscope_benches::{SHAPES, devices};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("discover");
    group.sample_size(10);
    let settings = DiscoverSettings {
        methods: MethodSettings {
            sae: SaeSettings {
                steps: 50,
                ..SaeSettings::default()
            },
            ..MethodSettings::default()
        },
        ..DiscoverSettings::default()
    };
    for shape in SHAPES {
        for (backend, device) in devices() {
            let autodiff = DispatchDevice::autodiff(device.clone());
            group.bench_function(BenchmarkId::new(shape.name, backend), |bencher| {
                // Evidence keeps its codes: each run gets its own.
                bencher.iter_batched(
                    || shape.evidence::<Dispatch>(&device),
                    |evidence| discover::<Dispatch>(&evidence, &settings, &autodiff, &NoProgress),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, whole);
criterion_main!(benches);
