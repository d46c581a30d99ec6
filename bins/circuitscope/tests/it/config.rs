//! `circuitscope.toml`: what it gives, what counts before it, and what is said where it is wrong.

use serde_json::json;

use crate::support::{Bench, Ran};

const LABELS: [u8; 6] = [1, 1, 1, 0, 0, 0];

/// A bench with an activations file, a codes file made of it, and a configuration.
fn with(config: &str) -> Bench {
    let bench = Bench::new();
    bench.activations("a.safetensors", &LABELS);
    bench.write("circuitscope.toml", config);
    bench
}

#[test]
fn a_file_in_the_current_folder_gives_flags_and_says_so() {
    let bench = with(
        "seed = 3\n\n[train]\nactivations = \"a.safetensors\"\noutput = \"sae\"\ncodes = 6\nsteps = 2\n",
    );
    let ran = bench.run("train");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr.starts_with(
            "circuitscope.toml gives --activations=a.safetensors --output=sae --codes=6 --steps=2 --seed=3\n"
        ),
        "{}",
        ran.stderr
    );
    let config = fs_err::read_to_string(bench.path("sae/cfg.json")).unwrap();
    assert!(
        config.contains("\"d_sae\": 6") || config.contains("\"d_sae\":6"),
        "{config}"
    );
    // Nothing is said by a command that takes nothing, nor with --quiet.
    let ran = bench.run("methods");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let ran = bench.run("train --quiet --output other");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn flags_win_over_tables_and_tables_over_the_rest() {
    let bench = with(
        "top = 3\nformat = \"json\"\n\n[discover]\ntop = 2\nmethod = \"mean-difference\"\nactivations = \"a.safetensors\"\n",
    );
    let said = |line: &str| bench.run(line).stderr;
    assert!(said("discover").contains("--top=2"), "{}", said("discover"));
    assert!(!said("discover").contains("--top=3"));
    let typed = said("discover --top 1 --method activation-variance");
    assert!(
        !typed.contains("--top") && !typed.contains("--method"),
        "{typed}"
    );
    // What cannot stand beside what was typed is left out.
    let typed =
        bench.run("discover --task ioi --examples 2 --method mean-difference --faithfulness none");
    assert_eq!(typed.code, Some(0), "{typed:?}");
    assert!(!typed.stderr.contains("--activations"), "{}", typed.stderr);
    // The form of what is printed is one of the flags.
    serde_json::from_str::<serde_json::Value>(&bench.run("discover").stdout).unwrap();
}

#[test]
fn results_record_what_the_file_gave() {
    let bench = with("[discover]\nactivations = \"a.safetensors\"\nmethod = \"mean-difference\"\n");
    bench.ok("discover --output found");
    let found = fs_err::read_to_string(bench.path("found/discovery.json")).unwrap();
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(
        found["provenance"]["command"],
        json!([
            "discover",
            "--output",
            "found",
            "--activations=a.safetensors",
            "--method=mean-difference"
        ])
    );
}

#[test]
fn the_environment_counts_before_the_file() {
    let bench = with("model = \"none-such-either\"\n");
    let line = "capture --task ioi --sites logits --output x.safetensors";
    let mut command = bench.command(line);
    let ran = Ran::of(
        command
            .env("CIRCUITSCOPE_MODEL", "reference")
            .output()
            .unwrap(),
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = bench.run(line);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr
            .contains("--model none-such-either: no such file or folder"),
        "{ran:?}"
    );
}

