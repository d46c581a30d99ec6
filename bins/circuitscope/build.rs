//! What the program says of how it was built: compiler, target and commit.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CIRCUITSCOPE_COMMIT");
    let compiler = variable("RUSTC");
    let compiler = compiler.and_then(|rustc| output(Command::new(rustc).arg("--version")));
    let commit = commit().unwrap_or_else(|| "not known".to_owned());
    for (name, value) in [
        ("COMMIT", commit),
        ("RUSTC", compiler.unwrap_or_else(|| "not known".to_owned())),
        ("TARGET", variable("TARGET").unwrap_or_default()),
    ] {
        println!("cargo::rustc-env=CIRCUITSCOPE_{name}={value}");
    }
}

/// A variable of the environment.
fn variable(name: &str) -> Option<String> {
    env::var_os(name)?.into_string().ok()
}

/// The commit of the sources: as whoever builds says, as the package says, or as git says. Nobody asks git in builds for
/// work on the program, which would be made anew after every commit.
fn commit() -> Option<String> {
    let said = variable("CIRCUITSCOPE_COMMIT");
    if let Some(said) = said.filter(|said| !said.is_empty()) {
        return Some(said);
    }
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    if let Ok(package) =
        File::open(folder.join(".cargo_vcs_info.json")).and_then(std::io::read_to_string)
    {
        let sha = package.split("\"sha1\":").nth(1)?;
        return Some(sha.split('"').nth(1)?.to_owned());
    }
    if variable("PROFILE")? != "release" {
        return Some("not asked for in debug builds".to_owned());
    }
    let git = |args: &[&str]| output(Command::new("git").arg("-C").arg(&folder).args(args));
    let commit = git(&["rev-parse", "HEAD"])?;
    // Whatever makes another commit or other sources of it. A path that is not there would build anew every time.
    let head = ["HEAD", "logs/HEAD", "index"];
    let paths = head
        .iter()
        .filter_map(|name| git(&["rev-parse", "--git-path", name]));
    let paths = paths.map(|path| folder.join(path));
    let sources = ["src", "Cargo.toml", "../../Cargo.lock", "../../crates"];
    let sources = sources.iter().map(|name| folder.join(name));
    for path in paths.chain(sources).filter(|path| Path::exists(path)) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let changed = changed.is_none_or(|changed| !changed.is_empty());
    Some(format!(
        "{commit}{}",
        if changed { ", changed" } else { "" }
    ))
}

/// What a program prints, without the end of the line; nothing if it fails.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
