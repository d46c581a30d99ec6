use std::path::PathBuf;

use circuitscope_files::FileError;

/// Why a sweep cannot be planned, run or merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A plan that is no TOML.
    #[error("{}: {reason}", file.display())]
    NotToml {
        /// The plan.
        file: PathBuf,
        /// Where, and why.
        reason: String,
    },

    /// Two entries of a plan that stand for the same work.
    #[error("{}: {field}: found {first} and {second}, which are the same work, expected entries that differ", file.display())]
    Twice {
        /// The plan.
        file: PathBuf,
        /// The field.
        field: &'static str,
        /// One.
        first: String,
        /// The other.
        second: String,
    },

    /// A file of the user's that could not be read or written, or a field of a plan that is not as it should be.
    #[error(transparent)]
    File(#[from] FileError),

    /// A store that cannot be opened, or an object that cannot be read or written.
    #[error("{object}: {what}: {reason}")]
    Store {
        /// The object, by its address.
        object: String,
        /// What was tried.
        what: &'static str,
        /// What the store says.
        reason: String,
    },

    /// A store that overwrites where it was asked to make something new.
    #[error(
        "{place}: this store overwrites an object where it was asked to make a new one, expected one that honours conditional puts \
         (`If-None-Match: *`): without them two workers could run the same cell"
    )]
    Unconditional {
        /// The store.
        place: String,
    },

    /// An object that is not what this crate writes.
    #[error("{object}: not what a sweep wrote: {reason}; delete it to make it again")]
    Object {
        /// The object, by its address.
        object: String,
        /// Why.
        reason: String,
    },

    /// A store without a plan.
    #[error("{place}: found no plan.json, expected the store of a sweep that was planned")]
    NoPlan {
        /// The store.
        place: String,
    },

    /// Cells that no worker has finished.
    #[error("{place}: found {done} of {all} cells done, the first that is missing is {first}")]
    Unfinished {
        /// The store.
        place: String,
        /// Cells that are done.
        done: usize,
        /// All of them.
        all: usize,
        /// The first that is not.
        first: String,
    },

    /// A share of the work that does not exist.
    #[error("{what}: found {found}, expected {expected}")]
    Share {
        /// The option, or the variables of the environment.
        what: String,
        /// What they say.
        found: String,
        /// What they may say.
        expected: String,
    },

    /// A query, or what DataFusion makes of the tables.
    #[error("{what}: {reason}")]
    Table {
        /// What was computed.
        what: &'static str,
        /// Why it could not be.
        reason: String,
    },

    /// The claims of this worker were given back, because it is to stop.
    #[error("the work was given back")]
    GivenBack,

    /// The thread that says that a worker is alive could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;
