use std::path::PathBuf;

use circuitscope_files::FileError;

/// Why scores cannot be judged, or a run cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The truth and the scores do not speak of the same entries.
    #[error("found {scores} scores, expected {truth}, one for each entry of the known answer")]
    Length {
        /// Number of entries of the truth.
        truth: usize,
        /// Number of scores.
        scores: usize,
    },

    /// The known answer has no true entry, or no false one.
    #[error("all {entries} entries of the known answer are {}: a ranking cannot be judged", if *value { "true" } else { "false" })]
    OneClass {
        /// What all entries are.
        value: bool,
        /// Number of entries.
        entries: usize,
    },

    /// Ablating everything does not change the metric, so that shares of its effect mean nothing.
    #[error(
        "the metric is {full} for the full model and {empty} with everything ablated: there is no effect to share out"
    )]
    NoEffect {
        /// Of the full model.
        full: f64,
        /// With everything ablated.
        empty: f64,
    },

    /// A score that has no place in an order.
    #[error("score {at} is NaN")]
    NotANumber {
        /// Index of the score.
        at: usize,
    },

    /// Sizes that do not fit together.
    #[error("{what}: found {found}, expected {expected}")]
    Shape {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },

    /// A file of results could not be read or written.
    #[error(transparent)]
    Io(#[from] FileError),

    /// A file of results that is not as this crate writes it.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },

    /// An output folder that holds results of other settings.
    #[error(
        "{}: this folder holds results made with {key} = {found}, not {expected}",
        path.display()
    )]
    OtherSettings {
        /// The settings file.
        path: PathBuf,
        /// The first setting that differs.
        key: String,
        /// Its value there.
        found: String,
        /// Its value now.
        expected: String,
    },

    /// The settings of a folder of results are no longer what they were when the work began.
    #[error("{}: changed or removed since this evaluation began", path.display())]
    Overtaken {
        /// The settings file.
        path: PathBuf,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;
