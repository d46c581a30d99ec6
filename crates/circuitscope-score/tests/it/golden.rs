use std::collections::BTreeMap;

use circuitscope_core::{HeadGrid, Polarity};
use circuitscope_score::{CodeTable, node_scores, pair_scores, paired_flip_rate, softmax};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    n_layers: usize,
    n_heads: usize,
    labels: Vec<i64>,
    codes: Vec<i32>,
    own: Expected,
    paper_compatible: Expected,
    flip_rate: Vec<f64>,
}

#[derive(Deserialize)]
struct Expected {
    unique: Vec<u32>,
    normalised: Vec<f64>,
    softmax: Vec<f64>,
    pair_unique: Vec<u32>,
    pair_paper_normalised: Vec<f64>,
    directed_unique: Vec<u32>,
    head_counts: BTreeMap<String, Vec<u32>>,
}

fn check(table: &CodeTable, expected: &Expected) {
    let nodes = node_scores(table).unwrap();
    let unique: Vec<u32> = nodes.iter().map(|score| score.unique).collect();
    assert_eq!(unique, expected.unique);
    // One correctly rounded division on either side: equal to the bit.
    let normalised: Vec<f64> = nodes.iter().map(|score| score.normalised).collect();
    assert_eq!(normalised, expected.normalised);
    let scores: Vec<f64> = unique.iter().map(|&count| count.into()).collect();
    for (ours, theirs) in softmax(&scores).iter().zip(&expected.softmax) {
        // Two libraries' exp, and sums in another order.
        assert!((ours - theirs).abs() <= 1e-15, "{ours} against {theirs}");
    }

    let pairs = pair_scores(table).unwrap();
    assert_eq!(pairs.unique(), expected.pair_unique);
    assert_eq!(pairs.paper_normalised(), expected.pair_paper_normalised);
    let directed: Vec<u32> = pairs.directed().iter().map(|edge| edge.unique).collect();
    assert_eq!(directed, expected.directed_unique);
    for (k, counts) in &expected.head_counts {
        assert_eq!(&pairs.paper_head_counts(k.parse().ok()), counts, "k = {k}");
    }
}

#[test]
fn equal_dense_numpy_arrays() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("golden/scores.json")).unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let labels: Vec<Polarity> = case
            .labels
            .iter()
            .map(|&label| Polarity::of(label == 1))
            .collect();
        let kinds = &case.labels;
        let of = |polarity| (0..labels.len()).filter(move |&at| kinds[at] == polarity);
        let pairs: Vec<_> = of(1).zip(of(0)).collect();
        let grid = HeadGrid::new(case.n_layers, case.n_heads);
        let table = CodeTable::new(grid, labels.clone(), case.codes).unwrap();
        check(&table, &case.own);
        check(&table.paper_compatible(), &case.paper_compatible);
        for (ours, theirs) in paired_flip_rate(&table, &pairs)
            .unwrap()
            .iter()
            .zip(&case.flip_rate)
        {
            // numpy's mean is a sum of exact ones, then one division, as here.
            assert_eq!(ours, theirs);
        }
    }
}
