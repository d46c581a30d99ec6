//! Nothing silently wrong, nothing that hangs: inputs, outputs and settings that nobody would give on purpose.

use std::process::Stdio;

use serde_json::Value;

use crate::support::Bench;

const PAIR: &str = r#"{"positive": "Mary gave it to John", "negative": "Mary gave it to Paul"}"#;

const EVAL: &str = "eval --task ioi,induction --method random,mean-difference --seeds 2 --examples 6 --resamples 2 \
     --output e";

/// A model of bytes and five pairs of prompts.
fn with_pairs() -> Bench {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    let pairs: Vec<String> = (0..6)
        .map(|at| PAIR.replace("gave it", &format!("gave {at}")))
        .collect();
    bench.write("pairs.jsonl", pairs.join("\n"));
    bench
}

const DISCOVER: &str =
    "discover --model m --pairs pairs.jsonl --method mean-difference --select otsu";

#[test]
fn runs_are_what_their_names_say() {
    let bench = Bench::new();
    bench.ok(EVAL);
    let run = |name: &str| fs_err::read(bench.path(&format!("e/runs/{name}"))).unwrap();
    let own = run("ioi.random.0.json");
    bench.write(
        "e/runs/ioi.random.0.json",
        run("ioi.mean-difference.0.json"),
    );
    let message = "e/runs/ioi.random.0.json: found the run of ioi.mean-difference.0.json under this name; delete it \
         to run again";
    bench.fails(EVAL, message);
    bench.fails("report e", message);
    bench.write("e/runs/ioi.random.0.json", &own);
    bench.ok(EVAL);
    bench.write("e/runs/copy of ioi.random.0.json", &own);
    bench.fails(
        "report e",
        "e/runs/copy of ioi.random.0.json: found the run of ioi.random.0.json under this name; delete it to run \
         again",
    );
    fs_err::remove_file(bench.path("e/runs/copy of ioi.random.0.json")).unwrap();
    let mut changed: Value = serde_json::from_slice(&own).unwrap();
    changed["node_auc"] = 7.5.into();
    bench.write("e/runs/ioi.random.0.json", changed.to_string());
    bench.fails(
        "report e",
        "e/runs/ioi.random.0.json: node_auc: found 7.5, expected 0 to 1; delete it to run again",
    );
}

