use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use circuitscope_files::{sha256, write_new};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::{pretty, read_json, write_json};
use crate::{Error, Result, RunKey, RunRecord};

/// The file of a [`FolderStore`] that says what its runs were made with.
pub const SETTINGS_FILE: &str = "settings.json";

/// Where finished runs are kept.
pub trait RunStore {
    /// A finished run, if there is one.
    ///
    /// # Errors
    /// If it is there but cannot be read.
    fn load(&self, key: &RunKey) -> Result<Option<RunRecord>>;

    /// Whether there is a finished run, which may turn out not to be readable.
    fn contains(&self, key: &RunKey) -> bool;

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

    fn contains(&self, key: &RunKey) -> bool {
        self.runs.contains_key(key)
    }

    fn save(&mut self, key: &RunKey, record: &RunRecord) -> Result<()> {
        self.runs.insert(key.clone(), record.clone());
        Ok(())
    }
}

/// Keeps runs as JSON files in a folder, so that interrupted work goes on where it stopped.
///
/// `settings.json` in the folder says what the runs were made with, and every run holds its hash; a folder or a run
/// made with other settings is refused rather than mixed.
#[derive(Debug, Clone)]
pub struct FolderStore {
    settings: PathBuf,
    /// SHA-256 of that file.
    hash: String,
    runs: PathBuf,
}

impl FolderStore {
    /// Opens `folder`, or makes it.
    ///
    /// `settings` becomes an object of everything that a run's result depends on apart from its key.
    ///
    /// # Errors
    /// [`Error::OtherSettings`] if the folder belongs to other settings, naming the first that
    /// differs; [`Error::File`] for runs that nothing says the settings of; [`Error::Io`] or [`Error::File`] if it cannot be read or written.
    pub fn open(folder: &Path, settings: &impl Serialize) -> Result<Self> {
        let path = folder.join(SETTINGS_FILE);
        let text = pretty(&path, settings)?;
        let runs = folder.join("runs");
        if !path.exists() && runs.exists() {
            return Err(Error::File {
                path: runs,
                reason: "found runs, but not the settings.json beside them that says what they were made with; take \
                         another folder, or delete them to run again"
                    .to_owned(),
            });
        }
        // Of two programs that start in a new folder at once, one makes the file, and the other reads it.
        let made = if path.exists() {
            false
        } else {
            match write_new(&path, |out| out.write_all(text.as_bytes())) {
                Ok(()) => true,
                Err(error) if error.io_kind() == Some(std::io::ErrorKind::AlreadyExists) => false,
                Err(error) => return Err(error.into()),
            }
        };
        if !made {
            let kept: Value = read(&path)?;
            let asked: Value = serde_json::from_str(&text).map_err(|error| Error::File {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            if kept != asked {
                let key = differing_key(&kept, &asked);
                let show = |value: &Value| value.get(&key).unwrap_or(&Value::Null).to_string();
                return Err(Error::OtherSettings {
                    found: show(&kept),
                    expected: show(&asked),
                    path,
                    key,
                });
            }
        }
        Ok(Self {
            hash: sha256(&path)?,
            settings: path,
            runs,
        })
    }

    fn path(&self, key: &RunKey) -> PathBuf {
        self.runs.join(format!("{key}.json"))
    }
}

impl RunStore for FolderStore {
    fn load(&self, key: &RunKey) -> Result<Option<RunRecord>> {
        let path = self.path(key);
        if !self.contains(key) {
            return Ok(None);
        }
        let record = RunRecord::read(&path, &self.hash)?;
        let found = record.key();
        if found == *key {
            return Ok(Some(record));
        }
        Err(Error::File {
            path,
            reason: format!("found the run {found}, expected {key}; delete it to run again"),
        })
    }

    fn contains(&self, key: &RunKey) -> bool {
        self.path(key).exists()
    }

    fn save(&mut self, key: &RunKey, record: &RunRecord) -> Result<()> {
        // Somebody may have deleted the folder, and somebody else begun anew in it.
        if !sha256(&self.settings).is_ok_and(|hash| hash == self.hash) {
            return Err(Error::Overtaken {
                path: self.settings.clone(),
            });
        }
        let run = RunFile {
            settings: &self.hash,
            record,
        };
        write_json(&self.path(key), &run)
    }
}

/// A run as its file holds it.
#[derive(Serialize)]
struct RunFile<'a> {
    /// SHA-256 of the `settings.json` that it was made with.
    settings: &'a str,
    #[serde(flatten)]
    record: &'a RunRecord,
}

/// The part of a [`RunFile`] that is not the run's.
#[derive(Deserialize)]
struct MadeWith {
    settings: Option<String>,
}

impl RunRecord {
    /// Reads a run from a file of [`FolderStore`], whose name says which it is; `settings` is the SHA-256 of the
    /// `settings.json` beside it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] for what is no run, a measure outside of [0, 1], scores that do not fit
    /// the model's shape, a name that is not the run's, and a run of other settings.
    pub fn read(path: &Path, settings: &str) -> Result<Self> {
        let record: Self = read(path)?;
        let made_with: MadeWith = read(path)?;
        let wrong = |reason: String| Error::File {
            path: path.to_owned(),
            reason: format!("{reason}; delete it to run again"),
        };
        let own = format!("{}.json", record.key());
        if path.file_name().is_none_or(|name| *name != *own) {
            return Err(wrong(format!("found the run of {own} under this name")));
        }
        // Runs of earlier versions do not say.
        if made_with.settings.is_some_and(|own| own != settings) {
            return Err(wrong(
                "found a run of other settings than those of settings.json".to_owned(),
            ));
        }
        let shares = [("", &record.judgement)].into_iter();
        let others = record
            .other_truths
            .iter()
            .map(|other| ("other_truths.", other));
        for (of, judgement) in shares.chain(others) {
            for (name, value) in judgement.shares() {
                if !(0.0..=1.0).contains(&value) {
                    return Err(wrong(format!("{of}{name}: found {value}, expected 0 to 1")));
                }
            }
        }
        if let Some(resampled) = &record.resampled {
            let shares = resampled.node_auc.iter().chain(&resampled.edge_auc);
            let mut shares = shares.chain([&resampled.jaccard, &resampled.jaccard_by_chance]);
            if let Some(value) = shares.find(|value| !(0.0..=1.0).contains(*value)) {
                return Err(wrong(format!("resampled: found {value}, expected 0 to 1")));
            }
            if !(resampled.scale > 0.0 && resampled.scale.is_finite()) {
                return Err(wrong(format!(
                    "resampled: found scale {}, expected a number above 0",
                    resampled.scale
                )));
            }
        }
        if !(0.0..=f64::MAX).contains(&record.seconds) {
            let found = record.seconds;
            return Err(wrong(format!("seconds: found {found}, expected 0 or more")));
        }
        let (heads, nodes) = (record.scores.grid.len(), record.scores.nodes.len());
        let edges = record.scores.edges.as_ref().map(Vec::len);
        if nodes != heads || edges.is_some_and(|edges| edges != heads * heads) {
            return Err(wrong(format!(
                "scores: found {nodes} heads in a grid of {heads}"
            )));
        }
        Ok(record)
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

/// What a run, or an evaluation, wrote.
fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_json(path).map_err(|error| match error {
        Error::File { path, reason } => Error::File {
            path,
            reason: format!("not what a run wrote: {reason}; delete it to run again"),
        },
        other => other,
    })
}
