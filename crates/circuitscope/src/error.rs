use std::path::PathBuf;

use circuitscope_core::HeadGrid;
use circuitscope_measures::formats::FormatError;

/// Everything that can go wrong from files to circuit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] circuitscope_model::Error),

    /// Prompts or known circuits could not be had.
    #[error(transparent)]
    Tasks(#[from] circuitscope_tasks::Error),

    /// A method failed.
    #[error(transparent)]
    Eval(#[from] circuitscope_eval::Error),

    /// Results could not be kept, read or judged.
    #[error(transparent)]
    Measures(#[from] circuitscope_measures::Error),

    /// A dictionary failed.
    #[error(transparent)]
    Sae(#[from] circuitscope_sae::Error),

    /// A page could not be made or written.
    #[error(transparent)]
    Report(#[from] circuitscope_report::Error),

    /// Answers that cannot be read.
    #[error("{place}: field \"{field}\": {problem}")]
    Answers {
        /// Which pair: file and line, or its number.
        place: String,
        /// The field.
        field: String,
        /// What is wrong, and what was expected.
        problem: String,
    },

    /// The same, with where it is: file, line or prompt.
    #[error("{place}")]
    At {
        /// Where.
        place: String,
        /// What is wrong there.
        source: Box<Self>,
    },

    /// A prompt is in the chat template already.
    #[error(
        "{place}: found `{mark}`, which the chat template writes, expected a message without it"
    )]
    InTemplate {
        /// Where the prompt stands.
        place: String,
        /// What the template writes.
        mark: String,
    },

    /// The name of a model names none.
    #[error("{name}: {problem}")]
    ModelName {
        /// The name.
        name: String,
        /// What was found, and what was expected.
        problem: String,
    },

    /// A result could not be read back from the device.
    #[error("the device failed: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },

    /// No circuit of this task is known in this model, so that nothing can be judged.
    #[error(
        "no circuit is known for task `{task}` in {model} (known: in GPT-2 small, attn-only-4l and the \
         reference model, told by their names on the hub and the hashes of their weights)"
    )]
    NoKnownCircuit {
        /// The task.
        task: String,
        /// Name of the model.
        model: String,
    },

    /// A task of the user's own has no circuit of this model, so that nothing can be judged.
    #[error(
        "no circuit is known for task `{task}` in {model} (known in {}: {})",
        .file.display(), listed(.models)
    )]
    NoOwnCircuit {
        /// The task.
        task: String,
        /// Name of the model.
        model: String,
        /// The file of the task.
        file: PathBuf,
        /// Whose circuits it lists.
        models: Vec<String>,
    },

    /// An earlier evaluation in the folder judged a task by something else.
    #[error("{}: found other {what} of task {task}, expected those of this command", .file.display())]
    JudgedOtherwise {
        /// What the earlier one was judged by.
        file: PathBuf,
        /// `prompts` or `known circuits`.
        what: &'static str,
        /// The task.
        task: String,
    },

    /// Runs of a task, and nothing that says what they were judged by.
    #[error(
        "{}: not there, expected what the runs of task {task} were judged by; the command of `eval` that made them writes it",
        .file.display()
    )]
    JudgedBy {
        /// The file that should say.
        file: PathBuf,
        /// The task.
        task: String,
    },

    /// A file does not hold a circuit that heads can be judged by.
    #[error("{}: {problem}", .file.display())]
    CircuitFile {
        /// The file.
        file: PathBuf,
        /// What was found, and what was expected.
        problem: String,
    },

    /// A file of another tool's circuit could not be read.
    #[error(transparent)]
    Format(#[from] FormatError),

    /// The circuits of a model were asked for that has none for the task.
    #[error("no circuit is known for task `{task}` in {circuit}")]
    NoCircuitIn {
        /// The task.
        task: String,
        /// One of [`circuitscope_tasks::MODELS`].
        circuit: String,
    },

    /// The circuits of a model of another shape were asked for.
    #[error(
        "the circuits of {circuit} are of {} layers × {} heads, the model has {} × {}",
        expected.n_layers, expected.n_heads, found.n_layers, found.n_heads
    )]
    CircuitShape {
        /// Whose circuits.
        circuit: String,
        /// Their shape.
        expected: HeadGrid,
        /// The model's.
        found: HeadGrid,
    },

    /// Circuits of tasks were to be run on each other, and there are no two.
    #[error("found {found} task{}, expected at least 2", if *found == 1 { "" } else { "s" })]
    OneTask {
        /// How many there are.
        found: usize,
    },

    /// A method that takes no dictionary was to use one.
    #[error("{}: found method {method}, expected sae or sae-corrected, which take a dictionary", .folder.display())]
    TakesNoDictionary {
        /// The dictionary.
        folder: PathBuf,
        /// The method.
        method: String,
    },

    /// A dictionary of another site, of the right width.
    #[error("{unfit} ({takes_it} takes it all the same)")]
    OtherSite {
        /// What does not fit.
        unfit: circuitscope_sae::Error,
        /// What takes it all the same.
        takes_it: String,
    },

    /// A task without any known circuit was to be judged.
    #[error("found no known circuit to judge a task by, expected at least one")]
    NoTruths,
}

fn listed(models: &[String]) -> String {
    if models.is_empty() {
        "it lists none".to_owned()
    } else {
        format!("it lists those of {}", models.join(", "))
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;
