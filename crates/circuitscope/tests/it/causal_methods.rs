//! Causal methods on models whose circuits are known: the reference model, and compiled programs.

use std::path::Path;

use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn_flex::{Flex, FlexDevice};
use circuitscope::core::{NoProgress, Polarity, Seed};
use circuitscope::eval::causal::{Ablation, CausalEvidence, Metric, TokenPair};
use circuitscope::eval::methods::{MethodSettings, PatchingSettings, method};
use circuitscope::eval::{Evidence, Judgement, judge};
use circuitscope::model::Processing;
use circuitscope::tasks::Task;
use circuitscope::{
    CaptureSettings, CausalSettings, judged_task, known_circuits, load_reference, posed_task,
};
use circuitscope_testkit::Golden;

type B = Autodiff<Flex>;

fn judged(task: Task, names: &[&str], pairs: usize, ablation: Ablation) -> Vec<Judgement> {
    let loaded = load_reference::<Flex>(Processing::Folded, &FlexDevice).unwrap();
    let posed = posed_task(&loaded, task, pairs, Seed::new(2026), None).unwrap();
    let judged = judged_task(
        &loaded,
        &posed,
        known_circuits(&loaded, task, None).unwrap(),
        CaptureSettings {
            causal: CausalSettings {
                ablation,
                ..CausalSettings::default()
            },
            ..CaptureSettings::default()
        },
        &FlexDevice,
        &NoProgress,
    )
    .unwrap();
    let settings = MethodSettings {
        patching: PatchingSettings {
            patch_pairs: 6,
            mask_steps: 60,
            ..PatchingSettings::default()
        },
        ..MethodSettings::default()
    };
    let judge_one = |name: &&str| {
        let method = method::<B>(name, &settings, &FlexDevice).unwrap();
        let scores = method.scores(&judged.evidence, Seed::new(0), &NoProgress);
        let judgement = judge(&scores.unwrap(), &judged.truths[0]).unwrap();
        println!(
            "{task}, {name}: node AUC {:.3}, edge AUC {:?}",
            judgement.node_auc, judgement.edge_auc
        );
        judgement
    };
    names.iter().map(judge_one).collect()
}

/// The circuit was planted, so that what ablates heads one by one has to find it.
#[test]
fn exact_patching_finds_the_planted_heads() {
    for task in [Task::Ioi, Task::GreaterThan] {
        let exact = &judged(task, &["activation-patching"], 6, Ablation::Patching)[0];
        assert!(exact.node_auc >= 0.95, "{task}: {}", exact.node_auc);
        assert!(exact.edge_auc.is_none_or(|auc| auc >= 0.95), "{task}");
    }
}

#[test]
fn attribution_finds_the_planted_heads_where_gradients_do_not_vanish() {
    for task in [Task::Ioi, Task::GreaterThan] {
        let names = ["eap", "eap-ig", "nap", "nap-ig", "hisp"];
        for (name, judgement) in names
            .iter()
            .zip(judged(task, &names, 40, Ablation::Patching))
        {
            let auc = judgement.node_auc;
            assert!(auc >= 0.95, "{task}, {name}: {auc}");
        }
    }
}

/// By the matched negative prompt the previous-token head of induction cannot be seen: it says the
/// same on both prompts of a pair. Against its mean over all prompts it can.
#[test]
fn attribution_against_the_mean_finds_the_planted_heads_of_all_tasks() {
    for task in Task::ALL {
        let auc = judged(task, &["eap"], 100, Ablation::Mean)[0].node_auc;
        assert!(auc >= 0.94, "{task}: {auc}");
    }
}

#[test]
fn other_methods_are_above_chance() {
    let names = [
        "cd-t",
        "direct-logit-attribution",
        "information-flow-routes",
        "subnetwork-probing",
    ];
    for (name, judgement) in names
        .iter()
        .zip(judged(Task::Ioi, &names, 24, Ablation::Patching))
    {
        let auc = judgement.node_auc;
        assert!(auc >= 0.7, "{name}: {auc}");
    }
}

/// Against the PyTorch computation in `golden/attribution.py`.
#[test]
fn edge_scores_agree_with_an_independent_computation() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/golden/attribution.safetensors"
    );
    let golden = Golden::read(Path::new(file));
    let loaded = load_reference::<Flex>(Processing::Raw, &FlexDevice).unwrap();
    let mut pairs = Vec::new();
    for length in [12, 17] {
        let of = |name: &str| golden.tokens(&format!("{name}.{length}"));
        let rows = of("clean").into_iter().zip(of("corrupt"));
        let answers = of("right").into_iter().zip(of("wrong"));
        for ((clean, corrupt), (right, wrong)) in rows.zip(answers) {
            let at = pairs.len();
            pairs.push(TokenPair {
                rows: (at, 8 + at),
                clean,
                corrupt,
                position: None,
                right,
                wrong,
            });
        }
    }
    let causal = CausalEvidence::new(
        loaded.model.clone(),
        pairs,
        Metric::LogitDifference,
        Ablation::Patching,
        1 << 30,
        &FlexDevice,
    )
    .unwrap();
    let grid = loaded.model.config().grid();
    let labels = [[Polarity::Positive; 8], [Polarity::Negative; 8]].concat();
    let nothing = Tensor::zeros([16, grid.len(), 1], &FlexDevice);
    let matched = (0..8).map(|at| (at, 8 + at)).collect();
    let evidence = Evidence::new(grid, nothing, labels, matched).unwrap();
    let evidence = evidence.with_causal(causal);
    for (method_name, tensor) in [("eap", "eap"), ("eap-ig", "eap_ig")] {
        let method = method::<B>(method_name, &MethodSettings::default(), &FlexDevice).unwrap();
        let scores = method.scores(&evidence, Seed::new(0), &NoProgress).unwrap();
        let graph = scores.graph.unwrap();
        let found = graph.edges.unwrap();
        let expected: Vec<f64> = golden
            .floats(tensor)
            .data
            .iter()
            .map(|x| f64::from(*x))
            .collect();
        let edges: Vec<usize> = graph
            .graph
            .edges()
            .map(|(writer, reader)| writer * graph.graph.readers() + reader)
            .collect();
        let of = |values: &[f64]| edges.iter().map(|&at| values[at]).collect::<Vec<f64>>();
        let (found, expected) = (of(&found), of(&expected));
        let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        let gap = found
            .iter()
            .zip(&expected)
            .fold(0.0f64, |max, (a, b)| max.max((a - b).abs()));
        let rank = spearman(&found, &expected);
        println!("{method_name}: Spearman {rank:.6}, gap {gap:.1e} of {largest:.2}");
        assert!(rank >= 0.99, "{method_name}: Spearman {rank}");
        assert!(gap <= 1e-3 * largest, "{method_name}: {gap} of {largest}");
    }
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
    let squares: f64 = ranks(a)
        .iter()
        .zip(ranks(b))
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}