#[test]
fn two_writers_of_one_folder_never_mix() {
    let bench = Bench::new();
    let line = |examples: usize| EVAL.replace("--examples 6", &format!("--examples {examples}"));
    for (first, second) in [(6, 8), (8, 6), (6, 8)] {
        let start = |examples| {
            let mut command = bench.command(&line(examples));
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let running = [start(first), start(second)];
        let ended = running.map(|child| child.wait_with_output().unwrap());
        let won = ended.iter().filter(|ran| ran.status.success()).count();
        assert_eq!(won, 1, "{ended:?}");
        let lost = ended.iter().find(|ran| !ran.status.success()).unwrap();
        let said = String::from_utf8_lossy(&lost.stderr);
        assert!(
            said.contains("this folder holds results made with examples = "),
            "{said}"
        );
        assert_eq!(lost.status.code(), Some(1));
        fs_err::remove_dir_all(bench.path("e")).unwrap();
    }
}

#[test]
fn scores_of_a_file_are_not_taken_for_a_method() {
    let bench = Bench::new();
    bench.write("sae.json", "{}");
    bench.fails(
        "eval --task induction --method random --scores sae.json --output e",
        "--scores sae.json: its row would be named sae, as a method is; rename the file",
    );
}

#[test]
fn other_numbers_of_cores_go_on_with_a_folder() {
    let bench = Bench::new();
    bench.ok(EVAL);
    let settings = fs_err::read_to_string(bench.path("e/settings.json")).unwrap();
    let settings: Value = serde_json::from_str(&settings).unwrap();
    assert_eq!(settings["device"], "flex (CPU)");
}

#[test]
fn equal_commands_write_equal_bytes() {
    let [a, b] = [with_pairs(), with_pairs()].map(|bench| {
        bench.ok(&format!("{DISCOVER} --save-activations a.safetensors"));
        bench.ok(
            "train --activations a.safetensors --steps 3 --train-examples 4 --codes 8 --output sae",
        );
        bench.ok("encode --sae sae --activations a.safetensors --output codes.safetensors");
        bench.write("prompts.txt", "one\nand another\n");
        bench.ok("capture --model m --prompts prompts.txt --sites * --output c.safetensors");
        let files = [
            "a.safetensors",
            "sae/cfg.json",
            "sae/sae_weights.safetensors",
            "codes.safetensors",
            "c.safetensors",
        ];
        files.map(|file| fs_err::read(bench.path(file)).unwrap())
    });
    assert!(a == b);
}

#[cfg(unix)]
#[test]
fn outputs_go_onto_regular_files_that_are_no_inputs() {
    let bench = with_pairs();
    bench.write("prompts.txt", "one\nand another\n");
    let capture = "capture --model m --sites logits";
    bench.fails(
        &format!("{capture} --prompts prompts.txt --output /dev/null"),
        "--output /dev/null: found a device or a pipe, expected a regular file or none",
    );
    for input in ["prompts.txt", "m/model.safetensors", "m/config.json"] {
        bench.fails(
            &format!("{capture} --prompts prompts.txt --output {input}"),
            &format!("--output {input}: it is an input of this command"),
        );
    }
    bench.ok(&format!("{DISCOVER} --save-activations a.safetensors"));
    bench.fails(
        "encode --sae nowhere --activations a.safetensors --output a.safetensors",
        "failed to read directory `nowhere`: No such file or directory (os error 2)",
    );
    bench.fails(
        &format!("{DISCOVER} --save-activations /dev/null"),
        "--save-activations /dev/null: found a device or a pipe, expected a regular file or none",
    );
}

#[cfg(unix)]
#[test]
fn what_has_no_end_is_no_input() {
    let bench = with_pairs();
    let endless = "found more than 512 MiB, expected at most that";
    bench.fails(
        &DISCOVER.replace("pairs.jsonl", "/dev/zero"),
        &format!("cannot read `/dev/zero`: {endless}"),
    );
    fs_err::remove_file(bench.path("m/config.json")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", bench.path("m/config.json")).unwrap();
    bench.fails(DISCOVER, &format!("cannot read `m/config.json`: {endless}"));
    let long = format!(
        r#"{{"positive": "{}", "negative": "b"}}"#,
        "a".repeat(20_000_000)
    );
    let bench = with_pairs();
    bench.write("pairs.jsonl", long);
    let ran = bench.run(DISCOVER);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr
            .contains("found 20000000 bytes, expected at most 1048576"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.len() < 1000, "{}", ran.stderr.len());
}

#[cfg(unix)]
#[test]
fn what_comes_through_a_pipe_is_what_is_hashed() {
    let bench = with_pairs();
    let made = std::process::Command::new("mkfifo")
        .arg(bench.path("pipe"))
        .status();
    assert!(made.unwrap().success());
    let text = fs_err::read(bench.path("pairs.jsonl")).unwrap();
    let pipe = bench.path("pipe");
    #[expect(
        clippy::disallowed_methods,
        reason = "a pipe is no file to be replaced"
    )]
    let writer = std::thread::spawn(move || std::fs::write(pipe, text).unwrap());
    let piped = bench.json(&DISCOVER.replace("pairs.jsonl", "pipe"));
    writer.join().unwrap();
    let read = bench.json(DISCOVER);
    assert_eq!(
        piped["provenance"]["inputs"]["pipe"],
        read["provenance"]["inputs"]["pairs.jsonl"]
    );
    assert_eq!(piped["scores"], read["scores"]);
}

