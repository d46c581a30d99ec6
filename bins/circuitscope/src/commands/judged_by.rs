//! What a task was judged by, kept beside the runs of an evaluation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use circuitscope::KnownCircuits;
use circuitscope::files;
use circuitscope::tasks::TaskSpec;
use serde::{Deserialize, Serialize};

use super::inputs;

/// A file for each task, in the output folder.
const FOLDER: &str = "tasks";

/// A task and the circuits that it is judged by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JudgedBy {
    /// Name of the task.
    pub(crate) task: String,
    /// What it is, in a sentence.
    pub(crate) summary: String,
    /// Pairs of prompts.
    pub(crate) pairs: usize,
    /// SHA-256 of the files that a task of the user's own was read from, circuits left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) circuits: KnownCircuits,
}

impl JudgedBy {
    pub(crate) fn new(task: &TaskSpec, pairs: usize, circuits: KnownCircuits) -> Result<Self> {
        let own = |file: &&PathBuf| task.circuits.iter().all(|circuit| circuit.file != **file);
        let files = task.files.iter().filter(own).map(|file| {
            let name = file.file_name().unwrap_or(file.as_os_str());
            Ok((name.to_string_lossy().into_owned(), files::sha256(file)?))
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

    /// What an earlier command of this folder judged a task by.
    pub(crate) fn read(folder: &Path, task: &str) -> Result<Option<Self>> {
        let path = Self::path(folder, task);
        if !path.is_file() {
            return Ok(None);
        }
        let read = inputs::read_json(&path).map(Some);
        read.map_err(|error| anyhow!("{error:#}; delete it to run again"))
    }

    /// Fails if an earlier command of this folder judged the task by something else, whose runs are not
    /// these.
    pub(crate) fn check(&self, folder: &Path) -> Result<()> {
        let Some(before) = Self::read(folder, &self.task)? else {
            return Ok(());
        };
        let changed = [
            (
                "prompts",
                before.files != self.files || before.pairs != self.pairs,
            ),
            (
                "known circuits",
                before.circuits.truths != self.circuits.truths,
            ),
        ];
        match changed.into_iter().find(|(_, changed)| *changed) {
            None => Ok(()),
            Some((what, _)) => bail!(
                "{}: found other {what} of task {}, expected those of this command: choose another --output",
                Self::path(folder, &self.task).display(),
                self.task
            ),
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        let path = Self::path(folder, &self.task);
        files::write_atomic(&path, |out| out.write_all(&json))?;
        Ok(())
    }
}
