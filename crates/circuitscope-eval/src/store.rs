use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use circuitscope_core::files::write_atomic;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::evaluate::RunRecord;
use crate::{Error, Result};

/// What identifies a run within one set of settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    /// Name of the task.
    pub task: String,
    /// Name of the method.
    pub method: String,
    /// The seed.
    pub seed: u64,
}

/// Where finished runs are kept.
pub trait RunStore {
    /// A finished run, if there is one.
    ///
    /// # Errors
    /// If it is there but cannot be read.
    fn load(&self, key: &RunKey) -> Result<Option<RunRecord>>;

    /// Keeps a finished run.
    ///
    /// # Errors
    /// If it cannot be written.
    fn save(&mut self, key: &RunKey, record: &RunRecord) -> Result<()>;
}

/// Keeps runs in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    runs: BTreeMap<RunKey, RunRecord>,
}

impl RunStore for MemoryStore {
    fn load(&self, key: &RunKey) -> Result<Option<RunRecord>> {
        Ok(self.runs.get(key).cloned())
    }

    fn save(&mut self, key: &RunKey, record: &RunRecord) -> Result<()> {
        self.runs.insert(key.clone(), record.clone());
        Ok(())
    }
}

/// Keeps runs as JSON files in a folder, so that interrupted work goes on where it stopped.
///
/// `settings.json` in the folder says what the runs were made with; a folder made with other
/// settings is refused rather than mixed.
#[derive(Debug, Clone)]
pub struct FolderStore {
    runs: PathBuf,
}

impl FolderStore {
    /// Opens `folder`, or makes it.
    ///
    /// `settings` is an object of everything that a run's result depends on apart from its key.
    ///
    /// # Errors
    /// [`Error::OtherSettings`] if the folder belongs to other settings, naming the first that
    /// differs; [`Error::Io`] or [`Error::File`] if it cannot be read or written.
    pub fn open(folder: &Path, settings: &Value) -> Result<Self> {
        let path = folder.join("settings.json");
        if path.exists() {
            let kept: Value = read_json(&path)?;
            if kept != *settings {
                let key = differing_key(&kept, settings);
                let show = |value: &Value| value.get(&key).unwrap_or(&Value::Null).to_string();
                return Err(Error::OtherSettings {
                    found: show(&kept),
                    expected: show(settings),
                    path,
                    key,
                });
            }
        } else {
            write_json(&path, settings)?;
        }
        Ok(Self {
            runs: folder.join("runs"),
        })
    }

    fn path(&self, key: &RunKey) -> PathBuf {
        self.runs
            .join(format!("{}.{}.{}.json", key.task, key.method, key.seed))
    }
}

impl RunStore for FolderStore {
    fn load(&self, key: &RunKey) -> Result<Option<RunRecord>> {
        let path = self.path(key);
        if path.exists() {
            read_json(&path).map(Some)
        } else {
            Ok(None)
        }
    }

    fn save(&mut self, key: &RunKey, record: &RunRecord) -> Result<()> {
        write_json(&self.path(key), record)
    }
}

fn differing_key(a: &Value, b: &Value) -> String {
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .map(|map| map.keys().cloned().collect())
            .unwrap_or_default()
    };
    keys(a)
        .into_iter()
        .chain(keys(b))
        .find(|key| a.get(key) != b.get(key))
        .unwrap_or_default()
}

fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs_err::read(path).map_err(|source| io(path, source))?;
    serde_json::from_slice(&text).map_err(|error| Error::File {
        path: path.to_owned(),
        reason: format!("not what a run wrote: {error}; delete it to run again"),
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| Error::File {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    text.push('\n');
    write_atomic(path, |out| out.write_all(text.as_bytes())).map_err(|source| io(path, source))
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_owned(),
        source,
    }
}
