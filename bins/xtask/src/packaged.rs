//! The copies of data and README that packages carry: a package holds no file from outside its own folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What people read and regenerate, and the copy that a package carries.
const COPIES: [(&str, &str); 3] = [
    ("README.md", "crates/circuitscope/README.md"),
    ("datasets", "crates/circuitscope-tasks/data"),
    ("datasets/reference", "crates/circuitscope-reference/data"),
];

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Makes every packaged file anew from its original, and names those that changed.
#[expect(clippy::print_stdout, reason = "a chore tells what it did")]
pub(crate) fn run() -> Result<()> {
    for (original, copy) in all()? {
        let text = fs_err::read(&original)?;
        if fs_err::read(&copy)? != text {
            fs_err::write(&copy, text)?;
            println!("{}", copy.display());
        }
    }
    Ok(())
}

/// Originals and copies, file by file.
fn all() -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut all = Vec::new();
    for (source, copy) in COPIES {
        let (source, copy) = (Path::new(ROOT).join(source), Path::new(ROOT).join(copy));
        for file in files(&copy)? {
            let name = file.strip_prefix(&copy).context("a file of the folder")?;
            let original = if name.as_os_str().is_empty() {
                source.clone()
            } else {
                source.join(name)
            };
            all.push((original, file));
        }
    }
    Ok(all)
}

/// All files below a folder, or the file.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs_err::read_dir(path)? {
        found.extend(files(&entry?.path())?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_equal() {
        let all = all().unwrap();
        assert!(all.len() > COPIES.len());
        for (original, copy) in all {
            assert!(
                fs_err::read(&original).unwrap() == fs_err::read(&copy).unwrap(),
                "{} is no copy of {}: run `cargo xtask packaged`",
                copy.display(),
                original.display()
            );
        }
    }
}
