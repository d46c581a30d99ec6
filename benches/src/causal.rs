//! Benches of methods that change the model or differentiate it.

use burn::{Dispatch, DispatchDevice};
use circuitscope::eval::methods::{MethodSettings, PatchingSettings, method};
use circuitscope::{NoProgress, Seed};
use criterion::{BenchmarkId, Criterion};

use crate::{Shape, devices};

/// Matched prompts to scores by one method, up to four pairs.
///
/// # Panics
/// If there is no such method.
pub fn bench(criterion: &mut Criterion, name: &str, shapes: &[Shape]) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    let settings = MethodSettings::default().with_patching(
        PatchingSettings::default()
            .with_gradient_pairs(4)
            .with_patch_pairs(4),
    );
    for shape in shapes {
        for (backend, device) in devices() {
            let evidence = shape.causal_evidence::<Dispatch>(&device);
            let autodiff = DispatchDevice::autodiff(device);
            let method = method::<Dispatch>(name, &settings, &autodiff);
            let method = method.unwrap_or_else(|error| panic!("{error}"));
            group.bench_function(BenchmarkId::new(shape.name, backend), |bencher| {
                // The effects come back to the host: nothing stays queued.
                bencher.iter(|| method.scores(&evidence, Seed::new(0), &NoProgress));
            });
        }
    }
    group.finish();
}
