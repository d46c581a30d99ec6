use circuitscope_core::HeadId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which head carries which variable of the prompts: normalised mutual information of clusters of what heads put out where they
/// matter (k-means) and the values of variables (after `InfoMEC`, Hsu et al. 2023, arXiv 2305.18378, where latents stand for heads).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariableTable {
    /// Names, with how many values occur.
    pub variables: Vec<(String, usize)>,
    /// The heads of the circuit.
    #[schemars(with = "Vec<String>")]
    pub heads: Vec<HeadId>,
    /// `[variables][heads]`.
    pub cells: Vec<Vec<VariableCell>>,
    /// Prompts that the table is of.
    pub prompts: usize,
    /// Variables that nothing can be told of: those with one value, and those of which most prompts have a value of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// One variable and one head.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariableCell {
    /// Mutual information over the entropy of the variable, with Miller's correction for few prompts; may be a little below 0.
    pub information: f64,
    /// The 95 % point of that where values are dealt out anew among prompts.
    pub null: f64,
    /// Share of such deals with as much, the observed one counted.
    pub p: f64,
    /// Of the values that a guess of the most frequent one gets wrong, the share that a table from code to value, learnt
    /// on half of the pairs, gets right on the other half; below 0 where it does worse.
    pub held_out: f64,
}
