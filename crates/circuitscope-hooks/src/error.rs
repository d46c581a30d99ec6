use circuitscope_core::did_you_mean;
use circuitscope_files::FileError;

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

    /// A file that could not be read or written, or is not as it should be.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;
