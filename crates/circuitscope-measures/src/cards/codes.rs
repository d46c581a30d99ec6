use circuitscope_core::Polarity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one code of a head stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CodeCard {
    /// The feature, or −1 where none is active.
    pub code: i32,
    /// On how many positive prompts the head has it.
    pub positives: usize,
    /// On how many negative ones, read at the same positions with the same weights.
    pub negatives: usize,
    /// Its part of the head's effect: those of all codes add up to that.
    pub effect: f64,
    /// The token where the head's contribution along the code's atom is largest, on most of the prompts that carry it.
    pub token: String,
    /// On how many of them.
    pub at_token: usize,
    /// Prompts that carry it, those with the largest contribution first.
    pub prompts: Vec<CodePrompt>,
    /// Tokens whose logits the head raises most above its mean on prompts that carry it.
    pub promotes: Vec<String>,
    /// Tokens that the atom alone raises most through the unembedding; empty where none is active.
    pub atom_up: Vec<String>,
    /// Tokens that it lowers most.
    pub atom_down: Vec<String>,
    /// Tokens that foretell the code, where it is on enough prompts to learn that from half of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<TokenRule>,
}

/// A prompt that carries a code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CodePrompt {
    /// Its pair, from 1.
    pub pair: usize,
    /// Which prompt of the pair.
    #[schemars(with = "String")]
    pub class: Polarity,
    /// The token where the head's contribution along the code's atom is largest.
    pub token: String,
    /// Its position.
    pub position: usize,
    /// The token attended to that most of that contribution comes from.
    pub from: String,
    /// Its position.
    pub from_position: usize,
}

/// The rule *the prompt holds one of these tokens*, learnt on one half of the pairs and tried on the other.
///
/// What any explanation of a code in words has to beat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenRule {
    /// The tokens.
    pub tokens: Vec<String>,
    /// Balanced accuracy on the half that they were chosen on.
    pub learnt: f64,
    /// Balanced accuracy on the other half.
    pub tried: f64,
    /// Mean balanced accuracy there of rules of as many tokens drawn at random.
    pub random: f64,
    /// Their 95 % point.
    pub random_high: f64,
}
