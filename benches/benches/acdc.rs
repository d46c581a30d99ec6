//! A sweep of ACDC over four thresholds, two pairs, on a model of two layers of four heads.

use burn::{Dispatch, DispatchDevice};
use circuitscope::core::{NoProgress, Seed};
use circuitscope::eval::methods::{MethodSettings, PatchingSettings, method};
use circuitscope_benches::{SMALL, devices};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("acdc");
    group.sample_size(10);
    let settings = MethodSettings {
        patching: PatchingSettings {
            patch_pairs: 4,
            ..PatchingSettings::default()
        },
        ..MethodSettings::default()
    };
    for shape in [SMALL] {
        for (backend, device) in devices() {
            let evidence = shape.causal_evidence::<Dispatch>(&device);
            let autodiff = DispatchDevice::autodiff(device);
            let method = method::<Dispatch>("acdc", &settings, &autodiff);
            let method = method.unwrap_or_else(|error| panic!("{error}"));
            group.bench_function(BenchmarkId::new(shape.name, backend), |bencher| {
                // The effects come back to the host: nothing stays queued.
                bencher.iter(|| method.scores(&evidence, Seed::new(0), &NoProgress));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, whole);
criterion_main!(benches);
