//! SmolLM2-135M-Instruct as people have it, a GGUF file, through the program: beside what transformers
//! computes from the same file (`golden/real/make.py`). Not run unless asked for:
//!
//! ```text
//! cargo xtask real-model && cargo test --release -p circuitscope-cli --test it -- --ignored real_
//! ```
//!
//! The model has no biases, so that `--processing`, which stays at its default, moves no score; logits it centres, so
//! that they are read as stored.

use std::path::PathBuf;

use circuitscope::files::Reader;
use circuitscope_testkit::{Golden, real_model};
use serde_json::Value;

use crate::support::{Bench, floats};

const LAYERS: usize = 30;
const HEADS: usize = 9;

/// Of logits, relative to the largest of the prompt.
const LOGITS: f32 = 2e-4;
/// Of scores of heads, relative to the largest head's.
const SCORES: f64 = 1e-3;
/// Of the order of scores: Spearman's ρ.
const ORDER: f64 = 0.999;

fn golden_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/golden/real")
        .join(name)
}

fn golden() -> Golden {
    Golden::read(&golden_file("golden.safetensors"))
}

/// English, digits, code and other scripts: the tokens that the model was trained on, and its logits.
#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn real_ids_and_logits() {
    let bench = Bench::new();
    bench.ok(&format!(
        "capture --model {} --prompts {} --sites logits --reduce last --processing raw \
         --output x.safetensors",
        real_model().display(),
        golden_file("prompts.txt").display()
    ));
    let golden = golden();
    let file = Reader::open(&bench.path("x.safetensors")).unwrap();
    let tokens = file.metadata()["tokens"].clone();
    let tokens: Vec<Vec<u32>> = serde_json::from_value(tokens).unwrap();
    let (shape, logits) = floats(&bench.path("x.safetensors"))
        .remove("logits")
        .unwrap();
    assert_eq!((tokens.len(), shape.as_slice()), (20, &[20, 49152][..]));
    for (prompt, (tokens, logits)) in tokens.iter().zip(logits.chunks(49152)).enumerate() {
        let of = |what: &str| format!("prompts.{what}.{prompt:02}");
        let ids = golden.tokens(&of("ids"));
        assert_eq!(tokens, &ids.concat(), "prompt {prompt}");
        let places = golden.tokens(&of("top")).concat();
        let expected = &golden.floats(&of("logits")).data;
        assert_eq!((places.len(), expected.len()), (500, 500));
        let largest = logits.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (&at, &expected) in places.iter().zip(expected) {
            let found = logits[at as usize];
            assert!(
                (found - expected).abs() <= LOGITS * largest,
                "prompt {prompt}, token {at}: {found}, expected {expected}"
            );
        }
        // The recorded ones are the largest of all.
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        assert!(places.contains(&(best.unwrap() as u32)), "prompt {prompt}");
    }
}

/// What `discover` says of the heads on the pairs of a golden file.
fn found(pairs: &str, options: &str) -> Value {
    let metric = match pairs {
        "ioi" => "logit-difference",
        _ => "probability-difference",
    };
    Bench::new().json(&format!(
        "discover --model {} --pairs {} --metric {metric} --select top:10 --faithfulness=none {options}",
        real_model().display(),
        golden_file(&format!("{pairs}.jsonl")).display()
    ))
}

/// One score for each head, layer by layer, as the ranking has them.
fn ranked(found: &Value) -> Vec<f64> {
    let mut scores = vec![f64::NAN; LAYERS * HEADS];
    for ranked in found["heads"].as_array().unwrap() {
        let name = ranked["head"].as_str().unwrap().trim_start_matches('L');
        let (layer, head) = name.split_once('H').unwrap();
        let (layer, head): (usize, usize) = (layer.parse().unwrap(), head.parse().unwrap());
        scores[layer * HEADS + head] = ranked["score"].as_f64().unwrap();
    }
    scores
}

/// The signed scores of the heads among those of all writers: the input, then layer by layer the heads
/// and the MLP.
fn signed(found: &Value) -> Vec<f64> {
    let nodes = found["graph"]["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1 + LAYERS * (HEADS + 1));
    let layers = nodes[1..].chunks(HEADS + 1);
    let heads = layers.flat_map(|layer| &layer[..HEADS]);
    heads.map(|score| score.as_f64().unwrap()).collect()
}

/// Fails unless values and order are the golden ones.
fn check(name: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(
        (found.len(), expected.len()),
        (LAYERS * HEADS, LAYERS * HEADS)
    );
    let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs() / largest;
        let (layer, head) = (at / HEADS, at % HEADS);
        assert!(
            difference <= SCORES,
            "{name}: L{layer}H{head} scores {found}, expected {expected}: {difference:.1e} of the largest"
        );
    }
    let order = spearman(found, expected);
    assert!(order >= ORDER, "{name}: Spearman {order}");
}

/// Spearman's ρ: Pearson's r of the ranks, equal values sharing theirs.
fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |x: &[f64]| -> Vec<f64> {
        let below = |value: f64| x.iter().filter(|other| **other < value).count() as f64;
        let upto = |value: f64| x.iter().filter(|other| **other <= value).count() as f64;
        // Centred: ranks 1 to n have the mean (n + 1) / 2.
        let rank = |value: &f64| f64::midpoint(below(*value) + 1.0, upto(*value));
        x.iter()
            .map(|value| rank(value) - f64::midpoint(x.len() as f64, 1.0))
            .collect()
    };
    let (a, b) = (ranks(a), ranks(b));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

