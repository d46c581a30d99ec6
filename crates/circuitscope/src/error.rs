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

    /// An answer without any text.
    #[error("an answer is empty: expected the text of a next token")]
    EmptyAnswer,

    /// No circuit of this task is known in this model, so that nothing can be judged.
    #[error(
        "no circuit is known for task `{task}` in a model of {} layers × {} heads: `eval` needs one \
         (known: GPT-2 small, attn-only-4l, the reference model); `discover` does not",
        grid.n_layers, grid.n_heads
    )]
    NoKnownCircuit {
        /// The task.
        task: Task,
        /// Shape of the model.
        grid: HeadGrid,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;
