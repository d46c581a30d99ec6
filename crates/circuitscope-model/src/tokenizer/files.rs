use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use circuitscope_files::read;
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use super::class::Class;
use super::names::{ADDED, CHAT, CONFIG, MERGES, SPECIAL, TOKENIZER, TOKENIZER_FILES, VOCAB};
use super::{Tokenizer, TokenizerSettings, put_first, unusable};
use crate::bytes::hash;
use crate::family::Findings;
use crate::provenance::FileHash;
use crate::{Error, Result};

/// Special tokens that have a name of their own.
const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Names of beginning-of-sequence tokens, tried in this order where nothing names one.
const BOS: [&str; 4] = ["<|endoftext|>", "<bos>", "<s>", "<|begin_of_text|>"];

/// Bytes of the longest token that may be added to a vocabulary.
const LONGEST_ADDED: usize = 1000;

/// The files of a tokenizer in memory. Together they give what `AutoTokenizer` of transformers 5 gives.
pub(crate) struct TokenizerFiles<'a> {
    folder: PathBuf,
    files: BTreeMap<&'static str, Cow<'a, [u8]>>,
}

impl<'a> TokenizerFiles<'a> {
    /// All that are in a folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let mut found = BTreeMap::new();
        for name in TOKENIZER_FILES {
            let path = folder.join(name);
            if path.exists() {
                let bytes = read(&path)?;
                found.insert(name, Cow::Owned(bytes.to_vec()));
            }
        }
        if found.contains_key(TOKENIZER) {
            found.remove(VOCAB);
            found.remove(MERGES);
        }
        Ok(Self {
            folder: folder.to_owned(),
            files: found,
        })
    }

    /// A `tokenizer.json` alone, or nothing.
    pub(crate) fn embedded(folder: &Path, tokenizer: Option<&'a [u8]>) -> Self {
        let files = tokenizer.map(|bytes| (TOKENIZER, bytes.into()));
        Self {
            folder: folder.to_owned(),
            files: files.into_iter().collect(),
        }
    }

    /// Names and hashes.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = FileHash> {
        self.files.iter().map(|(name, bytes)| hash(name, bytes))
    }

    /// The tokenizer, if there is one; `bos` is the beginning-of-sequence token that `model`, the `config.json`, names.
    pub(crate) fn tokenizer(
        &self,
        bos: Option<u32>,
        model: &Map<String, Value>,
        findings: &Findings,
    ) -> Result<Option<Tokenizer>> {
        let path = |name| self.folder.join(name);
        let config = self.settings()?;
        let class = Class::of(&config, model);
        let Some((source, mut json)) = self.pipeline(&config)? else {
            return Ok(None);
        };
        let changed = class.prefix_space(&config, &mut json, findings);
        let bytes = match self.files.get(TOKENIZER) {
            Some(bytes) if !changed => Cow::Borrowed(bytes.as_ref()),
            _ => {
                let bytes = serde_json::to_vec(&json);
                bytes.map_err(|error| broken(&path(source), &error))?.into()
            }
        };
        let listed = json["added_tokens"].as_array().into_iter().flatten();
        let long = listed.filter_map(content).map(str::len).max();
        self.check_length(source, long)?;
        drop(json);
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| unusable(&path(source), &error))?;
        self.add_tokens(&mut inner, &config, class, findings)?;
        if config.get("split_special_tokens") == Some(&json!(true)) {
            inner.set_encode_special_tokens(true);
        }

        let special_tokens: BTreeMap<String, String> = config
            .iter()
            .filter(|(name, _)| name.ends_with("_token"))
            .filter_map(|(name, token)| Some((name.clone(), content(token)?.to_owned())))
            .collect();
        let named = special_tokens.get("bos_token");
        let named = named.and_then(|token| inner.token_to_id(token));
        let first = put_first(&inner);
        if let (Some(ours), Some(theirs)) = (first.or(named), bos)
            && ours != theirs
        {
            findings.note(format!(
                "config.json has bos_token_id {theirs}, the tokenizer {ours}: the tokenizer's counts"
            ));
        }
        let known = first.or(named).or(bos);
        let guessed = || BOS.iter().find_map(|name| inner.token_to_id(name));
        let settings = TokenizerSettings {
            bos: known.or_else(guessed),
            adds_bos: class.adds_bos(&config, source, first, findings),
            chat_template: self.chat_template(&config)?,
            special_tokens,
        };
        if let (None, Some(token)) = (known, settings.bos) {
            let name = inner.id_to_token(token).unwrap_or_default();
            findings.note(format!(
                "no file names the token that begins a sequence: {name} is taken for it by its name"
            ));
        }
        Tokenizer::new(&path(source), inner, settings).map(Some)
    }

    /// A JSON object among the files.
    fn object(&self, name: &'static str) -> Result<Option<Map<String, Value>>> {
        let Some(bytes) = self.files.get(name) else {
            return Ok(None);
        };
        let parsed = serde_json::from_slice(bytes);
        parsed
            .map(Some)
            .map_err(|error| broken(&self.folder.join(name), &error))
    }

    /// `tokenizer_config.json`; where that does not list the added tokens itself, with `special_tokens_map.json` over
    /// it.
    fn settings(&self) -> Result<Map<String, Value>> {
        let mut config = self.object(CONFIG)?.unwrap_or_default();
        if !config.contains_key("added_tokens_decoder") {
            config.extend(self.object(SPECIAL)?.unwrap_or_default());
        }
        Ok(config)
    }

    /// What turns text into tokens as `tokenizer.json` has it, and the file that it comes from.
    fn pipeline(&self, config: &Map<String, Value>) -> Result<Option<(&'static str, Value)>> {
        if let Some(json) = self.object(TOKENIZER)? {
            return Ok(Some((TOKENIZER, Value::Object(json))));
        }
        let (Some(vocab), Some(merges)) = (self.object(VOCAB)?, self.files.get(MERGES)) else {
            return Ok(None);
        };
        let class = config.get("tokenizer_class").and_then(Value::as_str);
        if let Some(class) = class.filter(|class| class.trim_end_matches("Fast") != "GPT2Tokenizer")
        {
            return Err(Error::TokenizerFile {
                path: self.folder.join(VOCAB),
                reason: format!(
                    "this vocabulary is of a {class}, of which only {TOKENIZER} is read: write one with \
                     AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
                ),
            });
        }
        let merges = str::from_utf8(merges).map_err(|error| Error::TokenizerFile {
            path: self.folder.join(MERGES),
            reason: error.to_string(),
        })?;
        let merges: Vec<&str> = merges
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("#version"))
            .collect();
        let bytes = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
        });
        let json = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": bytes,
            "post_processor": null,
            "decoder": bytes,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                "merges": merges,
            },
        });
        Ok(Some((VOCAB, json)))
    }

    /// Fails for the longest token of a file, if it is longer than any that is meant: finding it in texts would
    /// take for ever.
    fn check_length(&self, name: &str, longest: Option<usize>) -> Result<()> {
        match longest.filter(|longest| *longest > LONGEST_ADDED) {
            None => Ok(()),
            Some(found) => Err(Error::TokenizerFile {
                path: self.folder.join(name),
                reason: format!(
                    "found an added token of {found} bytes, expected at most {LONGEST_ADDED}"
                ),
            }),
        }
    }

    /// Adds the tokens that the files have beyond `tokenizer.json`, in the order of their ids.
    fn add_tokens(
        &self,
        inner: &mut tokenizers::Tokenizer,
        config: &Map<String, Value>,
        class: Class,
        findings: &Findings,
    ) -> Result<()> {
        let mut listed: BTreeMap<u32, AddedToken> = BTreeMap::new();
        let bad = |name: &str, found: &Value| Error::TokenizerFile {
            path: self.folder.join(name),
            reason: format!("{found} is no added token"),
        };
        let specials: Vec<AddedToken> = NAMED
            .iter()
            .filter_map(|name| config.get(*name))
            .chain(extra(config))
            .filter_map(special)
            .collect();
        match config.get("added_tokens_decoder") {
            Some(Value::Object(decoder)) => {
                for (id, token) in decoder {
                    let parsed = id.parse().ok().zip(added(token));
                    let (id, token) = parsed.ok_or_else(|| bad(CONFIG, token))?;
                    listed.insert(id, token);
                }
            }
            Some(other) => return Err(bad(CONFIG, other)),
            None => {
                for (content, id) in self.object(ADDED)?.unwrap_or_default() {
                    let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    let number = number.ok_or_else(|| bad(ADDED, &id))?;
                    let is_special = specials.iter().any(|token| token.content == content);
                    listed.insert(number, AddedToken::from(content, is_special));
                }
            }
        }
        let name = if config.contains_key("added_tokens_decoder") {
            CONFIG
        } else {
            ADDED
        };
        let longest = |tokens: &mut dyn Iterator<Item = &AddedToken>| {
            tokens.map(|token| token.content.len()).max()
        };
        self.check_length(name, longest(&mut listed.values()))?;
        self.check_length(CONFIG, longest(&mut specials.iter()))?;
        let before = inner.get_added_tokens_decoder();
        let known = |token: &AddedToken| before.values().any(|other| other == token);
        let here = |content: &str| before.values().any(|other| other.content == content);
        let new: Vec<AddedToken> = listed
            .values()
            .filter(|token| !known(token))
            .cloned()
            .collect();
        inner.add_tokens(&new);
        let listed_too = |content: &str| listed.values().any(|token| token.content == content);
        let defaults: Vec<AddedToken> = class.defaults(config, inner, &self.files);
        for token in specials.iter().chain(&defaults) {
            if !here(&token.content) && !listed_too(&token.content) {
                inner.add_special_tokens(std::slice::from_ref(token));
            }
        }
        let moved = listed.iter().find_map(|(id, token)| {
            let got = inner.token_to_id(&token.content)?;
            (got != *id).then(|| (token.content.clone(), *id, got))
        });
        if let Some((token, listed, got)) = moved {
            findings.note(format!(
                "the tokenizer's files give {token} the id {listed}, but behind the vocabulary its id is {got}, as in \
                 transformers"
            ));
        }
        let beyond = new.iter().filter(|token| !here(&token.content));
        let names: Vec<&str> = beyond.map(|token| token.content.as_str()).collect();
        if let ([first, rest @ ..], true) = (names.as_slice(), self.files.contains_key(TOKENIZER)) {
            let more = match rest.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            findings.note(format!(
                "tokens that {TOKENIZER} lacks come from the files beside it: {first}{more}"
            ));
        }
        Ok(())
    }

    /// `chat_template.jinja`, else what `tokenizer_config.json` has; of several the one named `default`.
    fn chat_template(&self, config: &Map<String, Value>) -> Result<Option<String>> {
        if let Some(bytes) = self.files.get(CHAT) {
            let text = str::from_utf8(bytes).map_err(|error| Error::TokenizerFile {
                path: self.folder.join(CHAT),
                reason: error.to_string(),
            })?;
            return Ok(Some(text.to_owned()));
        }
        let template = match config.get("chat_template") {
            Some(Value::String(template)) => Some(template.clone()),
            Some(Value::Array(named)) => named
                .iter()
                .find(|entry| entry["name"] == "default")
                .and_then(|entry| entry["template"].as_str())
                .map(str::to_owned),
            _ => None,
        };
        Ok(template)
    }
}

