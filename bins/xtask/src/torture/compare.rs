//! Whether two runs of one command gave the same results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use serde_json::Value;

use super::judge::Fault;

/// What may differ from run to run.
const PARTICULAR: [&str; 3] = ["seconds", "peak_memory_bytes", "command"];

/// What a folder of results holds, by name: JSON without times, pictures as they are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Results(BTreeMap<PathBuf, Content>);

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Json(Value),
    Bytes(Vec<u8>),
    /// Not JSON, though it is called so.
    Broken,
    /// Pages have times in them.
    Page,
}

/// Reads a folder of results.
pub(crate) fn results(folder: &Path) -> Result<Results> {
    let mut found = BTreeMap::new();
    read(folder, Path::new(""), &mut found)?;
    Ok(Results(found))
}

/// The runs that a finished evaluation counts, in an order of their own: `report` and `eval` list them in different ones.
pub(crate) fn counted(folder: &Path) -> Result<Vec<String>> {
    let mut value: Value = serde_json::from_slice(&fs::read(folder.join("results.json"))?)?;
    strip(&mut value);
    let runs = value["runs"].as_array().into_iter().flatten();
    let mut runs: Vec<String> = runs.map(Value::to_string).collect();
    runs.sort();
    Ok(runs)
}

fn read(folder: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Content>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            read(&entry.path(), &name, found)?;
            continue;
        }
        let bytes = fs::read(entry.path())?;
        let kind = name.extension().unwrap_or_default();
        let content = if kind == "json" {
            match serde_json::from_slice(&bytes) {
                Ok(mut value) => {
                    strip(&mut value);
                    Content::Json(value)
                }
                Err(_) => Content::Broken,
            }
        } else if kind == "html" {
            Content::Page
        } else {
            Content::Bytes(bytes)
        };
        found.insert(name, content);
    }
    Ok(())
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|key, _| !PARTICULAR.contains(&key.as_str()));
            members.values_mut().for_each(strip);
        }
        Value::Array(values) => values.iter_mut().for_each(strip),
        _ => {}
    }
}

impl Results {
    /// The first way in which `other` is not the same, which should be.
    pub(crate) fn differ(&self, other: &Self) -> Option<Fault> {
        other.broken().or_else(|| {
            for (name, content) in &self.0 {
                match other.0.get(name) {
                    None => return Some(Fault::Lost(format!("missing: {}", name.display()))),
                    Some(found) if found != content => {
                        return Some(Fault::Lost(format!("differs: {}", name.display())));
                    }
                    Some(_) => {}
                }
            }
            let new = other.0.keys().find(|name| !self.0.contains_key(*name))?;
            Some(Fault::Lost(format!("not expected: {}", name_of(new))))
        })
    }

    /// A file that is only half there, or a temporary one.
    pub(crate) fn broken(&self) -> Option<Fault> {
        let broken = self
            .0
            .iter()
            .find(|(_, content)| **content == Content::Broken);
        broken.map(|(name, _)| Fault::Lost(format!("half-written: {}", name.display())))
    }

    /// A temporary file that nobody will remove.
    pub(crate) fn left(&self) -> Option<Fault> {
        let mut names = self.0.keys().map(|name| name_of(name));
        let left = names.find(|name| name.starts_with(".circuitscope-"))?;
        Some(Fault::Lost(format!("temporary file left: `{left}`")))
    }

    /// Only what lies in `folder`.
    pub(crate) fn within(&self, folder: &str) -> Self {
        let inside = self.0.iter().filter(|(name, _)| name.starts_with(folder));
        Self(
            inside
                .map(|(name, content)| (name.clone(), content.clone()))
                .collect(),
        )
    }
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> Results {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        results(folder.path()).unwrap()
    }

    #[test]
    fn times_may_differ_and_nothing_else() {
        let one = folder(&[("a.json", r#"{"x": [{"seconds": 1, "y": 2}]}"#)]);
        assert_eq!(
            one.differ(&folder(&[("a.json", r#"{"x": [{"seconds": 3, "y": 2}]}"#)])),
            None
        );
        let other = |files| one.differ(&folder(files)).map(|fault| fault.said());
        assert_eq!(
            other(&[("a.json", r#"{"x": [{"y": 3}]}"#)]).as_deref(),
            Some("lost: differs: a.json")
        );
        assert_eq!(
            other(&[("a.json", r#"{"x": ["#)]).as_deref(),
            Some("lost: half-written: a.json")
        );
        assert_eq!(other(&[]).as_deref(), Some("lost: missing: a.json"));
    }

    #[test]
    fn temporary_files_are_seen() {
        assert!(folder(&[(".circuitscope-x", "")]).left().is_some());
        assert!(folder(&[("x", "")]).left().is_none());
    }
}
