use circuitscope_files::FileError;

/// What can go wrong where dictionaries and models meet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Of the model.
    #[error(transparent)]
    Model(#[from] circuitscope_model::Error),

    /// Of the dictionary.
    #[error(transparent)]
    Sae(#[from] circuitscope_sae::Error),

    /// Of what was captured.
    #[error(transparent)]
    Hooks(#[from] circuitscope_hooks::Error),

    /// A file that could not be read or written, or is not as it should be.
    #[error(transparent)]
    File(#[from] FileError),

    /// A dictionary, a site and a model that do not fit each other.
    #[error("{what}: found {found}, expected {expected}")]
    Unfit {
        /// What does not fit.
        what: String,
        /// As it is.
        found: String,
        /// As it should be.
        expected: String,
    },

    /// A number that is not finite where only finite ones can be.
    #[error("found NaN or infinity: the model or the dictionary overflows in this precision")]
    NotFinite,

    /// What was computed could not be read back from the device.
    #[error("reading from the device: {reason}")]
    Device {
        /// As the device says it.
        reason: String,
    },

    /// Work was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;
