use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::names::{CONFIG, TOKENIZER, VOCAB};
use crate::family::Findings;

/// What transformers' class of a tokenizer does beside reading `tokenizer.json`, by version 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Gpt2,
    GptNeoX,
    Qwen2,
    Llama,
    /// Nothing.
    Plain,
}

impl Class {
    /// The class that the tokenizer's configuration names, else the model's, else that of the kind of model. Qwen 2
    /// models have theirs whatever is named.
    pub(super) fn of(config: &Map<String, Value>, model: &Map<String, Value>) -> Self {
        let text = |map: &'_ Map<String, Value>, key| map.get(key)?.as_str().map(str::to_owned);
        let named = text(config, "tokenizer_class").or_else(|| text(model, "tokenizer_class"));
        let (named, model_type) = (named.as_deref(), text(model, "model_type"));
        let model_type = model_type.as_deref();
        match (named.map(|name| name.trim_end_matches("Fast")), model_type) {
            (_, Some("qwen2")) | (Some("Qwen2Tokenizer"), _) | (None, Some("qwen3")) => Self::Qwen2,
            (Some("GPT2Tokenizer"), _) | (None, Some("gpt2" | "gptj" | "opt")) => Self::Gpt2,
            (Some("GPTNeoXTokenizer"), _) | (None, Some("gpt_neox")) => Self::GptNeoX,
            (Some("LlamaTokenizer"), _) => Self::Llama,
            _ => Self::Plain,
        }
    }

    /// Brings the pipeline in line with `add_prefix_space`: whether a text is read as if a space stood before it. Tells
    /// whether anything changed.
    pub(super) fn prefix_space(
        self,
        config: &Map<String, Value>,
        json: &mut Value,
        findings: &Findings,
    ) -> bool {
        let asked = config.get("add_prefix_space").and_then(Value::as_bool);
        match (self, asked) {
            (Self::Gpt2 | Self::GptNeoX | Self::Qwen2, _) => {
                let prefix = asked.unwrap_or(false);
                let changed = set_prefix(&mut json["pre_tokenizer"], prefix);
                if changed {
                    findings.note(format!(
                        "texts are read {} a space before them: {CONFIG} and its class count, not {TOKENIZER}",
                        if prefix { "with" } else { "without" }
                    ));
                }
                changed
            }
            (Self::Llama, Some(false)) => {
                if json["pre_tokenizer"]["type"] == "Metaspace" {
                    json["pre_tokenizer"]["prepend_scheme"] = json!("never");
                }
                let parts = json.pointer_mut("/normalizer/normalizers");
                if let Some(parts) = parts.and_then(Value::as_array_mut) {
                    parts.retain(|part| part["type"] != "Prepend");
                }
                true
            }
            _ => false,
        }
    }

    /// Special tokens that the class has where its configuration does not speak of them, if the vocabulary has them.
    pub(super) fn defaults(
        self,
        config: &Map<String, Value>,
        inner: &tokenizers::Tokenizer,
        files: &BTreeMap<&'static str, Cow<'_, [u8]>>,
    ) -> Vec<AddedToken> {
        let (names, tokens): (&[&str], &[&str]) = match self {
            Self::Gpt2 | Self::GptNeoX => (
                &["bos_token", "eos_token", "unk_token"],
                &["<|endoftext|>"; 3],
            ),
            Self::Qwen2 => (&["eos_token", "unk_token"], &["<|endoftext|>"; 2]),
            Self::Llama => (
                &["bos_token", "eos_token", "unk_token"],
                &["<s>", "</s>", "<unk>"],
            ),
            Self::Plain => (&[], &[]),
        };
        let new = files.contains_key(VOCAB);
        let silent = names.iter().zip(tokens).filter(|(name, token)| {
            !config.contains_key(**name) && (new || inner.token_to_id(token).is_some())
        });
        silent
            .map(|(_, token)| AddedToken::from(*token, true))
            .collect()
    }

    /// Whether the beginning-of-sequence token goes before a text; `None` if that is the post-processor's to say, which
    /// puts `first` there.
    pub(super) fn adds_bos(
        self,
        config: &Map<String, Value>,
        source: &str,
        first: Option<u32>,
        findings: &Findings,
    ) -> Option<bool> {
        let asked = config.get("add_bos_token").and_then(Value::as_bool);
        if source == VOCAB {
            return Some(asked.unwrap_or(false));
        }
        let adds = first.is_some() && self != Self::GptNeoX;
        if asked.is_some_and(|asked| asked != adds) {
            findings.note(format!(
                "{CONFIG} has `add_bos_token`: {}, but {TOKENIZER} puts {} before a text, which counts as in \
                 transformers 5",
                !adds,
                if adds { "a token" } else { "nothing" }
            ));
        }
        (self == Self::GptNeoX).then_some(false)
    }
}

/// Whether anything changed.
fn set_prefix(pre_tokenizer: &mut Value, prefix: bool) -> bool {
    if pre_tokenizer["type"] == "ByteLevel" {
        let before = pre_tokenizer["add_prefix_space"].as_bool();
        pre_tokenizer["add_prefix_space"] = json!(prefix);
        return before != Some(prefix);
    }
    let parts = pre_tokenizer.get_mut("pretokenizers");
    let parts = parts.and_then(Value::as_array_mut).into_iter().flatten();
    let mut changed = false;
    for part in parts {
        changed |= set_prefix(part, prefix);
    }
    changed
}
