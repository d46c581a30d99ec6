//! Methods that take edges away: greedily, or by gates that are learned.

use super::*;

#[test]
fn greedy_removal_keeps_what_matters() {
    let causal = causal(&decoder(11), Metric::LogitDifference, Ablation::Negative);
    let evidence = evidence(causal);
    let exact = graph_of("activation-patching", &evidence, 5).edges.unwrap();
    let acdc = graph_of("acdc", &evidence, 5);
    let graph = acdc.graph;
    let edges = acdc.edges.unwrap();
    let mut kept: Vec<usize> = (0..edges.len()).filter(|&at| edges[at] > 0.0).collect();
    kept.sort_by(|a, b| exact[*b].abs().total_cmp(&exact[*a].abs()));
    assert!(!kept.is_empty() && kept.len() < graph.n_edges());
    // The edge of the largest effect on its own is kept to the highest threshold.
    let mut order: Vec<usize> = (0..exact.len()).collect();
    order.sort_by(|a, b| exact[*b].total_cmp(&exact[*a]));
    assert_eq!(edges[order[0]], 0.1, "threshold of the strongest edge");
}

/// Algorithm 1 of ACDC for one threshold as it is written: every edge, the whole model, one set at a time.
fn greedy(runs: &PatchedRuns<'_, Flex>, tau: f64) -> Vec<f32> {
    let graph = runs.graph();
    let writers = graph.writers();
    let value = |set: &[f32]| {
        let values = runs.run(&[set], 0, &[Metric::LogitDifference]).unwrap();
        values[0][0].iter().sum::<f64>() / values[0][0].len() as f64
    };
    let mut set = vec![1.0; graph.readers() * writers];
    let mut before = value(&set);
    for reader in (0..graph.readers()).rev() {
        for writer in (0..graph.visible(reader)).rev() {
            set[reader * writers + writer] = 0.0;
            let without = value(&set);
            if before - without < tau {
                before = without;
            } else {
                set[reader * writers + writer] = 1.0;
            }
        }
    }
    set
}

#[test]
fn a_sweep_is_one_greedy_removal_for_each_threshold() {
    let causal = causal(&decoder(11), Metric::LogitDifference, Ablation::Negative);
    let scores = graph_of("acdc", &evidence(causal.clone()), 5);
    let (graph, edges) = (scores.graph, scores.edges.unwrap());
    // Half of the pairs.
    let runs = PatchedRuns::new(&causal, 2).unwrap();
    let circuitscope_measures::Baseline { full, empty } =
        runs.baseline(Metric::LogitDifference).unwrap();
    let mut expected = vec![0.0; edges.len()];
    for share in [0.001, 0.01, 0.03, 0.1] {
        let kept = greedy(&runs, share * (full - empty).abs());
        for (writer, reader) in graph.edges() {
            if kept[reader * graph.writers() + writer] == 1.0 {
                expected[writer * graph.readers() + reader] = share;
            }
        }
    }
    assert_eq!(edges, expected);
    // The thresholds part: all of them occur.
    for share in [0.0, 0.001, 0.01, 0.03, 0.1] {
        assert!(edges.contains(&share), "{share}");
    }
}

#[test]
fn learned_gates_prefer_what_matters() {
    let evidence = evidence(causal(
        &decoder(12),
        Metric::LogitDifference,
        Ablation::Negative,
    ));
    let exact = graph_of("activation-patching", &evidence, 5);
    for name in ["subnetwork-probing", "edge-pruning"] {
        let scores = graph_of(name, &evidence, 5);
        let (found, exact) = match (&scores.nodes, &scores.edges) {
            (Some(found), _) => (&found[1..], &exact.nodes.as_ref().unwrap()[1..]),
            (_, Some(found)) => (&found[..], &exact.edges.as_ref().unwrap()[..]),
            _ => unreachable!(),
        };
        // Gates of the stronger half stay open longer.
        let mut order: Vec<usize> = (0..exact.len()).filter(|&at| exact[at] != 0.0).collect();
        order.sort_by(|a, b| exact[*b].total_cmp(&exact[*a]));
        let (strong, weak) = order.split_at(order.len() / 2);
        let mean =
            |half: &[usize]| half.iter().map(|&at| found[at]).sum::<f64>() / half.len() as f64;
        assert!(
            mean(strong) > 1.2 * mean(weak),
            "{name}: {} against {}",
            mean(strong),
            mean(weak)
        );
    }
}
