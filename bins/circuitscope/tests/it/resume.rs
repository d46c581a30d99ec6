//! Work that was interrupted goes on where it stopped.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::Bench;

const EVAL: &str =
    "eval --task ioi --method mean-difference,sae --seeds 2 --examples 12 --steps 5 --output e";

fn runs(bench: &Bench) -> Vec<(PathBuf, Vec<u8>)> {
    let mut runs: Vec<_> = fs_err::read_dir(bench.path("e/runs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs_err::read(path).unwrap()))
        .collect();
    runs.sort();
    runs
}

#[test]
fn only_missing_runs_are_made_again() {
    let bench = Bench::new();
    let first = bench.json(EVAL);
    let before = runs(&bench);
    assert_eq!(before.len(), 4);
    let lost = bench.path("e/runs/ioi.sae.1.json");
    fs_err::remove_file(&lost).unwrap();

    let second = bench.json(EVAL);
    let after = runs(&bench);
    // Each file holds the wall time of its run: equal bytes were not made twice.
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old.0, new.0);
        assert_eq!(old.1 == new.1, old.0 != lost, "{:?}", old.0);
    }
    assert_eq!(
        first["summary"][0]["node_auc"],
        second["summary"][0]["node_auc"]
    );
    assert_eq!(
        first["summary"][1]["node_auc"],
        second["summary"][1]["node_auc"]
    );
}

#[test]
fn further_seeds_and_methods_add_to_what_is_there() {
    let bench = Bench::new();
    bench.ok(EVAL);
    let before = runs(&bench);
    let more = bench.json(
        &EVAL
            .replace("--seeds 2", "--seeds 3")
            .replace(",sae", ",sae,random"),
    );
    assert_eq!(more["runs"].as_array().unwrap().len(), 9);
    let after = runs(&bench);
    assert!(before.iter().all(|run| after.contains(run)));
}

/// As in a container with other cores.
#[cfg(target_os = "linux")]
#[test]
fn another_number_of_cores_goes_on_with_a_folder() {
    let bench = Bench::new();
    let one = |line: &str| {
        let mut command = std::process::Command::new("taskset");
        command.args(["-c", "0"]).arg(crate::support::program());
        command.args(line.split_whitespace());
        command.current_dir(bench.path("."));
        crate::support::Ran::of(command.output().unwrap())
    };
    let ran = one(EVAL);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let before = runs(&bench);
    let results = bench.json(EVAL);
    assert_eq!(runs(&bench), before);
    // Where a run was made stands in its provenance, and not in what tells it from others.
    let device = results["provenance"]["device"].as_str().unwrap();
    assert!(device.contains("thread"), "{device}");
    let settings = &results["provenance"]["settings"]["device"];
    assert_eq!(*settings, "flex (CPU)");
}

#[test]
fn a_folder_made_with_other_settings_is_refused() {
    let bench = Bench::new();
    bench.ok(EVAL);
    bench.fails(
        &EVAL.replace("--examples 12", "--examples 13"),
        "e/settings.json: this folder holds results made with examples = 12, not 13: choose another \
         --output",
    );
}

