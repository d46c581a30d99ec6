//! Sweeps: plans, workers that end in every way, and one table.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Bench, Ran};

const PLAN: &str = "store = 'results'
models = ['reference']
tasks = ['ioi', 'induction']
methods = ['sae', 'hisp', 'random']
seeds = 2
lease = 4
[settings.default]
examples = 10
resamples = 4
steps = 20
";

const CELLS: u64 = 12;

fn planned(plan: &str) -> Bench {
    let bench = Bench::new();
    bench.write("plan.toml", plan);
    bench
}

fn merged(bench: &Bench, folder: &str) -> Vec<Vec<u8>> {
    bench.ok(&format!("sweep merge plan.toml --output {folder}"));
    let names = [
        "cells.parquet",
        "cells.csv",
        "summary.parquet",
        "summary.csv",
    ];
    let files = names.map(|name| fs_err::read(bench.path(&format!("{folder}/{name}"))).unwrap());
    files.to_vec()
}

#[test]
fn a_sweep_finds_what_eval_finds_and_parts_give_the_bytes_of_the_whole() {
    let bench = planned(PLAN);
    let plan = bench.json("sweep plan.toml");
    let cells = plan["cells"].as_array().unwrap();
    assert_eq!(cells.len() as u64, CELLS);
    assert!(
        cells
            .iter()
            .all(|cell| cell["done"] == false && cell["key"].as_str().unwrap().len() == 64)
    );
    let ran = bench.json("sweep run plan.toml");
    assert_eq!(
        (&ran["ran"], &ran["failed"]),
        (&CELLS.into(), &0.into()),
        "{ran}"
    );
    let again = bench.json("sweep run plan.toml");
    assert_eq!(
        (&again["ran"], &again["done_before"]),
        (&0.into(), &CELLS.into()),
        "{again}"
    );
    let summary = bench.json("sweep merge plan.toml")["summary"].clone();
    let eval = bench.json(
        "eval --task ioi,induction --method sae,hisp,random --seeds 2 --examples 10 --resamples 4 --steps 20 --output eval",
    );
    let rows = summary.as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for (ours, theirs) in rows.iter().zip(eval["summary"].as_array().unwrap()) {
        assert_eq!(
            (&ours["task"], &ours["method"]),
            (&theirs["task"], &theirs["method"])
        );
        assert_eq!(ours["seeds"], 2);
        let number = |value: &Value| value.as_f64().unwrap();
        let close = |a: &Value, b: &Value| (number(a) - number(b)).abs() < 1e-12;
        assert!(
            close(&ours["node_auc"], &theirs["node_auc"]["mean"]),
            "{ours}\n{theirs}"
        );
        assert!(
            close(&ours["node_auc_std"], &theirs["node_auc"]["std"]),
            "{ours}\n{theirs}"
        );
        assert!(
            close(&ours["node_auc_low"], &theirs["node_interval"]["low"]),
            "{ours}\n{theirs}"
        );
        assert!(
            close(&ours["node_auc_high"], &theirs["node_interval"]["high"]),
            "{ours}\n{theirs}"
        );
    }
    let whole = merged(&bench, "merged");

    // The same plan in parts, as schedulers hand them out, of which one helps.
    let parts = planned(PLAN);
    let part = |variables: &[(&str, &str)], more: &str| {
        let mut command = parts.command(&format!("sweep run plan.toml --format json {more}"));
        let ran = Ran::of(command.envs(variables.iter().copied()).output().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        (value["ran"].as_u64().unwrap(), ran.stderr)
    };
    let slurm = [
        ("SLURM_ARRAY_TASK_ID", "2"),
        ("SLURM_ARRAY_TASK_COUNT", "3"),
        ("SLURM_ARRAY_TASK_MIN", "0"),
    ];
    let (last, said) = part(&slurm, "");
    assert!(
        said.contains("note: part 2/3 of the work, by an array of SLURM: "),
        "{said}"
    );
    let (one, _) = part(&[], "--cell 0");
    assert_eq!(one, 1);
    let kubernetes = [("JOB_COMPLETION_INDEX", "0"), ("JOB_COMPLETIONS", "3")];
    let (rest, said) = part(&kubernetes, "--help-others");
    assert!(
        said.contains("part 0/3 of the work, by an indexed job of Kubernetes"),
        "{said}"
    );
    assert_eq!(last + one + rest, CELLS);
    assert!(last > 0 && rest > 4);
    assert_eq!(merged(&parts, "merged"), whole);
    let found = parts.json("sweep merge plan.toml");
    assert_eq!(found["missing"], 0);

    // Pages, and questions.
    let report = bench.json("sweep report plan.toml --output pages");
    assert_eq!(report["pages"].as_array().unwrap().len(), 1);
    let page = fs_err::read_to_string(bench.path("pages/report.html")).unwrap();
    assert!(
        page.contains("reference") && page.contains("induction"),
        "{page}"
    );
    let below = bench.path(&format!("pages/{}", report["pages"][0].as_str().unwrap()));
    assert!(fs_err::read_to_string(below).unwrap().contains("<svg"));
    let mut command = bench.command("sweep merge plan.toml --format json --sql");
    command.arg("SELECT task, count(*) AS n FROM cells GROUP BY task ORDER BY task");
    let ran = Ran::of(command.output().unwrap());
    let rows: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        rows,
        serde_json::json!([{ "task": "induction", "n": 6 }, { "task": "ioi", "n": 6 }])
    );
    let status = bench.json("sweep status plan.toml");
    assert_eq!(status["done"], CELLS);
    assert_eq!(status["workers"][0]["state"], "ended");

    // A plan that has grown keeps what it has.
    bench.write("plan.toml", PLAN.replace("'random']", "'random', 'nap']"));
    let error = bench.run("sweep run plan.toml");
    assert_eq!(error.code, Some(1));
    assert!(
        error
            .stderr
            .contains("which has changed since: make it anew with `circuitscope sweep plan.toml`"),
        "{error:?}"
    );
    let grown = bench.json("sweep plan.toml");
    let done = grown["cells"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|cell| cell["done"] == true);
    assert_eq!(done.count() as u64, CELLS);
    assert_eq!(bench.json("sweep run plan.toml")["ran"], 4);
}

