//! Methods that run the model, on models that normalise what attention and MLPs write (Gemma 2 and 3),
//! against hooks on the modules of transformers (`norm_after.py` of circuitscope-eval).

use std::fmt::Write as _;
use std::path::Path;

use circuitscope_testkit::{Values, worst_difference};
use serde_json::{Value, json};

use crate::support::Bench;

/// The golden model `family` in the folder `m`, with a tokenizer in which token 7 is the word `w7`, and
/// the golden pairs as `pairs.jsonl`.
fn prepare(bench: &Bench, family: &str) -> Value {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates");
    let folder = crates
        .join("circuitscope-model/tests/it/golden/families")
        .join(family);
    for file in ["config.json", "model.safetensors"] {
        bench.write(
            &format!("m/{file}"),
            fs_err::read(folder.join(file)).unwrap(),
        );
    }
    let words: serde_json::Map<_, _> = (0..40).map(|at| (format!("w{at}"), json!(at))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    });
    bench.write("m/tokenizer.json", tokenizer.to_string());
    let golden = crates.join("circuitscope-eval/tests/it/golden/norm_after.json");
    let golden: Value = serde_json::from_slice(&fs_err::read(golden).unwrap()).unwrap();
    let text = |tokens: &Value| {
        let words = tokens
            .as_array()
            .unwrap()
            .iter()
            .map(|token| format!("w{token}"));
        words.collect::<Vec<_>>().join(" ")
    };
    let mut lines = String::new();
    for pair in golden["pairs"].as_array().unwrap() {
        let line = json!({
            "positive": text(&pair["clean"]), "negative": text(&pair["corrupt"]),
            "answers": [format!("w{}", pair["right"])], "wrong_answers": [format!("w{}", pair["wrong"])],
        });
        writeln!(lines, "{line}").unwrap();
    }
    bench.write("pairs.jsonl", lines);
    golden[family].clone()
}

fn discover(bench: &Bench, options: &str) -> Value {
    bench.json(&format!(
        "discover --model m --pairs pairs.jsonl --prepend-bos false {options}"
    ))
}

/// All numbers of nested lists; an edge that is not there has no effect.
fn flat(value: &Value, into: &mut Vec<f32>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| flat(value, into)),
        other => into.push(other.as_f64().unwrap_or_default() as f32),
    }
}

fn values(value: &Value) -> Values {
    let mut data = Vec::new();
    flat(value, &mut data);
    Values::new(vec![data.len()], data)
}

#[test]
fn scores_equal_hooks_in_transformers() {
    for family in ["gemma2", "gemma3_text"] {
        let bench = Bench::new();
        let expected = prepare(&bench, family);
        for (method, of, key) in [
            ("activation-patching", "nodes", "nodes.patching"),
            (
                "activation-patching --reference zero",
                "nodes",
                "nodes.zero",
            ),
            (
                "activation-patching --reference mean",
                "nodes",
                "nodes.mean",
            ),
            ("nap", "nodes", "nap"),
            ("hisp", "nodes", "hisp"),
            ("eap", "edges", "eap"),
            ("direct-logit-attribution", "nodes", "direct"),
        ] {
            let found = discover(&bench, &format!("--method {method}"));
            let (found, expected) = (values(&found["graph"][of]), values(&expected[key]));
            assert_eq!(found.data.len(), expected.data.len(), "{family} {method}");
            let largest = expected
                .data
                .iter()
                .fold(0.0f32, |most, x| most.max(x.abs()));
            let (worst, _) = worst_difference(&found, &expected);
            assert!(largest > 0.1, "{family} {method}: nothing to compare");
            assert!(
                worst <= 1e-4 * largest,
                "{family} {method}: {worst} of {largest}"
            );
        }
    }
}

/// Every method that runs the model, and every choice that does.
#[test]
fn every_method_gives_finite_scores() {
    for family in ["gemma2", "gemma3_text"] {
        let bench = Bench::new();
        prepare(&bench, family);
        for method in [
            "acdc",
            "activation-patching",
            "cd-t",
            "direct-logit-attribution",
            "eap",
            "eap-ig",
            "eap-ig-activations",
            "edge-pruning",
            "hisp",
            "information-flow-routes",
            "nap",
            "nap-ig",
            "subnetwork-probing",
        ] {
            let found = discover(
                &bench,
                &format!("--method {method} --select top:2 --faithfulness"),
            );
            let heads = found["heads"].as_array().unwrap();
            let scores = heads.iter().map(|head| head["score"].as_f64());
            let scores: Option<Vec<f64>> = scores.collect();
            let scores = scores.unwrap_or_else(|| panic!("{family} {method}: {heads:?}"));
            assert!(
                scores.first() > scores.last(),
                "{family} {method}: {scores:?}"
            );
            let kept = found["quality"]["head_share"].as_f64();
            assert!(
                kept.is_some_and(f64::is_finite),
                "{family} {method}: {found}"
            );
        }
        for ablation in ["zero", "mean", "position-mean"] {
            let options = format!("--method mean-difference --select knee --reference {ablation}");
            let found = discover(&bench, &options);
            assert!(found["heads"][0]["score"].is_f64(), "{family} {ablation}");
        }
    }
}
