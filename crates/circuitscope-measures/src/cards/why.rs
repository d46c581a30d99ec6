use circuitscope_core::Node;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a head attends from one position to another: its score there, taken apart into what writes the query and what
/// writes the key, with norms as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// Place of the pair in [`Cards::prompts`](super::Cards::prompts), from 0; the positive prompt.
    pub prompt: usize,
    /// The position attended from.
    pub destination: usize,
    /// The position attended to.
    pub source: usize,
    /// Attention there.
    pub attention: f64,
    /// The score before the softmax, less the mean score of the positions that may be attended to.
    pub score: f64,
    /// Its largest terms, largest first.
    pub terms: Vec<QkTerm>,
    /// All other terms together: with [`terms`](Self::terms) they add up to [`score`](Self::score).
    pub rest: f64,
}

/// One term of a score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QkTerm {
    /// What writes the query's part; absent for biases.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    pub query: Option<Node>,
    /// What writes the key's part, at the source less its mean over positions; absent for biases.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    pub key: Option<Node>,
    /// What it adds to the score.
    pub value: f64,
}
