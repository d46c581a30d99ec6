//! SentencePiece's BPE: of all neighbours whose text is a piece, the pair with the best score is merged
//! first. Merges in a fixed order, as other libraries have them, differ from it where one text is the
//! sum of two pairs; so it is written out here. The rule is that of SentencePiece's BPE models, which llama.cpp
//! follows, too.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::Replace;

use super::bpe::unusable;
use super::metadata::Metadata;
use super::vocabulary::{BYTE, CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary};
use crate::Result;

/// What stands for a space.
const SPACE: char = '\u{2581}';

/// The pieces of a SentencePiece vocabulary.
#[derive(Debug)]
pub(crate) struct SentencePiece {
    /// Pieces by their text, with [`SPACE`] for spaces.
    pieces: BTreeMap<String, Piece>,
    /// Tokens that are taken whole, by their first character, the longest first.
    whole: BTreeMap<char, Vec<Whole>>,
    /// Tokens of single bytes.
    bytes: Vec<Option<u32>>,
    unknown: u32,
    /// Whether a space is put before a text.
    space_before: bool,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    id: u32,
    score: f32,
    /// Merged on the way to others, but never given: taken apart again at the end.
    unused: bool,
}

#[derive(Debug)]
struct Whole {
    text: String,
    id: u32,
    /// Whether what follows counts as the beginning of a text.
    control: bool,
}

/// Two neighbours that may be merged.
#[derive(Debug)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both, by which a pair is known that no longer is one.
    length: usize,
}

impl Ord for Pair {
    /// The best score first; of equals the leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

/// A piece in the making: where it lies in the text, and its neighbours.
#[derive(Debug)]
struct Symbol {
    start: usize,
    end: usize,
    before: Option<usize>,
    after: Option<usize>,
}

impl SentencePiece {
    /// The pieces, and a tokenizer of the library that knows the tokens and takes ids back to text.
    pub(super) fn read(
        metadata: &Metadata<'_>,
        vocabulary: &Vocabulary<'_>,
    ) -> Result<(tokenizers::Tokenizer, Self)> {
        let key = "tokenizer.ggml.scores";
        let tokens = vocabulary.tokens;
        let scores = metadata.floats(key)?.ok_or_else(|| metadata.missing(key))?;
        if scores.len() != tokens.len() {
            let expected = format!("{}, one for each token", tokens.len());
            return Err(metadata.unsupported(key, scores.len().to_string(), &expected));
        }
        let prefix = metadata.flag("tokenizer.ggml.add_space_prefix")?;
        let unknown = metadata.token("tokenizer.ggml.unknown_token_id")?;
        let mut pieces = Self {
            pieces: BTreeMap::new(),
            whole: BTreeMap::new(),
            bytes: vec![None; 256],
            unknown: unknown.unwrap_or(0),
            space_before: prefix.unwrap_or(true),
        };
        for (id, (token, &score)) in tokens.iter().zip(scores).enumerate() {
            pieces.add(vocabulary.kind(id), id as u32, token, score);
        }
        for tokens in pieces.whole.values_mut() {
            tokens.sort_by_key(|whole| std::cmp::Reverse(whole.text.len()));
        }
        let vocab: Vocab = vocabulary.numbered().collect();
        let bad = |error: tokenizers::Error| unusable(metadata.path(), &error);
        let model = BPE::builder().vocab_and_merges(vocab, Vec::new());
        let mut inner = tokenizers::Tokenizer::new(model.build().map_err(bad)?);
        let spaces = Replace::new(SPACE.to_string(), " ").map_err(bad)?;
        let mut decoders: Vec<DecoderWrapper> = vec![
            spaces.into(),
            ByteFallback::new().into(),
            Fuse::new().into(),
        ];
        if pieces.space_before {
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        inner.with_decoder(Some(Sequence::new(decoders)));
        Ok((inner, pieces))
    }

    fn add(&mut self, kind: i32, id: u32, token: &str, score: f32) {
        match kind {
            NORMAL | UNUSED => {
                let unused = kind == UNUSED;
                let piece = Piece { id, score, unused };
                self.pieces.entry(token.to_owned()).or_insert(piece);
            }
            CONTROL | USER_DEFINED => {
                // Files differ in how they write runs of spaces.
                let text = token.replace(SPACE, " ");
                if let Some(first) = text.chars().next() {
                    let control = kind == CONTROL;
                    let whole = Whole { text, id, control };
                    self.whole.entry(first).or_default().push(whole);
                }
            }
            BYTE => {
                let digits = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                if let Some(byte) = byte {
                    self.bytes[usize::from(byte)] = Some(id);
                }
            }
            _ => {}
        }
    }

    /// Token ids of a text.
    pub(crate) fn encode(&self, text: &str) -> Vec<u32> {
        let text = self.with_spaces_before(text);
        let mut ids = Vec::new();
        let (mut done, mut at) = (0, 0);
        while let Some(first) = text[at..].chars().next() {
            let Some(whole) = self.whole_at(&text[at..], first) else {
                at += first.len_utf8();
                continue;
            };
            self.encode_plain(&text[done..at], &mut ids);
            ids.push(whole.id);
            at += whole.text.len();
            done = at;
        }
        self.encode_plain(&text[done..], &mut ids);
        ids
    }

    /// A text with the space that goes before it, and before what follows a control token.
    fn with_spaces_before(&self, text: &str) -> String {
        let mut spaced = String::with_capacity(text.len() + 1);
        let mut begins = self.space_before;
        let mut at = 0;
        while let Some(first) = text[at..].chars().next() {
            let whole = self.whole_at(&text[at..], first);
            let control = whole.filter(|whole| whole.control);
            let length = control.map_or(first.len_utf8(), |whole| whole.text.len());
            if control.is_some() {
                begins = self.space_before;
            } else if begins {
                spaced.push(' ');
                begins = false;
            }
            spaced.push_str(&text[at..at + length]);
            at += length;
        }
        spaced
    }

    fn whole_at(&self, text: &str, first: char) -> Option<&Whole> {
        let candidates = self.whole.get(&first)?;
        candidates
            .iter()
            .find(|whole| text.starts_with(&whole.text))
    }

    /// A text without tokens that are taken whole.
    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let spaced: String = text
            .chars()
            .map(|c| if c == ' ' { SPACE } else { c })
            .collect();
        let (symbols, joined) = self.merged(&spaced);
        let mut at = Some(0);
        let mut was_unknown = false;
        while let Some(symbol) = at.map(|at| &symbols[at]) {
            self.give(&spaced, symbol, &joined, &mut was_unknown, ids);
            at = symbol.after;
        }
    }