#[test]
fn what_files_say_is_shown_and_not_obeyed() {
    let bench = with_pairs();
    let config = fs_err::read_to_string(bench.path("m/config.json")).unwrap();
    let evil = config.replace('{', "{\"\\u001b[31mevil\\u0007\": 1, ");
    bench.write("m/config.json", evil);
    let ran = bench.run(DISCOVER);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr.contains(r"\u{1b}[31mevil\u{7}"),
        "{}",
        ran.stderr
    );
    bench.write("m/config.json", &config);
    bench.write(
        "pairs.jsonl",
        [PAIR.replace("gave", "ga\u{7f}\u{202e}ve"), PAIR.to_owned()].join("\n"),
    );
    let json = bench.json(DISCOVER);
    let text = json["behaviour"]["positive"]["text"].as_str().unwrap();
    assert!(text.contains("ga\u{7f}\u{202e}ve"), "{text}");
    bench.write(
        "m/added_tokens.json",
        format!("{{\"{}\": 257}}", "x".repeat(1001)),
    );
    bench.fails(
        DISCOVER,
        "m/added_tokens.json: found an added token of 1001 bytes, expected at most 1000",
    );
    fs_err::remove_file(bench.path("m/added_tokens.json")).unwrap();
    let shown = |text: &str| !text.contains(|c: char| c.is_control() && c != '\n' && c != '\t');
    assert!(shown(&ran.stderr) && shown(&ran.stdout), "{ran:?}");
    let long = config.replace('{', &format!("{{\"{}\": 1, ", "key".repeat(2000)));
    bench.write("m/config.json", long);
    let ran = bench.run(DISCOVER);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.stderr.contains(&"key".repeat(70)), "{}", ran.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stderr_loses_lines_and_no_result() {
    let bench = with_pairs();
    let full = || {
        Stdio::from(
            fs_err::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap()
                .into_file(),
        )
    };
    for line in [format!("{DISCOVER} -vv"), format!("{DISCOVER} -q")] {
        let ran = bench.command(&line).stderr(full()).output().unwrap();
        assert!(ran.status.success(), "{line}: {ran:?}");
        assert!(!ran.stdout.is_empty());
    }
}

#[test]
fn absurd_numbers_are_refused_at_once() {
    let bench = Bench::new();
    for (line, option, most) in [
        ("discover --task ioi", "--codes", "65536"),
        ("discover --task ioi", "--steps", "1000000"),
        ("discover --task ioi", "--examples", "1000000"),
        ("eval --output e", "--seeds", "10000"),
        ("eval --output e", "--resamples", "100000"),
        ("train --activations a --output b", "--codes", "65536"),
    ] {
        for number in [
            "1000000000",
            "18446744073709551615",
            "99999999999999999999",
            "-1",
        ] {
            let ran = bench.run(&format!("{line} {option}={number}"));
            assert_eq!(ran.code, Some(2), "{ran:?}");
            let least = usize::from(!["--steps", "--resamples"].contains(&option));
            let expected = format!("expected a whole number, from {least} to {most}");
            assert!(ran.stderr.contains(&expected), "{}", ran.stderr);
        }
    }
}

#[test]
fn scores_that_are_no_numbers_are_an_error_that_names_the_run() {
    let bench = Bench::new();
    let ran = bench.run(
        "eval --task ioi --method sae --examples 12 --l1 3e38 --steps 50 --seeds 1 --output e",
    );
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let error = ran.stderr.lines().last().unwrap();
    assert!(
        error
            .starts_with("error: method `sae` on task ioi, seed 0: training diverged: before step"),
        "{error}"
    );
}

#[test]
fn prompts_that_say_nothing_carry_a_warning() {
    let bench = with_pairs();
    bench.write("pairs.jsonl", [PAIR; 24].join("\n"));
    let text = bench.ok(DISCOVER);
    assert!(
        text.contains("warning: 24 pairs are 1 different ones, the others their copies"),
        "{text}"
    );
    let text = bench.ok("discover --task ioi --examples 1 --method mean-difference --select otsu");
    assert!(
        text.contains("warning: 1 pair: heads that differ"),
        "{text}"
    );
    bench.write(
        "pairs.jsonl",
        format!("{PAIR}\n{}", PAIR.replace("gave it", "gave them")),
    );
    bench.ok(&format!("{DISCOVER} --save-activations a.safetensors"));
    let text =
        bench.ok("discover --activations a.safetensors --method mean-difference --select otsu");
    assert!(
        text.contains("warning: 2 positive and 2 negative examples"),
        "{text}"
    );
}