fn broken(path: &Path, error: &serde_json::Error) -> Error {
    Error::TokenizerFile {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// The text of a special token, which may be written with its flags.
fn content(token: &Value) -> Option<&str> {
    token
        .as_str()
        .or_else(|| token.get("content").and_then(Value::as_str))
}

/// A special token, by its text alone or with its flags.
fn special(token: &Value) -> Option<AddedToken> {
    match token {
        Value::String(content) => Some(AddedToken::from(content.clone(), true)),
        flags => added(flags).map(|token| token.special(true)),
    }
}

/// An added token with its flags.
fn added(token: &Value) -> Option<AddedToken> {
    let flag = |name: &str| token.get(name).and_then(Value::as_bool);
    let special = flag("special").unwrap_or(false);
    let content = token.get("content")?.as_str()?;
    let token = AddedToken::from(content, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special));
    Some(token)
}

/// Special tokens without a name of their own, and those with a name that no other model has.
fn extra(config: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let lists = ["extra_special_tokens", "additional_special_tokens"];
    let list = lists.into_iter().find_map(|name| {
        config
            .get(name)
            .filter(|list| *list != &json!([]) && !list.is_null())
    });
    let of_list: Vec<&Value> = match list {
        Some(Value::Array(tokens)) => tokens.iter().collect(),
        Some(Value::Object(named)) => named.values().collect(),
        _ => Vec::new(),
    };
    let own = config
        .iter()
        .filter(|(name, _)| name.ends_with("_token") && !NAMED.contains(&name.as_str()))
        .map(|(_, token)| token);
    of_list.into_iter().chain(own)
}
