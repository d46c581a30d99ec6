//! What shows the behaviour, as Python gives it.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use circuitscope::tasks::{
    KnownModel, LabelledPrompts, TaskSpec, parse_pairs, read_pairs, read_task, task,
};
use circuitscope::{CircuitChoice, Provenance};
use serde::Deserialize;

/// Exactly one source of prompts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Examples {
    /// A task by its name or its folder.
    pub(crate) task: Option<String>,
    /// A file of pairs.
    pub(crate) pairs_file: Option<PathBuf>,
    /// Pairs as lines of JSON.
    pub(crate) pairs: Option<String>,
    /// Prompts that show the behaviour.
    pub(crate) positive: Option<Vec<String>>,
    /// Prompts that do not.
    pub(crate) negative: Option<Vec<String>>,
}

impl Examples {
    /// The task, where it is one; its files are inputs.
    pub(crate) fn task(&self, provenance: &mut Provenance) -> Result<Option<TaskSpec>> {
        let Some(name) = &self.task else {
            return Ok(None);
        };
        Ok(Some(open_task(name, provenance)?))
    }

    /// The prompts, where they are no task's.
    pub(crate) fn read(&self, provenance: &mut Provenance) -> Result<Option<LabelledPrompts>> {
        if let Some(path) = &self.pairs_file {
            let prompts = read_pairs(path)?;
            provenance.input(path)?;
            return Ok(Some(prompts));
        }
        if let Some(text) = &self.pairs {
            return Ok(Some(parse_pairs("pairs", text)?));
        }
        let (Some(positive), Some(negative)) = (&self.positive, &self.negative) else {
            return Ok(None);
        };
        for (class, prompts) in [("positive", positive), ("negative", negative)] {
            if prompts.is_empty() {
                bail!("{class}: found no prompt, expected at least one");
            }
            if let Some(at) = prompts.iter().position(|text| text.trim().is_empty()) {
                bail!("{class}[{at}]: found a blank prompt, expected text");
            }
        }
        Ok(Some(if positive.len() == negative.len() {
            let pairs = positive.iter().cloned().zip(negative.iter().cloned());
            LabelledPrompts::from_pairs(pairs)
        } else {
            LabelledPrompts::from_classes(positive.clone(), negative.clone())
        }))
    }

    /// What the prompts are, in a few words.
    pub(crate) fn name(&self) -> String {
        if let Some(task) = &self.task {
            return task.clone();
        }
        let file = self.pairs_file.as_ref();
        file.map_or_else(|| "prompts".to_owned(), |file| file.display().to_string())
    }
}

/// What was given by name and what is a path: names count first.
fn is_path(text: &str) -> bool {
    text.contains(['/', '\\']) || Path::new(text).exists()
}

/// A task by its name or its folder, whose files are inputs.
pub(crate) fn open_task(name: &str, provenance: &mut Provenance) -> Result<TaskSpec> {
    let spec = match task(name) {
        Ok(task) => return Ok(task.clone()),
        Err(_) if is_path(name) => read_task(Path::new(name))?,
        Err(error) => return Err(error.into()),
    };
    provenance.input_all(&spec.files)?;
    Ok(spec)
}

/// Whose circuits are taken for known.
pub(crate) fn circuit(text: &str) -> Result<CircuitChoice> {
    match KnownModel::named(text) {
        Ok(model) => Ok(CircuitChoice::Of(model.name.to_owned())),
        Err(_) if is_path(text) || Path::new(text).extension().is_some() => {
            Ok(CircuitChoice::File(PathBuf::from(text)))
        }
        Err(error) => Err(anyhow!(error)),
    }
}
