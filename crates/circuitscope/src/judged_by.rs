use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use circuitscope_files::sha256;
use circuitscope_measures::{RunRecord, read_kept, write_json};
use circuitscope_tasks::{self as tasks, TaskSpec};
use serde::{Deserialize, Serialize};

use crate::{Error, KnownCircuits, Result};

/// The folder of these files, in that of an evaluation.
const FOLDER: &str = "tasks";

/// A task of an evaluation and the circuits that it is judged by, kept beside the runs: a file for each task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct JudgedBy {
    /// Name of the task.
    pub task: String,
    /// What it is, in a sentence.
    pub summary: String,
    /// Pairs of prompts.
    pub pairs: usize,
    /// SHA-256 of the files that a task of the user's own was read from, circuits left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// The circuits, and whose they are.
    pub circuits: KnownCircuits,
}

impl JudgedBy {
    /// What an evaluation of `pairs` pairs judges a task by.
    ///
    /// # Errors
    /// If a file of the task cannot be read.
    pub fn new(task: &TaskSpec, pairs: usize, circuits: KnownCircuits) -> Result<Self> {
        let own = |file: &&PathBuf| task.circuits.iter().all(|circuit| circuit.file != **file);
        let files = task.files.iter().filter(own).map(|file| {
            let name = file.file_name().unwrap_or(file.as_os_str());
            let hash = sha256(file).map_err(tasks::Error::from)?;
            Ok((name.to_string_lossy().into_owned(), hash))
        });
        Ok(Self {
            task: task.name.clone().into_owned(),
            summary: task.summary.clone().into_owned(),
            pairs,
            files: files.collect::<Result<_>>()?,
            circuits,
        })
    }

    fn path(folder: &Path, task: &str) -> PathBuf {
        folder.join(FOLDER).join(format!("{task}.json"))
    }

    /// What an earlier evaluation in this folder judged a task by, if there was one.
    ///
    /// # Errors
    /// [`circuitscope_measures::Error`], which names file and field.
    pub fn read(folder: &Path, task: &str) -> Result<Option<Self>> {
        Ok(read_kept(&Self::path(folder, task))?)
    }

    /// What each task of some runs was judged by, by its name.
    ///
    /// # Errors
    /// [`Error::JudgedBy`] where that is not said, and those of [`read`](Self::read).
    pub fn of_runs(folder: &Path, records: &[RunRecord]) -> Result<BTreeMap<String, Self>> {
        let mut all = BTreeMap::new();
        for RunRecord { task, .. } in records {
            if !all.contains_key(task) {
                let by = Self::read(folder, task)?.ok_or_else(|| Error::JudgedBy {
                    file: Self::path(folder, task),
                    task: task.clone(),
                })?;
                all.insert(task.clone(), by);
            }
        }
        Ok(all)
    }

    /// Fails if an earlier evaluation in this folder judged the task by something else, whose runs are not these.
    ///
    /// # Errors
    /// [`Error::JudgedOtherwise`], and those of [`read`](Self::read).
    pub fn check(&self, folder: &Path) -> Result<()> {
        let Some(before) = Self::read(folder, &self.task)? else {
            return Ok(());
        };
        let what = if before.files != self.files || before.pairs != self.pairs {
            "prompts"
        } else if before.circuits.truths != self.circuits.truths {
            "known circuits"
        } else {
            return Ok(());
        };
        Err(Error::JudgedOtherwise {
            file: Self::path(folder, &self.task),
            what,
            task: self.task.clone(),
        })
    }

    /// Writes the file of the task into the folder of an evaluation, whole or not at all.
    ///
    /// # Errors
    /// [`circuitscope_measures::Error`], which names the file.
    pub fn write(&self, folder: &Path) -> Result<()> {
        Ok(write_json(&Self::path(folder, &self.task), self)?)
    }
}
