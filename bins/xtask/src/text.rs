//! Fetches English text from Debian's documentation packages, where no hub can be reached.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail, ensure};

/// The Debian Administrator's Handbook (GPL-2+ or CC-BY-SA 3.0), and the package that depends on the sources of Python's
/// documentation (PSF licence) of this Debian's Python.
const PACKAGES: [&str; 2] = ["debian-handbook", "python3-doc"];

/// Where the text goes.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.models/text");
/// What makes JSON lines of packages.
const TOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/debian_text.py");

/// To train on, and held out.
const FILES: [&str; 2] = ["train.jsonl", "held-out.jsonl"];

/// Fetches the text unless it is there.
#[expect(
    clippy::print_stdout,
    reason = "where the files are, and where they come from, is what was asked for"
)]
pub(crate) fn run() -> Result<()> {
    let folder = Path::new(FOLDER);
    let [train, held_out] = FILES.map(|name| folder.join(name));
    if !(train.is_file() && held_out.is_file()) {
        fs_err::create_dir_all(folder)?;
        let work = tempfile::tempdir_in(folder)?;
        let mut packages = vec![PACKAGES[0].to_owned(), documentation()?];
        packages.sort();
        let unpacked = work.path().join("unpacked");
        for package in &packages {
            checked(
                Command::new("apt-get")
                    .args(["download", "-qq", package])
                    .current_dir(work.path()),
            )
            .with_context(|| {
                format!("cannot fetch {package}; is this a Debian with the network there?")
            })?;
            let archive = archive(work.path(), package)?;
            checked(
                Command::new("dpkg-deb")
                    .arg("-x")
                    .arg(archive)
                    .arg(&unpacked),
            )?;
        }
        // Only whole files come to their places.
        let made = FILES.map(|name| work.path().join(name));
        checked(Command::new("python3").arg(TOOL).arg(&unpacked).args(&made))?;
        fs_err::rename(&made[0], &train)?;
        fs_err::rename(&made[1], &held_out)?;
        println!("text of Debian's packages {}", packages.join(" and "));
    }
    for file in [train, held_out] {
        let path = file.canonicalize().unwrap_or(file);
        println!(
            "{} (SHA-256 {})",
            path.display(),
            circuitscope_files::sha256(&path)?
        );
    }
    Ok(())
}

/// The package with Python's documentation: `python3.11-doc` where `python3-doc` depends on it.
fn documentation() -> Result<String> {
    let output = checked(Command::new("apt-cache").args(["depends", PACKAGES[1]]))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = said.split_whitespace();
    let mut names = names.filter(|name| name.starts_with("python3.") && name.ends_with("-doc"));
    let name = names.next().map(str::to_owned);
    name.with_context(|| format!("apt-cache depends {}: found no python3.N-doc", PACKAGES[1]))
}

fn archive(folder: &Path, package: &str) -> Result<std::path::PathBuf> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_archive = path.extension().is_some_and(|ending| ending == "deb");
        if is_archive && name.starts_with(package) {
            return Ok(path);
        }
    }
    bail!("apt-get left no archive of {package}")
}

fn checked(command: &mut Command) -> Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        said.trim()
    );
    Ok(output)
}
