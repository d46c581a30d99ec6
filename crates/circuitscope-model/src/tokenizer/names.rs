//! Names of the files.

/// The tokenizer itself.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL: &str = "special_tokens_map.json";
pub(super) const ADDED: &str = "added_tokens.json";
pub(super) const CHAT: &str = "chat_template.jinja";
pub(super) const VOCAB: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";

/// Files of a model's folder that say what its tokenizer is.
pub(crate) const TOKENIZER_FILES: [&str; 7] =
    [TOKENIZER, CONFIG, SPECIAL, ADDED, CHAT, VOCAB, MERGES];
