//! Text as contexts of tokens.

use std::path::Path;

use circuitscope_core::{Seed, draw};
use circuitscope_files::{FileError, read_to_string, shown};
use circuitscope_model::Tokenizer;
use serde_json::Value;

use crate::Result;

/// Fewest tokens of the last context of a text: what is shorter is left out.
const SHORTEST: usize = 8;

/// Cuts texts into contexts of tokens: each of `length` tokens, the last one of a text of at least 8.
///
/// `bos` stands at the begin of every context, where there is one. Of contexts with more than `most` tokens together as many are
/// taken as have them, evenly from the first to the last: from all of the texts, not from their begin.
///
/// # Errors
/// Text that cannot be tokenised.
pub fn contexts<S: AsRef<str>>(
    tokenizer: &Tokenizer,
    texts: &[S],
    bos: Option<u32>,
    length: usize,
    most: usize,
) -> Result<Vec<Vec<u32>>> {
    let own = length.saturating_sub(usize::from(bos.is_some())).max(1);
    let mut all: Vec<Vec<u32>> = Vec::new();
    for text in texts {
        let ids = tokenizer.encode(text.as_ref(), false)?;
        let long = ids
            .chunks(own)
            .filter(|chunk| chunk.len() >= SHORTEST.min(own));
        all.extend(long.map(|chunk| bos.into_iter().chain(chunk.iter().copied()).collect()));
    }
    let tokens: usize = all.iter().map(Vec::len).sum();
    if tokens <= most {
        return Ok(all);
    }
    let wanted = (all.len() as u128 * most as u128 / tokens as u128) as usize;
    let wanted = wanted.max(1);
    let count = all.len();
    let taken = (0..wanted).map(|at| std::mem::take(&mut all[at * count / wanted]));
    Ok(taken.collect())
}

/// Texts of a file: of one ending in `.jsonl` the field `text` of the object on each line, other fields passed over, as data
/// sets of text have it; any other is one text.
///
/// # Errors
/// A file that cannot be read or has no text; a line that is no such object.
pub fn read_texts(path: &Path) -> Result<Vec<String>> {
    let all = read_to_string(path)?;
    let is_lines = path
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("jsonl"));
    let texts: Vec<String> = if is_lines {
        let lines = all
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        let text = |(at, line): (usize, &str)| {
            let wrong = |found: String| {
                let expected = "an object with a text, {\"text\": \"…\"}";
                FileError::field(path, format!("line {}", at + 1), found, expected)
            };
            let value: Value =
                serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            let text = value.get("text").and_then(Value::as_str);
            text.map(str::to_owned).ok_or_else(|| wrong(shown(&value)))
        };
        lines.map(text).collect::<Result<_, FileError>>()?
    } else {
        vec![all]
    };
    if texts.iter().all(|text| text.trim().is_empty()) {
        return Err(FileError::field(path, "text", "none", "some").into());
    }
    Ok(texts)
}

/// Contexts of random tokens said twice, each of `length` tokens after `bos`: on them induction is all that can tell the next
/// token of the second half (Olsson et al. 2022, arXiv 2209.11895).
///
/// Tokens are drawn from all of the vocabulary but `bos`, none twice in one half (`seed.stream("repeated")`).
#[must_use]
pub fn repeated(
    d_vocab: usize,
    bos: Option<u32>,
    length: usize,
    contexts: usize,
    seed: Seed,
) -> Vec<Vec<u32>> {
    let mut rng = seed.stream("repeated").rng();
    let own = length.saturating_sub(usize::from(bos.is_some()));
    let half = (own / 2).min(d_vocab.saturating_sub(1));
    let mut context = || {
        // One more is drawn than is needed, for where one of them is `bos`.
        let drawn = draw::sample(&mut rng, d_vocab, (half + 1).min(d_vocab));
        let tokens = drawn.into_iter().map(|token| token as u32);
        let tokens: Vec<u32> = tokens
            .filter(|token| Some(*token) != bos)
            .take(half)
            .collect();
        bos.into_iter()
            .chain(tokens.iter().copied())
            .chain(tokens.iter().copied())
            .collect()
    };
    (0..contexts).map(|_| context()).collect()
}
