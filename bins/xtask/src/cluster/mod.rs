//! Sweeps on engines that exist: SLURM on this one machine, and an S3 server on loopback with workers that are killed.
//!
//! What each gives is compared, byte by byte, with what one worker alone gives.

mod kubernetes;
mod running;
mod s3;
mod slurm;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;
use tempfile::TempDir;

use running::checked;

/// The guide, with the files that users copy.
const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/cluster");

/// What is merged of a sweep and has to be the same bytes.
const TABLES: [&str; 4] = [
    "cells.parquet",
    "cells.csv",
    "summary.parquet",
    "summary.csv",
];

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The file of the Kubernetes job, against its schema.
    Kubernetes,
    /// An S3 server on loopback, workers killed in the middle.
    S3,
    /// An array of SLURM jobs on this machine.
    Slurm,
    /// How much faster two workers are than one, a core each.
    Throughput,
}

/// What `cargo xtask cluster` takes.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// The program [default: target/release/circuitscope]
    #[arg(long)]
    program: Option<PathBuf>,
    /// These alone.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Engine>,
    /// Workers to kill.
    #[arg(long, default_value_t = 4)]
    kills: usize,
}

/// What all engines use.
pub(crate) struct Bench {
    program: PathBuf,
    work: TempDir,
    /// The tables of one worker alone.
    alone: PathBuf,
    /// How long that took.
    alone_time: Duration,
}

#[expect(
    clippy::print_stdout,
    reason = "what was measured is what was asked for"
)]
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let usual = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../target/release/circuitscope"
    );
    let program = settings
        .program
        .clone()
        .unwrap_or_else(|| PathBuf::from(usual));
    let program = program.canonicalize();
    let program = program
        .with_context(|| format!("found no program; build {usual}, or name one with --program"))?;
    let wanted = |engine| settings.only.is_empty() || settings.only.contains(&engine);
    let work = tempfile::Builder::new()
        .prefix("circuitscope-cluster-")
        .tempdir()?;
    let python = if wanted(Engine::Kubernetes) || wanted(Engine::S3) {
        Some(environment(work.path())?)
    } else {
        None
    };
    if let (true, Some(python)) = (wanted(Engine::Kubernetes), &python) {
        kubernetes::validate(python, Path::new(GUIDE), work.path())?;
        println!("kubernetes: job.yaml is as its schema says");
    }
    if settings.only == [Engine::Kubernetes] {
        return Ok(());
    }
    let mut bench = Bench {
        program,
        alone: work.path().join("alone/merged"),
        work,
        alone_time: Duration::ZERO,
    };
    bench.alone()?;
    println!(
        "alone: {} cells by one worker in {:.1} s",
        bench.cells(&bench.work.path().join("alone/plan.toml"))?,
        bench.alone_time.as_secs_f64()
    );
    if let (true, Some(python)) = (wanted(Engine::S3), &python) {
        for line in s3::run(&bench, python, settings.kills)? {
            println!("s3: {line}");
        }
    }
    if wanted(Engine::Slurm) {
        for line in slurm::run(&bench)? {
            println!("slurm: {line}");
        }
    }
    if wanted(Engine::Throughput) {
        for line in bench.throughput()? {
            println!("throughput: {line}");
        }
    }
    Ok(())
}

