//! `capture` on the fixture of every family gives what other programs recorded.

use std::path::Path;

use circuitscope_testkit::{Golden, Values, fixture, worst_difference};
use serde_json::json;

use crate::support::{Bench, floats};

/// f32 in another order of summation; see `cargo xtask parity`.
const PARITY: f32 = 5e-5;

fn check(folder: &Path) -> usize {
    let bench = Bench::new();
    let golden = Golden::read(&folder.join("reference.safetensors"));
    let tokens = json!({ "tokens": golden.tokens("input_ids") });
    bench.write("tokens.json", tokens.to_string());
    let mut compared = 0;
    for (processing, prefix) in [("raw", "tl_raw."), ("folded", "tl_processed.")] {
        let expected: Vec<(&str, &Values)> = golden.floats_under(prefix).collect();
        if expected.is_empty() {
            continue;
        }
        let sites: Vec<&str> = expected.iter().map(|(site, _)| *site).collect();
        bench.ok(&format!(
            "capture --model {} --tokens tokens.json --processing {processing} --sites {} --output x.safetensors",
            folder.display(),
            sites.join(",")
        ));
        let captured = floats(&bench.path("x.safetensors"));
        assert_eq!(captured.len(), expected.len());
        for (site, expected) in expected {
            let (shape, data) = captured[site].clone();
            let (worst, _) = worst_difference(&Values::new(shape, data), expected);
            assert!(
                worst <= PARITY,
                "{}: {prefix}{site}: {worst:e}",
                folder.display()
            );
            compared += 1;
        }
    }
    compared
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn capture_equals_what_was_recorded_for_every_family() {
    for (model, sites) in [
        ("attn_only_ln", 58),
        ("gemma2", 140),
        ("gpt2", 112),
        ("gpt_neox_parallel", 116),
        ("gpt_neox_sequential", 80),
        ("llama", 128),
        ("opt", 76),
        ("qwen2", 128),
    ] {
        assert_eq!(check(&fixture("models").join(model)), sites, "{model}");
    }
}

/// Half precision is close to f32, and says so in the file; batches change nothing.
#[test]
fn dtype_and_batches() {
    let bench = Bench::new();
    bench.write("tokens.json", r#"{"tokens":[[1,7,8,9],[1,7,8],[1,9]]}"#);
    let logits = |options: &str| {
        bench.ok(&format!(
            "capture --tokens tokens.json --sites logits --output x.safetensors {options}"
        ));
        let (shape, data) = floats(&bench.path("x.safetensors"))
            .remove("logits")
            .unwrap();
        Values::new(shape, data)
    };
    let exact = logits("");
    let one_by_one = logits("--max-batch-tokens 1");
    assert!(worst_difference(&one_by_one, &exact).0 <= 1e-5);
    let largest = exact.data.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    for (dtype, bound) in [("f16", 0.005), ("bf16", 0.05)] {
        let (worst, _) = worst_difference(&logits(&format!("--dtype {dtype}")), &exact);
        assert!(
            worst > 0.0 && worst < bound * largest,
            "{dtype}: {worst} of {largest}"
        );
        let file = fs_err::read(bench.path("x.safetensors")).unwrap();
        let header = String::from_utf8_lossy(&file[..4000]).into_owned();
        assert!(
            header.contains(&format!("\\\"dtype\\\":\\\"{dtype}\\\"")),
            "{header}"
        );
    }
}
