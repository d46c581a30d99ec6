//! The pages of `docs/`, held to the program: what they show of it is run, and every flag that they name is there.
//!
//! A fenced block `console` is run in bash, in one folder a page: lines after `$ ` are commands, those below what they print
//! on stdout and stderr, where `…` stands for anything. All other blocks are not run: `text` and indented ones need models
//! that are fetched, minutes, or files that nobody has; in them every `circuitscope` line must name a command and flags that
//! there are.

use core::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::help::{COMMANDS, help_file};
use crate::support::{Bench, program};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every page, by its path from the root.
fn pages() -> Vec<(String, String)> {
    let mut pages = vec!["README.md".to_owned()];
    let mut folders = vec!["docs".to_owned(), "benches".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(root().join(&folder)).unwrap() {
            let name = entry.unwrap().file_name();
            let path = format!("{folder}/{}", name.to_str().unwrap());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.to_lowercase().ends_with(".md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    let read = |path: String| {
        let text = fs_err::read_to_string(root().join(&path)).unwrap();
        (path, text)
    };
    pages.into_iter().map(read).collect()
}

/// What stands between a line that opens a block of this language and the fence that closes it.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<Vec<&'t str>> {
    let mut blocks = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in text.lines() {
        match &mut open {
            None if line.trim_end() == format!("```{language}") => open = Some(Vec::new()),
            None => {}
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some(block) => block.push(line),
        }
    }
    blocks
}

/// A command of a block and what it prints.
struct Shown<'t> {
    command: String,
    printed: Vec<&'t str>,
}

fn commands<'t>(block: &[&'t str]) -> Vec<Shown<'t>> {
    let mut commands: Vec<Shown<'_>> = Vec::new();
    let mut continued: Option<String> = None;
    for line in block {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push(Shown {
                command: command.to_owned(),
                printed: Vec::new(),
            });
            continued = here_document(command);
        } else if let Some(end) = &continued {
            let command = &mut commands.last_mut().unwrap().command;
            command.push('\n');
            command.push_str(line);
            if *line == end {
                continued = None;
            }
        } else {
            let last = commands.last_mut().expect("a block begins with a command");
            last.printed.push(line);
        }
    }
    commands
}

/// The line that ends the text that a command is given below it.
fn here_document(command: &str) -> Option<String> {
    let (_, end) = command.split_once("<<")?;
    Some(end.trim().trim_matches('\'').to_owned())
}

#[cfg(unix)]
#[test]
fn what_pages_show_is_what_happens() {
    let mut ran = 0;
    for (path, text) in pages() {
        let blocks = blocks(&text, "console");
        if blocks.is_empty() {
            continue;
        }
        let bench = Bench::new();
        let programs = bench.path("bin");
        fs_err::create_dir(&programs).unwrap();
        fs_err::os::unix::fs::symlink(program(), programs.join("circuitscope")).unwrap();
        let folder = bench.path("here");
        fs_err::create_dir(&folder).unwrap();
        let search = std::env::var_os("PATH").unwrap().into_string().unwrap();
        let mut code = 0;
        for Shown { command, printed } in blocks.iter().flat_map(|block| commands(block)) {
            if command == "echo $?" {
                assert_eq!(
                    printed,
                    [code.to_string()],
                    "{path}: the code of the command before"
                );
                code = 0;
                continue;
            }
            assert_eq!(
                code, 0,
                "{path}: before `{command}`: a code other than 0 is not shown"
            );
            let output = Command::new("bash")
                .args(["-c", &format!("exec 2>&1\n{command}")])
                .current_dir(&folder)
                .env("PATH", format!("{}:{search}", programs.display()))
                .env_remove("CIRCUITSCOPE_MODEL")
                .env_remove("CIRCUITSCOPE_CONFIG")
                .env_remove("RUST_LOG")
                .env_remove("HF_TOKEN")
                .output()
                .unwrap();
            code = output.status.code().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            // What drivers say is theirs, and progress is told where a machine is slow.
            let noise = |line: &&str| line.contains("XDG_RUNTIME_DIR") || line.ends_with(" so far");
            let said: Vec<&str> = said.lines().filter(|line| !noise(line)).collect();
            assert!(
                lines_match(&printed, &said),
                "{path}: `{command}` prints\n{}\n\nthe page says\n{}",
                said.join("\n"),
                printed.join("\n")
            );
            ran += 1;
        }
        assert_eq!(code, 0, "{path}: the last code is not shown");
    }
    assert!(ran > 20, "{ran} commands were run");
}

/// Whether lines are as shown; a line `…` stands for any number of lines.
fn lines_match(shown: &[&str], said: &[&str]) -> bool {
    match (shown.split_first(), said.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), _) => (0..=said.len()).any(|at| lines_match(rest, &said[at..])),
        (Some((line, rest)), Some((first, others))) => {
            line_matches(line, first) && lines_match(rest, others)
        }
        _ => false,
    }
}

/// Whether a line is as shown, where `…` stands for anything, decimals may be off in their last digits (processors round
/// in their own ways), and columns may be as wide as they are.
fn line_matches(shown: &str, said: &str) -> bool {
    let parts: Vec<&str> = shown.split('…').collect();
    if let [whole] = parts.as_slice() {
        return words_match(whole, said);
    }
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    let Some(mut rest) = said
        .strip_prefix(first)
        .and_then(|rest| rest.strip_suffix(last))
    else {
        return false;
    };
    parts[1..parts.len() - 1]
        .iter()
        .all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
}

