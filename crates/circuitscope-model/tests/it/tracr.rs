//! Compiled programs: what they compute is known without any other implementation.

use circuitscope_model::Processing;
use circuitscope_testkit::{Golden, Values, fixture};
use serde_json::Value;

use crate::{check_sites, load, right_padded};

/// Index of the largest entry, the first of equals.
fn arg_max(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best })
}

#[track_caller]
fn check(program: &str) {
    let folder = fixture("tracr").join(program);
    let model = load(&folder, Processing::Raw);

    let golden = Golden::read(&folder.join("reference.safetensors"));
    let batch = right_padded(&golden.tokens("input_ids"));
    let sites = check_sites(program, &model, &golden, "", &batch);
    assert!(sites > 9, "{program}: {sites} sites");

    let json = |name: &str| -> Value {
        serde_json::from_slice(&fs_err::read(folder.join(name)).unwrap()).unwrap()
    };
    let outputs = json("vocab.json")["output_vocab"]
        .as_array()
        .unwrap()
        .clone();
    let tests = json("io_tests.json").as_array().unwrap().clone();
    assert_eq!(tests.len(), 50);
    let ids = |test: &Value| -> Vec<u32> {
        let ids = test["ids"].as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let prompts: Vec<Vec<u32>> = tests.iter().map(ids).collect();
    // In one padded batch, and one by one: length decides what these programs answer.
    let together = Values::from(model.logits(&right_padded(&prompts)));
    // Folding centres the unembedding at most. Where a program leaves its answer open all logits are
    // equal, and rounding may then choose another one.
    let folded = load(&folder, Processing::Folded);
    let folded = Values::from(folded.logits(&right_padded(&prompts)));
    let decode = |logits: &Values| -> Vec<Value> {
        let decoded = logits.data.chunks_exact(outputs.len()).skip(1).map(arg_max);
        decoded.map(|at| outputs[at].clone()).collect()
    };
    for (row, (test, prompt)) in tests.iter().zip(&prompts).enumerate() {
        let batched = |all: &Values| decode(&all.row(row).slice(0, 0, prompt.len()));
        let alone = Values::from(model.logits(&right_padded(&[prompt]))).row(0);
        for decoded in [decode(&alone), batched(&together)] {
            assert_eq!(
                test["tracr_decoded"],
                Value::Array(decoded),
                "{program} {prompt:?}"
            );
        }
        let meant = test["rasp_output"].as_array().unwrap();
        for decoded in [decode(&alone), batched(&folded)] {
            for (decoded, meant) in decoded.iter().zip(meant) {
                assert!(meant.is_null() || meant == decoded, "{program} {prompt:?}");
            }
        }
    }
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn hist_counts_symbols() {
    check("hist");
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn shift_twice_moves_symbols() {
    check("shift_twice");
}

#[test]
#[ignore = "needs ../shared/fixtures"]
fn dyck1_balances_brackets() {
    check("dyck1");
}
