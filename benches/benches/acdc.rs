//! A sweep of ACDC over four thresholds, two pairs, on a model of two layers of four heads.

use circuitscope_benches::{SMALL, causal};
use criterion::{Criterion, criterion_group, criterion_main};

fn whole(criterion: &mut Criterion) {
    causal::bench(criterion, "acdc", &[SMALL]);
}

criterion_group!(benches, whole);
criterion_main!(benches);
