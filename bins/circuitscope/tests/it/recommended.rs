//! The method that is recommended: what it finds on circuits that were planted, and what takes its place.

use crate::support::{Bench, rotated_pairs};

/// Mean node and edge AUC over tasks and seeds.
fn areas(bench: &Bench, line: &str) -> [f64; 2] {
    let found = bench.json(&format!(
        "eval --method recommended --resamples 0 --edges all {line}"
    ));
    let runs = found["runs"].as_array().unwrap();
    ["node_auc", "edge_auc"].map(|field| {
        let values = runs.iter().filter_map(|run| run[field].as_f64());
        let values: Vec<f64> = values.collect();
        assert!(!values.is_empty());
        values.iter().sum::<f64>() / values.len() as f64
    })
}

/// Ten pairs a task, no answers read: heads and edges of the four tasks, over draws of prompts.
#[test]
fn planted_circuits_rank_first() {
    let bench = Bench::new();
    let draws = [0, 10, 20].map(|seed| {
        let line = format!("--examples 10 --seeds 2 --seed {seed} --output e{seed}");
        areas(&bench, &line)
    });
    for (at, what) in ["node", "edge"].iter().enumerate() {
        let mean = draws.iter().map(|draw| draw[at]).sum::<f64>() / draws.len() as f64;
        assert!(mean >= 0.995, "{what} AUC {mean}: {draws:?}");
    }
}

/// 250 pairs: every planted head is above every other, edges nearly so, and Otsu's split takes no false head.
#[test]
fn many_pairs_leave_no_doubt() {
    let bench = Bench::new();
    let [nodes, edges] = areas(&bench, "--examples 250 --seeds 1 --output many");
    assert_eq!(nodes, 1.0);
    assert!(edges >= 0.999, "{edges}");
    for task in ["ioi", "greater-than", "docstring", "induction"] {
        let line = format!("discover --task {task} --examples 250 --faithfulness none");
        let found = bench.json(&line);
        assert_eq!(found["known"]["others"], 0, "{task}: {}", found["known"]);
        assert!(found["known"]["found"].as_u64().unwrap() > 0, "{task}");
    }
}

/// Shares of heads are of what the predictions are apart; edges come when asked for.
#[test]
fn shares_are_of_the_divergence_and_edges_are_asked_for() {
    let bench = Bench::new();
    let line = "discover --task induction --examples 12 --faithfulness none";
    let found = bench.json(line);
    assert_eq!(found["method"], "recommended");
    assert_eq!(found["selection"], "otsu");
    assert!(found["edges"].is_null() && found["null"].is_null());
    let total = found["divergence"].as_f64().unwrap();
    let said = found["behaviour"]["divergence"]["mean"].as_f64().unwrap();
    assert!((total - said).abs() < 1e-3 * total, "{total} {said}");
    for head in found["heads"].as_array().unwrap() {
        let value = |name: &str| head[name].as_f64().unwrap();
        let score = total * value("differs").hypot(value("used"));
        assert!((score - value("score")).abs() < 1e-6 * total, "{head}");
        assert_eq!(value("signed").abs(), value("score"));
    }
    let with = bench.json(&format!("{line} --edges all"));
    assert!(with["edges"].is_array());
    // Batches are of other sizes, so that sums round differently.
    let (a, b) = (&with["heads"][0], &found["heads"][0]);
    let score = |head: &serde_json::Value| head["score"].as_f64().unwrap();
    assert_eq!(a["head"], b["head"]);
    assert!((score(a) - score(b)).abs() < 1e-4 * score(b), "{a} {b}");
}

/// Prompts that are not matched are read by their activations, and that is said.
#[test]
fn without_pairs_activations_are_read() {
    let bench = Bench::new();
    let lines = |word: &str| {
        let prompts = ["maple", "anchor", "ember", "autumn"].map(|last| format!("{word} {last}"));
        prompts.join("\n")
    };
    bench.write("yes.txt", lines("tundra"));
    bench.write("no.txt", format!("{}\nfeather anchor", lines("banquet")));
    let ran = bench.run("discover --positive yes.txt --negative no.txt --format json");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["method"], "recommended-activations");
    assert!(
        ran.stderr
            .contains("recommended-activations takes its place"),
        "{ran:?}"
    );
}