/// Starts a worker and waits until it has cells.
#[cfg(unix)]
fn working(bench: &Bench) -> Child {
    let mut command = bench.command("sweep run plan.toml --quiet");
    let child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_mins(1);
    while !bench.path("results/claims").exists() {
        assert!(Instant::now() < until, "no claim within a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// Work that takes long enough to be stopped in the middle.
#[cfg(unix)]
fn long() -> Bench {
    planned(
        &PLAN
            .replace("'sae', 'hisp', 'random'", "'sae', 'activation-patching'")
            .replace("steps = 20", "steps = 20000\nedges = 'all'"),
    )
}

#[cfg(unix)]
fn counts(bench: &Bench) -> [u64; 4] {
    let status = bench.json("sweep status plan.toml");
    ["done", "running", "failed", "open"].map(|name| status[name].as_u64().unwrap())
}

#[cfg(unix)]
#[test]
fn a_worker_that_is_told_to_stop_gives_its_cells_back_within_two_seconds() {
    let bench = long();
    let child = working(&bench);
    assert_eq!(counts(&bench)[1], 1);
    let told = Instant::now();
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert!(
        told.elapsed() < Duration::from_secs(3),
        "{:?}",
        told.elapsed()
    );
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.stderr.contains("the others were given back"), "{ran:?}");
    // Free at once, not when the lease is over.
    let [_, running, failed, open] = counts(&bench);
    assert_eq!((running, failed), (0, 0));
    assert!(open > 0);
}

#[cfg(unix)]
#[test]
fn cells_of_a_worker_that_was_killed_are_done_by_another() {
    let bench = planned(
        &PLAN
            .replace("lease = 4", "lease = 2")
            .replace("steps = 20", "steps = 2000"),
    );
    let mut child = working(&bench);
    child.kill().unwrap();
    child.wait().unwrap();
    let [done, running, ..] = counts(&bench);
    assert!(
        done < CELLS && (1..=2).contains(&running),
        "{done} {running}"
    );
    let ran = bench.json("sweep run plan.toml");
    assert_eq!(ran["ran"].as_u64().unwrap() + done, CELLS, "{ran}");
    assert_eq!(counts(&bench), [CELLS, 0, 0, 0]);
    let mut command = bench.command("sweep merge plan.toml --format json --sql");
    command.arg("SELECT count(*) AS cells, max(attempt) AS attempt FROM provenance");
    let rows = Ran::of(command.output().unwrap()).stdout;
    let rows: Value = serde_json::from_str(&rows).unwrap();
    assert_eq!(rows, serde_json::json!([{ "cells": CELLS, "attempt": 2 }]));
}

#[test]
fn what_cannot_be_run_is_kept_as_failed_and_the_rest_is_done() {
    let bench = planned(
        "store = 'results'\nmodels = ['own/', 'reference']\ntasks = ['ioi']\nmethods = ['random', 'mean-difference']\nseeds = 1\n[settings.default]\nexamples = 10\nresamples = 2\n",
    );
    bench.model_of_bytes("own", 2, 2);
    bench.json("sweep plan.toml");
    let ran = bench.run("sweep run plan.toml --format json");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let value: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&value["ran"], &value["failed"]),
        (&2.into(), &2.into()),
        "{ran:?}"
    );
    assert!(
        ran.stderr.contains(
            "error: 2 cells could not be run; `circuitscope sweep status plan.toml` says why"
        ),
        "{ran:?}"
    );
    let status = bench.ok("sweep status plan.toml");
    assert!(
        status.contains("2 done, 0 running, 2 failed, 0 open"),
        "{status}"
    );
    assert!(
        status.contains("own/ · ioi · random, seed 0, settings default: "),
        "{status}"
    );
    let error = bench.run("sweep merge plan.toml").stderr;
    assert!(error.contains("found 2 of 4 cells done"), "{error}");
    assert_eq!(bench.json("sweep merge plan.toml --partial")["missing"], 2);
    for command in ["merge plan.toml", "report plan.toml --output pages"] {
        let said = bench.ok(&format!("sweep {command} --partial"));
        assert!(
            said.contains("2 missing, of which 2 failed, the first own/ · ioi · random"),
            "{said}"
        );
    }
    // Not tried again unless asked for.
    let again = bench.run("sweep run plan.toml --format json");
    let value: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(
        (&value["failed"], &value["failed_before"]),
        (&0.into(), &2.into()),
        "{again:?}"
    );
    let again = bench.run("sweep run plan.toml --format json --retry-failed");
    let value: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(
        (&value["failed"], &value["failed_before"]),
        (&2.into(), &0.into()),
        "{again:?}"
    );
}

