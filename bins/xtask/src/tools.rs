//! Programs that chores run: pinned, and installed below the target directory where they are not there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A program of crates.io.
pub(crate) struct Tool {
    /// Name of the crate and of its program.
    name: &'static str,
    version: &'static str,
    /// Further arguments of `cargo install`.
    features: &'static [&'static str],
}

/// Makes the book.
pub(crate) const MDBOOK: Tool = Tool {
    name: "mdbook",
    version: "0.5.4",
    features: &["--no-default-features", "--features", "search"],
};

/// Lists what a program is made of.
pub(crate) const CYCLONEDX: Tool = Tool {
    name: "cargo-cyclonedx",
    version: "0.5.9",
    features: &[],
};

/// The target directory of the workspace.
pub(crate) fn target() -> Result<PathBuf> {
    let named = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| Path::new(crate::ROOT).join("target"));
    fs_err::create_dir_all(&folder)?;
    Ok(fs_err::canonicalize(folder)?)
}

/// The path of the program in its version, installed first where it is not there.
pub(crate) fn installed(tool: &Tool) -> Result<PathBuf> {
    let folder = target()?
        .join("tools")
        .join(format!("{}-{}", tool.name, tool.version));
    let program = folder
        .join("bin")
        .join(tool.name)
        .with_extension(std::env::consts::EXE_EXTENSION);
    if program.is_file() {
        return Ok(program);
    }
    // Built quickly rather than to be quick: it runs for a second.
    let status = Command::new("cargo")
        .args(["install", tool.name, "--locked", "--debug", "--version"])
        .arg(format!("={}", tool.version))
        .args(tool.features)
        .arg("--root")
        .arg(&folder)
        .arg("--target-dir")
        .arg(folder.join("build"))
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .status();
    let status = status.context("cannot run cargo")?;
    ensure!(
        status.success(),
        "cargo install {} failed: {status}",
        tool.name
    );
    fs_err::remove_dir_all(folder.join("build"))?;
    Ok(program)
}
