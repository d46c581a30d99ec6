//! Codes of 250 pairs of prompts to scores of heads; on the host, whatever the backend.

use circuitscope::score::node_scores;
use circuitscope_benches::CODED;
use criterion::{Criterion, criterion_group, criterion_main};

fn score(criterion: &mut Criterion) {
    for shape in CODED {
        let codes = shape.codes(250);
        criterion.bench_function(&format!("score-nodes/{}/host", shape.name), |bencher| {
            bencher.iter(|| node_scores(&codes));
        });
    }
}

criterion_group!(benches, score);
criterion_main!(benches);
