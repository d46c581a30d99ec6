//! The reference model, whose circuits are known: which heads do graphs go through?

use std::collections::BTreeMap;

use circuitscope_core::{HeadId, NoProgress};
use circuitscope_features::{AttributionGraph, Frozen, GraphSettings, Targets, Transcoders};
use circuitscope_model::{ModelBytes, Processing, load_bytes};

use crate::models::{B, device};

/// Greater-than, its years spread over the range: the mean over prompts of the influence of each head, largest first, and the mean
/// scores of the graphs.
#[test]
fn heads_of_greater_than() {
    let files = circuitscope_reference::FILES;
    let files = ModelBytes {
        name: "reference",
        config: files.config,
        weights: files.weights,
        tokenizer: Some(files.tokenizer),
    };
    let loaded = load_bytes::<B>(&files, Processing::Folded, &device()).unwrap();
    let tokenizer = loaded.tokenizer().unwrap();
    let ids = |text: &str| tokenizer.encode(text, false).unwrap();
    let number = |n: u32| *ids(&format!("{n:02}")).last().unwrap();
    let mut sums: BTreeMap<HeadId, [f64; 2]> = BTreeMap::new();
    let mut scores = [0.0; 2];
    let prompts = ["council", "drought", "regatta", "truce"];
    let years = [7, 23, 41, 58, 76, 91];
    let count = (prompts.len() * years.len()) as f64;
    for (at, noun) in prompts.iter().enumerate() {
        for year in years {
            let century = 12 + at;
            let text = format!(
                "<bos> The {noun} lasted from the year {century} {year:02} to the year {century}"
            );
            let tokens = ids(&text);
            assert_eq!(tokens.len(), 13, "{text}: {tokens:?}");
            let frozen = Frozen::new(&loaded.model, &tokens, &device()).unwrap();
            let right = (year + 1..100).map(number).collect();
            let wrong = (0..=year).map(number).collect();
            let settings = GraphSettings::new()
                .with_neurons(true)
                .with_max_features(300)
                .with_targets(Targets::Difference(right, wrong));
            let graph = AttributionGraph::new(&frozen, &Transcoders::new(), &settings, &NoProgress)
                .unwrap();
            for head in graph.head_influence() {
                let sum = sums.entry(head.head).or_default();
                sum[0] += head.influence / count;
                sum[1] += head.to_targets / count;
            }
            let found = graph.scores();
            scores[0] += found.replacement / count;
            scores[1] += found.completeness / count;
        }
    }
    let mut table: Vec<(HeadId, [f64; 2])> = sums.into_iter().collect();
    table.sort_by(|a, b| b.1[0].total_cmp(&a.1[0]));
    println!(
        "replacement {:.3}, completeness {:.3}",
        scores[0], scores[1]
    );
    for (head, [influence, to_targets]) in table.iter().take(12) {
        println!("{head} {influence:.4} {to_targets:+.4}");
    }
}
