use std::path::PathBuf;

use circuitscope_core::did_you_mean;
use circuitscope_core::files::describe;

use crate::Site;

/// What can go wrong with sites, captures and activation files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A site name that this model does not have.
    #[error("this model has no site `{name}`{}", did_you_mean(nearest.as_deref()))]
    UnknownSite {
        /// As given.
        name: String,
        /// The most similar site of the model.
        nearest: Option<String>,
    },

    /// A site was wanted but no forward pass reached it.
    #[error("site `{site}` was wanted but never fired")]
    NeverFired {
        /// The site.
        site: Site,
    },

    /// A file could not be read or written.
    #[error("{}", describe(path, source))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },

    /// A file that is not a safetensors file.
    #[error("{}: not a safetensors file: {reason}", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A field of a file is missing or wrong.
    #[error("{}: {field}: found {found}, expected {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The tensor or metadata key.
        field: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;
