//! `cargo xtask packages`: what would be published is packed, and the program is built and installed from that alone.
//!
//! `cargo package` itself builds everything once more, dependencies included. Here the packages are one workspace of their own, with
//! the lock file and the profiles of this one, so that a release build of the same features gives its dependencies.

use core::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::licences::output;
use crate::tools;

/// Packs, unpacks, builds with `features`, and installs into `root`.
#[expect(clippy::print_stdout, reason = "a chore tells what it did")]
pub(crate) fn run(features: &str, root: &Path) -> Result<()> {
    let target = tools::target()?;
    let (published, others) = members()?;
    let mut pack = vec![
        "package",
        "--workspace",
        "--locked",
        "--no-verify",
        "--allow-dirty",
        "--quiet",
    ];
    for other in &others {
        pack.extend(["--exclude", other]);
    }
    crate::cargo(&pack)?;
    let folder = target.join("packages");
    if folder.exists() {
        fs_err::remove_dir_all(&folder)?;
    }
    let mut unpacked = Vec::new();
    for name in &published {
        let package = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
        let file = fs_err::File::open(target.join("package").join(format!("{package}.crate")))?;
        tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(&folder)?;
        unpacked.push((name.as_str(), package));
    }
    let manifest = fs_err::read_to_string(Path::new(crate::ROOT).join("Cargo.toml"))?;
    fs_err::write(folder.join("Cargo.toml"), workspace(&manifest, &unpacked)?)?;
    fs_err::copy(
        Path::new(crate::ROOT).join("Cargo.lock"),
        folder.join("Cargo.lock"),
    )?;
    let program = unpacked
        .iter()
        .find(|(name, _)| *name == "circuitscope-cli");
    let (_, program) = program.context("the package of the program")?;
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    // What the packages do not need leaves the lock file; what they need stays as it is locked.
    let manifest = path(folder.join("Cargo.toml"));
    crate::cargo(&[
        "update",
        "--workspace",
        "--offline",
        "--quiet",
        "--manifest-path",
        &manifest,
    ])?;
    crate::cargo(&[
        "install",
        "--locked",
        "--offline",
        "--path",
        &path(folder.join(program)),
        "--features",
        features,
        "--root",
        &path(root.to_owned()),
        "--target-dir",
        &path(target),
    ])?;
    println!(
        "{} packages; the program built from them is in {}",
        published.len(),
        root.join("bin").display()
    );
    Ok(())
}

/// Members of the workspace that are published, and those that are not.
fn members() -> Result<(Vec<String>, Vec<String>)> {
    let metadata: Value = serde_json::from_str(&output(&[
        "metadata",
        "--locked",
        "--no-deps",
        "--format-version",
        "1",
    ])?)?;
    let packages = metadata["packages"]
        .as_array()
        .context("packages in the metadata")?;
    let named = |published: bool| {
        let packages = packages
            .iter()
            .filter(move |package| package["publish"].is_null() == published);
        packages
            .filter_map(|package| Some(package["name"].as_str()?.to_owned()))
            .collect::<Vec<_>>()
    };
    let (published, others) = (named(true), named(false));
    ensure!(
        published.len() > 5,
        "found {published:?}, expected the crates that are published"
    );
    Ok((published, others))
}

/// The manifest of a workspace of these packages, with the profiles of ours.
fn workspace(ours: &str, packages: &[(&str, String)]) -> Result<String> {
    let mut manifest = "[workspace]\nresolver = \"3\"\nmembers = [\n".to_owned();
    for (_, folder) in packages {
        writeln!(manifest, "    \"{folder}\",")?;
    }
    manifest.push_str("]\n\n[patch.crates-io]\n");
    for (name, folder) in packages {
        writeln!(manifest, "{name} = {{ path = \"{folder}\" }}")?;
    }
    let (_, profiles) = ours
        .split_once("\n[profile.")
        .context("profiles in Cargo.toml")?;
    Ok(format!("{manifest}\n[profile.{profiles}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_a_workspace_with_our_profiles() {
        let ours = "[workspace]\n\n[profile.dev]\ndebug = 1\n\n[profile.release]\nstrip = true\n";
        let made = workspace(ours, &[("a", "a-1.0.0".to_owned())]).unwrap();
        assert!(made.contains("members = [\n    \"a-1.0.0\",\n]"), "{made}");
        assert!(
            made.contains("[patch.crates-io]\na = { path = \"a-1.0.0\" }"),
            "{made}"
        );
        assert!(
            made.ends_with("[profile.dev]\ndebug = 1\n\n[profile.release]\nstrip = true\n"),
            "{made}"
        );
    }
}
