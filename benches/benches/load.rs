//! A model folder to weights on the device.

use burn::Dispatch;
use circuitscope::NoProgress;
use circuitscope::model::{Processing, load_dir};
use circuitscope_benches::{SHAPES, devices, sync};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    for shape in SHAPES {
        let folder = shape.folder();
        let bytes = fs_err::metadata(folder.path().join("model.safetensors"));
        group.throughput(Throughput::Bytes(bytes.map_or(0, |file| file.len())));
        for (backend, device) in devices() {
            group.bench_function(BenchmarkId::new(shape.name, backend), |bencher| {
                bencher.iter(|| {
                    let folder = folder.path();
                    let loaded = load_dir(folder, Processing::Folded, &device, &NoProgress);
                    sync::<Dispatch>(&device);
                    loaded.map(|loaded: circuitscope::model::Loaded<Dispatch>| drop(loaded))
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, load);
criterion_main!(benches);