#[test]
fn order_is_told_by_ranks() {
    assert!((spearman(&[1.0, 2.0, 30.0], &[-1.0, 0.0, 0.5]) - 1.0).abs() < 1e-12);
    assert!((spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
    // 1 − 6 Σ d² / (n (n² − 1)) with d = 1, −1, 0, 0.
    assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[2.0, 1.0, 3.0, 4.0]) - 0.8).abs() < 1e-12);
    // Ranks 1.5, 1.5, 3 beside 1, 2, 3.
    assert!((spearman(&[1.0, 1.0, 2.0], &[1.0, 2.0, 3.0]) - 0.75f64.sqrt()).abs() < 1e-12);
}

fn expected(pairs: &str, what: &str) -> Vec<f64> {
    let golden = golden();
    let values = golden.floats(&format!("{pairs}.{what}"));
    assert_eq!(values.shape, [LAYERS, HEADS]);
    values.data.iter().copied().map(f64::from).collect()
}

fn sizes(scores: &[f64]) -> Vec<f64> {
    scores.iter().map(|score| score.abs()).collect()
}

/// The metric of the model with one head ablated, for all heads: signed, and as ranked.
fn exact_effects(pairs: &str, reference: &str) {
    let found = found(
        pairs,
        &format!("--method activation-patching --reference {reference}"),
    );
    let name = format!("{pairs}, {reference}");
    let key = if reference == "negative" {
        "patching"
    } else {
        reference
    };
    let expected = expected(pairs, key);
    check(&name, &signed(&found), &expected);
    check(&name, &sizes(&ranked(&found)), &sizes(&expected));
}

/// The first-order scores of all heads.
fn gradients(pairs: &str) {
    for method in ["hisp", "nap", "eap"] {
        let found = found(pairs, &format!("--method {method}"));
        let name = format!("{pairs}, {method}");
        let expected = expected(pairs, method);
        check(&name, &sizes(&ranked(&found)), &sizes(&expected));
        if method == "nap" {
            check(&name, &signed(&found), &expected);
        }
    }
}

#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn real_patching_on_indirect_objects() {
    exact_effects("ioi", "negative");
}

#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn real_patching_on_years() {
    exact_effects("greater_than", "negative");
}

#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn real_mean_ablation_on_indirect_objects() {
    exact_effects("ioi", "mean");
}

#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn real_mean_ablation_on_years() {
    exact_effects("greater_than", "mean");
}

#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn real_gradients_on_indirect_objects() {
    gradients("ioi");
}

#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn real_gradients_on_years() {
    gradients("greater_than");
}

/// A tokenizer that is read wrongly shows here first: the same words in other pieces cost much more.
#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn real_plain_english_costs_what_it_should() {
    let bench = Bench::new();
    let pair = |text: &str| {
        let negative = text.replace("river", "lake").replace("revir", "ekal");
        serde_json::json!({ "positive": text, "negative": negative }).to_string()
    };
    let plain = "The river was high after three days of rain, and the people of the village had to walk along \
                 the old road to reach the market on the other side of the river";
    // Pieces that no tokenizer of English would make.
    let reversed: String = plain.chars().rev().collect();
    for (text, least, most) in [(plain.to_owned(), 1.0, 3.2), (reversed, 4.0, 11.0)] {
        bench.write("pairs.jsonl", pair(&text));
        let found = bench.json(&format!(
            "discover --model {} --pairs pairs.jsonl --method random --select top:1 --faithfulness none",
            real_model().display()
        ));
        let loss = found["behaviour"]["positive"]["loss"].as_f64().unwrap();
        assert!((least..most).contains(&loss), "{loss}: {text}");
    }
}

/// Heads that are known by what they attend to on random tokens said twice, and what those of them that matter on prompts of
/// repeated text are said to do.
#[test]
#[ignore = "needs the real model: cargo xtask real-model"]
fn real_heads_do_what_they_are_known_for() {
    let bench = Bench::new();
    let line = format!(
        "discover --model {} --task induction --examples 16 --select top:3 --patch-pairs 2 --explain L18H6",
        real_model().display()
    );
    let found = bench.json(&line);
    let cards = &found["cards"];
    let repeated = cards["repeated"].as_array().unwrap();
    assert_eq!(repeated.len(), 30 * HEADS);
    let best = |key: &str, count: usize| {
        let mut order: Vec<usize> = (0..repeated.len()).collect();
        let share = |at: usize| repeated[at][key].as_f64().unwrap();
        order.sort_by(|&a, &b| share(b).total_cmp(&share(a)));
        let best = order.into_iter().take(count);
        best.map(|at| format!("L{}H{}", at / HEADS, at % HEADS))
            .collect::<Vec<_>>()
    };
    let induction = best("induction", 4);
    assert_eq!(induction[0], "L18H6", "{induction:?}");
    for head in ["L17H4", "L17H5"] {
        assert!(induction.contains(&head.to_owned()), "{induction:?}");
    }
    assert_eq!(best("previous_token", 2), ["L16H0", "L11H1"]);
    assert_eq!(best("duplicate_token", 1), ["L14H3"]);
    let heads = cards["heads"].as_array().unwrap();
    let card = heads.iter().find(|card| card["head"] == "L18H6").unwrap();
    let induction = card["patterns"].as_array().unwrap().iter();
    let mut induction = induction.filter(|of| of["pattern"] == "induction-1");
    let score = induction.next().unwrap();
    assert_eq!(score["role"], true, "{score}");
}
