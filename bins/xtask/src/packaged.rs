//! The copies of data and README that packages carry: a package holds no file from outside its own folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::ROOT;

/// What people read and regenerate, the copy that a package carries, and the names of the files below it that are copied.
const COPIES: [(&str, &str, &[&str]); 3] = [
    (".", "crates/circuitscope", &["README.md"]),
    (
        "datasets",
        "crates/circuitscope-tasks/data",
        &[
            "*/gpt2.json",
            "*/ground_truth.json",
            "reference/lexicon.json",
        ],
    ),
    (
        "datasets/reference",
        "crates/circuitscope-reference/data",
        &[
            "config.json",
            "conformance.safetensors",
            "model.safetensors",
            "tokenizer.json",
        ],
    ),
];

/// Makes every packaged file anew from its original, and names those that changed.
#[expect(clippy::print_stdout, reason = "a chore tells what it did")]
pub(crate) fn run() -> Result<()> {
    for (original, copy) in all()? {
        let text = fs_err::read(&original)?;
        if fs_err::read(&copy).ok().as_ref() != Some(&text) {
            fs_err::create_dir_all(copy.parent().context("a file in a folder")?)?;
            fs_err::write(&copy, text)?;
            println!("{}", copy.display());
        }
    }
    Ok(())
}

/// Originals and copies, file by file.
fn all() -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut all = Vec::new();
    for (source, copy, names) in COPIES {
        let (source, copy) = (Path::new(ROOT).join(source), Path::new(ROOT).join(copy));
        for name in names {
            for name in matching(&source, name)? {
                all.push((source.join(&name), copy.join(&name)));
            }
        }
    }
    Ok(all)
}

/// The files below a folder that `name` stands for, where `*` is any folder.
fn matching(source: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let Some(name) = name.strip_prefix("*/") else {
        return Ok(vec![PathBuf::from(name)]);
    };
    let mut found = Vec::new();
    for entry in fs_err::read_dir(source)? {
        let entry = entry?;
        if entry.path().join(name).is_file() {
            found.push(Path::new(&entry.file_name()).join(name));
        }
    }
    found.sort();
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
                fs_err::read(&original).unwrap() == fs_err::read(&copy).unwrap_or_default(),
                "{} is no copy of {}: run `cargo xtask packaged`",
                copy.display(),
                original.display()
            );
        }
    }
}
