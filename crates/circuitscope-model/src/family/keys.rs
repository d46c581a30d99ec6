use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use circuitscope_core::nearest;
use serde_json::{Map, Value, json};

use super::findings::{Change, Findings, changes, same};
use crate::config::Activation;
use crate::{Error, Result};

/// Keys of any Hugging Face configuration that cannot change a forward pass in evaluation mode.
const GENERAL: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "add_bos_token",
    "architectures",
    "attention_dropout",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "label2id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    // Read where the weights are ([`crate::quantised`]), not here.
    crate::quantised::KEY,
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
];

/// Names of nonlinearities in configurations.
pub const ACTIVATIONS: [(&str, Activation); 7] = [
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu", Activation::GeluExact),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
];

/// A configuration read key by key. A key that is neither read nor listed as one that cannot change the forward
/// pass is refused if it is known to change that of some model, and noted otherwise.
pub struct Keys<'a> {
    path: &'a Path,
    /// Prefix of keys in errors, with its dot; empty at the top.
    section: String,
    json: &'a Map<String, Value>,
    known: RefCell<BTreeSet<&'static str>>,
    findings: &'a Findings,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(
        path: &'a Path,
        json: &'a Map<String, Value>,
        findings: &'a Findings,
    ) -> Self {
        Self {
            path,
            section: String::new(),
            json,
            known: RefCell::default(),
            findings,
        }
    }

    /// Whether the key is there, be it null.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.json.contains_key(key)
    }

    /// Something worth a sentence in the model's provenance.
    pub fn note(&self, note: &str) {
        self.findings.note(format!("config.json: {note}"));
    }

    /// Refuses null where transformers does: for what always has a value.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the first that is null.
    pub fn never_null(&self, keys: &[&'static str]) -> Result<()> {
        for key in keys {
            if self.json.get(*key).is_some_and(Value::is_null) {
                return Err(self.unsupported(key, &Value::Null, "a value, or no such key"));
            }
        }
        Ok(())
    }

    /// A number whose default in its family is not neutral: absent it is that default, with a note; null switches it
    /// off.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is not a finite positive number.
    pub fn nullable_or(&self, key: &'static str, default: f64) -> Result<Option<f64>> {
        if self.has(key) {
            return self.number(key);
        }
        self.note(&format!(
            "no `{key}`, so it is {default} as in transformers"
        ));
        Ok(Some(default))
    }

    /// An object inside this one.
    #[must_use]
    pub fn section<'b>(&self, name: &str, json: &'b Map<String, Value>) -> Keys<'b>
    where
        'a: 'b,
    {
        Keys {
            path: self.path,
            section: format!("{name}."),
            json,
            known: RefCell::default(),
            findings: self.findings,
        }
    }

    /// An object inside this one that is a configuration of its own.
    #[must_use]
    pub fn within<'b>(&self, json: &'b Map<String, Value>) -> Keys<'b>
    where
        'a: 'b,
    {
        Keys::new(self.path, json, self.findings)
    }

    /// The value, `None` if the key is absent or null.
    pub fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().insert(key);
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// The error for a key whose value this family does not have.
    #[must_use]
    pub fn unsupported(&self, key: &str, found: &Value, expected: &str) -> Error {
        Error::Unsupported {
            path: self.path.to_owned(),
            key: format!("{}{key}", self.section),
            found: found.to_string(),
            expected: expected.to_owned(),
        }
    }

    /// The error for a key that must be there and is not.
    #[must_use]
    pub fn missing(&self, key: &str) -> Error {
        Error::Config {
            path: self.path.to_owned(),
            reason: format!("key `{}{key}` is missing", self.section),
        }
    }

    /// A positive integer, at most 2³² − 1.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is something else; [`Error::Config`] if it is neither there nor has a default.
    pub fn size_or(&self, key: &'static str, default: Option<usize>) -> Result<usize> {
        let Some(value) = self.get(key) else {
            return default.ok_or_else(|| self.missing(key));
        };
        let size = value
            .as_u64()
            .filter(|&size| (1..=u64::from(u32::MAX)).contains(&size));
        size.map(|size| size as usize)
            .ok_or_else(|| self.unsupported(key, value, "a positive number"))
    }

    /// A size that the weights do not show: absent it is the family's default, with a note.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is something else, or null.
    pub fn size_assumed(&self, key: &'static str, default: usize) -> Result<usize> {
        self.never_null(&[key])?;
        if !self.has(key) {
            self.note(&format!(
                "no `{key}`, so it is {default} as in transformers"
            ));
        }
        self.size_or(key, Some(default))
    }

    /// A positive integer, at most 2³² − 1, that must be there.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is something else; [`Error::Config`] if it is missing.
    pub fn size(&self, key: &'static str) -> Result<usize> {
        self.size_or(key, None)
    }

    /// A number of layers: some facts are kept for each, so it has a bound of its own.
    ///
    /// # Errors
    /// As [`size`](Self::size), and if there are more than 65,536.
    pub fn layers(&self, key: &'static str) -> Result<usize> {
        const MAX: usize = 1 << 16;
        let size = self.size(key)?;
        if size > MAX {
            let expected = format!("at most {MAX}");
            return Err(self.unsupported(key, &Value::from(size), &expected));
        }
        Ok(size)
    }

    /// A finite positive number, if the key is there.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is something else.
    pub fn number(&self, key: &'static str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        number
            .map(Some)
            .ok_or_else(|| self.unsupported(key, value, "a positive number"))
    }

    /// A finite positive number, `default` if the key is absent or null.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is something else.
    pub fn positive_or(&self, key: &'static str, default: f64) -> Result<f64> {
        Ok(self.number(key)?.unwrap_or(default))
    }

    /// A finite positive number that must be there.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is something else; [`Error::Config`] if it is missing.
    pub fn required(&self, key: &'static str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.missing(key))
    }

    /// One number that may be written under several keys, and in `other` too: all must agree. Where neither `other`
    /// nor the first key is there, the others do not count: they only repeat it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if one of them is something else, or two differ.
    pub fn agreed(&self, keys: &[&'static str], other: Option<f64>) -> Result<Option<f64>> {
        let mut agreed = other;
        if let (None, [first, repeats @ ..]) = (other, keys)
            && self.get(first).is_none()
        {
            let alone = repeats.iter().filter(|key| self.get(key).is_some());
            for key in alone {
                self.note(&format!(
                    "`{key}` does not count without `{first}`, as in transformers"
                ));
            }
            return Ok(None);
        }
        for key in keys {
            let Some(number) = self.number(key)? else {
                continue;
            };
            match agreed {
                Some(before) if before != number => {
                    let expected = format!("{before}, as elsewhere in this file");
                    return Err(self.unsupported(key, &Value::from(number), &expected));
                }
                _ => agreed = Some(number),
            }
        }
        Ok(agreed)
    }

    /// `bos_token_id`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is no token below `d_vocab`.
    pub fn bos_token(&self, d_vocab: usize) -> Result<Option<u32>> {
        let Some(id) = self.get("bos_token_id") else {
            return Ok(None);
        };
        let fits = id.as_u64().filter(|id| *id < d_vocab as u64);
        let expected = format!("a token below vocab_size = {d_vocab}");
        let id = fits.ok_or_else(|| self.unsupported("bos_token_id", id, &expected))?;
        Ok(Some(id as u32))
    }

    /// A number of heads that divides `whole`, which `of` names in the error.
    ///
    /// # Errors
    /// As [`size_or`](Self::size_or), and if it does not divide `whole`.
    pub fn divisor_or(
        &self,
        key: &'static str,
        default: Option<usize>,
        whole: usize,
        of: &str,
    ) -> Result<usize> {
        let size = self.size_or(key, default)?;
        if whole.is_multiple_of(size) {
            return Ok(size);
        }
        let expected = format!("a divisor of {of} = {whole}");
        Err(self.unsupported(key, &Value::from(size), &expected))
    }

    /// True or false, `default` if the key is absent or null.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is something else.
    pub fn flag_or(&self, key: &'static str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value
            .as_bool()
            .ok_or_else(|| self.unsupported(key, value, "true or false"))
    }

    /// The entry of `table` that the value names.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the names in the table, if it is none of them.
    pub fn choice<T: Copy>(&self, key: &'static str, table: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let entry = table.iter().find(|(name, _)| value == name);
        let names = || {
            table
                .iter()
                .map(|(name, _)| format!("{name:?}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        entry
            .map(|(_, choice)| Some(*choice))
            .ok_or_else(|| self.unsupported(key, value, &names()))
    }

    /// Options that are not implemented: absent, null, or at the value that switches them off.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the first that is not.
    pub fn off(&self, options: &[(&'static str, Value)]) -> Result<()> {
        for (key, neutral) in options {
            if let Some(value) = self.get(key)
                && !same(value, neutral)
            {
                return Err(self.unsupported(key, value, &neutral.to_string()));
            }
        }
        Ok(())
    }

    /// Options of every Hugging Face configuration that no model read here has.
    ///
    /// # Errors
    /// As [`off`](Self::off).
    pub fn plain_decoder(&self) -> Result<()> {
        self.off(&[
            ("add_cross_attention", json!(false)),
            ("cross_attention_hidden_size", Value::Null),
            ("is_decoder", json!(false)),
            ("is_encoder_decoder", json!(false)),
            ("pruned_heads", json!({})),
        ])
    }

    /// Of the keys that were neither read nor are in `irrelevant`, refuses those that are known to change the
    /// forward pass of some model, and notes the others.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the first that is refused.
    pub fn finish(&self, irrelevant: &[&'static str]) -> Result<()> {
        let mut known = self.known.borrow_mut();
        known.extend(irrelevant);
        if self.section.is_empty() {
            known.extend(GENERAL);
        }
        for (key, value) in self.json {
            if known.contains(key.as_str()) {
                continue;
            }
            let change = if self.section.is_empty() {
                changes(key, value)
            } else {
                Change::Unknown
            };
            match change {
                Change::Neutral => {}
                Change::Refused(expected) => return Err(self.unsupported(key, value, &expected)),
                Change::Unknown => {
                    let near = nearest(key, known.iter().copied());
                    let key = format!("{}{key}", self.section);
                    self.findings.unknown(&key, near);
                }
            }
        }
        Ok(())
    }
}

impl core::fmt::Debug for Keys<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (path, section) = (&self.path, &self.section);
        let mut keys = f.debug_struct("Keys");
        keys.field("path", path)
            .field("section", section)
            .finish_non_exhaustive()
    }
}
