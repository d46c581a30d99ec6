//! `--help`, compared with files. Set `UPDATE_SNAPSHOTS` to write them anew.

use circuitscope::eval::methods::names;
use std::path::{Path, PathBuf};

use crate::support::Bench;

pub(crate) const COMMANDS: [&str; 22] = [
    "eval",
    "discover",
    "compare",
    "capture",
    "rows",
    "train-tokens",
    "splice",
    "explain",
    "graph",
    "train",
    "encode",
    "score",
    "report",
    "sweep",
    "sweep run",
    "sweep status",
    "sweep merge",
    "sweep report",
    "methods",
    "doctor",
    "completions",
    "man",
];

/// The file with the help of a command, or of the program.
pub(crate) fn help_file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/help");
    folder.join(format!("{}.txt", name.replace(' ', "-")))
}

#[test]
fn help_is_what_it_was() {
    let bench = Bench::new();
    for command in [""].into_iter().chain(COMMANDS) {
        let help = bench.ok(&format!("{command} --help"));
        let name = if command.is_empty() {
            "circuitscope"
        } else {
            command
        };
        let path = help_file(name);
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            fs_err::write(&path, &help).unwrap();
        }
        let expected = fs_err::read_to_string(&path).unwrap();
        // On Windows the program's name ends in .exe.
        assert_eq!(
            help.replace("circuitscope.exe", "circuitscope"),
            expected,
            "{path:?}"
        );
    }
}

#[test]
fn short_help_fits_a_screen() {
    let help = Bench::new().ok("discover -h");
    assert!(help.lines().count() <= 48, "{help}");
    for option in ["--pairs", "--model", "--method", "--select", "--output"] {
        assert!(help.contains(option), "{option}");
    }
    assert!(help.contains("circuitscope methods"), "{help}");
}

#[test]
fn the_environment_names_a_model() {
    let bench = Bench::new();
    let line = "capture --task ioi --sites logits --output x.safetensors";
    let mut command = bench.command(line);
    let output = command.env("CIRCUITSCOPE_MODEL", "none-such").output();
    let ran = crate::support::Ran::of(output.unwrap());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr
            .starts_with("error: CIRCUITSCOPE_MODEL, as --model is not given: --model none-such: no such file or folder"),
        "{}",
        ran.stderr
    );
    // No model runs on activations, whatever the environment says.
    bench.activations("a.safetensors", &[1, 1, 0, 0]);
    let mut command = bench.command("discover --activations a.safetensors");
    let output = command.env("CIRCUITSCOPE_MODEL", "none-such").output();
    assert_eq!(crate::support::Ran::of(output.unwrap()).code, Some(0));
}

#[test]
fn every_command_that_reads_files_shows_an_example() {
    let bench = Bench::new();
    for command in COMMANDS {
        let help = bench.ok(&format!("{command} --help"));
        assert!(help.contains("Example"), "{command}");
        assert!(
            help.contains(&format!("circuitscope {command}")),
            "{command}"
        );
    }
}

#[test]
fn wrong_usage_is_code_2_and_says_what_is_valid() {
    let bench = Bench::new();
    let first_line = |line: &str| {
        let ran = bench.run(line);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{line}");
        ran.stderr.lines().next().unwrap().to_owned()
    };
    assert_eq!(
        first_line("doctor --device gpu"),
        "error: invalid value 'gpu' for '--device <DEVICE>': no such device (did you mean \
         `wgpu`?): expected `cpu`, `flex`, `ndarray`, `wgpu[:N]` or `cuda[:N]`"
    );
    assert_eq!(
        first_line("discover --task greater_than"),
        "error: invalid value 'greater_than' for '--task <TASK|DIR>': unknown task \"greater_than\" (did \
         you mean `greater-than`?): expected \"ioi\", \"greater-than\", \"docstring\" or \
         \"induction\", or the folder of a task of your own"
    );
    assert_eq!(
        first_line("eval --method untrained,sea --output e"),
        format!(
            "error: invalid value 'untrained,sea' for '--method <LIST>': unknown method `sea` (did \
             you mean `sae`?): expected {}, quick, all",
            names().collect::<Vec<_>>().join(", ")
        )
    );
    assert_eq!(
        first_line("discover --task ioi --method sea"),
        format!(
            "error: invalid value 'sea' for '--method <METHOD>': unknown method `sea` (did you mean \
             `sae`?): expected {}",
            names().collect::<Vec<_>>().join(", ")
        )
    );
    assert_eq!(
        first_line("discover --task ioi --select best"),
        "error: invalid value 'best' for '--select <RULE>': expected `otsu`, `otsu-sqrt`, \
         `top:N`, `softmax:THETA`, `fdr:RATE`, `stability:SHARE` or `knee`"
    );
    for n in ["0", "-1", "many"] {
        assert_eq!(
            first_line(&format!("discover --task ioi --select top:{n}")),
            format!(
                "error: invalid value 'top:{n}' for '--select <RULE>': N is a number of heads: found \
                 {n:?}, expected 1 or more"
            )
        );
    }
    assert_eq!(
        first_line("capture --task ioi --tokens t.json --sites logits --output x"),
        "error: the argument '--task <TASK|DIR>' cannot be used with '--tokens <FILE>'"
    );
    assert!(first_line("discover").starts_with("error: the following required arguments"));
    assert_eq!(
        first_line("evaluate"),
        "error: unrecognized subcommand 'evaluate'"
    );
}
