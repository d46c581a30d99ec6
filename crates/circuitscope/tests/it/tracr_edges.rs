//! Exact edge patching on compiled programs, whose edges are known from their weights.

use std::collections::BTreeSet;
use std::path::Path;

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::Evidence;
use circuitscope::eval::causal::{Ablation, CausalEvidence, Metric, TokenPair};
use circuitscope::eval::methods::{MethodSettings, PatchedEdges, PatchingSettings, method};
use circuitscope::measures::GraphScores;
use circuitscope::model::{Processing, load_dir};
use circuitscope::{Graph, HeadId, NoProgress, Node, Polarity, Port, Seed};
use circuitscope_testkit::fixture;
use serde_json::Value;

fn json(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs_err::read(folder.join(name)).unwrap()).unwrap()
}

/// Inputs of one length whose outputs differ, read wherever they do.
fn pairs(folder: &Path) -> Vec<TokenPair> {
    let vocabulary = json(folder, "vocab.json")["output_vocab"].clone();
    let number = |value: &Value| {
        let all = vocabulary.as_array().unwrap();
        all.iter().position(|known| known == value).unwrap() as u32
    };
    let tests = json(folder, "io_tests.json");
    let tests = tests.as_array().unwrap();
    let ids = |test: &Value| -> Vec<u32> {
        let ids = test["ids"].as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let mut pairs = Vec::new();
    let all = (0..tests.len()).flat_map(|a| (0..tests.len()).map(move |b| (a, b)));
    for (clean, corrupt) in all.map(|(a, b)| (&tests[a], &tests[b])) {
        let (a, b) = (ids(clean), ids(corrupt));
        if a.len() != b.len() {
            continue;
        }
        let outputs = clean["rasp_output"].as_array().unwrap().iter();
        let others = corrupt["rasp_output"].as_array().unwrap();
        for (at, (right, wrong)) in outputs.zip(others).enumerate() {
            if right == wrong || right.is_null() || wrong.is_null() {
                continue;
            }
            pairs.push(
                TokenPair::new((0, 1), a.clone(), b.clone())
                    // The first token is no output.
                    .with_position(Some(at + 1))
                    .with_right(vec![number(right)])
                    .with_wrong(vec![number(wrong)]),
            );
        }
    }
    // Spread over all inputs.
    let step = pairs.len().div_ceil(PAIRS);
    pairs.into_iter().step_by(step).collect()
}

const PAIRS: usize = 120;

/// The edges of `ground_truth.json` as indices of the graph.
fn truth(folder: &Path, graph: &Graph) -> BTreeSet<(usize, usize)> {
    let node = |name: &str| match name {
        "embed" | "pos_embed" => Node::Input,
        "unembed" => Node::Logits,
        name => {
            let digits = |text: &str| text.parse::<usize>().unwrap();
            match name[1..].split_once('H') {
                Some((layer, head)) => HeadId::new(digits(layer), digits(head)).into(),
                None => Node::Mlp(digits(name[1..].trim_end_matches('M'))),
            }
        }
    };
    let edges = json(folder, "ground_truth.json")["edges"].clone();
    let edges = edges.as_array().unwrap().iter().map(|edge| {
        let text = |key: &str| edge[key].as_str().unwrap();
        let writer = graph.writer_index(node(text("from"))).unwrap();
        let reader = match (node(text("to")), text("port")) {
            (Node::Head(head), port) => {
                let port = match port {
                    "q" => Port::Q,
                    "k" => Port::K,
                    _ => Port::V,
                };
                graph.port_reader(head, port)
            }
            (other, _) => graph.readers_of(other)[0],
        };
        (writer, reader)
    });
    edges.collect()
}

/// The effect of ablating each edge, `[writers * readers]`.
fn effects(folder: &Path, ablation: Ablation) -> GraphScores {
    let loaded = load_dir::<Flex>(folder, Processing::Raw, &FlexDevice, &NoProgress).unwrap();
    let grid = loaded.model.config().grid();
    let causal = CausalEvidence::new(
        loaded.model,
        pairs(folder),
        Metric::LogitDifference,
        ablation,
        1 << 30,
        &FlexDevice,
    );
    let labels = vec![Polarity::Positive, Polarity::Negative];
    let activations = Tensor::zeros([2, grid.len(), 1], &FlexDevice);
    let evidence = Evidence::new(grid, activations, labels, vec![(0, 1)]).unwrap();
    let settings = MethodSettings::default().with_patching(
        PatchingSettings::default()
            .with_patch_pairs(PAIRS)
            .with_edges(PatchedEdges::All),
    );
    let exact = method::<Autodiff<Flex>>("activation-patching", &settings, &FlexDevice).unwrap();
    let evidence = evidence.with_causal(causal.unwrap());
    let scores = exact.scores(&evidence, Seed::new(0), &NoProgress);
    scores.unwrap().graph.unwrap()
}

/// No edge but those of the program has an effect. Which of the program's edges have one depends on
/// the ablation: what is the same in all inputs, such as a constant or a position that a query reads,
/// shows under zero ablation only; what zero happens to stand for, under another one only.
fn check(program: &str, expected: [(Ablation, usize); 3], of: usize, by_any: usize) {
    let folder = fixture("tracr").join(program);
    let mut found = BTreeSet::new();
    for (ablation, expected) in expected {
        let scores = effects(&folder, ablation);
        let truth = truth(&folder, &scores.graph);
        assert_eq!(truth.len(), of, "{program}");
        let (mut here, mut largest) = (BTreeSet::new(), 0.0f64);
        for (writer, reader) in scores.graph.edges() {
            let effect = scores.edge(writer, reader).unwrap().abs();
            if !truth.contains(&(writer, reader)) {
                largest = largest.max(effect);
            } else if effect > 1e-4 {
                here.insert((writer, reader));
            }
        }
        println!(
            "{program}, {ablation}: {} of {of} edges, largest effect of any other edge {largest:.1e}",
            here.len()
        );
        assert!(largest < 1e-5, "{program}, {ablation}: {largest}");
        assert_eq!(here.len(), expected, "{program}, {ablation}");
        found.extend(here);
    }
    assert_eq!(found.len(), by_any, "{program}");
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn hist() {
    let expected = [
        (Ablation::Negative, 4),
        (Ablation::Zero, 6),
        (Ablation::Mean, 5),
    ];
    check("hist", expected, 6, 6);
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn shift_twice() {
    let expected = [
        (Ablation::Negative, 3),
        (Ablation::Zero, 7),
        (Ablation::Mean, 7),
    ];
    check("shift_twice", expected, 7, 7);
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn dyck1() {
    let expected = [
        (Ablation::Negative, 12),
        (Ablation::Zero, 24),
        (Ablation::Mean, 22),
    ];
    check("dyck1", expected, 29, 25);
}
