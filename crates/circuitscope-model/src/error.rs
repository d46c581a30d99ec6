use std::path::PathBuf;

use circuitscope_files::FileError;

use crate::precision::Precision;

/// What can go wrong when a model is loaded or given prompts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that could not be read or written, or is not safetensors where it should be.
    #[error(transparent)]
    File(#[from] FileError),

    /// A folder lacks a file that a model needs.
    #[error("{}: expected {expected}: found no {missing} in it", path.display())]
    NotAModel {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        missing: String,
        /// What would do.
        expected: &'static str,
    },

    /// Weights as PyTorch pickles them that cannot be read without running code, or not at all.
    #[error(
        "{}: {reason}; if you trust it, convert it once with: \
         python -c \"from transformers import AutoModelForCausalLM as M; \
         M.from_pretrained('{folder}').save_pretrained('{folder}')\"",
        path.display(),
        folder = path.parent().unwrap_or(path).display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },

    /// A configuration that is not valid JSON or lacks a field.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// Configuration keys that nobody knows, where these are not to be passed over
    /// ([`LoadSettings::strict_config`](crate::LoadSettings)).
    #[error("{}: unknown {} {}", path.display(), if keys.len() == 1 { "key" } else { "keys" }, keys.join(", "))]
    UnknownKeys {
        /// The file.
        path: PathBuf,
        /// Each key, with the most similar known one.
        keys: Vec<String>,
    },

    /// A value of a configuration that is not implemented.
    #[error("{}: {key} = {found} is not supported, expected {expected}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The values that are supported.
        expected: String,
    },

    /// A file that is not valid GGUF.
    #[error("{}: not a GGUF file that can be read: {reason}", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// Weights that do not fit the configuration. Lists everything at once.
    #[error("{}: the weights do not fit the configuration: {}", path.display(), problems.join("; "))]
    Weights {
        /// The file or folder.
        path: PathBuf,
        /// One line for each tensor that is missing, unused, of another shape or type, or not finite.
        problems: Vec<String>,
    },

    /// Weights in memory that do not fit the configuration. Lists everything at once.
    #[error("the weights do not fit the configuration: {}", problems.join("; "))]
    HostWeights {
        /// One line for each weight that is missing, too many or of another shape.
        problems: Vec<String>,
    },

    /// A tokenizer file that cannot be used.
    #[error("{}: {reason}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },

    /// A text with a word that a vocabulary of whole words does not have.
    #[error(
        "{text:?}: found the word {word:?}, expected words among the {words} of the model's vocabulary"
    )]
    UnknownWord {
        /// The text.
        text: String,
        /// Its first such word.
        word: String,
        /// Number of words in the vocabulary.
        words: usize,
    },

    /// A text that the tokenizer cannot encode.
    #[error("cannot tokenise {text:?}: {reason}")]
    Encode {
        /// The text.
        text: String,
        /// Why.
        reason: String,
    },

    /// A word that is not a single token.
    #[error("{word:?} is {tokens} tokens, expected one")]
    NotOneToken {
        /// The word.
        word: String,
        /// How many tokens it is.
        tokens: usize,
    },

    /// A beginning-of-sequence token was asked for and the model names none.
    #[error("the model names no beginning-of-sequence token")]
    NoBos,

    /// A conversation was asked for and the tokenizer has no template for one.
    #[error("the model's tokenizer has no chat template")]
    NoChatTemplate,

    /// A chat template that cannot be rendered.
    #[error("the tokenizer's chat template: {reason}")]
    ChatTemplate {
        /// Why.
        reason: String,
    },

    /// A prompt without tokens.
    #[error("prompt {prompt} has no tokens")]
    EmptyPrompt {
        /// Index of the prompt, from 0.
        prompt: usize,
    },

    /// A prompt longer than the model's context.
    #[error("prompt {prompt} has {length} tokens, the model takes at most {n_ctx}")]
    PromptTooLong {
        /// Index of the prompt, from 0.
        prompt: usize,
        /// Its length.
        length: usize,
        /// The model's context.
        n_ctx: usize,
    },

    /// A token that the model does not have.
    #[error("prompt {prompt} has token {token}, the model's tokens are 0 to {}", d_vocab - 1)]
    TokenOutOfRange {
        /// Index of the prompt, from 0.
        prompt: usize,
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        d_vocab: usize,
    },

    /// An attention mask that does not describe left or right padding.
    #[error("row {row} of the attention mask: found {found}, expected {expected}")]
    Mask {
        /// The row.
        row: usize,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },

    /// A model that cannot be written in the asked-for layout.
    #[error("cannot write this model as a {layout} folder: {reason}")]
    Save {
        /// The layout.
        layout: &'static str,
        /// Why not.
        reason: String,
    },

    /// A precision that the device's backend does not have.
    #[error("precision {precision}: not available on {device}; expected f32, or another device")]
    Precision {
        /// The precision.
        precision: Precision,
        /// The device.
        device: String,
    },

    /// A weight or an activation whose values are finite in the file and not in the model's precision.
    #[error("`{what}` overflows in {precision}{}", too_large(*precision))]
    Overflow {
        /// The weight or the [`Site`](circuitscope_hooks::Site): of all sites of a pass the first one.
        what: String,
        /// The precision.
        precision: Precision,
    },

    /// A capture went wrong.
    #[error(transparent)]
    Hooks(#[from] circuitscope_hooks::Error),

    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,

    /// A model could not be had from the hub.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
}

/// Result of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What there is to say where no other precision holds more.
fn too_large(precision: Precision) -> &'static str {
    match precision {
        Precision::F16 | Precision::Bf16 => "",
        Precision::F32 => ": the weights are too large for any precision here",
    }
}
