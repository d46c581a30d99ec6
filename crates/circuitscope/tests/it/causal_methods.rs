//! Causal methods on models whose circuits are known: the reference model, and compiled programs.

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::causal::Ablation;
use circuitscope::eval::methods::{MethodSettings, PatchedEdges, PatchingSettings, method};
use circuitscope::measures::{Judgement, judge};
use circuitscope::tasks::{GREATER_THAN, IOI, TASKS, TaskSpec};
use circuitscope::{CaptureSettings, PrepareSettings};
use circuitscope::{NoProgress, Seed};

type B = Autodiff<Flex>;

fn judged(task: &TaskSpec, names: &[&str], pairs: usize, ablation: Ablation) -> Vec<Judgement> {
    let how = CaptureSettings::default().with_ablation(ablation);
    let judged = crate::judged(
        task,
        pairs,
        Seed::new(2026),
        PrepareSettings::default(),
        how,
    );
    let settings = MethodSettings::default().with_patching(
        PatchingSettings::default()
            .with_patch_pairs(6)
            .with_mask_steps(60)
            .with_matryoshka_steps(200)
            .with_edges(PatchedEdges::All),
    );
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
    for task in [&IOI, &GREATER_THAN] {
        let exact = &judged(task, &["activation-patching"], 6, Ablation::Negative)[0];
        assert!(exact.node_auc >= 0.95, "{task}: {}", exact.node_auc);
        assert!(exact.edge_auc.is_none_or(|auc| auc >= 0.95), "{task}");
    }
}

#[test]
fn attribution_finds_the_planted_heads_where_gradients_do_not_vanish() {
    for task in [&IOI, &GREATER_THAN] {
        let names = ["eap", "eap-ig", "nap", "nap-ig", "hisp"];
        for (name, judgement) in names
            .iter()
            .zip(judged(task, &names, 40, Ablation::Negative))
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
    for task in TASKS {
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
        "matryoshka-masks",
    ];
    for (name, judgement) in names
        .iter()
        .zip(judged(&IOI, &names, 24, Ablation::Negative))
    {
        let auc = judgement.node_auc;
        assert!(auc >= 0.7, "{name}: {auc}");
    }
}
