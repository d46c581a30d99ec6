//! Settings that nobody means: numbers that are no numbers, or far too large.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::Torture;
use super::dice::Dice;
use super::inputs::{TINY, words};
use super::judge::judge;
use super::tally::{Case, copy};
use super::watch::Invocation;

/// How long a command may work on what was asked, before it is asked to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is given for a number.
const ABSURD: [&str; 30] = [
    "0",
    "1",
    "-1",
    "-0",
    "2",
    "0.5",
    "1e309",
    "-1e309",
    "1e38",
    "1e-320",
    "NaN",
    "inf",
    "-inf",
    "255",
    "65536",
    "1000000",
    "1000000000",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "",
    " 1",
    "0x10",
    "١",
    "\u{1b}[2J1",
];

const PATCHING: [&str; 5] = [
    "--gradient-pairs",
    "--patch-pairs",
    "--edges",
    "--ig-steps",
    "--mask-steps",
];
const DICTIONARY: [&str; 4] = ["--codes", "--l1", "--train-examples", "--steps"];

/// Commands, whether they take settings of patching and of dictionaries, and what else they take.
const COMMANDS: [(&str, bool, bool, &[&str]); 6] = [
    (
        "eval --task induction --resamples 2 --seeds 1 --examples 4 --output out",
        true,
        true,
        &[
            "--seeds",
            "--examples",
            "--resamples",
            "--seed",
            "--max-batch-tokens",
        ],
    ),
    (
        "discover --task induction --examples 4 --output out",
        true,
        true,
        &[
            "--examples",
            "--max-heads",
            "--top",
            "--seed",
            "--max-batch-tokens",
            "--select",
        ],
    ),
    (
        "discover --model m --pairs pairs.jsonl",
        true,
        true,
        &[
            "--max-heads",
            "--top",
            "--seed",
            "--max-batch-tokens",
            "--select",
        ],
    ),
    (
        "train --activations heads.safetensors --output out --codes 6 --steps 3 --train-examples 4",
        false,
        true,
        &["--learning-rate", "--seed"],
    ),
    (
        "capture --task ioi --examples 2 --sites logits --output out.safetensors",
        false,
        false,
        &["--examples", "--seed", "--max-batch-tokens", "--sites"],
    ),
    ("score --codes codes.safetensors", false, false, &["--top"]),
];

/// Methods that read such settings.
const METHODS: [&str; 9] = [
    "recommended",
    "sae",
    "recommended-activations",
    "activation-patching",
    "eap-ig",
    "subnetwork-probing",
    "edge-pruning",
    "acdc",
    "k-means",
];

/// One command line with one or two absurd settings.
pub(crate) fn run(torture: &mut Torture, template: &Path, index: u64) -> Result<()> {
    let mut dice = Dice::new(torture.seed, "mutate/settings", index);
    let (line, patching, dictionary, own) = COMMANDS[dice.below(COMMANDS.len())];
    let mut options = own.to_vec();
    if patching {
        options.extend(PATCHING);
    }
    if dictionary {
        options.extend(DICTIONARY);
    }
    let mut args = words(line);
    if patching {
        args.extend(words(TINY));
        args.extend(["--method".to_owned(), dice.pick(&METHODS).to_owned()]);
    }
    for _ in 0..=dice.below(2) {
        let option = dice.pick(&options);
        let mut value = dice.pick(&ABSURD).to_owned();
        if dice.one_in(20) {
            value = "9".repeat(100_000);
        }
        if option == "--select" {
            let rule = dice.pick(&["top:", "softmax:", "stability:", "fdr:", ""]);
            value = format!("{rule}{value}");
        }
        // The last one counts, or clap refuses the second.
        if let Some(at) = args.iter().position(|arg| arg == option) {
            args.drain(at..at + 2);
        }
        args.push(format!("{option}={value}"));
    }
    let json = dice.one_in(2);
    if json {
        args.extend(words("--format json"));
    }
    let place = tempfile::tempdir_in(torture.work.path())?;
    copy(template, place.path())?;
    let invocation =
        Invocation::new(&torture.program, place.path(), &args).with_signal(libc::SIGINT, PATIENCE);
    let ended = invocation.run()?;
    let case = Case {
        name: format!("settings-{index}"),
        invocation: &invocation,
        ended: &ended,
        faults: judge(&ended, json),
        about: format!("with SIGINT after {} s", PATIENCE.as_secs()),
    };
    torture.tally.count(&case, |folder| copy(template, folder))
}
