//! Attribution scores against the PyTorch computation in `golden/attribution.py`, on one model of each kind.

use std::path::{Path, PathBuf};

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::Evidence;
use circuitscope::eval::causal::{Ablation, CausalEvidence, Metric, TokenPair};
use circuitscope::eval::methods::{MethodSettings, method};
use circuitscope::load_reference;
use circuitscope::measures::GraphScores;
use circuitscope::model::{Decoder, Processing, load_dir};
use circuitscope::{Graph, NoProgress, Polarity, Seed};
use circuitscope_testkit::Golden;

use crate::on_all_cores;

type B = Autodiff<Flex>;

/// The reference model for `gpt2`, else a golden model of the loaders.
fn model(name: &str) -> Decoder<Flex> {
    if name == "gpt2" {
        return load_reference(on_all_cores(Processing::Raw), &FlexDevice)
            .unwrap()
            .model;
    }
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../circuitscope-model/tests/it/golden/families")
        .join(name);
    let loaded = load_dir(
        &folder,
        on_all_cores(Processing::Raw),
        &FlexDevice,
        &NoProgress,
    );
    loaded.unwrap().model
}

/// The recorded prompts of a model.
fn evidence(golden: &Golden, name: &str, lengths: [usize; 2]) -> Evidence<Flex> {
    let mut pairs = Vec::new();
    for length in lengths {
        let of = |kind: &str| golden.tokens(&format!("{name}.{kind}.{length}"));
        let rows = of("clean").into_iter().zip(of("corrupt"));
        let answers = of("right").into_iter().zip(of("wrong"));
        for ((clean, corrupt), (right, wrong)) in rows.zip(answers) {
            let at = pairs.len();
            pairs.push(
                TokenPair::new((at, 8 + at), clean, corrupt)
                    .with_right(right)
                    .with_wrong(wrong),
            );
        }
    }
    assert_eq!(pairs.len(), 8);
    let model = model(name);
    let grid = model.config().grid();
    let causal = CausalEvidence::new(
        model,
        pairs,
        Metric::LogitDifference,
        Ablation::Negative,
        1 << 30,
        &FlexDevice,
    );
    let labels = [[Polarity::Positive; 8], [Polarity::Negative; 8]].concat();
    let nothing = Tensor::zeros([16, grid.len(), 1], &FlexDevice);
    let matched = (0..8).map(|at| (at, 8 + at)).collect();
    let evidence = Evidence::new(grid, nothing, labels, matched).unwrap();
    evidence.with_causal(causal.unwrap())
}

/// Scores of edges that there are, or of all writers.
fn flat(graph: &Graph, scores: &[f64]) -> Vec<f64> {
    if scores.len() == graph.writers() {
        return scores.to_vec();
    }
    let edges = graph.edges();
    edges
        .map(|(writer, reader)| scores[writer * graph.readers() + reader])
        .collect()
}

fn agrees(name: &str, lengths: [usize; 2]) {
    let golden = Golden::read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/attribution.safetensors"),
    );
    let evidence = evidence(&golden, name, lengths);
    for (method_name, tensor) in [
        ("eap", "eap"),
        ("eap-ig", "eap_ig"),
        ("nap", "nap"),
        ("hisp", "hisp"),
    ] {
        let method = method::<B>(method_name, &MethodSettings::default(), &FlexDevice).unwrap();
        let scores = method.scores(&evidence, Seed::new(0), &NoProgress).unwrap();
        let GraphScores {
            graph,
            nodes,
            edges,
        } = scores.graph.unwrap();
        let found = flat(&graph, &edges.or(nodes).unwrap());
        let expected = &golden.floats(&format!("{name}.{tensor}")).data;
        let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
        let expected = flat(&graph, &expected);
        let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        let gaps = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let gap = gaps.fold(0.0, f64::max);
        let rank = spearman(&found, &expected);
        println!(
            "{name}, {method_name}: Spearman {rank:.6}, gap {gap:.1e} of {largest:.2}, {} scores",
            found.len()
        );
        assert!(rank >= 0.999, "{name}, {method_name}: Spearman {rank}");
        assert!(
            gap <= 1e-4 * largest,
            "{name}, {method_name}: {gap} of {largest}"
        );
    }
}

#[test]
fn sequential_blocks() {
    agrees("gpt2", [12, 17]);
}

#[test]
fn parallel_residual() {
    agrees("gpt_neox", [9, 12]);
}

#[test]
fn grouped_queries_with_rms_norms() {
    agrees("llama", [9, 12]);
}

#[test]
fn norms_after_attention() {
    agrees("gemma2", [9, 12]);
}

/// Rank correlation; there are no ties among real numbers.
fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|x, y| values[*x].total_cmp(&values[*y]));
        let mut ranks = vec![0.0; values.len()];
        for (rank, at) in order.into_iter().enumerate() {
            ranks[at] = rank as f64;
        }
        ranks
    };
    let n = a.len() as f64;
    let both = ranks(a).into_iter().zip(ranks(b));
    let squares: f64 = both.map(|(a, b)| (a - b).powi(2)).sum();
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}
