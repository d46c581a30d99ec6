//! Tokenizers, as `AutoTokenizer` of transformers has them.

mod chat;
mod class;
mod files;
mod names;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub(crate) use files::TokenizerFiles;
pub(crate) use names::TOKENIZER;
#[cfg(feature = "hub")]
pub(crate) use names::TOKENIZER_FILES;

use derive_setters::Setters;
use serde_json::Map;
use tokenizers::{
    ModelWrapper, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
};

use crate::family::Findings;
use crate::gguf::sentencepiece::SentencePiece;
use crate::{Error, Result};

/// A tokenizer in the format of the `tokenizers` library, with what the files beside it say.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Splits texts in the place of `inner`, which knows no merges by score.
    pieces: Option<Arc<SentencePiece>>,
    bos: Option<u32>,
    adds_bos: bool,
    chat_template: Option<String>,
    special_tokens: BTreeMap<String, String>,
}

/// What a tokenizer needs to know beside its vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Default, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct TokenizerSettings {
    /// The beginning-of-sequence token. Default: the first special token that the post-processor puts
    /// before a text, else none.
    pub bos: Option<u32>,
    /// Whether that token goes before a text where nobody says otherwise. Default: as the post-processor
    /// does.
    pub adds_bos: Option<bool>,
    /// The template that makes a conversation one text, in Jinja.
    pub chat_template: Option<String>,
    /// Names that such a template may use, such as `bos_token` and `eos_token`, with the texts of these
    /// tokens.
    pub special_tokens: BTreeMap<String, String>,
}

/// A conversation as a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChatPrompt {
    /// The text, with the special tokens in it; nothing is to be put before it.
    pub text: String,
    /// The date in it, if the template asked for one: prompts made on another day differ.
    pub date: Option<String>,
}

/// Bytes of the longest text that is tokenised: far more than any model reads at once.
const LONGEST: usize = 1 << 20;

impl Tokenizer {
    /// Reads a `tokenizer.json` alone; `bos` is the beginning-of-sequence token that the model's configuration names.
    /// It is the token that the post-processor puts before a text, else that one, else the first that the
    /// tokenizer has of `<|endoftext|>`, `<bos>`, `<s>`, `<|begin_of_text|>`.
    ///
    /// # Errors
    /// [`Error::TokenizerFile`].
    pub fn from_bytes(path: &Path, bytes: &[u8], bos: Option<u32>) -> Result<Self> {
        let folder = path.parent().unwrap_or(path);
        let files = TokenizerFiles::embedded(folder, Some(bytes));
        let tokenizer = files.tokenizer(bos, &Map::new(), &Findings::default())?;
        tokenizer.ok_or_else(|| Error::TokenizerFile {
            path: path.to_owned(),
            reason: "not there".to_owned(),
        })
    }

    /// A tokenizer made or read by other means; `path` is its file in errors.
    ///
    /// # Errors
    /// [`Error::TokenizerFile`].
    pub fn new(
        path: &Path,
        mut inner: tokenizers::Tokenizer,
        settings: TokenizerSettings,
    ) -> Result<Self> {
        // Files may ask for padding or truncation; batches do the first and nobody wants the second.
        inner.with_padding(None);
        let untruncated = inner.with_truncation(None).map(drop);
        untruncated.map_err(|error| unusable(path, &error))?;
        let first = put_first(&inner);
        let bos = settings.bos.or(first);
        Ok(Self {
            adds_bos: settings.adds_bos.unwrap_or(first.is_some()),
            bos,
            chat_template: settings.chat_template,
            special_tokens: settings.special_tokens,
            inner,
            pieces: None,
        })
    }

    /// The same, with SentencePiece's way of splitting texts.
    #[must_use]
    pub(crate) fn with_pieces(self, pieces: SentencePiece) -> Self {
        Self {
            pieces: Some(Arc::new(pieces)),
            ..self
        }
    }

    /// What a message of the user is as a prompt, up to where the model's answer begins, by the tokenizer's own
    /// template: `apply_chat_template([{"role": "user", "content": message}], add_generation_prompt=True)` of
    /// transformers. Dates are in UTC.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`], [`Error::ChatTemplate`].
    pub fn chat_prompt(&self, message: &str) -> Result<ChatPrompt> {
        let template = self.chat_template.as_ref().ok_or(Error::NoChatTemplate)?;
        let special = self.special_tokens.iter();
        let special = special.map(|(name, token)| (name.as_str(), token.as_str()));
        chat::render(template, special, message).map_err(|reason| Error::ChatTemplate { reason })
    }