/// What an evaluation wrote of itself is read as what it is: a field that is not as it should be is named.
#[test]
fn damaged_settings_and_results_are_named() {
    let bench = Bench::new();
    let line = "eval --task ioi --method random --seeds 1 --examples 6 --resamples 2 --output e";
    let first = bench.json(line);
    let change = |file: &str, change: &dyn Fn(&mut Value)| {
        let path = bench.path(file);
        let whole = fs_err::read_to_string(&path).unwrap();
        let mut value: Value = serde_json::from_str(&whole).unwrap();
        change(&mut value);
        bench.write(file, serde_json::to_string_pretty(&value).unwrap());
        let ran = bench.run("report e");
        bench.write(file, whole);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        ran.stderr
    };
    let results = "e/results.json";
    let said = change(results, &|it| {
        it["provenance"]["settings"]["examples"] = "many".into();
    });
    let expected = "error: e/results.json: provenance.settings.examples: invalid type: string \"many\", expected ";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.ends_with("; delete it to make it again\n"), "{said}");
    let said = change(results, &|it| {
        it["summary"][0]["node_auc"]["mean"] = Value::Null;
    });
    assert!(
        said.starts_with("error: e/results.json: summary[0].node_auc.mean: "),
        "{said}"
    );

    let settings = "e/settings.json";
    let said = change(settings, &|it| it["prepend_bos"] = true.into());
    assert!(
        said.starts_with("error: e/settings.json: prepend_bos: invalid type: boolean"),
        "{said}"
    );
    let said = change(settings, &|it| it["schema"] = 2.into());
    let expected = "error: e/settings.json: schema: found version 2 of these files, expected 1";
    assert!(said.starts_with(expected), "{said}");
    let said = change(settings, &|it| it["exampels"] = 3.into());
    assert!(said.contains("unknown field `exampels`"), "{said}");
    let said = change(settings, &|it| {
        it.as_object_mut().unwrap().remove("device");
    });
    assert!(
        said.starts_with("error: e/settings.json: missing field `device`"),
        "{said}"
    );

    // As it was, it makes the same results again; without results, those of the runs.
    let again = bench.json("report e");
    assert_eq!(again, first);
    fs_err::remove_file(bench.path(results)).unwrap();
    let anew = bench.json("report e");
    for part in ["behaviour", "runs", "summary"] {
        assert_eq!(anew[part], first[part]);
    }
    let provenance = &anew["provenance"];
    assert_eq!(provenance["settings"], first["provenance"]["settings"]);
    assert_eq!(provenance["model"], first["provenance"]["model"]);
    assert_eq!(provenance.as_object().unwrap().len(), 2);
}

#[test]
fn a_damaged_run_is_named() {
    let bench = Bench::new();
    bench.ok(EVAL);
    bench.write("e/runs/ioi.sae.0.json", "{\"task\":");
    let ran = bench.run(EVAL);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .starts_with("error: e/runs/ioi.sae.0.json: not what a run wrote"),
        "{ran:?}"
    );
    assert_eq!(ran.stderr.lines().count(), 1);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_finished_runs() {
    use crate::support::interrupt;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    let bench = Bench::new();
    // Many more steps than anyone waits for.
    let line = EVAL.replace("--steps 5", "--steps 1000000");
    let child = bench
        .command(&line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let done = bench.path("e/runs/ioi.mean-difference.1.json");
    let start = Instant::now();
    while !done.exists() {
        assert!(
            start.elapsed() < Duration::from_mins(2),
            "the first runs take no time"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "interrupted: finished parts are kept; run the same command to go on\n"
    );
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("what the model makes of ioi:"), "{said}");
    assert!(!said.contains("node AUC"), "{said}");
    let before = runs(&bench);
    assert_eq!(before.len(), 2, "the two finished runs, and nothing else");

    bench.ok(&line.replace(",sae", ""));
    assert_eq!(runs(&bench), before, "finished runs are not made again");
}

/// Waiting for a file that never comes has no safe point.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_work_that_does_not_listen() {
    use crate::support::interrupt;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let bench = Bench::new();
    let made = Command::new("mkfifo")
        .arg(bench.path("pairs.jsonl"))
        .status();
    assert!(made.unwrap().success());
    let child = bench
        .command("discover --pairs pairs.jsonl --output out")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Long enough to have begun: before that, the signal would end it without a word.
    std::thread::sleep(Duration::from_secs(2));
    let start = Instant::now();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "interrupted: nothing is kept\n");
    assert!(!bench.path("out").exists());
}

/// A page without the known circuits would look like one of a model that has none.
#[test]
fn what_runs_were_judged_by_is_not_left_out() {
    let bench = Bench::new();
    bench.ok(EVAL);
    let by = bench.path("e/tasks/ioi.json");
    let (said, page) = (fs_err::read(&by).unwrap(), bench.path("e/report.html"));
    let before = fs_err::read_to_string(&page).unwrap();
    assert!(before.contains("in the known circuit"));
    fs_err::remove_file(&by).unwrap();
    bench.fails(
        "report e",
        "e/tasks/ioi.json: not there, expected what the runs of task ioi were judged by; the command of `eval` \
         that made them writes it",
    );
    // Nothing is run again, and it is there again.
    let kept = runs(&bench);
    bench.ok(EVAL);
    assert_eq!(runs(&bench), kept);
    assert_eq!(fs_err::read(&by).unwrap(), said);
    bench.ok("report e");
    assert!(
        fs_err::read_to_string(&page)
            .unwrap()
            .contains("in the known circuit")
    );
}