/// Runs say what they were made with: none is taken for one of other settings, whatever happened to the folder.
#[test]
fn runs_of_other_settings_are_not_taken() {
    let bench = Bench::new();
    bench.ok(EVAL);
    let other = EVAL.replace("--examples 6", "--examples 7");
    bench.ok(&other.replace("--output e", "--output f"));
    let run = fs_err::read(bench.path("f/runs/ioi.random.0.json")).unwrap();
    let own = fs_err::read(bench.path("e/runs/ioi.random.0.json")).unwrap();
    bench.write("e/runs/ioi.random.0.json", run);
    let message = "e/runs/ioi.random.0.json: found a run of other settings than those of settings.json; delete it to run \
         again";
    bench.fails(EVAL, message);
    bench.fails("report e", message);
    bench.write("e/runs/ioi.random.0.json", own);
    fs_err::remove_file(bench.path("e/settings.json")).unwrap();
    for name in ["results.json", "report.html"] {
        fs_err::remove_file(bench.path("e").join(name)).unwrap();
    }
    for line in [EVAL, &other] {
        bench.fails(
            line,
            "e/runs: found runs, but not the settings.json beside them that says what they were made with; take \
             another folder, or delete them to run again",
        );
    }
}

/// A folder that is deleted and begun anew while an evaluation still runs: the first one stops.
#[test]
fn an_evaluation_whose_folder_was_begun_anew_stops() {
    let bench = Bench::new();
    let mut first = bench.command(&EVAL.replace("--seeds 2", "--seeds 2000"));
    let first = first
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let runs = bench.path("e/runs");
    while !runs.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // A file may come while others go.
    while bench.path("e").exists() && fs_err::remove_dir_all(bench.path("e")).is_err() {}
    let output = first.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let changed = "e/settings.json: changed or removed since this evaluation began: choose another --output\n";
    // Or its folder went while a run was being written.
    let gone = said
        .lines()
        .last()
        .is_some_and(|line| line.contains("cannot write `e/"));
    assert!(said.ends_with(changed) || gone, "{said}");
}

/// What a command did not write it does not overwrite.
#[test]
fn folders_of_others_stay_as_they_are() {
    let bench = with_pairs();
    for name in ["importances.json", "neuronpedia.json", "report.html"] {
        bench.write(&format!("theirs/{name}"), "mine");
        bench.fails(
            &format!("{DISCOVER} --output theirs"),
            &format!(
                "--output theirs: found {name} and no discovery.json of this command, expected a new folder, or one that \
                 it wrote"
            ),
        );
        fs_err::remove_file(bench.path("theirs").join(name)).unwrap();
    }
    bench.ok(&format!("{DISCOVER} --output own"));
    bench.ok(&format!("{DISCOVER} --output own"));
    bench.fails(
        &EVAL.replace("--output e", "--output own"),
        "--output own: found discovery.json and no settings.json of this command, expected a new folder, or one that it \
         wrote",
    );
    bench.ok(EVAL);
    bench.fails(
        &format!("{DISCOVER} --output e"),
        "--output e: found report.html and no discovery.json of this command, expected a new folder, or one that it wrote",
    );
    bench.write("file", "");
    bench.fails(
        &format!("{DISCOVER} --output file"),
        "--output file: cannot write here: found a file, expected a folder or nothing",
    );
    for name in ["own/discovery.json", "own/pictures/x", "own"] {
        let ran = bench.run(&format!(
            "{DISCOVER} --output own --save-activations {name}"
        ));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let end = format!(
            "error: --save-activations {name}: --output writes there, too; choose another file\n"
        );
        assert_eq!(ran.stderr, end);
    }
}

/// A script of the shell, to which the program is `$PROGRAM`, run in a folder of the bench.
#[cfg(unix)]
fn sh(bench: &Bench, folder: &str, script: &str) -> crate::support::Ran {
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", script])
        .current_dir(bench.path(folder))
        .env("PROGRAM", crate::support::program());
    crate::support::Ran::of(command.output().unwrap())
}

/// Settings of libraries that lie around are not read, and a folder that is gone stops nothing that does not need it.
#[cfg(unix)]
#[test]
fn the_current_folder_decides_nothing() {
    let bench = Bench::new();
    for name in ["burn.toml", "Burn.toml", "cubecl.toml", "CubeCL.toml"] {
        bench.write(&format!("below/{name}"), "garbage[[[");
    }
    bench.write("below/further/x", "");
    bench.write("gone/x", "");
    let line = "discover --task ioi --examples 4 --method eap --select top:2 --faithfulness none";
    for folder in ["below", "below/further", "gone"] {
        let gone = if folder == "gone" {
            "rm -r ../gone; "
        } else {
            ""
        };
        let ran = sh(&bench, folder, &format!("{gone}exec \"$PROGRAM\" {line}"));
        assert_eq!(ran.code, Some(0), "{folder}: {ran:?}");
    }
}