/// A virtual environment with the S3 server and the schemas of Kubernetes; returns its folder of programs.
fn environment(work: &Path) -> Result<PathBuf> {
    let folder = work.join("python");
    checked(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let programs = folder.join("bin");
    let mut pip = Command::new(programs.join("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    checked(pip.args(["moto[s3,server]==5.2.5", "kubernetes-validate==1.37.0"]))?;
    Ok(programs)
}

impl Bench {
    /// A folder with the plan of the guide in it, its store put elsewhere.
    fn place(&self, name: &str, store: &str, lease: u64) -> Result<PathBuf> {
        let folder = self.work.path().join(name);
        fs_err::create_dir_all(&folder)?;
        let mut plan = fs_err::read_to_string(Path::new(GUIDE).join("plan.toml"))?;
        for (name, value) in [
            ("store", format!("{store:?}")),
            ("lease", lease.to_string()),
            // Two of the four: what is to be seen takes no more.
            ("tasks", "[\"ioi\", \"induction\"]".to_owned()),
        ] {
            let begins = format!("{name} =");
            let line = plan.lines().find(|line| line.starts_with(&begins));
            let line = line.with_context(|| format!("plan.toml of the guide: found no {name}"))?;
            plan = plan.replace(line, &format!("{begins} {value}"));
        }
        let path = folder.join("plan.toml");
        circuitscope_files::write_atomic(&path, |out| out.write_all(plan.as_bytes()))?;
        Ok(path)
    }

    /// The program on one core: what it computes has the same roundings everywhere, and workers do not take each other's time.
    fn command(&self, core: usize, args: &[&OsStr]) -> Command {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &core.to_string()]);
        command.arg(&self.program).args(args);
        for name in [
            "SLURM_ARRAY_TASK_ID",
            "JOB_COMPLETION_INDEX",
            "CIRCUITSCOPE_MODEL",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// What `circuitscope sweep …` prints as JSON.
    fn json(&self, args: &[&OsStr], variables: &[(&str, String)]) -> Result<Value> {
        let first = [OsStr::new("sweep")];
        let last = ["--format", "json", "--quiet"].map(OsStr::new);
        let args: Vec<&OsStr> = first
            .into_iter()
            .chain(args.iter().copied())
            .chain(last)
            .collect();
        let mut command = self.command(0, &args);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let output = checked(&mut command)?;
        Ok(serde_json::from_str(&output)?)
    }

    fn cells(&self, plan: &Path) -> Result<u64> {
        let status = self.json(&["status".as_ref(), plan.as_ref()], &[])?;
        let [cells, done] = ["cells", "done"].map(|name| status[name].as_u64().unwrap_or(0));
        ensure!(
            cells == done && cells > 0,
            "{}: found {done} of {cells} cells done",
            plan.display()
        );
        Ok(cells)
    }

    /// One worker does everything.
    fn alone(&mut self) -> Result<()> {
        let plan = self.place("alone", "results", 60)?;
        let began = Instant::now();
        self.json(&["run".as_ref(), plan.as_ref()], &[])?;
        self.alone_time = began.elapsed();
        self.merge(&plan, &self.alone.clone(), &[])?;
        Ok(())
    }

    fn merge(&self, plan: &Path, output: &Path, variables: &[(&str, String)]) -> Result<()> {
        let args = [
            "merge".as_ref(),
            plan.as_ref(),
            "--output".as_ref(),
            output.as_ref(),
        ];
        self.json(&args, variables).map(drop)
    }

    /// Fails unless what was merged is, byte by byte, what one worker alone gave.
    fn compare(&self, plan: &Path, variables: &[(&str, String)]) -> Result<()> {
        let folder = plan.with_file_name("merged");
        self.merge(plan, &folder, variables)?;
        for name in TABLES {
            let [ours, theirs] =
                [&self.alone, &folder].map(|folder| fs_err::read(folder.join(name)));
            let (ours, theirs) = (ours?, theirs?);
            if ours != theirs {
                bail!(
                    "{}: found {} bytes that are not the {} of one worker alone",
                    folder.join(name).display(),
                    theirs.len(),
                    ours.len()
                );
            }
        }
        Ok(())
    }

    /// The plan by two workers on a core each, without a scheduler.
    fn throughput(&self) -> Result<Vec<String>> {
        let plan = self.place("two", "results", 60)?;
        self.json(&[plan.as_ref()], &[])?;
        let began = Instant::now();
        let workers = [0, 1].map(|at| {
            let shard = format!("{at}/2");
            let args = [
                "sweep",
                "run",
                "--quiet",
                "--help-others",
                "--shard",
                &shard,
            ];
            let args = args.iter().map(OsStr::new).chain([plan.as_os_str()]);
            let args: Vec<&OsStr> = args.collect();
            running::Running::start(
                &mut self.command(at, &args),
                &self.work.path().join(format!("two-{at}.log")),
            )
        });
        for worker in workers {
            worker?.end(Duration::from_mins(3))?;
        }
        let two = began.elapsed().as_secs_f64();
        self.compare(&plan, &[])?;
        let one = self.alone_time.as_secs_f64();
        let cells = self.cells(&plan)? as f64;
        Ok(vec![
            format!("1 worker: {one:.1} s, {:.2} cells a second", cells / one),
            format!(
                "2 workers: {two:.1} s, {:.2} cells a second, {:.2} times as fast; the same bytes",
                cells / two,
                one / two
            ),
        ])
    }
}
