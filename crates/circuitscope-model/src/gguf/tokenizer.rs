use std::collections::BTreeMap;

use super::bpe;
use super::metadata::Metadata;
use super::sentencepiece::SentencePiece;
use super::vocabulary::Vocabulary;
use crate::Result;
use crate::tokenizer::{Tokenizer, TokenizerSettings};

/// The tokenizer of a file, if it has one.
pub(super) fn read(
    metadata: &Metadata<'_>,
    rows: usize,
    notes: &mut Vec<String>,
) -> Result<Option<Tokenizer>> {
    let key = "tokenizer.ggml.model";
    let model = match metadata.text(key)? {
        None | Some("none" | "no_vocab") => return Ok(None),
        Some(model) => model,
    };
    let list = "tokenizer.ggml.tokens";
    let tokens = metadata
        .texts(list)?
        .ok_or_else(|| metadata.missing(list))?;
    if tokens.len() > rows {
        let expected = format!("at most {rows}, the rows of token_embd.weight");
        return Err(metadata.unsupported(list, tokens.len().to_string(), &expected));
    }
    let types = "tokenizer.ggml.token_type";
    let kinds = metadata.integers(types)?.unwrap_or_default();
    if !kinds.is_empty() && kinds.len() != tokens.len() {
        let expected = format!("{}, one for each token", tokens.len());
        return Err(metadata.unsupported(types, kinds.len().to_string(), &expected));
    }
    let vocabulary = Vocabulary { tokens, kinds };
    // Where a file does not say, SentencePiece puts its first token before a text and byte-level BPE
    // does not, as in llama.cpp.
    let (mut inner, pieces, adds_bos) = match model {
        "gpt2" => (bpe::tokenizer(metadata, &vocabulary, notes)?, None, false),
        "llama" => {
            let (inner, pieces) = SentencePiece::read(metadata, &vocabulary)?;
            (inner, Some(pieces), true)
        }
        other => {
            let found = format!("{other:?}");
            let expected = "\"gpt2\" (byte-level BPE) or \"llama\" (SentencePiece)";
            return Err(metadata.unsupported(key, found, expected));
        }
    };
    inner.add_tokens(&vocabulary.added());
    let settings = settings(metadata, tokens, adds_bos)?;
    let tokenizer = Tokenizer::new(metadata.path(), inner, settings)?;
    Ok(Some(match pieces {
        Some(pieces) => tokenizer.with_pieces(pieces),
        None => tokenizer,
    }))
}

/// Special tokens and what they are for.
fn settings(
    metadata: &Metadata<'_>,
    tokens: &[String],
    adds_bos: bool,
) -> Result<TokenizerSettings> {
    let token = |name: &str| metadata.token(&format!("tokenizer.ggml.{name}_token_id"));
    let mut special_tokens = BTreeMap::new();
    for (name, ours) in [
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("pad_token", "padding"),
    ] {
        if let Some(text) = token(ours)?.and_then(|id| tokens.get(id as usize)) {
            special_tokens.insert(name.to_owned(), text.clone());
        }
    }
    let bos = token("bos")?;
    Ok(TokenizerSettings {
        bos: bos.filter(|&bos| (bos as usize) < tokens.len()),
        adds_bos: Some(
            metadata
                .flag("tokenizer.ggml.add_bos_token")?
                .unwrap_or(adds_bos),
        ),
        chat_template: metadata.text("tokenizer.chat_template")?.map(str::to_owned),
        special_tokens,
    })
}
