//! Completions, man pages and what `--version` says.

use std::process::Command;

use crate::help::COMMANDS;
use crate::support::{Bench, Ran, program};

/// bash itself completes a line, with the script that the program prints.
#[cfg(unix)]
#[test]
fn bash_completes_commands_flags_and_values() {
    let bench = Bench::new();
    bench.write("circuitscope.bash", bench.ok("completions bash"));
    let completed = |words: &[&str]| {
        let script = "source ./circuitscope.bash; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
             _circuitscope circuitscope \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
             printf '%s\\n' \"${COMPREPLY[@]}\"";
        let output = Command::new("bash")
            .args(["-c", script, "bash"])
            .args(words)
            .current_dir(bench.path(""))
            .output();
        let ran = Ran::of(output.unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{words:?}");
        ran.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed(&["circuitscope", "disc"]), ["discover"]);
    assert_eq!(
        completed(&["circuitscope", "discover", "--sel"]),
        ["--select"]
    );
    assert_eq!(
        completed(&["circuitscope", "discover", "--processing", "f"]),
        ["folded"]
    );
    assert!(
        completed(&["circuitscope", "discover", "--pairs", ""])
            .contains(&"circuitscope.bash".to_owned())
    );
}

#[test]
fn every_shell_has_a_script() {
    let bench = Bench::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = bench.ok(&format!("completions {shell}"));
        assert!(script.contains("train-tokens"), "{shell}");
    }
    let ran = bench.run("completions csh");
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("bash, elvish, fish, powershell, zsh"),
        "{ran:?}"
    );
}

/// One page of the program and one of each command, the same whoever built it. The gate renders them.
#[test]
fn man_pages_are_written() {
    let bench = Bench::new();
    let printed = bench.ok("man man1");
    assert_eq!(printed.lines().count(), 1 + COMMANDS.len(), "{printed}");
    let mut names: Vec<String> = COMMANDS
        .iter()
        .map(|command| format!("circuitscope-{}.1", command.replace(' ', "-")))
        .collect();
    names.push("circuitscope.1".to_owned());
    for name in &names {
        let page = fs_err::read_to_string(bench.path(&format!("man1/{name}"))).unwrap();
        assert!(page.contains(".TH"), "{name}");
        assert!(
            !page.contains("commit:") && !page.contains("compiler:"),
            "{name}"
        );
    }
    let page = fs_err::read_to_string(bench.path("man1/circuitscope-discover.1")).unwrap();
    assert!(page.contains("\\-\\-select"), "{page}");
    assert_eq!(
        bench.json("man man1")["written"].as_array().unwrap().len(),
        names.len()
    );
    bench.write("file", "");
    bench.fails(
        "man file/man1",
        "cannot write `file/man1`: Not a directory (os error 20)",
    );
}

#[test]
fn the_version_says_how_the_program_was_built() {
    let bench = Bench::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(bench.ok("-V"), format!("circuitscope {version}\n"));
    let long = bench.ok("--version");
    let mut lines = long.lines();
    assert_eq!(
        lines.next(),
        Some(format!("circuitscope {version}").as_str())
    );
    let keys = lines.map(|line| line.split_once(": ").unwrap());
    let fields: Vec<(&str, &str)> = keys.collect();
    let names: Vec<&str> = fields.iter().map(|(key, _)| *key).collect();
    assert_eq!(
        names,
        ["backends", "features", "commit", "compiler", "target"]
    );
    assert!(fields.iter().all(|(_, value)| !value.is_empty()), "{long}");
    assert!(fields[3].1.starts_with("rustc 1."), "{long}");
    // Another program may have been built with other features.
    if std::env::var_os("CIRCUITSCOPE_PROGRAM").is_none() && program().to_str().is_some() {
        assert_eq!(
            fields[0].1.contains("flex"),
            cfg!(feature = "flex"),
            "{long}"
        );
        assert_eq!(fields[1].1.contains("hub"), cfg!(feature = "hub"), "{long}");
    }
}
