//! `cargo xtask dist`: a release of the program as an archive.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use circuitscope_files::sha256;
use flate2::{Compression, GzBuilder};

use crate::licences;
use crate::sbom;
use crate::tools;

/// What a release is built with: every backend that needs no vendor's toolchain, and the hub.
const FEATURES: &str = "flex,hub,ndarray,wgpu";

/// Files of the repository that go with the program.
const BESIDE: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// Shells, and what each calls its file.
const SHELLS: [(&str, &str); 5] = [
    ("bash", "circuitscope.bash"),
    ("elvish", "circuitscope.elv"),
    ("fish", "circuitscope.fish"),
    ("powershell", "_circuitscope.ps1"),
    ("zsh", "_circuitscope"),
];

/// Makes the archive, its checksum and its list of components, and tries what is in it.
#[expect(clippy::print_stdout, reason = "a chore tells what it did")]
pub(crate) fn run(program: Option<PathBuf>) -> Result<()> {
    let program = match program {
        Some(program) => program,
        None => build()?,
    };
    let about = said(&program, &["--version"])?;
    let field = |name: &str| {
        let line = about.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
            .with_context(|| format!("{name} in what --version says"))
    };
    let (target, features) = (field("target:")?, field("features:")?.replace(' ', ""));
    let name = format!("circuitscope-{}-{target}", env!("CARGO_PKG_VERSION"));
    let folder = tools::target()?.join("dist");
    let staged = folder.join(&name);
    if staged.exists() {
        fs_err::remove_dir_all(&staged)?;
    }
    fs_err::create_dir_all(staged.join("completions"))?;
    let file = Path::new("circuitscope").with_extension(std::env::consts::EXE_EXTENSION);
    fs_err::copy(&program, staged.join(&file))?;
    for name in BESIDE {
        fs_err::copy(Path::new(crate::ROOT).join(name), staged.join(name))?;
    }
    for (shell, file) in SHELLS {
        let script = said(&program, &["completions", shell])?;
        fs_err::write(staged.join("completions").join(file), script)?;
    }
    let man = staged.join("man/man1");
    said(&program, &["man", &man.to_string_lossy()])?;
    fs_err::write(staged.join("VERSION"), &about)?;
    fs_err::write(
        staged.join("THIRD-PARTY-LICENCES"),
        licences::texts(&features, target)?,
    )?;
    let components = sbom::made(&features, target)?;
    fs_err::write(staged.join("sbom.cdx.json"), &components)?;
    fs_err::write(folder.join(format!("{name}.cdx.json")), &components)?;

    let archive = folder.join(format!("{name}.tar.gz"));
    pack(&staged, &name, &archive, time()?)?;
    let sum = format!("{}  {name}.tar.gz\n", sha256(&archive)?);
    fs_err::write(folder.join(format!("{name}.tar.gz.sha256")), &sum)?;
    try_out(&archive, &Path::new(&name).join(&file), &about)?;
    fs_err::remove_dir_all(&staged)?;
    print!("{}\n{sum}", archive.display());
    Ok(())
}

/// The release program.
fn build() -> Result<PathBuf> {
    crate::cargo(&[
        "build",
        "--release",
        "--locked",
        "-p",
        "circuitscope-cli",
        "--no-default-features",
        "--features",
        FEATURES,
    ])?;
    let program = tools::target()?.join("release/circuitscope");
    Ok(program.with_extension(std::env::consts::EXE_EXTENSION))
}

/// What the program prints; it reads no settings of whoever runs this.
fn said(program: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .env("CIRCUITSCOPE_CONFIG", "none")
        .output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{} {args:?}: {}",
        program.display(),
        told.trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The time of every file in the archive, in seconds: `SOURCE_DATE_EPOCH`, or that of the commit.
fn time() -> Result<u64> {
    if let Some(said) = std::env::var_os("SOURCE_DATE_EPOCH") {
        return said
            .to_string_lossy()
            .parse()
            .context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let git = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .current_dir(crate::ROOT)
        .output();
    let said = git.map(|output| output.stdout).unwrap_or_default();
    Ok(String::from_utf8_lossy(&said).trim().parse().unwrap_or(0))
}

/// Packs a folder, so that the same files give the same bytes: sorted, of one time and of nobody.
fn pack(folder: &Path, name: &str, to: &Path, time: u64) -> Result<()> {
    let mut paths = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let within = fs_err::read_dir(&path)?.map(|entry| Ok(entry?.path()));
            open.extend(within.collect::<Result<Vec<_>>>()?);
        } else {
            paths.push(path);
        }
    }
    paths.sort();
    let file = fs_err::File::create(to)?;
    let mut archive = tar::Builder::new(GzBuilder::new().mtime(0).write(file, Compression::best()));
    for path in paths {
        let bytes = fs_err::read(&path)?;
        let within = path.strip_prefix(folder)?;
        let is_program = within.parent() == Some(Path::new(""))
            && within.file_stem() == Some("circuitscope".as_ref());
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(if is_program { 0o755 } else { 0o644 });
        header.set_mtime(time);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, Path::new(name).join(within), bytes.as_slice())?;
    }
    archive.into_inner()?.finish()?.flush()?;
    Ok(())
}

/// Unpacks the archive elsewhere, and asks the program in it what it is.
fn try_out(archive: &Path, program: &Path, about: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = flate2::read::GzDecoder::new(fs_err::File::open(archive)?);
    tar::Archive::new(file).unpack(folder.path())?;
    let said = said(&folder.path().join(program), &["--version"])?;
    ensure!(
        said == about,
        "the program in {} says it is {said}",
        archive.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_of_the_same_files_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let staged = folder.path().join("x");
        let bytes = |order: [&str; 2]| {
            fs_err::create_dir_all(staged.join("man")).unwrap();
            for name in order {
                fs_err::write(staged.join(name), name).unwrap();
            }
            let to = folder.path().join("x.tar.gz");
            pack(&staged, "x", &to, 7).unwrap();
            fs_err::remove_dir_all(&staged).unwrap();
            fs_err::read(to).unwrap()
        };
        let first = bytes(["circuitscope", "man/circuitscope.1"]);
        assert_eq!(first, bytes(["man/circuitscope.1", "circuitscope"]));
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(first.as_slice()));
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let path = entry.path().unwrap().display().to_string();
            (
                path,
                header.mode().unwrap(),
                header.mtime().unwrap(),
                header.uid().unwrap(),
            )
        });
        assert_eq!(
            entries.collect::<Vec<_>>(),
            [
                ("x/circuitscope".to_owned(), 0o755, 7, 0),
                ("x/man/circuitscope.1".to_owned(), 0o644, 7, 0),
            ]
        );
    }
}
