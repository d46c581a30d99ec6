use circuitscope_core::{Polarity, did_you_mean};
use circuitscope_model::Precision;

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

    /// A measure is not defined for these scores, or a run could not be kept.
    #[error(transparent)]
    Measure(#[from] circuitscope_measures::Error),

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
    #[error("pair {} does not join a positive example with a negative one", at + 1)]
    Pair {
        /// Index of the pair, from 0; told from 1.
        at: usize,
    },

    /// A method needs matched pairs and there are none.
    #[error("method `{method}` needs prompts in pairs")]
    Unpaired {
        /// Its name.
        method: String,
    },

    /// A method changes or differentiates the model, and there is none.
    #[error(
        "method `{method}` runs the model on prompts in pairs with answers, and there is no such model beside the activations"
    )]
    NeedsModel {
        /// Its name.
        method: String,
    },

    /// Circuits of growing size are to be run, and there is no model.
    #[error(
        "choosing by the knee runs the model on prompts in pairs, and there is no such model beside the activations"
    )]
    KneeNeedsModel,

    /// The gradient that a method reads is zero by construction.
    #[error(
        "method `{method}` differentiates the metric at the unchanged prompts, where the gradient of `kl` is zero"
    )]
    FlatMetric {
        /// Its name.
        method: String,
    },

    /// A method's score needs more examples, or pairs of them.
    #[error("{what}: found {found}, expected {expected}")]
    TooFew {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many it takes.
        expected: usize,
    },

    /// No pair of prompts to change the model on.
    #[error("no pairs of prompts: found 0, expected at least 1")]
    NoPairs,

    /// The prompts of a pair do not align.
    #[error(transparent)]
    Unaligned(#[from] Unaligned),

    /// A metric reads answers that a pair does not have.
    #[error(
        "pair {}: found no {what}, which the metric `{metric}` reads",
        pair + 1
    )]
    NoAnswers {
        /// Index of the pair, from 0; told from 1.
        pair: usize,
        /// `answers` or `wrong answers`.
        what: &'static str,
        /// The metric.
        metric: circuitscope_core::Metric,
    },

    /// Outputs are resampled, and no other positive prompt has as many tokens as that of a pair.
    #[error(
        "reference `resample`: pair {}: found no other positive prompt of {tokens} tokens, expected one for each pair",
        pair + 1
    )]
    NoPartner {
        /// Index of the pair, from 0; told from 1.
        pair: usize,
        /// Tokens of its positive prompt.
        tokens: usize,
    },

    /// A metric that compares with the whole model cannot tell a circuit from it.
    #[error(
        "tests of a circuit: metric `{metric}` is 0 on the whole model whatever it does, expected another one to compare the \
         circuit in"
    )]
    NoTests {
        /// The metric.
        metric: circuitscope_core::Metric,
    },

    /// A method reads answers that a pair does not have.
    #[error("method `{method}` reads the answers: pair {} has none; give them in the file", pair + 1)]
    MethodNeedsAnswers {
        /// Its name.
        method: String,
        /// Index of the pair, from 0; told from 1.
        pair: usize,
    },

    /// A node that the model does not have, or that neither writes nor reads.
    #[error("{node}: the model has no such node, or it cannot be the end of a path")]
    NoSuchNode {
        /// The node.
        node: circuitscope_core::Node,
    },

    /// A position to read the output at that the prompt does not have.
    #[error("pair {}: position {position} of a prompt of {tokens} tokens, expected at most {}", pair + 1, tokens - 1)]
    Position {
        /// Index of the pair, from 0; told from 1.
        pair: usize,
        /// The position.
        position: usize,
        /// Length of the prompt.
        tokens: usize,
    },

    /// An answer that is no token of the model.
    #[error("pair {}: found answer token {token}, expected 0 to {}", pair + 1, vocabulary - 1)]
    AnswerToken {
        /// Index of the pair, from 0; told from 1.
        pair: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },

    /// The scores of a method cannot be made under other labels.
    #[error(
        "method `{method}` has no null of labels: expected one that gives other scores to other labels without starting anew, such as `sae`, `recommended-activations` or `eap`, to choose at a false discovery rate"
    )]
    NoNull {
        /// Its name.
        method: String,
    },

    /// A method that reads outputs at the last position, and evidence without them.
    #[error("method `{method}` reads what heads put out at the last position: capture it, too")]
    NeedsLast {
        /// Its name.
        method: String,
    },

    /// Outputs at the last position that are of other examples.
    #[error(
        "example {} is {} at the last position and {} among the means over positions: expected the same examples",
        example + 1, polarity_name(*found), polarity_name(*expected)
    )]
    OtherExamples {
        /// Index of the example, from 0; told from 1.
        example: usize,
        /// Its label at the last position.
        found: Polarity,
        /// Its label among the means.
        expected: Polarity,
    },

    /// A method that would have to run the model again for each resample of the prompts.
    #[error(
        "method `{method}` would start anew on each half of the prompts: expected a method that scores resamples, such as `sae`, `recommended` or `eap`, to choose by stability"
    )]
    NoResamples {
        /// Its name.
        method: String,
    },

    /// No metric, ablation or number of edges has this name.
    #[error(transparent)]
    UnknownName(#[from] circuitscope_core::UnknownName),

    /// A file of scores that is not as it should be.
    #[error(transparent)]
    Format(#[from] circuitscope_measures::formats::FormatError),

    /// A file of scores whose row would have no name of its own.
    #[error("{}: {problem}", .path.display())]
    RowName {
        /// The file.
        path: std::path::PathBuf,
        /// What was found, and what was expected.
        problem: String,
    },

    /// The model could not be run.
    #[error(transparent)]
    Model(#[from] circuitscope_model::Error),

    /// A site did not fire.
    #[error(transparent)]
    Hooks(#[from] circuitscope_hooks::Error),

    /// A result could not be read back from the device.
    #[error("the device failed: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },

    /// What a method read is not finite, though what the model computes on the unchanged prompts is.
    #[error("what the method reads is NaN or infinite{}", overflow(*precision))]
    NotFinite {
        /// What the model computes in, where a model was run.
        precision: Option<Precision>,
    },

    /// Scores that are not finite.
    #[error(
        "method `{method}`{}, seed {seed}: {what}{}",
        task.as_ref().map_or_else(String::new, |task| format!(" on task {task}")),
        cause.as_ref().map_or_else(String::new, |cause| format!(": {cause}"))
    )]
    Scores {
        /// The method.
        method: String,
        /// The task, where there is one.
        task: Option<String>,
        /// The seed.
        seed: u64,
        /// What is not finite.
        what: String,
        /// Where it ceased to be, where a model was run.
        cause: Option<Box<Self>>,
    },

    /// The gradient of a metric says nothing.
    #[error(
        "method `{method}` differentiates the metric, and `{metric}` is a count that small changes leave as it is"
    )]
    NoGradient {
        /// Name of the method.
        method: String,
        /// The metric.
        metric: circuitscope_core::Metric,
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

    /// Examples that a method fits something on, and too few of them.
    #[error("{what}: found {found}, expected {expected}")]
    TooFewExamples {
        /// What they are for.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },

    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Two prompts of a pair whose tokens cannot be said to correspond.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place}: prompts of {positive} and {negative} tokens that cannot be aligned: {why}; methods that run \
     the model again patch position by position: name the parts that correspond in `spans`, or take a \
     method that reads means over positions"
)]
pub struct Unaligned {
    /// Which pair: file and line, or its number.
    pub place: String,
    /// Tokens of the positive prompt.
    pub positive: usize,
    /// Tokens of the negative prompt.
    pub negative: usize,
    /// Why not.
    pub why: String,
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

impl Error {
    /// The same with the task in which it came up.
    pub(crate) fn of_task(self, name: &str) -> Self {
        match self {
            Self::Scores {
                method,
                seed,
                what,
                cause,
                ..
            } => Self::Scores {
                method,
                task: Some(name.to_owned()),
                seed,
                what,
                cause,
            },
            other => other,
        }
    }
}

fn polarity_name(polarity: Polarity) -> &'static str {
    match polarity {
        Polarity::Positive => "positive",
        Polarity::Negative => "negative",
    }
}

fn overflow(precision: Option<Precision>) -> String {
    let Some(precision) = precision else {
        return String::new();
    };
    format!(
        ", and the unchanged prompts are not: a changed run or a gradient overflows in {precision}"
    )
}
