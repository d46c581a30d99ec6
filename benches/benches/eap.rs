//! Matched prompts to edge scores by attribution patching, four pairs.

use circuitscope_benches::{SHAPES, causal};
use criterion::{Criterion, criterion_group, criterion_main};

fn whole(criterion: &mut Criterion) {
    causal::bench(criterion, "eap", &SHAPES);
}

criterion_group!(benches, whole);
criterion_main!(benches);