    /// Merges until no two neighbours are a piece. Also where unused pieces were joined: their ends to
    /// the place in between.
    fn merged(&self, text: &str) -> (Vec<Symbol>, BTreeMap<(usize, usize), usize>) {
        let mut symbols: Vec<Symbol> = Vec::new();
        for (start, c) in text.char_indices() {
            let at = symbols.len();
            symbols.push(Symbol {
                start,
                end: start + c.len_utf8(),
                before: at.checked_sub(1),
                after: Some(at + 1),
            });
        }
        if let Some(last) = symbols.last_mut() {
            last.after = None;
        }
        let mut joined = BTreeMap::new();
        let mut pairs = BinaryHeap::new();
        for right in 1..symbols.len() {
            self.consider(text, &symbols, right - 1, right, &mut pairs);
        }
        while let Some(pair) = pairs.pop() {
            let Pair {
                left,
                right,
                length,
                ..
            } = pair;
            let (start, middle) = (symbols[left].start, symbols[left].end);
            let (from, end) = (symbols[right].start, symbols[right].end);
            let stands = start < middle && from < end && end - start == length;
            if !stands || middle != from {
                continue;
            }
            if self
                .pieces
                .get(&text[start..end])
                .is_some_and(|piece| piece.unused)
            {
                joined.insert((start, end), middle);
            }
            symbols[left].end = end;
            symbols[right].start = end; // empty from now on
            let after = symbols[right].after;
            symbols[left].after = after;
            if let Some(after) = after {
                symbols[after].before = Some(left);
                self.consider(text, &symbols, left, after, &mut pairs);
            }
            if let Some(before) = symbols[left].before {
                self.consider(text, &symbols, before, left, &mut pairs);
            }
        }
        (symbols, joined)
    }

    fn consider(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: usize,
        right: usize,
        pairs: &mut BinaryHeap<Pair>,
    ) {
        let (start, end) = (symbols[left].start, symbols[right].end);
        if let Some(piece) = self.pieces.get(&text[start..end]) {
            pairs.push(Pair {
                score: piece.score,
                left,
                right,
                length: end - start,
            });
        }
    }

    /// The tokens of one symbol: its piece, or those that an unused piece was joined from, or its bytes.
    fn give(
        &self,
        text: &str,
        symbol: &Symbol,
        joined: &BTreeMap<(usize, usize), usize>,
        was_unknown: &mut bool,
        ids: &mut Vec<u32>,
    ) {
        let mut rest = vec![(symbol.start, symbol.end)];
        while let Some((start, end)) = rest.pop() {
            let piece = self.pieces.get(&text[start..end]);
            let bytes = text[start..end].bytes();
            if let Some(piece) = piece.filter(|piece| !piece.unused) {
                ids.push(piece.id);
                *was_unknown = false;
            } else if let Some(&middle) = joined.get(&(start, end)) {
                rest.extend([(middle, end), (start, middle)]);
            } else if let Some(tokens) = bytes
                .map(|byte| self.bytes[usize::from(byte)])
                .collect::<Option<Vec<u32>>>()
            {
                ids.extend(tokens);
                *was_unknown = false;
            } else {
                // Neighbours that are unknown are one unknown token.
                if !*was_unknown {
                    ids.push(self.unknown);
                }
                *was_unknown = true;
            }
        }
    }
}