#[test]
fn tables_spare_what_others_wrote_and_rows_that_are_empty_are_named() {
    let bench = planned(
        "store = 'results'\nmodels = ['reference']\ntasks = ['ioi']\nmethods = ['random']\nseeds = 2\n[settings.default]\nexamples = 10\nresamples = 2\n",
    );
    let early = bench.run("sweep status plan.toml").stderr;
    assert!(
        early.contains(
            "results: cannot open this folder: it is not there, expected the store of a sweep"
        ),
        "{early}"
    );
    bench.json("sweep run plan.toml");
    fs_err::create_dir(bench.path("mine")).unwrap();
    for (file, command) in [("cells.csv", "merge"), ("report.html", "report")] {
        bench.write(&format!("mine/{file}"), "mine");
        let ran = bench.run(&format!("sweep {command} plan.toml --output mine"));
        assert!(
            ran.stderr.contains("--output mine: found ")
                && ran.stderr.contains("no provenance.parquet"),
            "{ran:?}"
        );
        let kept = fs_err::read_to_string(bench.path(&format!("mine/{file}"))).unwrap();
        assert_eq!(kept, "mine");
        let ran = bench.run(&format!("sweep {command} plan.toml --output results"));
        assert!(
            ran.stderr.contains("found the store of the sweep"),
            "{ran:?}"
        );
    }
    merged(&bench, "again");
    merged(&bench, "again");
    let row = fs_err::read_dir(bench.path("results/rows")).unwrap().next();
    fs_err::write(row.unwrap().unwrap().path(), "").unwrap();
    let error = bench.run("sweep merge plan.toml --output again").stderr;
    assert!(
        error.contains(
            ".parquet: not what a sweep wrote: found no row of its cell; delete it to make it again"
        ),
        "{error}"
    );
}

