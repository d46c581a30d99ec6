//! The program and the library, both left to their defaults, compute the same.
//!
//! A target of its own: it makes everything that runs on a backend once more, which takes long to compile.

#![expect(
    clippy::unwrap_used,
    reason = "clippy knows tests, but not their helpers, where unwrap is the failure"
)]

use std::process::Command;

use burn::backend::Autodiff;
use burn_flex::{Flex, FlexDevice};
use circuitscope::eval::methods::about;
use circuitscope::model::LoadSettings;
use circuitscope::tasks::{TASKS, TaskSpec};
use circuitscope::{
    CaptureSettings, DISCOVER_PAIRS, DiscoverSettings, Discovery, PrepareSettings, capture,
    causal_evidence, discover, load_reference, prepare_task,
};
use circuitscope::{Exec, NoProgress, Seed};
use serde_json::{Value, json};

/// What the library finds with nothing asked for but the method.
fn found(task: &TaskSpec, settings: &DiscoverSettings) -> Discovery {
    let device = FlexDevice;
    let settings_of_model = LoadSettings::default().with_exec(Exec::all_cores());
    let loaded = load_reference::<Flex>(settings_of_model, &device).unwrap();
    let pairs = task.examples_or(DISCOVER_PAIRS);
    let how = PrepareSettings::default();
    let prompts = prepare_task(&loaded, task, pairs, Seed::default(), how).unwrap();
    let how = CaptureSettings::default().for_method(about(&settings.method).unwrap());
    let causal = causal_evidence(&loaded, &prompts, how, &device).unwrap();
    let evidence = capture(&loaded, &prompts, how, &device, &NoProgress).unwrap();
    let evidence = evidence.with_causal(causal);
    discover::<Autodiff<Flex>>(&evidence, settings, &device, &NoProgress).unwrap()
}

/// What the program prints as JSON.
fn json(line: &str) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_circuitscope"));
    command.args(line.split(' ')).args(["--format", "json"]);
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{line}: {ran:?}");
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn same(task: &TaskSpec, method: Option<&str>) {
    let mut settings = DiscoverSettings::for_task(task);
    let mut line = format!("discover --task {task} --faithfulness none");
    if let Some(method) = method {
        method.clone_into(&mut settings.method);
        line = format!("{line} --method {method}");
    }
    let said = json(&line);
    assert_eq!(
        said["settings"]["methods"],
        json!(settings.methods),
        "{line}"
    );
    assert_eq!(said["settings"]["seed"], json!(settings.seed), "{line}");
    let found = found(task, &settings);
    assert_eq!(said["method"], found.method.as_str(), "{line}");
    let ranking = found.scores.ranking();
    let heads = said["heads"].as_array().unwrap();
    assert_eq!(heads.len(), ranking.len(), "{line}");
    let most = ranking[0].1.abs();
    for (head, (id, score)) in heads.iter().zip(&ranking) {
        assert_eq!(head["head"], json!(id), "{line}");
        let said = head["score"].as_f64().unwrap();
        assert!(
            (said - score).abs() <= 1e-6 * most,
            "{line}: {id}: {said} {score}"
        );
    }
    let circuit: Vec<Value> = heads
        .iter()
        .filter(|head| head["selected"] == true)
        .map(|head| head["head"].clone())
        .collect();
    let chosen = found.chosen.circuit.heads().count();
    assert_eq!(circuit.len(), chosen, "{line}");
}

#[test]
fn discover_and_the_library_agree_on_every_task() {
    for task in TASKS {
        same(task, None);
    }
}

/// Where the tasks' settings of the dictionary count: λ is 0.05 for docstring, 0.02 elsewhere.
#[test]
fn dictionaries_of_the_program_and_the_library_agree_on_every_task() {
    for task in TASKS {
        same(task, Some("sae"));
    }
}