fn words_match(shown: &str, said: &str) -> bool {
    let (shown, said): (Vec<&str>, Vec<&str>) = (
        shown.split_whitespace().collect(),
        said.split_whitespace().collect(),
    );
    shown.len() == said.len() && shown.iter().zip(&said).all(|(a, b)| a == b || nearly(a, b))
}

/// Decimals that differ by at most 2 in a hundred, or by 2 in the last digit.
fn nearly(a: &str, b: &str) -> bool {
    let number = |text: &str| {
        let text = text.trim_matches(|c: char| !c.is_ascii_digit() && c != '-');
        let digits = text.split_once('.')?.1.len() as i32;
        Some((text.parse::<f64>().ok()?, 2.0 * 10f64.powi(-digits)))
    };
    let around = |text: &str| text.replace(|c: char| c.is_ascii_digit() || c == '.', "");
    match (number(a), number(b)) {
        (Some((x, last)), Some((y, _))) => {
            around(a) == around(b) && (x - y).abs() <= (0.02 * x.abs()).max(last * 1.0001)
        }
        _ => false,
    }
}

#[test]
fn shown_and_said_are_compared() {
    assert!(lines_match(&["a", "…", "z"], &["a", "b", "c", "z"]));
    assert!(lines_match(&["…"], &[]));
    assert!(!lines_match(&["a", "…", "y"], &["a", "b", "z"]));
    assert!(line_matches("report: …, done", "report: x/y, done"));
    assert!(!line_matches("report: …, done", "report: x/y"));
    assert!(line_matches("1  L2H5  9.666", "1 L2H5    9.672"));
    assert!(line_matches("(12.3 s)", "(12.4 s)"));
    assert!(!line_matches("1  L2H5  9.666", "1  L2H5  9.9"));
    assert!(
        !line_matches("keeps 100 %", "keeps 99 %"),
        "whole numbers are as they are"
    );
    let block = [
        "$ cat > x <<'END'",
        "a",
        "END",
        "$ false",
        "e",
        "$ echo $?",
        "1",
    ];
    let found: Vec<_> = commands(&block)
        .into_iter()
        .map(|shown| (shown.command, shown.printed))
        .collect();
    assert_eq!(found[0], ("cat > x <<'END'\na\nEND".to_owned(), vec![]));
    assert_eq!(found[1], ("false".to_owned(), vec!["e"]));
}

/// In every block, run or not.
#[test]
fn pages_name_commands_and_flags_that_there_are() {
    let mut checked = 0;
    for (path, text) in pages() {
        // A command goes on below a line that ends in a backslash.
        let text = text.replace("\\\n", " ");
        let mut fenced = false;
        for line in text.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
                continue;
            }
            let code = fenced || line.starts_with("    ");
            let line = line.trim_start().trim_start_matches("$ ");
            let Some(arguments) = line.strip_prefix("circuitscope ").filter(|_| code) else {
                continue;
            };
            let arguments = arguments.split(" #").next().unwrap();
            let arguments = arguments.split(['|', '>', ';', '&']).next().unwrap();
            let mut words = arguments.split_whitespace();
            let name = words.clone().find(|word| COMMANDS.contains(word));
            // A command of a command: `sweep run`.
            let below = words.clone().nth(1);
            let both = name
                .zip(below)
                .map(|(name, below)| format!("{name} {below}"));
            let below = COMMANDS
                .into_iter()
                .find(|name| both.as_deref() == Some(name));
            let name = below.or(name);
            // A dependency of a manifest.
            if arguments.starts_with("= ") {
                continue;
            }
            let expects_failure = ["discovr", "--version", "-V", "--help", "COMMAND"];
            if words.clone().any(|word| expects_failure.contains(&word)) {
                continue;
            }
            let Some(name) = name else {
                // A line that the program prints.
                if words
                    .next()
                    .is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit()))
                {
                    continue;
                }
                panic!("{path}: no such command: {line}");
            };
            let help = fs_err::read_to_string(help_file(name)).unwrap();
            for word in words.filter(|word| word.starts_with("--")) {
                let flag = word.split('=').next().unwrap();
                let flag = flag.trim_end_matches([',', ')', ']', '`']);
                // Shown as an error.
                if ["--", "--metod"].contains(&flag) {
                    continue;
                }
                let is_there = help.lines().any(|line| {
                    let line = line.trim_start();
                    let line = line
                        .split_once(", --")
                        .map_or(line.to_owned(), |(_, long)| format!("--{long}"));
                    line.strip_prefix(flag)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '.', '[']))
                });
                assert!(is_there, "{path}: `{name}` has no {flag}: {line}");
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "{checked} flags were looked up");
}

/// `docs/reference/commands.md` is what every `--help` says. Set `UPDATE_SNAPSHOTS` to write it anew.
#[test]
fn the_page_of_commands_is_the_help() {
    let mut page = "# Every command\n\n\
        What `circuitscope --help` and `circuitscope COMMAND --help` say; `-h` says less. A test keeps this page equal to them.\n"
        .to_owned();
    for name in ["circuitscope"].into_iter().chain(COMMANDS) {
        let help = fs_err::read_to_string(help_file(name)).unwrap();
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        let help = lines.join("\n");
        write!(page, "\n## {name}\n\n```text\n{help}\n```\n").unwrap();
    }
    let path = root().join("docs/reference/commands.md");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs_err::write(&path, &page).unwrap();
    }
    let there = fs_err::read_to_string(&path).unwrap();
    assert_eq!(
        there, page,
        "docs/reference/commands.md: see the doc of this test"
    );
}
