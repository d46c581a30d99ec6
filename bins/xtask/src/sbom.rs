//! What the program is made of, as `cargo cyclonedx` lists it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::licences;
use crate::tools::{self, CYCLONEDX};

/// How the files are called that the tool leaves beside every manifest of the workspace.
const NAME: &str = "circuitscope-sbom-made";

/// The list for a target with these features: CycloneDX in JSON, without time, chance and paths of this machine.
pub(crate) fn made(features: &str, target: &str) -> Result<String> {
    let tool = tools::installed(&CYCLONEDX)?;
    let root = fs_err::canonicalize(crate::ROOT)?;
    let status = Command::new(tool)
        .args(["cyclonedx", "--format", "json", "--spec-version", "1.5"])
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
    keep(
        &mut list,
        &licences::resolved(features, target, "normal,build")?,
    )?;
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

/// Leaves out what the tool lists and nobody builds: it reads `cargo metadata`, where dependencies that no feature turns on
/// stand, too.
fn keep(list: &mut Value, built: &BTreeMap<(String, String), bool>) -> Result<()> {
    let components = list["components"].as_array_mut().context("components")?;
    let mut left_out = BTreeSet::new();
    components.retain(|component| {
        let text = |key: &str| component[key].as_str().unwrap_or_default().to_owned();
        let is_built = built.contains_key(&(text("name"), text("version")));
        if !is_built {
            left_out.insert(text("bom-ref"));
        }
        is_built
    });
    // All but the program itself.
    ensure!(
        components.len() + 1 == built.len(),
        "found {} components, expected the {} that cargo tree has",
        components.len(),
        built.len() - 1
    );
    let dependencies = list["dependencies"]
        .as_array_mut()
        .context("dependencies")?;
    let is_left_out = |name: &Value| name.as_str().is_some_and(|name| left_out.contains(name));
    dependencies.retain(|entry| !is_left_out(&entry["ref"]));
    for entry in dependencies {
        if let Some(on) = entry.get_mut("dependsOn").and_then(Value::as_array_mut) {
            on.retain(|name| !is_left_out(name));
        }
    }
    Ok(())
}

/// Files that the tool left.
fn left(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut left = BTreeSet::new();
    for folder in ["", "bins", "crates"] {
        for entry in fs_err::read_dir(root.join(folder))? {
            left.insert(entry?.path().join(format!("{NAME}.json")));
        }
    }
    left.retain(|file| file.is_file());
    Ok(left)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nobody_builds_is_left_out() {
        let component = |name: &str| json!({"bom-ref": name, "name": name, "version": "1.0.0"});
        let mut list = json!({
            "components": [component("a"), component("b")],
            "dependencies": [{"ref": "a", "dependsOn": ["b"]}, {"ref": "b"}],
        });
        let package = |name: &str| ((name.to_owned(), "1.0.0".to_owned()), false);
        let built = BTreeMap::from([package("a"), package("program")]);
        keep(&mut list, &built).unwrap();
        let expected = json!({"components": [component("a")], "dependencies": [{"ref": "a", "dependsOn": []}]});
        assert_eq!(list, expected);
        let built = BTreeMap::from([package("a"), package("c"), package("program")]);
        assert!(
            keep(&mut list, &built)
                .unwrap_err()
                .to_string()
                .contains("expected the 2")
        );
    }
}
