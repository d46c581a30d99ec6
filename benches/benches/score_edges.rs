//! Codes of 250 pairs of prompts to scores of pairs of heads; on the host, whatever the backend.

use circuitscope::score::pair_scores;
use circuitscope_benches::CODED;
use criterion::{Criterion, criterion_group, criterion_main};

fn score(criterion: &mut Criterion) {
    for shape in CODED {
        let codes = shape.codes(250);
        criterion.bench_function(&format!("score-edges/{}/host", shape.name), |bencher| {
            bencher.iter(|| pair_scores(&codes));
        });
    }
}

criterion_group!(benches, score);
criterion_main!(benches);