    /// What the chat template writes around a message, in the text of which it has no place: special tokens or, where it
    /// writes none, what comes before the message.
    ///
    /// # Errors
    /// As [`chat_prompt`](Self::chat_prompt).
    pub fn chat_marks(&self) -> Result<Vec<String>> {
        const MESSAGE: &str = "circuitscope";
        let prompt = self.chat_prompt(MESSAGE)?.text;
        let added = self.inner.get_added_tokens_decoder().into_values();
        let special = added.filter(|token| token.special && prompt.contains(&token.content));
        let mut marks: Vec<String> = special.map(|token| token.content).collect();
        if marks.is_empty() {
            let before = prompt.split_once(MESSAGE).map(|(before, _)| before.trim());
            marks.extend(
                before
                    .filter(|before| !before.is_empty())
                    .map(str::to_owned),
            );
        }
        marks.sort_unstable();
        Ok(marks)
    }

    /// The same with `adds_bos` as [`Tokenizer::adds_bos`].
    #[must_use]
    pub fn with_adds_bos(self, adds_bos: bool) -> Self {
        Self { adds_bos, ..self }
    }

    /// The beginning-of-sequence token.
    pub const fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether that token goes before a text where nobody says otherwise
    /// ([`PrependBos::Auto`](crate::PrependBos::Auto)).
    pub const fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Whether a text begins with the beginning-of-sequence token already.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn begins_with_bos(&self, text: &str) -> Result<bool> {
        let ids = self.encode(text, false)?;
        Ok(self.bos.is_some() && ids.first().copied() == self.bos)
    }

    /// Token ids of a text, with the beginning-of-sequence token before them if asked for and not there
    /// already.
    ///
    /// # Errors
    /// [`Error::Encode`], also for a text of more than a mebibyte; [`Error::UnknownWord`]; [`Error::NoBos`] if that token is asked for
    /// and there is none.
    pub fn encode(&self, text: &str, prepend_bos: bool) -> Result<Vec<u32>> {
        if text.len() > LONGEST {
            return Err(Error::Encode {
                text: text.chars().take(40).collect::<String>() + "…",
                reason: format!("found {} bytes, expected at most {LONGEST}", text.len()),
            });
        }
        let ids = if let Some(pieces) = &self.pieces {
            pieces.encode(text)
        } else {
            let encoding = self.inner.encode(text, false);
            let encoding = encoding.map_err(|error| {
                self.unknown_word(text).unwrap_or_else(|| Error::Encode {
                    text: text.to_owned(),
                    reason: error.to_string(),
                })
            })?;
            encoding.get_ids().to_vec()
        };
        let bos = if prepend_bos {
            let bos = self.bos.ok_or(Error::NoBos)?;
            (ids.first() != Some(&bos)).then_some(bos)
        } else {
            None
        };
        Ok(bos.into_iter().chain(ids).collect())
    }

    /// Where a text failed in a vocabulary of whole words: the first word that it does not have.
    fn unknown_word(&self, text: &str) -> Option<Error> {
        if !matches!(self.inner.get_model(), ModelWrapper::WordLevel(_)) {
            return None;
        }
        let mut words = PreTokenizedString::from(text);
        if let Some(splits) = self.inner.get_pre_tokenizer() {
            splits.pre_tokenize(&mut words).ok()?;
        }
        let words = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let mut words = words.into_iter().map(|(word, ..)| word);
        let word = words.find(|word| self.inner.token_to_id(word).is_none())?;
        Some(Error::UnknownWord {
            text: text.to_owned(),
            word: word.to_owned(),
            words: self.inner.get_vocab_size(true),
        })
    }

    /// Token ids back to text.
    ///
    /// # Errors
    /// [`Error::Encode`] for ids the tokenizer does not have.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner
            .decode(ids, false)
            .map_err(|error| Error::Encode {
                text: format!("{ids:?}"),
                reason: error.to_string(),
            })
    }

    /// The token that a word is.
    ///
    /// # Errors
    /// [`Error::NotOneToken`].
    pub fn single_token(&self, word: &str) -> Result<u32> {
        match self.encode(word, false)?.as_slice() {
            [token] => Ok(*token),
            tokens => Err(Error::NotOneToken {
                word: word.to_owned(),
                tokens: tokens.len(),
            }),
        }
    }

    /// The text of one token, as stored in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

fn unusable(path: &Path, error: &tokenizers::Error) -> Error {
    Error::TokenizerFile {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// The token that the post-processor puts before a text.
fn put_first(inner: &tokenizers::Tokenizer) -> Option<u32> {
    let ids = |special| {
        let encoding = inner.encode("a", special).ok()?;
        Some(encoding.get_ids().to_vec())
    };
    let (plain, whole) = (ids(false)?, ids(true)?);
    let first = whole.first().copied()?;
    (whole.len() > plain.len() && plain.first() != Some(&first)).then_some(first)
}
