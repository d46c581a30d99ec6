//! Every method on every family of models, in f32 and in half precision, through the program.
//!
//! The models are the golden ones of the loaders: random weights, and each option far from its default.
//! `cargo xtask matrix` prints the table.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use circuitscope::eval::methods::{ALL, about};
use serde_json::{Value, json};

use crate::support::{Bench, word_tokenizer};

const DTYPES: [&str; 2] = ["f32", "bf16"];

/// Little of everything: what is asked is whether it runs.
const SETTINGS: &str = "--steps 2 --codes 8 --train-examples 4 --gradient-pairs 3 --patch-pairs 2 --ig-steps 2 \
                        --mask-steps 2 --trust-device --select top:1 --faithfulness=none --format json";

/// What one run left: nothing, or what was wrong.
type Outcome = Result<(), String>;

#[test]
fn every_method_on_every_family() {
    let bench = Bench::new();
    let families = families(&bench);
    assert!(families.len() >= 16, "{families:?}");
    let runs: Vec<(usize, usize, usize)> = (0..ALL.len())
        .flat_map(|method| (0..families.len()).map(move |family| (method, family)))
        .flat_map(|(method, family)| (0..DTYPES.len()).map(move |dtype| (method, family, dtype)))
        .collect();
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(vec![Ok(()); runs.len()]));
    let work = || {
        while let Some(&(method, family, dtype)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let at = (method * families.len() + family) * DTYPES.len() + dtype;
            let outcome = run(&bench, &ALL[method].name, &families[family], DTYPES[dtype]);
            outcomes.lock().unwrap()[at] = outcome;
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    let (table, failures) = table(&families, &outcomes);
    println!("{table}");
    assert_eq!(failures, 0, "{table}");
}

/// Copies the golden models, gives each words for its tokens, and writes pairs for it.
fn families(bench: &Bench) -> Vec<String> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../crates/circuitscope-model/tests/it/golden");
    let folders = fs_err::read_dir(golden.join("families")).unwrap();
    let mut folders: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
    folders.extend(["gpt2_tiny", "attn_only_shortformer"].map(|name| golden.join(name)));
    folders.retain(|folder| folder.join("config.json").exists());
    folders.sort();
    let names = folders.iter().map(|folder| {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        for file in ["config.json", "model.safetensors"] {
            let bytes = fs_err::read(folder.join(file)).unwrap();
            bench.write(&format!("{name}/{file}"), bytes);
        }
        let config = fs_err::read(folder.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        let words = ["/vocab_size", "/d_vocab", "/text_config/vocab_size"]
            .iter()
            .find_map(|key| config.pointer(key)?.as_u64());
        bench.write(
            &format!("{name}/tokenizer.json"),
            word_tokenizer(words.unwrap()),
        );
        name
    });
    let names = names.collect();
    let pairs = [
        ("t3 t7 t9 t3 t5 t11", "t3 t8 t9 t3 t5 t11", "t7", "t8"),
        ("t4 t6 t2 t13 t4 t6", "t4 t6 t2 t13 t4 t12", "t2", "t9"),
        ("t5 t15 t16 t5", "t5 t10 t16 t5", "t15", "t10"),
    ];
    let pairs = pairs.map(|(positive, negative, right, wrong)| {
        json!({
            "positive": positive, "negative": negative, "answers": [right], "wrong_answers": [wrong],
        })
        .to_string()
    });
    bench.write("pairs.jsonl", pairs.join("\n"));
    names
}

fn run(bench: &Bench, method: &str, family: &str, dtype: &str) -> Outcome {
    let ran = bench.run(&format!(
        "discover --model {family} --pairs pairs.jsonl --method {method} --dtype {dtype} \
         --prepend-bos false {SETTINGS}"
    ));
    if ran.code != Some(0) {
        let panicked = ran.stderr.lines().find(|line| line.contains("panicked"));
        let last = ran.stderr.lines().next_back().unwrap_or_default();
        return Err(panicked.unwrap_or(last).to_owned());
    }
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    let scores = found["heads"].as_array().unwrap().iter();
    let scores: Vec<Option<f64>> = scores.map(|head| head["score"].as_f64()).collect();
    let heads = found["n_layers"].as_u64().unwrap() * found["n_heads"].as_u64().unwrap();
    if scores.len() as u64 != heads || scores.iter().any(Option::is_none) {
        return Err(format!("{} of {heads} heads: {scores:?}", scores.len()));
    }
    if holds_null(&found["graph"]) || holds_null(&found["edges"]) {
        return Err("a score of an edge is not finite".to_owned());
    }
    if about(method).unwrap().needs.model && scores.iter().all(|score| *score == Some(0.0)) {
        return Err("every score is 0".to_owned());
    }
    Ok(())
}

/// A number that JSON cannot hold is written as null. An absent member is none.
fn holds_null(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| item.is_null() || holds_null(item)),
        Value::Object(members) => members
            .values()
            .any(|item| item.is_null() || holds_null(item)),
        _ => false,
    }
}

/// Methods by families, errors as numbered notes; and how many runs failed.
fn table(families: &[String], outcomes: &[Outcome]) -> (String, usize) {
    let errors: BTreeSet<&String> = outcomes
        .iter()
        .filter_map(|run| run.as_ref().err())
        .collect();
    let errors: Vec<&String> = errors.into_iter().collect();
    let mut table = format!("{:28}{}\n", "method", families.join(" "));
    for (method, runs) in ALL
        .iter()
        .map(|about| &about.name)
        .zip(outcomes.chunks(families.len() * DTYPES.len()))
    {
        write!(table, "{method:28}").unwrap();
        for (family, runs) in families.iter().zip(runs.chunks(DTYPES.len())) {
            let cell = if runs.iter().all(Result::is_ok) {
                "ok".to_owned()
            } else {
                let note = |run: &Outcome| match run {
                    Ok(()) => "ok".to_owned(),
                    Err(error) => {
                        let note = errors.iter().position(|known| *known == error);
                        format!("[{}]", note.unwrap_or(0) + 1)
                    }
                };
                runs.iter().map(note).collect::<Vec<_>>().join("/")
            };
            write!(table, "{cell:width$} ", width = family.len()).unwrap();
        }
        table.push('\n');
    }
    writeln!(table, "ok: {} give finite scores", DTYPES.join(" and ")).unwrap();
    for (at, error) in errors.iter().enumerate() {
        writeln!(table, "[{}] {error}", at + 1).unwrap();
    }
    (table, outcomes.iter().filter(|run| run.is_err()).count())
}