#[test]
fn a_model_that_has_changed_since_it_was_planned_is_refused() {
    let plan = PLAN
        .replace("'reference'", "'model'")
        .replace("'sae', 'hisp', 'random'", "'random'")
        .replace("seeds = 2", "seeds = 1");
    let bench = planned(&plan);
    bench.reference_model("model");
    bench.json("sweep plan.toml");
    let weights = fs_err::read(bench.path("model/config.json")).unwrap();
    bench.write("model/config.json", [weights, b"\n".to_vec()].concat());
    let ran = bench.run("sweep run plan.toml");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("config.json: found SHA-256 ") && ran.stderr.contains(" as planned"),
        "{ran:?}"
    );
    // Planned anew it is another model, with another key.
    bench.json("sweep plan.toml");
    assert_eq!(bench.json("sweep run plan.toml")["ran"], 2);
}

#[test]
fn plans_that_are_wrong_are_refused_by_file_and_field() {
    let bench = Bench::new();
    for (from, to, message) in [
        (
            "steps = 20",
            "stps = 20",
            "plan.toml: settings.default.stps: found an unknown setting (did you mean `steps`?), expected ",
        ),
        (
            "steps = 20",
            "steps = 'x'",
            "plan.toml: settings.default.steps: found \"x\", expected a whole number, from 0 to 1000000",
        ),
        (
            "steps = 20",
            "seeds = 20",
            "plan.toml: settings.default.seeds: found an option that a plan does not set here, expected ",
        ),
        (
            "steps = 20",
            "dtype = 'f64'",
            "plan.toml: settings.default.dtype: found \"f64\": ",
        ),
        (
            "steps = 20",
            "faithfulness = 'yes'",
            "plan.toml: settings.default.faithfulness: found \"yes\", expected true or false",
        ),
        (
            "steps = 20",
            "circuit = 'own.json'",
            "plan.toml: settings.default.circuit: found \"own.json\", expected the name of a model",
        ),
        ("'hisp'", "'hips'", "plan.toml: methods[1]: "),
        ("'induction'", "'inductoin'", "plan.toml: tasks[1]: "),
        (
            "'reference'",
            "'refrence'",
            "plan.toml: models[0]: refrence: no such file or folder beside the plan",
        ),
        (
            "lease = 4",
            "device = 'gpu'",
            "plan.toml: device: found \"gpu\": no such device",
        ),
        (
            "'results'",
            "'ftp://x'",
            "ftp://x: cannot open this store: expected a folder, s3://bucket/prefix",
        ),
        (
            "seeds = 2",
            "seed = 2.5",
            "plan.toml: seed: found 2.5, expected a whole number",
        ),
    ] {
        let plan = PLAN.replace(from, to);
        assert_ne!(plan, PLAN, "{from}");
        bench.write("plan.toml", plan);
        let before = bench.listing();
        let ran = bench.run("sweep plan.toml");
        assert_eq!(ran.code, Some(1), "{to}: {ran:?}");
        assert!(
            ran.stderr.starts_with(&format!("error: {message}")),
            "{to}: {}",
            ran.stderr
        );
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert_eq!(bench.listing(), before, "{to}");
    }
    bench.write("plan.toml", PLAN);
    let missing = bench.run("sweep status plan.toml").stderr;
    assert!(
        missing.contains("results: cannot open this folder"),
        "{missing}"
    );
    bench.json("sweep plan.toml");
    let refused = |line: &str, variables: &[(&str, &str)]| {
        let mut command = bench.command(line);
        let ran = Ran::of(command.envs(variables.iter().copied()).output().unwrap());
        assert_eq!(ran.code, Some(1), "{ran:?}");
        ran.stderr
    };
    let index = ("JOB_COMPLETION_INDEX", "0");
    let error = refused("sweep run plan.toml", &[index]);
    assert!(error.starts_with("error: JOB_COMPLETIONS: found nothing, but JOB_COMPLETION_INDEX, expected how many parts there are"), "{error}");
    let error = refused(
        "sweep run plan.toml",
        &[index, ("SLURM_ARRAY_TASK_ID", "0")],
    );
    assert!(
        error.contains("found both, expected one of them, or --shard I/N"),
        "{error}"
    );
    let error = refused("sweep run plan.toml --shards 3", &[]);
    assert!(
        error.starts_with("error: --shards: found no variable of SLURM or Kubernetes"),
        "{error}"
    );
    let error = refused("sweep run plan.toml --cell 12", &[]);
    assert!(
        error.starts_with("error: --cell: found \"12\", expected a number from 0 to 11"),
        "{error}"
    );
    assert_eq!(bench.run("sweep run plan.toml --shard 3/3").code, Some(2));
    assert_eq!(bench.run("sweep").code, Some(2));
}
