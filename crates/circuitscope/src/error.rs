use circuitscope_core::HeadGrid;
use circuitscope_tasks::Task;

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

    /// A dictionary failed.
    #[error(transparent)]
    Sae(#[from] circuitscope_sae::Error),

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

    /// A result could not be read back from the device.
    #[error("the device failed: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },

    /// No circuit of this task is known in this model, so that nothing can be judged.
    #[error(
        "no circuit is known for task `{task}` in {model}: `eval` needs one (known: in GPT-2 small, \
         attn-only-4l and the reference model, told by their names on the hub and the hashes of their \
         weights; --circuit names one all the same); `discover` does not"
    )]
    NoKnownCircuit {
        /// The task.
        task: Task,
        /// Name of the model.
        model: String,
    },

    /// The circuits of a model were asked for that has none for the task.
    #[error(
        "no circuit is known for task `{task}` in {circuit}: --circuit names a model that has one"
    )]
    NoCircuitIn {
        /// The task.
        task: Task,
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

    /// A task without any known circuit was to be judged.
    #[error("found no known circuit to judge a task by, expected at least one")]
    NoTruths,
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;
