//! Head outputs to a circuit: train, encode, score, choose.

use burn::{Dispatch, DispatchDevice};
use circuitscope::NoProgress;
use circuitscope::eval::methods::{MethodSettings, SaeSettings};
use circuitscope::{DiscoverSettings, discover};
use circuitscope_benches::{SHAPES, devices};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("discover");
    group.sample_size(10);
    let settings = DiscoverSettings::default()
        .with_methods(MethodSettings::default().with_sae(SaeSettings::default().with_steps(50)));
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
