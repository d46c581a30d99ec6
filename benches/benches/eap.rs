//! Matched prompts to edge scores by attribution patching, four pairs.

use burn::{Dispatch, DispatchDevice};
use circuitscope::core::{NoProgress, Seed};
use circuitscope::eval::methods::{MethodSettings, PatchingSettings, method};
use circuitscope_benches::{SHAPES, devices};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("eap");
    group.sample_size(10);
    let settings = MethodSettings {
        patching: PatchingSettings {
            gradient_pairs: 4,
            patch_pairs: 4,
            ..PatchingSettings::default()
        },
        ..MethodSettings::default()
    };
    for shape in SHAPES {
        for (backend, device) in devices() {
            let evidence = shape.causal_evidence::<Dispatch>(&device);
            let autodiff = DispatchDevice::autodiff(device);
            let method = method::<Dispatch>("eap", &settings, &autodiff);
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
