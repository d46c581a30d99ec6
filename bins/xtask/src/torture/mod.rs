//! Tries to break the program: broken files, absurd settings, sudden death, full disks, two writers, signals.
//!
//! Every random choice comes from `--seed` through named sub-streams, so that the n-th try of a part is the same in
//! every run, whatever else is run beside it.

mod compare;
mod dice;
mod file_calls;
mod full_disk;
mod hub;
mod inputs;
mod judge;
mod kill;
mod mutate;
mod mutator;
mod prompts;
mod settings;
mod spans;
mod swapped;
mod tally;
mod watch;
mod writers;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use circuitscope_core::Seed;
use clap::{Args, ValueEnum};

use self::judge::{Fault, judge};
use self::tally::{Case, Tally, copy};
use self::watch::{Finished, Invocation};

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Broken files of every kind, and absurd settings.
    Mutate,
    /// SIGKILL at random moments, then the same command again.
    Kill,
    /// SIGKILL at the calls that open, write, rename and remove files, then the same command again.
    FileCalls,
    /// No room for what is to be written.
    FullDisk,
    /// Two evaluations into one folder.
    TwoWriters,
    /// SIGINT and SIGTERM at random moments.
    Signals,
    /// A hub that stalls, lies and breaks off.
    Hub,
}

/// What `cargo xtask torture` takes.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Broken inputs to try.
    #[arg(long, default_value_t = 300)]
    inputs: usize,
    /// Tries of each part that ends the program, fills the disk, starts two of them or answers as a hub.
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Where all random choices start from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The program to break [default: built with `cargo build --release`]
    #[arg(long)]
    program: Option<PathBuf>,
    /// Folder for what failed.
    #[arg(long, default_value_os_t = PathBuf::from(KEEP))]
    keep: PathBuf,
    /// Parts to try, comma-separated [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Kinds of inputs to break, comma-separated, such as `tokenizer` or `settings` [default: all]
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
}

/// Where cases are kept unless somewhere else is asked for.
const KEEP: &str = "target/torture";

/// What all parts share.
#[derive(Debug)]
pub(crate) struct Torture {
    program: PathBuf,
    seed: Seed,
    work: tempfile::TempDir,
    tally: Tally,
}

/// Runs the parts, prints the table, and fails if anything was found.
#[expect(clippy::print_stdout, reason = "the table is what was asked for")]
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let program = match &settings.program {
        Some(program) => program.clone(),
        None => build()?,
    };
    let program = std::path::absolute(&program)?;
    let keep = std::path::absolute(&settings.keep)?;
    let mut torture = Torture {
        program,
        seed: Seed::new(settings.seed),
        work: tempfile::tempdir().context("cannot make a folder to work in")?,
        tally: Tally::new(&keep),
    };
    for part in Part::value_variants() {
        if !settings.only.is_empty() && !settings.only.contains(part) {
            continue;
        }
        let name = part
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned());
        if *part != Part::Mutate {
            // That part has two rows.
            torture.tally.begin(&name);
        }
        match part {
            Part::Mutate => mutate::run(&mut torture, settings.inputs, &settings.kinds),
            Part::Kill => kill::kill(&mut torture, settings.kills),
            Part::FileCalls => file_calls::run(&mut torture, settings.kills),
            Part::FullDisk => full_disk::run(&mut torture, settings.kills),
            Part::TwoWriters => writers::run(&mut torture, settings.kills),
            Part::Signals => kill::signals(&mut torture, settings.kills),
            Part::Hub => hub::run(&mut torture, settings.kills),
        }
        .with_context(|| format!("part {name}"))?;
        torture.tally.end();
    }
    print!("{}", torture.tally.table());
    if torture.tally.failed() {
        bail!("something broke; what did is kept in {}", keep.display());
    }
    Ok(())
}

impl Torture {
    /// Runs a command and counts how it ended, with the faults that `more` finds beside those of any command. Of one
    /// that fails the folder is kept as it is afterwards.
    fn attempt(
        &mut self,
        name: String,
        invocation: &Invocation,
        about: &str,
        more: impl FnOnce(&Finished) -> Result<Vec<Fault>>,
    ) -> Result<Finished> {
        let ended = invocation.run()?;
        let mut faults = judge(&ended, false);
        faults.extend(more(&ended)?);
        let case = Case {
            name,
            invocation,
            ended: &ended,
            faults,
            about: format!("{about}; input is the folder afterwards"),
        };
        self.tally
            .count(&case, |folder| copy(&invocation.folder, folder))?;
        Ok(ended)
    }
}

/// The release program, built.
fn build() -> Result<PathBuf> {
    crate::cargo(&["build", "--release", "--locked", "-p", "circuitscope-cli"])?;
    Ok(Path::new(inputs::ROOT).join("target/release/circuitscope"))
}
