//! Builds the Python package and tries it where no Rust toolchain is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::real_model::{PYTHON, runs};

/// The root of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// What builds it.
const MATURIN: &str = "maturin>=1.9,<2";
/// What its tests need beside it.
const TESTS: [&str; 6] = [
    "pytest",
    "pandas",
    "safetensors",
    "tqdm",
    "nbclient",
    "ipykernel",
];
/// What only its notebook reads, and only where it is asked for: some gigabytes.
const TRANSFORMER_LENS: [&str; 2] = ["transformer-lens==2.16.1", "datasets<4"];
/// A wheel may take so many bytes.
const MOST: u64 = 25_000_000;

/// How the package is tried.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// The release program that numbers are compared with.
    #[arg(long, default_value_os_t = Path::new(ROOT).join("target/release/circuitscope"))]
    program: PathBuf,
    /// Python 3.10 or newer, which the clean environment is made of [default: python3]
    #[arg(long)]
    python: Option<PathBuf>,
    /// Only build it, and see that it can be installed and called.
    #[arg(long)]
    build: bool,
    /// Also install TransformerLens with torch, so that the notebook and the tests of tensors run them.
    #[arg(long)]
    transformer_lens: bool,
}

/// Builds the wheel, installs it in a clean environment, runs its tests and its notebook.
#[expect(
    clippy::print_stdout,
    reason = "where the wheel is, is what was asked for"
)]
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let python = python(settings)?;
    let target = target();
    let (wheels, work) = (target.join("wheels"), target.join("python"));
    let build = Environment::new(&python, &work.join("build"))?;
    build.install(&[MATURIN.as_ref()])?;
    if wheels.exists() {
        fs_err::remove_dir_all(&wheels)?;
    }
    let manifest = Path::new(ROOT).join("bins/python/Cargo.toml");
    build.module(
        "maturin",
        &[
            "build".as_ref(),
            "--release".as_ref(),
            "--locked".as_ref(),
            "--manifest-path".as_ref(),
            manifest.as_ref(),
            "--out".as_ref(),
            wheels.as_ref(),
        ],
        &[],
    )?;
    let wheel = only_wheel(&wheels)?;
    let bytes = fs_err::metadata(&wheel)?.len();
    println!("{}: {:.1} MB", wheel.display(), bytes as f64 / 1e6);
    ensure!(
        bytes < MOST,
        "{}: found {bytes} bytes, expected less than {MOST}",
        wheel.display()
    );

    let clean = Environment::new(&python, &work.join("clean"))?;
    clean.install(&[wheel.as_ref()])?;
    clean.called()?;
    if settings.build {
        return Ok(());
    }
    ensure!(
        settings.program.is_file(),
        "{}: found no program to compare with: `cargo build --release`, or name one with --program",
        settings.program.display()
    );
    clean.install(&TESTS.map(OsStr::new))?;
    if settings.transformer_lens {
        clean.install(&TRANSFORMER_LENS.map(OsStr::new))?;
    }
    let program = settings.program.canonicalize()?;
    let notebooks = Path::new(ROOT).join("bins/python/notebooks");
    let variables: [(&str, &OsStr); 2] = [
        ("CIRCUITSCOPE_PROGRAM", program.as_ref()),
        ("CIRCUITSCOPE_NOTEBOOKS", notebooks.as_ref()),
    ];
    let tests = Path::new(ROOT).join("bins/python/tests");
    let mut arguments: Vec<&OsStr> = vec![tests.as_ref(), "-q".as_ref()];
    let tensors = tests.join("test_torch.py");
    let without = [OsStr::new("--ignore"), tensors.as_ref()];
    if !settings.transformer_lens {
        println!("without torch: {} is left out", tensors.display());
        arguments.extend(without);
    }
    clean.module("pytest", &arguments, &variables)?;
    let notebook = notebooks.join("transformer_lens.ipynb");
    clean.run(
        &[notebooks.join("execute.py").as_ref(), notebook.as_ref()],
        &variables,
    )
}

/// An environment of Python's with its own packages.
struct Environment {
    python: PathBuf,
    folder: PathBuf,
}

impl Environment {
    /// A new one, in the place of what was there.
    fn new(python: &Path, folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs_err::remove_dir_all(folder)?;
        }
        let arguments: [&OsStr; 3] = ["-m".as_ref(), "venv".as_ref(), folder.as_ref()];
        done(Command::new(python).args(arguments))?;
        let own = if cfg!(windows) {
            folder.join("Scripts").join("python.exe")
        } else {
            folder.join("bin").join("python")
        };
        Ok(Self {
            python: own,
            folder: folder.to_owned(),
        })
    }

    fn install(&self, packages: &[&OsStr]) -> Result<()> {
        let mut arguments: Vec<&OsStr> = ["install", "--quiet", "--disable-pip-version-check"]
            .map(OsStr::new)
            .to_vec();
        arguments.extend(packages);
        self.module("pip", &arguments, &[])
    }

    fn module(&self, name: &str, arguments: &[&OsStr], variables: &[(&str, &OsStr)]) -> Result<()> {
        let mut all: Vec<&OsStr> = vec!["-m".as_ref(), name.as_ref()];
        all.extend(arguments);
        self.run(&all, variables)
    }

    fn run(&self, arguments: &[&OsStr], variables: &[(&str, &OsStr)]) -> Result<()> {
        let mut command = Command::new(&self.python);
        command.args(arguments).envs(variables.iter().copied());
        done(&mut command)
    }

    /// Calls the package where nothing but it is found: no program, no toolchain, no folder of this repository.
    fn called(&self) -> Result<()> {
        const CALL: &str = "import circuitscope as cs; report = cs.discover('reference', task='induction', examples=10); \
                            assert 'L2H5' in report.circuit, report; print(cs.__version__, report)";
        let mut command = Command::new(&self.python);
        command.args(["-I", "-c", CALL]);
        command.env_clear().current_dir(&self.folder);
        done(&mut command)
    }
}

/// Python as asked for, or the first that there is.
fn python(settings: &Settings) -> Result<PathBuf> {
    if let Some(python) = &settings.python {
        return Ok(python.clone());
    }
    let found = PYTHON.into_iter().find(|python| runs(python));
    let found = found.with_context(|| {
        format!(
            "found no {}: install Python 3.10 or newer with venv, or name one with --python",
            PYTHON.join(" or ")
        )
    })?;
    Ok(PathBuf::from(found))
}

/// Where cargo builds.
fn target() -> PathBuf {
    let set = std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
    set.map_or_else(|| Path::new(ROOT).join("target"), PathBuf::from)
}

fn only_wheel(folder: &Path) -> Result<PathBuf> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    bail!("{}: found no wheel there", folder.display())
}

/// Runs a command, and fails if it does.
fn done(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status();
    let status = status.with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "{shown} failed: {status}");
    Ok(())
}
