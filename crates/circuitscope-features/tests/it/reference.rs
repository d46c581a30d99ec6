//! The reference model, whose circuits are known: which heads do graphs go through?

use circuitscope_core::{HeadId, NoProgress};
use circuitscope_features::{
    AttributionGraph, Frozen, GraphSettings, Targets, Transcoders, head_table,
};
use circuitscope_model::{Decoder, ModelBytes, Processing, load_bytes};

use crate::models::{B, device};

const FEATURES: usize = 500;

/// Of a prompt against another, with the model's own neurons as features.
fn graph(
    model: &Decoder<B>,
    [tokens, others]: [&[u32]; 2],
    targets: &Targets,
    features: usize,
) -> AttributionGraph {
    let [frozen, other] = [tokens, others].map(|t| Frozen::new(model, t, &device()).unwrap());
    let settings = GraphSettings::new()
        .with_neurons(true)
        .with_max_features(features)
        .with_targets(targets.clone());
    let none = Transcoders::new();
    AttributionGraph::against(&frozen, &other, &none, &settings, &NoProgress).unwrap()
}

/// Greater-than: by what heads move because of the year, the planted heads are first; by influence alone they are not.
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
    let mut graphs = Vec::new();
    for (at, noun) in ["council", "drought", "regatta", "truce"]
        .iter()
        .enumerate()
    {
        for year in [7, 23, 41, 58, 76, 91] {
            let prompt = |year: u32| {
                let century = 12 + at;
                let text = format!(
                    "<bos> The {noun} lasted from the year {century} {year:02} to the year {century}"
                );
                let tokens = ids(&text);
                assert_eq!(tokens.len(), 13, "{text}: {tokens:?}");
                tokens
            };
            let right = (year + 1..100).map(number).collect();
            let wrong = (0..=year).map(number).collect();
            let targets = Targets::Difference(right, wrong);
            let pair = [&prompt(year)[..], &prompt(1)];
            graphs.push(graph(&loaded.model, pair, &targets, FEATURES));
        }
    }
    let mean =
        |of: fn(&AttributionGraph) -> f64| graphs.iter().map(of).sum::<f64>() / graphs.len() as f64;
    println!(
        "replacement {:.3}, completeness {:.3}",
        mean(|graph| graph.scores().replacement),
        mean(|graph| graph.scores().completeness)
    );
    let table = head_table(&graphs).unwrap();
    for row in table.iter().take(10) {
        println!(
            "{} contrast {:.4}, influence {:.4}, total {:+.4}",
            row.head,
            row.contrast.unwrap(),
            row.influence,
            row.total
        );
    }
    let mut first: Vec<HeadId> = table.iter().take(3).map(|row| row.head).collect();
    first.sort_unstable();
    let planted = [(1, 0), (1, 6), (2, 4)].map(|(layer, head)| HeadId::new(layer, head));
    assert_eq!(first, planted);
    assert!(head_table(&[]).is_err());
}