#[test]
fn another_file_or_none_can_be_named() {
    let bench = with("[doctor]\ndevice = \"no-such\"\n");
    assert_eq!(bench.run("methods").code, Some(1));
    assert_eq!(bench.run("methods --config none").code, Some(0));
    let mut command = bench.command("methods");
    let ran = Ran::of(command.env("CIRCUITSCOPE_CONFIG", "none").output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // Completions are asked for by a shell that starts, in any folder.
    assert_eq!(bench.run("completions bash").code, Some(0));
    // Paths start from the folder of the file.
    bench.activations("data/a.safetensors", &LABELS);
    bench.write(
        "data/c.toml",
        "[train]\nactivations = \"a.safetensors\"\noutput = \"sae\"\nsteps = 1\ncodes = 3\n",
    );
    let ran = bench.run("--config data/c.toml train");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr
            .starts_with("data/c.toml gives --activations=data/a.safetensors --output=data/sae"),
        "{}",
        ran.stderr
    );
    assert!(bench.path("data/sae/cfg.json").is_file());
    // So do names that may be paths, where they look like one and are there.
    bench.reference_model("data/models/m");
    bench.write("data/c.toml", "model = \"models/m\"\n");
    let ran =
        bench.run("capture --task ioi --sites logits --output x.safetensors --config data/c.toml");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("--model=data/models/m"), "{ran:?}");
    bench.fails(
        "methods --config none.toml",
        "cannot read `none.toml`: No such file or directory (os error 2)",
    );
}

#[test]
fn values_are_of_the_kind_of_their_flag() {
    let bench = with(
        "verbose = 1\n\n[explain]\nfeature = [1, 2]\n[discover]\nonly-correct = false\nactivations = \"a.safetensors\"\nmethod = \"mean-difference\"\n",
    );
    let ran = bench.run("discover");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.starts_with("circuitscope.toml gives --activations=a.safetensors --method=mean-difference --verbose\n"), "{ran:?}");
    for (config, message) in [
        (
            "[discover]\npairs = ",
            "line 2: found string values must be quoted, expected literal string, expected TOML",
        ),
        (
            "sed = 1\n",
            "line 1: `sed`: found no such flag of any command (did you mean `seed`?), expected a flag without its dashes, or the name of a command before a table of its flags",
        ),
        (
            "[dicsover]\n",
            "line 1: [dicsover]: found no such command (did you mean `discover`?), expected eval, discover, compare, capture, rows, train-tokens, splice, explain, graph, train, encode, score, report, sweep, methods, doctor",
        ),
        (
            "[discover]\n\nmax_heads = 3\n",
            "line 3: [discover] `max_heads`: found no such flag (did you mean `max-heads`?), expected a flag that `circuitscope discover --help` lists, without its dashes",
        ),
        (
            "[encode]\nmodel = \"m\"\n",
            "line 2: [encode] `model`: found no such flag, expected a flag that `circuitscope encode --help` lists, without its dashes",
        ),
        (
            "config = \"x\"\n",
            "line 1: `config`: found no such flag of any command, expected a flag without its dashes, or the name of a command before a table of its flags",
        ),
        (
            "[discover]\ntop = \"many\"\n",
            "line 2: [discover] `top`: found \"many\", expected a value that `--help` allows (invalid digit found in string)",
        ),
        (
            "[discover]\nselect = \"best\"\n",
            "line 2: [discover] `select`: found \"best\", expected `otsu`, `otsu-sqrt`, `top:N`, `softmax:THETA`, `fdr:RATE`, `stability:SHARE` or `knee`",
        ),
        (
            "[discover]\nprocessing = \"fold\"\n",
            "line 2: [discover] `processing`: found \"fold\", expected one of raw, folded (did you mean `folded`?)",
        ),
        (
            "[discover]\nchat = 1\n",
            "line 2: [discover] `chat`: found 1, expected true or false",
        ),
        (
            "[discover]\nmax-heads = [1]\n",
            "line 2: [discover] `max-heads`: found a list, expected a text, a number, true or false",
        ),
        (
            "[discover]\nseed = 2026-01-01\n",
            "line 2: [discover] `seed`: found the time 2026-01-01, expected a text, a number, true or false",
        ),
        (
            "[explain]\nfeature = [[1]]\n",
            "line 2: [explain] `feature`: found a list in the list, expected texts, numbers, true or false in it",
        ),
        (
            "verbose = true\n",
            "line 1: `verbose`: found true, expected a whole number, from 0 to 9",
        ),
        (
            "seed = -1\n",
            "line 1: `seed`: found -1, expected a value that `--help` allows (invalid digit found in string) (of `eval`, one of the commands that have this flag)",
        ),
    ] {
        bench.write("circuitscope.toml", config);
        bench.fails("methods", &format!("circuitscope.toml: {message}"));
    }
}
