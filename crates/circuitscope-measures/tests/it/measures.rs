use circuitscope_measures::{Ranking, circuits_auc, circuits_auc_pessimistic, mean_std};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    rankings: Vec<Case>,
    spread: Spread,
}

#[derive(Deserialize)]
struct Case {
    truth: Vec<u8>,
    scores: Vec<f64>,
    fpr: Vec<f64>,
    tpr: Vec<f64>,
    thresholds: Vec<f64>,
    auc: f64,
    auc_pessimistic: f64,
    average_precision: f64,
    best_f1: f64,
    best_f1_threshold: f64,
    best_f1_size: usize,
    best_paper_f1: f64,
}

#[derive(Deserialize)]
struct Spread {
    values: Vec<f64>,
    mean: f64,
    std: f64,
}

/// Sums of up to 1200 terms of at most 1, in another order.
const TOLERANCE: f64 = 1e-13;

#[track_caller]
fn assert_close(ours: f64, theirs: f64) {
    assert!(
        (ours - theirs).abs() <= TOLERANCE,
        "{ours} against {theirs}"
    );
}

#[test]
fn equal_scikit_learn() {
    let golden: Golden = serde_json::from_str(include_str!("golden/measures.json")).unwrap();
    assert_eq!(golden.rankings.len(), 6);
    for case in &golden.rankings {
        let truth: Vec<bool> = case.truth.iter().map(|&bit| bit == 1).collect();
        let ranking = Ranking::new(&truth, &case.scores).unwrap();
        let roc = ranking.roc();
        assert_eq!(roc.iter().map(|p| p.fpr).collect::<Vec<_>>(), case.fpr);
        assert_eq!(roc.iter().map(|p| p.tpr).collect::<Vec<_>>(), case.tpr);
        assert_eq!(roc[0].threshold, f64::INFINITY);
        assert_eq!(
            roc[1..].iter().map(|p| p.threshold).collect::<Vec<_>>(),
            case.thresholds
        );
        assert_close(ranking.auc(), case.auc);
        assert_close(ranking.auc_pessimistic(), case.auc_pessimistic);
        assert_close(ranking.average_precision(), case.average_precision);
        assert_close(ranking.best_paper_f1(), case.best_paper_f1);
        let best = ranking.best_f1();
        assert_close(best.f1, case.best_f1);
        assert_eq!(
            (best.threshold, best.size),
            (case.best_f1_threshold, case.best_f1_size)
        );
    }
    let Spread { values, mean, std } = golden.spread;
    assert_close(mean_std(&values).0, mean);
    assert_close(mean_std(&values).1, std);
}

/// Circuits of ACDC's own sweeps, as its repository publishes their rates, against the areas of its
/// Table 2.
#[test]
fn acdc_s_published_areas() {
    #[derive(serde::Deserialize)]
    struct Curve {
        task: String,
        metric: String,
        level: String,
        published: f64,
        points: Vec<(f64, f64)>,
    }
    #[derive(serde::Deserialize)]
    struct File {
        curves: Vec<Curve>,
    }
    let file: File = serde_json::from_str(include_str!("golden/acdc_roc.json")).unwrap();
    assert_eq!(file.curves.len(), 8);
    for curve in file.curves {
        let name = format!("{} {} {}", curve.task, curve.metric, curve.level);
        let pessimistic = circuits_auc_pessimistic(&curve.points);
        // Published with three digits.
        assert!(
            (pessimistic - curve.published).abs() < 0.0006,
            "{name}: {pessimistic} against {}",
            curve.published
        );
        let trapezoid = circuits_auc(&curve.points);
        // Two of the areas that others have recomputed by the trapezoid rule.
        match name.as_str() {
            "ioi kl_div edge" => assert!((trapezoid - 0.886).abs() < 0.0006),
            "ioi logit_diff node" => assert!((trapezoid - 0.830).abs() < 0.0006),
            _ => {}
        }
    }
}
