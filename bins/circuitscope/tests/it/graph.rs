//! `graph`: attribution graphs of prompts of the reference model, through its neurons and through small transcoders.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Bench, Ran};

const PROMPT: &str = "The council lasted from the year 14 54 to the year 14";
const AGAINST: &str = "The council lasted from the year 14 01 to the year 14";

/// The heads that make the answer.
const PLANTED: [&str; 3] = ["L1H0", "L1H6", "L2H4"];

/// Runs `graph` with options that hold spaces.
fn graph(bench: &Bench, line: &str, texts: &[&str]) -> Ran {
    let mut command = bench.command(&format!("graph {line}"));
    Ran::of(command.args(texts).output().unwrap())
}

fn json_of(bench: &Bench, line: &str, texts: &[&str]) -> Value {
    let ran = graph(bench, &format!("{line} --format json"), texts);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

/// Fails with code 1 and this one line, and leaves nothing behind.
fn refused(bench: &Bench, line: &str, texts: &[&str], message: &str) {
    let before = bench.listing();
    let ran = graph(bench, &format!("{line} --output refused"), texts);
    assert_eq!(ran.stderr, format!("error: {message}\n"), "{line}");
    assert_eq!(ran.code, Some(1), "{line}");
    assert_eq!(ran.stdout, "", "{line}");
    assert_eq!(bench.listing(), before, "{line}");
}

fn number(of: &Value) -> f64 {
    of.as_f64().unwrap()
}

/// Right and wrong answers after the year 54.
fn answers() -> [String; 4] {
    let years = |range: std::ops::Range<u32>| {
        let years: Vec<String> = range.map(|year| format!("{year:02}")).collect();
        years.join(",")
    };
    [
        "--right".to_owned(),
        years(55..100),
        "--wrong".to_owned(),
        years(0..55),
    ]
}

/// Transcoders of these layers, trained for a moment.
fn train(bench: &Bench, layers: &[usize], set: &str, skip_first: bool) {
    let years = (2..99).map(|year| {
        let text = format!("The council lasted from the year 14 {year:02} to the year 14");
        format!("{}\n", json!({ "text": text }))
    });
    bench.write("text.jsonl", years.collect::<String>());
    for layer in layers {
        bench.ok(&format!(
            "rows --text text.jsonl --context 16 --site blocks.{layer}.mlp.hook_in --site-out blocks.{layer}.hook_mlp_out \
             --skip-first {skip_first} --output {set}-rows{layer}"
        ));
        bench.ok(&format!(
            "train-tokens --rows {set}-rows{layer} --k 4 --features 48 --epochs 4 --batch-rows 256 --output {set}/{layer}"
        ));
    }
}

#[test]
fn through_neurons() {
    let bench = Bench::new();
    let answers = answers();
    let mut texts = vec!["--prompt", PROMPT, "--against", AGAINST];
    texts.extend(answers.iter().map(String::as_str));
    let line = "--neurons --max-features 900 --output out";
    let ran = graph(&bench, line, &texts);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for said in [
        "45 tokens less 55 tokens",
        "`54`",
        "900 of them nodes",
        "replacement ",
        "completeness ",
        "largest error: ",
        "check: edges into a node sum",
        "report: out/report.html",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
    let file: Value =
        serde_json::from_slice(&fs_err::read(bench.path("out/graph.json")).unwrap()).unwrap();
    assert!(number(&file["check"]["relative"]) < 1e-5);
    assert_eq!(file["ablated"]["features"], 20);
    let exact = file["features"].as_array().unwrap().iter();
    let exact = exact.filter(|row| row["exact"].is_number()).count();
    assert_eq!(exact, 20);
    assert_eq!(file["control"], Value::Null);
    let mut first: Vec<&str> = file["heads"]
        .as_array()
        .unwrap()
        .iter()
        .take(3)
        .map(|row| row["head"].as_str().unwrap())
        .collect();
    first.sort_unstable();
    assert_eq!(first, PLANTED);
    let counts = &file["counts"];
    assert_eq!(counts["features"], 900);
    let (nodes, edges) = (
        file["nodes"].as_array().unwrap(),
        file["edges"].as_array().unwrap(),
    );
    assert_eq!(counts["kept_nodes"], nodes.len());
    assert_eq!(counts["kept_edges"], edges.len());
    assert!(number(&counts["nodes"]) > nodes.len() as f64);
    let ids: Vec<&Value> = nodes.iter().map(|node| &node["id"]).collect();
    assert!(
        edges
            .iter()
            .all(|edge| ids.contains(&&edge["source"]) && ids.contains(&&edge["target"]))
    );
    let strengths: Vec<f64> = edges.iter().map(|edge| number(&edge["strength"])).collect();
    assert!(strengths.is_sorted_by(|a, b| a >= b));
    let viewer: Value =
        serde_json::from_slice(&fs_err::read(bench.path("out/neuronpedia.json")).unwrap()).unwrap();
    assert_eq!(viewer["metadata"]["prompt"], PROMPT);
    assert_eq!(viewer["metadata"]["prompt_tokens"][8], "54");
    assert_eq!(viewer["links"].as_array().unwrap().len(), edges.len());
    let page = fs_err::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("aria-label=\"Attribution graph: "));
    assert!(page.contains("layer 3, feature ") && !page.contains("<script"));
    assert!(bench.path("out/pictures/graph.svg").is_file());
    // Its own folder again, and no other's.
    assert_eq!(graph(&bench, line, &texts).code, Some(0));
    bench.write("other/report.html", "mine");
    let ran = graph(&bench, "--neurons --output other", &["--prompt", PROMPT]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        fs_err::read_to_string(bench.path("other/report.html")).unwrap(),
        "mine"
    );
}

#[test]
fn fewer_nodes_are_kept_for_smaller_shares() {
    let bench = Bench::new();
    let kept = |shares: &str| {
        let line = format!("--neurons --max-features 100 --top 3 {shares}");
        let found = json_of(&bench, &line, &["--prompt", PROMPT]);
        assert_eq!(found["targets"].as_array().unwrap().len(), 3);
        [
            number(&found["counts"]["kept_nodes"]),
            number(&found["counts"]["kept_edges"]),
        ]
    };
    let [all, some] = [kept("--nodes 1 --edges 1"), kept("--nodes 0.4 --edges 0.5")];
    assert!(some[0] < all[0] && some[1] < all[1], "{some:?} {all:?}");
}

#[test]
fn through_transcoders() {
    let bench = Bench::new();
    train(&bench, &[0, 2], "set", false);
    let ran = graph(&bench, "--transcoders set", &["--prompt", PROMPT]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(
        ran.stderr,
        "note: no transcoder of layers 1, 3: what their MLPs write is error\n"
    );
    assert!(ran.stdout.contains("through transcoders of layers 0, 2: "));
    assert!(
        ran.stdout
            .contains("control, neurons in place of transcoders")
    );
    let texts = ["--prompt", PROMPT, "--against", AGAINST];
    let one_by_one = "--transcoders set/2 --transcoders set/0 --neurons -q";
    let found = json_of(&bench, one_by_one, &texts);
    assert!(number(&found["check"]["relative"]) < 1e-5);
    let layers: Vec<&Value> = found["transcoders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["layer"])
        .collect();
    assert_eq!(layers, [0, 2]);
    // Neurons leave nothing over but what does not become a node; transcoders of a moment's training do.
    let score = |of: &Value| number(&of["scores"]["completeness"]);
    assert!(score(&found["control"]) > score(&found));
    assert_eq!(found["control"]["heads"].as_array().unwrap().len(), 32);

    refused(
        &bench,
        "--transcoders set --transcoders set/2",
        &["--prompt", PROMPT],
        "--transcoders set/2: found layer 2, which set/2 has, expected one transcoder for each layer",
    );
    refused(
        &bench,
        "--transcoders set --prepend-bos false",
        &["--prompt", PROMPT],
        "set/0: beginning-of-text token: found prompts without one, expected prompts with one, as it was trained on",
    );
    refused(
        &bench,
        "--transcoders set --processing raw",
        &["--prompt", PROMPT],
        "set/0: processing of the model: found raw, expected folded, as it was trained on",
    );
    bench.model_of_bytes("narrow", 4, 2);
    refused(
        &bench,
        "--model narrow --transcoders set",
        &["--prompt", "x"],
        "set/0: width: found 4, expected 128, the dictionary's d_in",
    );
    // Of a layer that the model does not have.
    bench.model_of_bytes("shallow", 1, 64);
    let ran = graph(
        &bench,
        "--model shallow --transcoders set/2",
        &["--prompt", "x"],
    );
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .starts_with("error: set/2: site blocks.2.mlp.hook_in: "),
        "{ran:?}"
    );
    // Of another place than an MLP.
    bench.set(
        "set/2/cfg.json",
        "metadata",
        json!({ "hook_name": "blocks.2.hook_resid_pre", "hook_name_out": "blocks.2.hook_mlp_out" }),
    );
    refused(
        &bench,
        "--transcoders set/2",
        &["--prompt", PROMPT],
        "set/2: found a transcoder that reads blocks.2.hook_resid_pre, expected a transcoder from blocks.L.mlp.hook_in to \
         blocks.L.hook_mlp_out",
    );
    // The norm's output is what the MLP reads.
    bench.set(
        "set/2/cfg.json",
        "metadata",
        json!({ "hook_name": "blocks.2.ln2.hook_normalized", "hook_name_out": "blocks.2.hook_mlp_out" }),
    );
    let ran = graph(&bench, "--transcoders set/2", &["--prompt", PROMPT]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains(
        "set/2 was trained on blocks.2.ln2.hook_normalized, which in this model is blocks.2.mlp.hook_in"
    ));
}

/// Transcoders that never saw the first position have no feature there.
#[test]
fn first_positions_are_left_out() {
    let bench = Bench::new();
    train(&bench, &[0, 1], "with", false);
    train(&bench, &[0, 1], "without", true);
    let at_first = |set: &str| {
        let line = format!("--transcoders {set} --nodes 1 --edges 1 -q");
        let found = json_of(&bench, &line, &["--prompt", PROMPT]);
        assert!(number(&found["check"]["relative"]) < 1e-5);
        let features = found["features"].as_array().unwrap().iter();
        let at_first = features.filter(|row| row["position"] == 0).count();
        (at_first, found["settings"]["first_position"].clone())
    };
    let with = at_first("with");
    assert!(with.0 > 0 && with.1 == 0, "{with:?}");
    assert_eq!(at_first("without"), (0, json!(1)));
}

#[test]
fn bad_inputs() {
    let bench = Bench::new();
    refused(
        &bench,
        "--neurons",
        &["--prompt", " "],
        "--prompt: found no text, expected at least a word",
    );
    refused(
        &bench,
        "--neurons",
        &["--prompt", PROMPT, "--against", ""],
        "--against: found no text, expected at least a word",
    );
    refused(
        &bench,
        "--neurons",
        &["--prompt", PROMPT, "--against", "The council"],
        "--against: counterpart of a prompt: found 3 tokens, expected 13 tokens",
    );
    refused(
        &bench,
        "--neurons",
        &["--prompt", "The nonsenseword"],
        "--prompt: \"The nonsenseword\": found the word \"nonsenseword\", expected words among the 421 of the model's vocabulary: give \
         the model that the prompts are for with --model: the reference model inside this program knows the words of its own tasks alone",
    );
    refused(
        &bench,
        "--neurons --wrong 02",
        &["--prompt", PROMPT, "--right", "The year"],
        "--right: \"The year\" is 2 tokens, expected one",
    );
    refused(
        &bench,
        "--neurons --right 02 --wrong 03,02",
        &["--prompt", PROMPT],
        "--wrong: found \"02\" of --right, expected other words: a difference of the same explains nothing",
    );
    refused(
        &bench,
        "--neurons",
        &["--prompt", PROMPT, "--against", PROMPT],
        "--against: found the prompt itself, expected another text of as many tokens",
    );
    let long = "The ".repeat(60);
    refused(
        &bench,
        "--neurons",
        &["--prompt", &long],
        "--prompt: prompt 0 has 61 tokens, the model takes at most 48",
    );
    bench.write("empty/readme.txt", "nothing");
    refused(
        &bench,
        "--transcoders empty",
        &["--prompt", PROMPT],
        "empty: set of transcoders: found readme.txt, expected config.yaml (circuit-tracer), or folders with one transcoder each",
    );
    // A model without MLPs.
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/circuitscope-model/tests/it/golden/attn_only_shortformer");
    for file in ["config.json", "model.safetensors"] {
        bench.write(
            &format!("attention/{file}"),
            fs_err::read(source.join(file)).unwrap(),
        );
    }
    refused(
        &bench,
        "--model attention --neurons",
        &["--prompt", PROMPT],
        "--neurons: found a model of attention alone, expected one with MLPs",
    );
    // What clap refuses is wrong usage.
    for (line, said) in [
        ("--neurons --nodes NaN", "expected a share from 0 to 1"),
        ("--neurons --edges 2", "expected a share from 0 to 1"),
        ("--neurons --edges inf", "expected a share from 0 to 1"),
        ("--neurons --top 0", "expected a whole number"),
        ("--neurons --right 31", "--wrong <WORD>"),
        ("", "--transcoders <DIR>|--neurons"),
    ] {
        let ran = graph(&bench, line, &["--prompt", PROMPT]);
        assert_eq!(ran.code, Some(2), "{line}");
        assert!(ran.stderr.contains(said), "{line}: {}", ran.stderr);
    }
}
