//! Scores of other tools, judged by a circuit in a file without a model.

use std::path::PathBuf;
use std::process::Command;

use circuitscope_testkit::fixture;
use serde_json::{Value, json};

use crate::support::Bench;

/// One layer of two heads: scores of nodes and edges, or a circuit.
fn graph(nodes: &[(&str, bool, f64)], edges: &[(&str, bool, f64)]) -> String {
    let named = |entries: &[(&str, bool, f64)]| -> Value {
        let entries = entries.iter();
        let entries = entries.map(|(name, in_graph, score)| {
            (
                (*name).to_owned(),
                json!({ "in_graph": in_graph, "score": score }),
            )
        });
        Value::Object(entries.collect())
    };
    let cfg = json!({ "n_layers": 1, "n_heads": 2, "parallel_attn_mlp": false, "d_model": 8 });
    json!({ "cfg": cfg, "nodes": named(nodes), "edges": named(edges) }).to_string()
}

#[test]
fn scores_are_judged_by_a_file_alone() {
    let bench = Bench::new();
    let theirs = graph(
        &[
            ("input", false, 0.0),
            ("a0.h0", false, 0.1),
            ("a0.h1", false, -0.7),
            ("logits", false, 0.0),
        ],
        &[
            ("input->a0.h0<q>", false, 0.1),
            ("input->a0.h1<v>", false, 0.5),
            ("a0.h1->logits", false, 0.9),
            ("a0.h0->logits", false, 0.2),
        ],
    );
    bench.write("theirs/importances.json", theirs);
    let circuit = graph(
        &[("a0.h0", false, 0.0), ("a0.h1", true, 0.0)],
        &[("a0.h1->logits", true, 0.0)],
    );
    bench.write("manual.json", circuit);
    let line = "eval --scores theirs/importances.json --circuit manual.json";
    let found = bench.json(line);
    assert_eq!(found["heads"], 1);
    let file = &found["files"][0];
    assert_eq!(file["name"], "theirs-importances");
    assert_eq!(file["node_auc"], 1.0);
    assert_eq!(file["graph_edge_auc"], 1.0);
    assert!(found["provenance"]["inputs"]["manual.json"].is_string());
    let text = bench.ok(line);
    assert!(
        text.contains("graph edge AUC") && text.contains("theirs-importances"),
        "{text}"
    );
    // Nothing is written where an evaluation would be.
    assert!(!bench.path("circuitscope-eval").exists());

    bench.fails(
        "eval --scores theirs/importances.json",
        "--scores: found no --task, expected the one --task that the scores are for, or --circuit FILE, by which they \
         are judged without a model",
    );
    bench.fails(
        "eval --scores theirs/importances.json --scores theirs/importances.json --circuit manual.json",
        "--scores theirs/importances.json: another file is named theirs-importances, too; rename one",
    );
    let other = graph(&[("a0.h0", true, 0.0)], &[]).replace("\"n_heads\":2", "\"n_heads\":3");
    bench.write("other.json", other);
    bench.fails(
        &format!("{line} --seeds 7 --output there"),
        "--scores: found --seeds, --output without --task: scores that are judged by --circuit manual.json alone run no model; \
         leave them out, or name the --task",
    );
    bench.fails(
        &format!("{line} --patch-pairs 20"),
        "--scores: found --patch-pairs without --task: scores that are judged by --circuit manual.json alone run no model; \
         leave it out, or name the --task",
    );
    // A shape that nothing in the file bears out.
    let huge = graph(&[("a0.h0", false, 0.1), ("a0.h1", false, 0.2)], &[]);
    bench.write(
        "huge.json",
        huge.replace("\"n_layers\":1", "\"n_layers\":1000000000000"),
    );
    bench.fails(
        "eval --scores huge.json --circuit manual.json",
        "huge.json: cfg: found 1000000000000 layers of 2 heads and 2 heads among the nodes, expected all of them to be there",
    );
    let ran = bench.run("eval --scores theirs/importances.json --circuit other.json");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("other.json") && ran.stderr.lines().count() == 1,
        "{ran:?}"
    );
}

/// A compressed file of the fixtures, unpacked.
fn unpacked(bench: &Bench, file: &str) -> PathBuf {
    let name = file.rsplit('/').next().unwrap().trim_end_matches(".gz");
    let out = Command::new("gzip")
        .arg("-dc")
        .arg(fixture(file))
        .output()
        .unwrap();
    assert!(out.status.success());
    bench.write(name, out.stdout);
    bench.path(name)
}

/// Score files of GPT-2 small by the circuit that was made by hand for greater-than, and by Wang's for IOI.
#[test]
#[ignore = "needs ../shared/fixtures"]
fn files_of_gpt2_give_the_figures_of_their_folder() {
    let bench = Bench::new();
    let circuit = unpacked(&bench, "field/mib-auc-branch/greater-than_manual.json.gz");
    for (file, heads, edges) in [
        (
            "mib-auc-branch/greater-than_prob_diff_real.converted.json.gz",
            0.9658,
            0.9006,
        ),
        (
            "mib-auc-branch/greater-than_prob_diff_vanilla.converted.json.gz",
            0.9665,
            0.8915,
        ),
        (
            "mib-auc-branch/greater-than_prob_diff_ig.json.gz",
            0.9706,
            0.8813,
        ),
        (
            "mib-ugs/ugs-greater-than-gpt2-0.001.json.gz",
            0.9836,
            0.9256,
        ),
    ] {
        let scores = unpacked(&bench, &format!("field/{file}"));
        let line = format!(
            "eval --scores {} --circuit {}",
            scores.display(),
            circuit.display()
        );
        let found = bench.json(&line);
        assert_eq!(found["heads"], 11);
        let found = &found["files"][0];
        for (name, expected) in [("node_auc", heads), ("graph_edge_auc", edges)] {
            let found = found[name].as_f64().unwrap();
            assert!(
                (found - expected).abs() < 6e-5,
                "{file} {name}: {found} {expected}"
            );
        }
    }
}