/// A limit on the size of files is an error, as a full disk is; and a full stderr hides no exit code.
#[cfg(target_os = "linux")]
#[test]
fn limits_of_the_shell_are_errors() {
    let bench = Bench::new();
    let ran = sh(
        &bench,
        "",
        "ulimit -f 20; exec $PROGRAM capture --task ioi --examples 2 --sites '*' --output x.safetensors",
    );
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.starts_with("error: ") && ran.stderr.contains("x.safetensors"),
        "{ran:?}"
    );
    assert_eq!(fs_err::read_dir(bench.path("")).unwrap().count(), 0);
    let ran = sh(&bench, "", "exec $PROGRAM discover --nope 2>/dev/full");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let ran = sh(
        &bench,
        "",
        "exec $PROGRAM discover --task ioi --examples 4 --method random >/dev/full",
    );
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.starts_with("error: cannot write to stdout: "),
        "{ran:?}"
    );
}

/// Which prompt is meant is told by line and field, not by a number in a list that nobody sees.
#[test]
fn prompts_that_do_not_fit_are_named_by_their_line() {
    let bench = with_pairs();
    let long = "Mary gave it to ".repeat(2000);
    let lines = [
        PAIR.to_owned(),
        PAIR.replace("Mary gave it to Paul", &format!("{long}Paul")),
    ];
    bench.write("pairs.jsonl", lines.join("\n"));
    let ran = bench.run(DISCOVER);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let start = "error: pairs.jsonl:2: negative prompt: found ";
    assert!(
        ran.stderr.lines().any(|line| line.starts_with(start)),
        "{ran:?}"
    );
    bench.write("prompts.txt", "In spring Maurice\nIn Zebraword\n");
    let ran = bench.run("capture --prompts prompts.txt --sites logits --output x.safetensors");
    assert!(
        ran.stderr.starts_with(
            "error: prompts.txt: prompt 2: \"In Zebraword\": found the word \"Zebraword\""
        ),
        "{ran:?}"
    );
}

/// One pair is too few for some methods, which say so.
#[test]
fn too_few_examples_are_an_error_that_says_how_many() {
    let bench = Bench::new();
    for (method, what) in [
        (
            "linear-probe",
            "pairs of which some are held out and judged by the others: found 1, expected 2",
        ),
        (
            "standardised-difference",
            "examples of each class, for the spread within it: found 1, expected 2",
        ),
        (
            "sae",
            "examples to train the dictionary on: found 2, expected 10: lower --train-examples",
        ),
    ] {
        let ran = bench.run(&format!(
            "discover --task ioi --examples 1 --method {method}"
        ));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.ends_with(&format!("error: {what}\n")), "{ran:?}");
    }
    bench.activations("a.safetensors", &[1, 1, 0, 0]);
    bench.fails(
        "discover --activations a.safetensors --method mean-difference --select knee",
        "choosing by the knee runs the model on prompts in pairs, and there is no such model beside the activations: \
         use --task or --pairs, not --activations or unmatched prompts",
    );
}

/// `umask` decides who may read results, and a file that is written anew keeps its mode.
#[cfg(unix)]
#[test]
fn results_are_as_private_as_the_user_says() {
    use std::os::unix::fs::PermissionsExt as _;

    let bench = Bench::new();
    let mode = |name: &str| {
        let about = fs_err::metadata(bench.path(name)).unwrap();
        about.permissions().mode() & 0o777
    };
    let run = |mask: &str, folder: &str| {
        let line = "discover --task ioi --examples 4 --method random --output";
        let script = format!("umask {mask}; exec \"$PROGRAM\" {line} {folder}");
        let ran = sh(&bench, "", &script);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    };
    for (mask, folder, expected) in [
        ("077", "private", 0o600),
        ("022", "public", 0o644),
        ("002", "group", 0o664),
    ] {
        run(mask, folder);
        for name in ["discovery.json", "report.html"] {
            assert_eq!(
                mode(&format!("{folder}/{name}")),
                expected,
                "{folder}/{name}"
            );
        }
    }
    run("022", "private");
    assert_eq!(mode("private/discovery.json"), 0o600);
}