/// What it compares are the prompts of a pair: that others share their sentences takes nothing away.
#[test]
fn what_concerns_other_methods_is_not_said_of_it() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    bench.write("pairs.jsonl", rotated_pairs());
    let line = "discover --model m --pairs pairs.jsonl --faithfulness none";
    assert!(!bench.ok(line).contains("are positives, too"));
    let means = bench.ok(&format!("{line} --method mean-difference"));
    assert!(
        means.contains("6 of 6 negatives are positives, too"),
        "{means}"
    );

    // Before the model is read.
    bench.fails(
        "discover --model nowhere --pairs pairs.jsonl --select fdr:0.1",
        "method `recommended` has no null of labels: expected one that gives other scores to other labels \
         without starting anew, such as `sae`, `recommended-activations` or `eap`, to choose at a false discovery rate",
    );
    let ran = bench.run(&format!("{line} --metric kl --reference zero"));
    assert!(
        ran.stderr
            .contains("recommended reads neither --metric nor --reference"),
        "{ran:?}"
    );
}

/// A run into the folder of another one leaves nothing of that one beside its own results.
#[test]
fn a_used_folder_holds_one_run() {
    let bench = Bench::new();
    let line = "discover --task induction --examples 8 --output out";
    bench.ok(line);
    let made = ["report.html", "neuronpedia.json", "importances.json"];
    for name in made {
        assert!(bench.path(&format!("out/{name}")).is_file());
        bench.write(&format!("out/{name}"), "of another run");
    }
    // One that cannot end: a folder stands where its picture would.
    let picture = bench.path("out/pictures/heads-induction-recommended.svg");
    fs_err::remove_file(&picture).unwrap();
    fs_err::create_dir_all(picture.join("x")).unwrap();
    let ran = bench.run(line);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for name in made {
        let path = bench.path(&format!("out/{name}"));
        let left = fs_err::read_to_string(path).unwrap_or_default();
        assert_ne!(left, "of another run", "{name}");
    }
}

/// Heads that were trained to name someone promote names, head by head and code by code; what codes carry adds up to
/// what the head does.
#[test]
fn codes_say_what_a_head_signals() {
    let bench = Bench::new();
    let found = bench.json("discover --task ioi --examples 30 --select top:6 --patch-pairs 4");
    let lexicon = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../datasets/reference/lexicon.json"
    );
    let lexicon: serde_json::Value =
        serde_json::from_str(&fs_err::read_to_string(lexicon).unwrap()).unwrap();
    let names = lexicon["ioi"]["names"].as_array().unwrap();
    let heads = found["cards"]["heads"].as_array().unwrap();
    assert_eq!(heads.len(), 6);
    for head in heads {
        let codes = head["codes"].as_array().unwrap();
        let effects = codes.iter().map(|code| code["effect"].as_f64().unwrap());
        let sum: f64 = effects.sum();
        assert!(
            (sum - head["effect"]["mean"].as_f64().unwrap()).abs() < 1e-6,
            "{head}"
        );
        let positives = codes.iter().map(|code| code["positives"].as_u64().unwrap());
        assert_eq!(positives.sum::<u64>(), 30);
    }
    // The name mover of the last layer.
    let mover = heads.iter().find(|head| head["head"] == "L3H3").unwrap();
    let codes = mover["codes"].as_array().unwrap();
    let names_one = |code: &&serde_json::Value| names.contains(&code["promotes"][0]);
    let naming = codes.iter().filter(names_one).count();
    assert!(
        naming * 10 >= codes.len() * 9,
        "{naming} of {}",
        codes.len()
    );

    let text = bench.ok("discover --task ioi --examples 6 --patch-pairs 2 --output out");
    assert!(text.contains("what its heads do"), "{text}");
    let page = fs_err::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("id=\"card-L3H3\""));
    let text = bench.ok("discover --task ioi --examples 6 --faithfulness none");
    assert!(!text.contains("what its heads do"), "{text}");
}
