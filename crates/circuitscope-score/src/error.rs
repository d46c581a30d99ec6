use circuitscope_core::{HeadId, Polarity};
use circuitscope_files::FileError;

/// What can go wrong with codes, their scores and their files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A score that weighs codes by their amplitude, of a table without amplitudes.
    #[error("codes without amplitudes: expected a table made with them")]
    NoAmplitudes,

    /// A model without heads has nothing to score.
    #[error("a model of {n_layers} layers × {n_heads} heads has no heads to score")]
    NoHeads {
        /// Number of layers.
        n_layers: usize,
        /// Number of heads in each layer.
        n_heads: usize,
    },

    /// The number of codes is not examples × heads.
    #[error("found {found} codes, expected {examples} examples × {heads} heads = {}", examples * heads)]
    CodeCount {
        /// Number of codes given.
        found: usize,
        /// Number of labels given.
        examples: usize,
        /// Number of heads of the model.
        heads: usize,
    },

    /// An amplitude that is none.
    #[error("amplitude of example {example}, head {head}: found {found}, expected a finite number")]
    Amplitude {
        /// Index of the example.
        example: usize,
        /// Index of the head.
        head: usize,
        /// What is there.
        found: f32,
    },

    /// A number that is no code.
    #[error(
        "code of example {example}, head {head}: found {found}, expected a feature index or -1 (inactive)"
    )]
    Code {
        /// Index of the example.
        example: usize,
        /// The head.
        head: HeadId,
        /// The number.
        found: i64,
    },

    /// One of the two classes has no example.
    #[error("no {} examples: scores compare positive with negative ones", polarity_name(*polarity))]
    EmptyClass {
        /// The missing class.
        polarity: Polarity,
    },

    /// A variable with one value alone.
    #[error("every value of the variable is the same: there is nothing to tell")]
    NoVariation,

    /// No pairs to compare.
    #[error("no pairs of a positive and a negative example")]
    NoPairs,

    /// A pair that does not join a positive with a negative example of the table.
    #[error(
        "pair {} ({positive}, {negative}): expected a positive and a negative example among {examples}",
        at + 1
    )]
    Pair {
        /// Index of the pair, from 0; told from 1.
        at: usize,
        /// Its first example, which should be positive.
        positive: usize,
        /// Its second example, which should be negative.
        negative: usize,
        /// Number of examples.
        examples: usize,
    },

    /// A selection names an example that is not there.
    #[error("row {at} of a selection: found example {found}, expected one of {examples}")]
    Row {
        /// Index within the selection.
        at: usize,
        /// The example it names.
        found: usize,
        /// Number of examples.
        examples: usize,
    },

    /// An example that is matched more than once cannot be drawn with its match.
    #[error(
        "pair {}: example {example} is in an earlier pair: expected each example in one pair",
        at + 1
    )]
    PairedTwice {
        /// Index of the later pair, from 0; told from 1.
        at: usize,
        /// The example.
        example: usize,
    },

    /// Half of a class is no example at all.
    #[error(
        "{found} {} example: expected at least 2 to take half of them", polarity_name(*polarity)
    )]
    TooFewToHalve {
        /// The class.
        polarity: Polarity,
        /// Number of its examples.
        found: usize,
    },

    /// Too few values for a statistic.
    #[error("{what}: found {found} values, expected at least {expected}")]
    TooFew {
        /// What the values are.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are needed.
        expected: usize,
    },

    /// Two lists that belong together have different lengths.
    #[error("{what}: found {found} values, expected {expected}")]
    Length {
        /// What the values are.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },

    /// A number outside of what is allowed.
    #[error("{what}: found {found}, expected {expected}")]
    Value {
        /// What the number is.
        what: &'static str,
        /// The number.
        found: f64,
        /// What is allowed.
        expected: &'static str,
    },

    /// A file that could not be read or written, or is not as it should be.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

const fn polarity_name(polarity: Polarity) -> &'static str {
    match polarity {
        Polarity::Positive => "positive",
        Polarity::Negative => "negative",
    }
}
