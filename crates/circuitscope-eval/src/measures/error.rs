/// Why a ranking cannot be measured.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
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
}

/// Result of the measures.
pub type Result<T, E = Error> = core::result::Result<T, E>;
