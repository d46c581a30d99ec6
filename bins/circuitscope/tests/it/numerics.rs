//! Half precision, overflow, and metrics without a gradient.

use std::path::Path;

use circuitscope::eval::methods::{ALL, names};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

use crate::support::{Bench, bytes, floats, word_tokenizer};

/// A task on which ablating all heads changes the metric by much: shares of a small change are all rounding.
const STRONG: &str = "--task docstring --examples 4 --patch-pairs 2 --trust-device";

/// Few pairs of the reference model.
const FEW: &str =
    "--task ioi --examples 4 --patch-pairs 2 --ig-steps 2 --mask-steps 20 --trust-device";

/// Scores of heads in the order of their names.
fn scores(found: &Value) -> Vec<f64> {
    let heads = found["heads"].as_array().unwrap().iter();
    let mut heads: Vec<(&str, f64)> = heads
        .map(|head| {
            (
                head["head"].as_str().unwrap(),
                head["score"].as_f64().unwrap(),
            )
        })
        .collect();
    heads.sort_by_key(|(name, _)| *name);
    heads.into_iter().map(|(_, score)| score).collect()
}

/// Size of the difference of two vectors, relative to the first one.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let gap = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    gap / norm(&mut a.iter().copied())
}

#[test]
fn methods_that_run_the_model_score_in_half_precision_nearly_as_in_f32() {
    let bench = Bench::new();
    for about in ALL.iter().filter(|about| about.needs.model) {
        let method = about.name.as_ref();
        let run = |dtype: &str| {
            scores(&bench.json(&format!(
                "discover {FEW} --method {method} --dtype {dtype} --select top:1 --faithfulness=none"
            )))
        };
        let exact = run("f32");
        // What a head gets from ACDC is a rung of a ladder of thresholds, and masks are learned step by step: there a
        // rounding may move a score by a rung or a step.
        let steps = matches!(method, "acdc" | "subnetwork-probing" | "edge-pruning");
        // Where all heads are gated alike, scores are small differences of gradients; training carries a rounding on.
        let alike = matches!(method, "matryoshka-no-learning" | "z-features");
        for (dtype, bound) in [("f16", 0.02), ("bf16", 0.1)] {
            let bound = match (steps, alike) {
                (true, _) => 0.5,
                (_, true) => 2.0 * bound,
                _ => bound,
            };
            let gap = distance(&exact, &run(dtype));
            assert!(gap > 0.0 && gap < bound, "{method}, {dtype}: {gap}");
        }
    }
}

#[test]
fn circuits_are_run_in_half_precision_with_every_ablation() {
    let bench = Bench::new();
    for ablation in ["negative", "zero", "mean", "position-mean", "resample"] {
        let run = |dtype: &str| {
            let found = bench.json(&format!(
                "discover {STRONG} --method hisp --select top:12 --faithfulness \
                 --reference {ablation} --dtype {dtype}"
            ));
            let quality = &found["quality"];
            let value = |key: &str| quality[key].as_f64().unwrap();
            let share =
                |key: &str| (value(key) - value("empty")) / (value("full") - value("empty"));
            ["circuit", "without"].map(share)
        };
        let exact = run("f32");
        for (dtype, bound) in [("f16", 0.02), ("bf16", 0.1)] {
            let found = run(dtype);
            for (exact, found) in exact.iter().zip(found) {
                let gap = (exact - found).abs();
                assert!(gap < bound, "{ablation}, {dtype}: {found} for {exact}");
            }
        }
    }
    bench.json(&format!(
        "discover {FEW} --method mean-difference --select knee --dtype bf16"
    ));
}

/// A small Llama that computes the same function in f32 whatever the `factor`: what the MLP's linear branch
/// makes larger, its last product makes smaller.
fn scaled_llama(bench: &Bench, name: &str, factor: f32) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/circuitscope-model/tests/it/golden/families/llama");
    let config = fs_err::read(golden.join("config.json")).unwrap();
    bench.write(&format!("{name}/config.json"), config);
    bench.write(&format!("{name}/tokenizer.json"), word_tokenizer(40));
    let tensors = floats(&golden.join("model.safetensors")).into_iter();
    let tensors: Vec<_> = tensors
        .map(|(name, (shape, mut values))| {
            let factor = match name.as_str() {
                name if name.ends_with("up_proj.weight") => factor,
                name if name.ends_with("down_proj.weight") => 1.0 / factor,
                _ => 1.0,
            };
            for x in &mut values {
                *x *= factor;
            }
            (name, shape, bytes(&values))
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, values)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), values).unwrap();
        (name, view)
    });
    let file = safetensors::serialize(views, None).unwrap();
    bench.write(&format!("{name}/model.safetensors"), file);
}

