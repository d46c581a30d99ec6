//! What the program is made of, as `cargo cyclonedx` lists it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::tools::{self, CYCLONEDX};

/// How the files are called that the tool leaves beside every manifest of the workspace.
const NAME: &str = "circuitscope-sbom-made";

/// The list for a target with these features: CycloneDX in JSON, without time, chance and paths of this machine.
pub(crate) fn made(features: &str, target: &str) -> Result<String> {
    let tool = tools::installed(&CYCLONEDX)?;
    let root = fs_err::canonicalize(crate::ROOT)?;
    let status = Command::new(tool)
        .args([
            "cyclonedx",
            "--format",
            "json",
            "--spec-version",
            "1.5",
            "--describe",
            "crate",
        ])
        .args([
            "--no-default-features",
            "--features",
            features,
            "--target",
            target,
        ])
        .args(["--override-filename", NAME, "--quiet"])
        .arg("--manifest-path")
        .arg(root.join("bins/circuitscope/Cargo.toml"))
        .env("SOURCE_DATE_EPOCH", "0")
        .status();
    let status = status.context("cannot run cargo-cyclonedx")?;
    let of_program = root.join("bins/circuitscope").join(format!("{NAME}.json"));
    let text = fs_err::read_to_string(&of_program);
    for file in left(&root)? {
        fs_err::remove_file(file)?;
    }
    ensure!(status.success(), "cargo cyclonedx failed: {status}");
    let text = text?.replace(&*root.to_string_lossy(), "");
    let mut list: Value = serde_json::from_str(&text)?;
    let parts = list.as_object_mut().context("an object")?;
    parts.remove("serialNumber");
    if let Some(about) = parts.get_mut("metadata").and_then(Value::as_object_mut) {
        about.remove("timestamp");
    }
    let components = list["components"].as_array().map_or(0, Vec::len);
    ensure!(
        components > 50,
        "found {components} components, expected hundreds"
    );
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

/// Files that the tool left.
fn left(root: &Path) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for folder in ["", "benches", "bins", "crates"] {
        let folder = root.join(folder);
        left.push(folder.clone());
        for entry in fs_err::read_dir(folder)? {
            left.push(entry?.path());
        }
    }
    let files = left
        .into_iter()
        .map(|folder| folder.join(format!("{NAME}.json")));
    Ok(files.filter(|file| file.is_file()).collect())
}
