use std::path::Path;

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::metadata::Metadata;
use super::vocabulary::Vocabulary;
use crate::{Error, Result};

/// GPT-2's words: contractions, letters, digits, other signs, each with a space before it, and spaces.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Every digit by itself, cut off before anything else.
const DIGIT: &str = r"\p{N}";

/// Llama 3: up to three digits together.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Qwen 2: as Llama 3, but every digit by itself.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Mistral's: words also end where capitals begin.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// GPT-4o's: the same, with contractions at the end of words.
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How text is cut into words before merges: `tokenizer.ggml.pre`, the cuts one after the other, and
/// whether a word that is a token is taken without merges.
const WORDS: &[(&[&str], &[&str], bool)] = &[
    (
        // `smollm` as transformers reads it. llama.cpp cuts digits off first; the tokens have no two digits,
        // so it gives other ids only where two spaces stand before a digit.
        &[
            "smollm",
            "gpt-2",
            "gpt2",
            "phi-2",
            "olmo",
            "mpt",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "gigachat",
            "mellum",
        ],
        &[GPT2],
        false,
    ),
    (
        &[
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
        ],
        &[DIGIT, GPT2],
        false,
    ),
    (
        &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        &[LLAMA3],
        true,
    ),
    (&["dbrx", "smaug-bpe"], &[LLAMA3], false),
    (
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "hunyuan",
            "megrez",
            "kormo",
        ],
        &[QWEN2],
        false,
    ),
    (&["tekken"], &[TEKKEN], true),
    (&["gpt-4o", "llama4"], &[GPT4O], false),
];

/// A byte-level BPE tokenizer.
pub(super) fn tokenizer(
    metadata: &Metadata<'_>,
    vocabulary: &Vocabulary<'_>,
    notes: &mut Vec<String>,
) -> Result<tokenizers::Tokenizer> {
    let (cuts, whole_words) = words(metadata, notes)?;
    let key = "tokenizer.ggml.merges";
    let merges = metadata.texts(key)?.ok_or_else(|| metadata.missing(key))?;
    let merges: Option<Vec<(String, String)>> = merges.iter().map(|merge| pair(merge)).collect();
    let merges = merges.ok_or_else(|| {
        let found = "an entry without a space".to_owned();
        metadata.unsupported(key, found, "two tokens with a space between them")
    })?;
    let vocab: Vocab = vocabulary.numbered().collect();
    let bad = |error: tokenizers::Error| unusable(metadata.path(), &error);
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(whole_words)
        .build()
        .map_err(bad)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
    for cut in cuts {
        let pattern = SplitPattern::Regex((*cut).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(bad)?;
        steps.push(split.into());
    }
    steps.push(ByteLevel::new(false, true, false).into());
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// The cuts that the file names, and whether words that are tokens are taken whole.
fn words(
    metadata: &Metadata<'_>,
    notes: &mut Vec<String>,
) -> Result<(&'static [&'static str], bool)> {
    let key = "tokenizer.ggml.pre";
    let name = match metadata.text(key)? {
        Some(name) => name,
        None => match metadata.arch {
            "gpt2" => "gpt-2",
            "qwen2" | "qwen3" => "qwen2",
            _ => return Err(metadata.missing(key)),
        },
    };
    if metadata.get(key).is_none() {
        notes.push(format!("`{key}` is missing: taken as {name:?}"));
    }
    let known = WORDS.iter().find(|(names, ..)| names.contains(&name));
    let known = known.map(|(_, cuts, whole)| (*cuts, *whole));
    known.ok_or_else(|| {
        let names: Vec<&str> = WORDS
            .iter()
            .flat_map(|(names, ..)| *names)
            .copied()
            .collect();
        metadata.unsupported(key, format!("{name:?}"), &names.join(", "))
    })
}

/// Two tokens with a space between them; the first may begin with one.
fn pair(merge: &str) -> Option<(String, String)> {
    let skip = merge.chars().next()?.len_utf8();
    let at = skip + merge[skip..].find(' ')?;
    Some((merge[..at].to_owned(), merge[at + 1..].to_owned()))
}

pub(super) fn unusable(path: &Path, error: &tokenizers::Error) -> Error {
    Error::TokenizerFile {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