const PAIRS: &str = r#"{"positive":"t3 t7 t9 t3","negative":"t3 t8 t9 t3","answers":["t7"],"wrong_answers":["t8"]}
{"positive":"t4 t6 t2 t4","negative":"t4 t5 t2 t4","answers":["t6"],"wrong_answers":["t5"]}
"#;

#[test]
fn what_f16_cannot_hold_is_named_and_nothing_is_written() {
    let bench = Bench::new();
    bench.write("pairs.jsonl", PAIRS);
    bench.write("tokens.json", r#"{"tokens":[[3,7,9],[1,2,3]]}"#);
    // 2¹⁴ times the weights still fits f16, what comes of them does not; 2²⁰ times does not fit.
    scaled_llama(&bench, "activations", 2f32.powi(14));
    scaled_llama(&bench, "weights", 2f32.powi(20));
    let capture = |model: &str| {
        format!("capture --model {model} --tokens tokens.json --output x.safetensors")
    };
    let discover = |model: &str| {
        format!("discover --model {model} --pairs pairs.jsonl --prepend-bos false --trust-device")
    };
    let overflow = |what: &str| format!("`{what}` overflows in f16: use --dtype bf16 or f32");
    let weights = overflow("blocks.0.mlp.W_in");
    let site = overflow("blocks.0.mlp.hook_post");

    bench.fails(
        &format!(
            "{} --trust-device --sites logits --dtype f16",
            capture("weights")
        ),
        &weights,
    );
    bench.fails(
        &format!(
            "{} --trust-device --sites blocks.1.hook_resid_pre --dtype f16",
            capture("activations")
        ),
        &site,
    );
    // What comes before it is as it should be.
    bench.ok(&format!(
        "{} --trust-device --sites blocks.0.hook_attn_out --dtype f16",
        capture("activations")
    ));
    for method in names() {
        let line = discover("activations");
        let ran = bench.run(&format!("{line} --method {method} --dtype f16"));
        assert_eq!(ran.code, Some(1), "{method}: {ran:?}");
        assert!(ran.stderr.contains(&site), "{method}: {}", ran.stderr);
    }
    for dtype in ["bf16", "f32"] {
        for model in ["weights", "activations"] {
            bench.ok(&format!(
                "{} --trust-device --sites logits --dtype {dtype}",
                capture(model)
            ));
            for method in ["mean-difference", "eap", "activation-patching"] {
                let found = bench.json(&format!(
                    "{} --method {method} --dtype {dtype}",
                    discover(model)
                ));
                assert_eq!(scores(&found).len(), 8);
            }
        }
    }
}

/// Heads are read before the last MLP: only what runs to the logits sees it overflow.
#[test]
fn an_overflow_after_the_last_head_is_seen_by_what_reads_the_logits() {
    let bench = Bench::new();
    bench.write("pairs.jsonl", PAIRS);
    scaled_llama(&bench, "model", 1.0);
    let tensors = floats(&bench.path("model/model.safetensors")).into_iter();
    let tensors: Vec<_> = tensors
        .map(|(name, (shape, mut values))| {
            if name == "model.layers.1.mlp.up_proj.weight" {
                for x in &mut values {
                    *x *= 2f32.powi(14);
                }
            }
            (name, shape, bytes(&values))
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, values)| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), values).unwrap(),
        )
    });
    bench.write(
        "model/model.safetensors",
        safetensors::serialize(views, None).unwrap(),
    );
    let line =
        "discover --model model --pairs pairs.jsonl --prepend-bos false --trust-device --dtype f16";
    let message = "`blocks.1.mlp.hook_post` overflows in f16: use --dtype bf16 or f32";
    for options in [
        "--method eap",
        "--method mean-difference",
        "--method mean-difference --faithfulness",
        "--method mean-difference --output out",
    ] {
        let ran = bench.run(&format!("{line} {options}"));
        assert_eq!(ran.code, Some(1), "{options}: {ran:?}");
        assert!(ran.stderr.contains(message), "{options}: {}", ran.stderr);
    }
}

#[test]
fn a_metric_without_gradient_is_refused_before_anything_runs() {
    let bench = Bench::new();
    for method in [
        "eap",
        "eap-ig",
        "eap-ig-activations",
        "nap",
        "nap-ig",
        "hisp",
        "subnetwork-probing",
        "edge-pruning",
    ] {
        let message = format!(
            "method `{method}` differentiates the metric, and `accuracy` is a count that small changes leave as it is: \
             use --metric logit-difference, probability-difference or log-probability"
        );
        // The model does not exist: nobody looks for it.
        bench.fails(
            &format!("discover --model nowhere --task ioi --method {method} --metric accuracy"),
            &message,
        );
    }
    bench.json(&format!(
        "discover {FEW} --method activation-patching --metric accuracy"
    ));
}
