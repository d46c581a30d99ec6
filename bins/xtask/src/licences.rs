//! The licences of what the program links: packages ask that their texts go with every copy.

use core::fmt::Write as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A package that is linked.
#[derive(Debug)]
struct Package {
    name: String,
    version: String,
    licence: String,
    folder: PathBuf,
}

/// Names of files with licences, in small letters, as they begin.
const FILES: [&str; 6] = [
    "license",
    "licence",
    "copying",
    "notice",
    "unlicense",
    "copyright",
];

/// Every package that the program links for a target with these features, its licence, and the texts that came with it.
pub(crate) fn texts(features: &str, target: &str) -> Result<String> {
    let packages = packages(features, target)?;
    let mut list = String::new();
    let mut by_text: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in &packages {
        let name = format!("{} {}", package.name, package.version);
        let texts = in_folder(&package.folder)?;
        let none = if texts.is_empty() {
            " (no text came with it)"
        } else {
            ""
        };
        writeln!(list, "{name}: {}{none}", package.licence)?;
        for text in texts {
            by_text.entry(text).or_default().insert(name.clone());
        }
    }
    let mut all = format!(
        "circuitscope links the {} packages below. After the list stand the texts that came with them.\n\n{list}",
        packages.len()
    );
    let mut texts: Vec<(String, String)> = by_text
        .into_iter()
        .map(|(text, names)| (names.into_iter().collect::<Vec<_>>().join(", "), text))
        .collect();
    texts.sort();
    for (names, text) in texts {
        write!(
            all,
            "\n{}\n{names}\n\n{}\n",
            "=".repeat(72),
            text.trim_end()
        )?;
    }
    Ok(all)
}

/// The packages of others that are linked, by name.
fn packages(features: &str, target: &str) -> Result<Vec<Package>> {
    let linked = resolved(features, target, "normal")?;
    let linked: BTreeSet<&(String, String)> = linked
        .iter()
        .filter_map(|(package, is_macro)| (!is_macro).then_some(package))
        .collect();
    let metadata: Value =
        serde_json::from_str(&output(&["metadata", "--locked", "--format-version", "1"])?)?;
    let mut packages = Vec::new();
    for package in metadata["packages"]
        .as_array()
        .context("packages in the metadata")?
    {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        let (name, version) = (text("name"), text("version"));
        // What has no source is of this workspace.
        if package["source"].is_null() || !linked.contains(&(name.clone(), version.clone())) {
            continue;
        }
        let manifest = PathBuf::from(text("manifest_path"));
        let licence = match text("license") {
            none if none.is_empty() => format!("see {}", text("license_file")),
            licence => licence,
        };
        let folder = manifest
            .parent()
            .context("a manifest in a folder")?
            .to_owned();
        packages.push(Package {
            name,
            version,
            licence,
            folder,
        });
    }
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    ensure!(
        packages.len() > 50,
        "found {} linked packages, expected hundreds",
        packages.len()
    );
    Ok(packages)
}

/// Name and version of every package that the program is built from, along edges of these kinds, and whether it is a
/// procedural macro, which runs in the compiler alone.
pub(crate) fn resolved(
    features: &str,
    target: &str,
    edges: &str,
) -> Result<BTreeMap<(String, String), bool>> {
    let tree = output(&[
        "tree",
        "--locked",
        "-p",
        "circuitscope-cli",
        "--no-default-features",
        "--features",
        features,
        "--target",
        target,
        "--edges",
        edges,
        "--prefix",
        "none",
        "--format",
        "{p}",
    ])?;
    let packages = tree.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some((
            (name.to_owned(), version.to_owned()),
            line.contains("(proc-macro)"),
        ))
    });
    Ok(packages.collect())
}

/// The texts of licences in the folder of a package.
fn in_folder(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let mut paths: Vec<PathBuf> = fs_err::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    for path in paths {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        if path.is_file() && FILES.iter().any(|file| name.starts_with(file)) {
            let text = fs_err::read(&path)?;
            texts.push(String::from_utf8_lossy(&text).replace("\r\n", "\n"));
        }
    }
    Ok(texts)
}

/// What cargo prints.
pub(crate) fn output(args: &[&str]) -> Result<String> {
    let output = Command::new("cargo")
        .args(args)
        .current_dir(crate::ROOT)
        .output();
    let output = output.context("cannot run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "cargo {}: {}",
        args.join(" "),
        said.trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_in_a_folder_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("LICENSE-MIT", "MIT\r\n"),
            ("Notice.txt", "N"),
            ("lib.rs", "no"),
        ] {
            fs_err::write(folder.path().join(name), text).unwrap();
        }
        assert_eq!(in_folder(folder.path()).unwrap(), ["MIT\n", "N"]);
    }
}
