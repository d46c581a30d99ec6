use std::path::PathBuf;

use circuitscope_core::files::describe;
use circuitscope_core::{Polarity, did_you_mean};

/// What can go wrong between activations and a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Training or encoding failed.
    #[error(transparent)]
    Sae(#[from] circuitscope_sae::Error),

    /// Codes could not be scored.
    #[error(transparent)]
    Score(#[from] circuitscope_score::Error),

    /// A measure is not defined for these scores.
    #[error(transparent)]
    Measure(#[from] crate::measures::Error),

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

    /// One of the two classes has no example.
    #[error("no {} examples: the method compares positive with negative ones", polarity_name(*polarity))]
    EmptyClass {
        /// The missing class.
        polarity: Polarity,
    },

    /// A pair that does not join a positive with a negative example.
    #[error("pair {at} does not join a positive example with a negative one")]
    Pair {
        /// Index of the pair.
        at: usize,
    },

    /// A method needs matched pairs and there are none.
    #[error("method `{method}` needs prompts in pairs: use --task or --pairs")]
    Unpaired {
        /// Its name.
        method: &'static str,
    },

    /// No method has this name.
    #[error(
        "unknown method `{name}`{}: expected {known}",
        did_you_mean(nearest.as_deref())
    )]
    UnknownMethod {
        /// As given.
        name: String,
        /// The most similar method.
        nearest: Option<String>,
        /// All methods.
        known: String,
    },

    /// A file of results could not be read or written.
    #[error("{}", describe(path, source))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },

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
        "{}: this folder holds results made with {key} = {found}, not {expected}; choose another --output",
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

    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

fn polarity_name(polarity: Polarity) -> &'static str {
    match polarity {
        Polarity::Positive => "positive",
        Polarity::Negative => "negative",
    }
}
