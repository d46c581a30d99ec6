//! `--task` and `--circuit`: by name, or from files.

use std::path::{Path, PathBuf};

use anyhow::Result;
use circuitscope::CircuitChoice;
use circuitscope::eval::causal::Metric;
use circuitscope::tasks::{Error, KnownModel, MODELS, TASK_FILE, TASKS, TaskSpec, read_task, task};

use crate::provenance::Provenance;

/// A task of this program, or the folder of one of the user's.
#[derive(Debug, Clone)]
pub(crate) enum TaskArg {
    /// One of [`TASKS`].
    Named(&'static TaskSpec),
    /// A folder with a [`TASK_FILE`].
    Folder(PathBuf),
}

/// What was given by name and what is a path: names count first; anything else with a separator in it, or
/// that exists, is a path.
fn is_path(text: &str) -> bool {
    text.contains(['/', '\\']) || Path::new(text).exists()
}

pub(crate) fn parse_task(text: &str) -> Result<TaskArg, Error> {
    match task(text) {
        Ok(task) => Ok(TaskArg::Named(task)),
        Err(_) if is_path(text) => Ok(TaskArg::Folder(PathBuf::from(text))),
        Err(error) => Err(error),
    }
}

impl TaskArg {
    /// The task; its files are noted as inputs.
    pub(crate) fn open(&self, provenance: &mut Provenance) -> Result<TaskSpec> {
        match self {
            Self::Named(task) => Ok((*task).clone()),
            Self::Folder(folder) => {
                let task = read_task(folder)?;
                provenance.input_all(&task.files)?;
                Ok(task)
            }
        }
    }
}

/// `--circuit`: whose circuits are taken for known.
pub(crate) fn parse_circuit(text: &str) -> Result<CircuitChoice, Error> {
    match KnownModel::named(text) {
        Ok(model) => Ok(CircuitChoice::Of(model.name.to_owned())),
        Err(_) if is_path(text) || Path::new(text).extension().is_some() => {
            Ok(CircuitChoice::File(PathBuf::from(text)))
        }
        Err(error) => Err(error),
    }
}

/// Names of the tasks of this program, for help texts.
pub(crate) fn names() -> String {
    let names: Vec<&str> = TASKS.iter().map(|task| task.name.as_ref()).collect();
    names.join(", ")
}

/// Help of `--task`, where it takes one.
pub(crate) fn task_help() -> String {
    format!(
        "A task of this program ({}), or the folder of one of your own, with a {TASK_FILE}",
        names()
    )
}

/// Help of `--task`, where it takes several.
pub(crate) fn tasks_help() -> String {
    format!(
        "Tasks, comma-separated: {}, or folders of tasks of your own, with a {TASK_FILE}; or all of this \
         program's [default: all that have a known circuit in the model]",
        names()
    )
}

/// Help of `--examples`, after what is drawn.
pub(crate) fn examples_help(what: &str, usual: usize) -> String {
    format!("{what} [default: {usual}, or as the folder of the task says or has]")
}

/// Help of `--circuit`, after what is done with it.
pub(crate) fn circuit_help(what: &str) -> String {
    format!(
        "{what}, whatever the model is: those of {}, or of a file (`{{\"heads\": [\"L0H1\"]}}`, this program's form, \
         `importances.json` of EAP-IG or MIB, a converted InterpBench case) [default: those of the model itself, told by its name \
         on the hub and the hash of its weights]",
        MODELS.join(", ")
    )
}

/// Help of `--l1`.
pub(crate) fn l1_help(usual: f64) -> String {
    let others = TASKS.iter().filter(|task| task.l1_coefficient != usual);
    let others: Vec<String> = others
        .map(|task| format!("{} for {}", task.l1_coefficient, task.name))
        .collect();
    format!(
        "Weight of the sparsity penalty [default: {usual}, and {}, as the paper; of a task of your own as its \
         {TASK_FILE} says]",
        others.join(", ")
    )
}

/// Help of `--metric`.
pub(crate) fn metric_help() -> String {
    let names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    let tasks = TASKS.iter().filter(|task| task.metric.is_some());
    let usual = Metric::LogitDifference;
    let others = tasks.filter_map(|task| {
        let metric = task.metric?;
        (metric != usual).then(|| format!("{metric} for {}", task.name))
    });
    format!(
        "What is read from the model's output: {} [default: {}, {usual} for other tasks and prompts with \
         answers, else {}]",
        names.join(", "),
        others.collect::<Vec<_>>().join(", "),
        Metric::Contrast
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_before_paths() {
        assert!(matches!(parse_task("ioi"), Ok(TaskArg::Named(task)) if task.name == "ioi"));
        assert!(matches!(parse_task("./ioi"), Ok(TaskArg::Folder(_))));
        assert!(
            matches!(parse_task("src"), Ok(TaskArg::Folder(_))),
            "a folder that exists"
        );
        assert!(
            parse_task("iio")
                .unwrap_err()
                .to_string()
                .contains("did you mean `ioi`?")
        );
        assert_eq!(
            parse_circuit("gpt2-small").unwrap(),
            CircuitChoice::Of("gpt2-small".to_owned())
        );
        assert_eq!(
            parse_circuit("none.json").unwrap(),
            CircuitChoice::File(PathBuf::from("none.json"))
        );
        assert!(
            parse_circuit("gpt2-smal")
                .unwrap_err()
                .to_string()
                .contains("did you mean")
        );
    }
}
