//! Head outputs to a circuit: train, encode, score, choose.

use burn::{Dispatch, DispatchDevice};
use circuitscope::core::NoProgress;
use circuitscope::eval::methods::{MethodSettings, SaeSettings};
use circuitscope::{DiscoverSettings, discover};
use circuitscope_benches::{SHAPES, devices};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

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
            let evidence = shape.evidence::<Dispatch>(&device);
            let autodiff = DispatchDevice::autodiff(device);
            group.bench_function(BenchmarkId::new(shape.name, backend), |bencher| {
                bencher.iter(|| discover::<Dispatch>(&evidence, &settings, &autodiff, &NoProgress));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, whole);
criterion_main!(benches);
