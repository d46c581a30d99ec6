//! Numbers that others published of GPT-2 small, from their files.

use std::process::Command;

use circuitscope_core::Graph;
use circuitscope_measures::formats::GraphFile;
use circuitscope_measures::{GraphScores, MIB_SIZES, Scores, cmd, cpr, judge};
use circuitscope_tasks::{IOI, ground_truths};
use circuitscope_testkit::fixture;
use serde_json::Value;

/// MIB's evaluator on IOI: areas of 25 runs, from its own ten values each.
#[test]
#[ignore = "needs ../shared/fixtures"]
fn areas_are_those_of_mib() {
    let file = fixture("field/mib-fork-curves/mib_ioi_gpt2_curves.json");
    let runs: Value = serde_json::from_str(&fs_err::read_to_string(file).unwrap()).unwrap();
    let runs = runs.as_object().unwrap();
    assert_eq!(runs.len(), 25);
    let mut seen = 0;
    for (name, run) in runs {
        let values = run["faithfulnesses"].as_array().unwrap();
        let values = values.iter().map(|value| value.as_f64().unwrap());
        let points: Vec<(f64, f64)> = MIB_SIZES.into_iter().zip(values).collect();
        for (found, field) in [(cpr(&points), "area_under"), (cmd(&points), "area_from_1")] {
            let expected = run[field].as_f64().unwrap();
            assert!(
                (found - expected).abs() < 1e-12,
                "{name} {field}: {found} {expected}"
            );
        }
        for (of, area, distance) in [
            ("EAP_patching_edge/ioi_gpt2_test", 1.194_041_3, 0.207_016_5),
            (
                "EAP-IG-inputs_patching_edge/ioi_gpt2_test",
                1.832_921_2,
                0.837_112_6,
            ),
        ] {
            if name.contains(of) {
                assert!((cpr(&points) - area).abs() < 1e-7, "{name}");
                assert!((cmd(&points) - distance).abs() < 1e-7, "{name}");
                seen += 1;
            }
        }
        // Nodes in the order of signed scores: while the input is cut nothing goes through, so that half of the range is
        // empty and the rest one strip up to everything.
        if name.contains("EAP_patching_node/ioi_gpt2_test") {
            assert!(
                (cpr(&points) - 0.25).abs() < 0.01,
                "{name}: {}",
                cpr(&points)
            );
        }
    }
    assert_eq!(seen, 2);
}

/// Score files of IOI by the 26 heads of Wang et al.
#[test]
#[ignore = "needs ../shared/fixtures"]
fn heads_of_ioi_are_ranked_as_published() {
    let folder = tempfile::tempdir().unwrap();
    let truth = ground_truths(&IOI, "gpt2-small").unwrap().swap_remove(0);
    assert_eq!(truth.circuit.heads().count(), 26);
    let graph = Graph {
        n_layers: 12,
        n_heads: 12,
        n_key_value_heads: 12,
        mlps: true,
        parallel: false,
    };
    for (file, expected) in [
        ("field/mib-auc-branch/ioi-eap-ig.json.gz", 0.9377),
        ("field/mib-ugs/ugs-ioi-gpt2-0.001.json.gz", 0.9654),
    ] {
        let packed = Command::new("gzip").arg("-dc").arg(fixture(file)).output();
        let path = folder.path().join("scores.json");
        fs_err::write(&path, packed.unwrap().stdout).unwrap();
        let scores = GraphFile::read(&path)
            .unwrap()
            .scores(&path, &graph)
            .unwrap();
        let scores = Scores::of_graph(GraphScores {
            graph,
            nodes: scores.nodes,
            edges: scores.edges,
        });
        let found = judge(&scores, &truth).unwrap().node_auc;
        assert!(
            (found - expected).abs() < 6e-5,
            "{file}: {found} {expected}"
        );
    }
}
