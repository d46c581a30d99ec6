//! Cards of heads in the tokenizer's words, and where the named parts of prompts stand among their tokens.

use core::ops::Range;
use std::collections::BTreeMap;

use burn::tensor::backend::AutodiffBackend;
use circuitscope_core::{HeadId, Progress, Seed};
use circuitscope_eval::causal::CausalEvidence;
use circuitscope_eval::methods::Encoded;
use circuitscope_eval::{CardSettings, PromptParts};
use circuitscope_measures::cards::Cards;
use circuitscope_model::Tokenizer;

use crate::behaviour::text;
use crate::{PreparedPrompts, Result};

/// What is known of the heads of a circuit: [`circuitscope_eval::cards`] with the tokenizer's words. `heads` are those that get a
/// card, with their ranks from 1; `own` are the codes that scores rest on, if they rest on any
/// ([`own_codes`](circuitscope_eval::methods::own_codes)).
///
/// # Errors
/// As [`circuitscope_eval::cards`].
pub fn cards<B: AutodiffBackend>(
    causal: &CausalEvidence<B::InnerBackend>,
    (parts, tokenizer): (&PromptParts, &Tokenizer),
    own: Option<&Encoded<B::InnerBackend>>,
    heads: &[(HeadId, usize)],
    how: &CardSettings,
    (seed, device): (Seed, &B::Device),
    progress: &dyn Progress,
) -> Result<Cards> {
    let words = |token: u32| text(tokenizer, token);
    let cards = circuitscope_eval::cards::<B>(
        causal,
        (parts, own),
        heads,
        &words,
        how,
        seed,
        device,
        progress,
    )?;
    Ok(cards)
}

impl PreparedPrompts {
    /// The named parts of the positive prompts, as positions of their tokens, and the variables of the prompts of
    /// each pair. Parts that begin or end inside a token are left out.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn parts(&self, tokenizer: &Tokenizer) -> Result<PromptParts> {
        let prompts = self.prompts();
        let mut parts = PromptParts::default();
        for (pair, &(positive, negative)) in prompts.pairs.iter().enumerate() {
            if let Some(slots) = prompts.slots.get(positive) {
                let appended = prompts.appended.get(pair).map_or(0, Vec::len);
                let tokens = &self.tokens()[positive];
                let whole = Whole {
                    text: &prompts.texts[positive],
                    tokens: &tokens[..tokens.len() - appended],
                    before: self.before(positive),
                };
                let mut found: Vec<(String, Vec<usize>)> = Vec::new();
                for slot in slots {
                    let Some(range) = whole.tokens_of(tokenizer, &slot.range)? else {
                        continue;
                    };
                    match found.iter_mut().find(|(name, _)| *name == slot.name) {
                        Some((_, places)) => places.extend(range),
                        None => found.push((slot.name.clone(), range.collect())),
                    }
                }
                parts.slots.push(found);
            }
            if !prompts.variables.is_empty() {
                let of = |row: usize| prompts.variables.get(row).cloned().unwrap_or_default();
                let both: [BTreeMap<String, String>; 2] = [of(positive), of(negative)];
                parts.variables.push(both);
            }
        }
        Ok(parts)
    }
}

/// A text and its tokens.
pub(crate) struct Whole<'a> {
    pub(crate) text: &'a str,
    /// Those before the text included.
    pub(crate) tokens: &'a [u32],
    /// How many stand before the text.
    pub(crate) before: usize,
}

impl Whole<'_> {
    /// The tokens of a part of the text, in bytes; nothing where it begins or ends inside one.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub(crate) fn tokens_of(
        &self,
        tokenizer: &Tokenizer,
        part: &Range<usize>,
    ) -> Result<Option<Range<usize>>> {
        let whole = &self.tokens[self.before..];
        let boundary = |end: usize| -> Result<Option<usize>> {
            let head = if end == 0 {
                Vec::new()
            } else {
                tokenizer.encode(&self.text[..end], false)?
            };
            Ok(whole.starts_with(&head).then_some(self.before + head.len()))
        };
        // A word's token begins with the space before it.
        let space = usize::from(self.text[..part.start].ends_with(' '));
        let (start, end) = (boundary(part.start - space)?, boundary(part.end)?);
        Ok(start.zip(end).map(|(start, end)| start..end))
    }
}
