//! How the prompts of a pair correspond, token by token.

use core::ops::Range;

use circuitscope_eval::Unaligned;
use circuitscope_eval::causal::Alignment;
use circuitscope_model::Tokenizer;
use circuitscope_tasks::{LabelledPrompts, Span};

use crate::cards::Whole;
use crate::{Error, Result};

/// The alignment of a pair: by its spans where it names some, around the one span in which its prompts
/// differ where they have different lengths, and none where they correspond position by position; or why they cannot
/// be aligned.
///
/// `tokens` are those of all prompts, whatever stands before or after their texts included; the first `before` of each
/// stand before its text.
///
/// # Errors
/// If the tokenizer fails.
pub(crate) fn alignment(
    tokenizer: &Tokenizer,
    prompts: &LabelledPrompts,
    pair: usize,
    tokens: &[Vec<u32>],
    before: &[usize],
) -> Result<Result<Option<Alignment>, Unaligned>> {
    let (positive, negative) = prompts.pairs[pair];
    let lengths = (tokens[positive].len(), tokens[negative].len());
    let unaligned = |why: String| Unaligned {
        place: prompts.place(pair),
        positive: lengths.0,
        negative: lengths.1,
        why,
    };
    let spans = prompts.spans.get(pair).map_or(&[][..], Vec::as_slice);
    if spans.is_empty() {
        if lengths.0 == lengths.1 {
            return Ok(Ok(None));
        }
        let (here, there) = (&tokens[positive], &tokens[negative]);
        // What stands before every text is no beginning that these two share.
        let before = before[positive];
        let share = here.get(before) == there.get(before) || here.last() == there.last();
        let around = Alignment::around_one_span(here, there).filter(|_| share);
        return Ok(around.map(Some).ok_or_else(|| {
            unaligned(
                "they share no tokens at either end, or the negative has none where the positive differs"
                    .to_owned(),
            )
        }));
    }
    let appended = prompts.appended.get(pair).map_or(0, Vec::len);
    // Where the parts of a prompt begin and end, or the first that does neither between tokens.
    let of = |prompt: usize, part: fn(&Span) -> &Range<usize>| {
        let whole = Whole {
            text: &prompts.texts[prompt],
            tokens: &tokens[prompt][..tokens[prompt].len() - appended],
            before: before[prompt],
        };
        let mut ranges = Vec::with_capacity(spans.len());
        for span in spans {
            let part = part(span);
            let Some(range) = whole.tokens_of(tokenizer, part)? else {
                let span = &whole.text[part.clone()];
                let why = format!("the span {span:?} begins or ends inside a token");
                return Ok(Err(unaligned(why)));
            };
            ranges.push(range);
        }
        Ok::<_, Error>(Ok(ranges))
    };
    let positives = of(positive, |span| &span.positive)?;
    let negatives = of(negative, |span| &span.negative)?;
    let (positives, negatives) = match (positives, negatives) {
        (Ok(positives), Ok(negatives)) => (positives, negatives),
        (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
    };
    let spans: Vec<_> = positives.into_iter().zip(negatives).collect();
    let aligned = Alignment::of_spans(lengths, &spans);
    Ok(aligned.map(Some).ok_or_else(|| {
        unaligned("what stands between the spans has different lengths in tokens".to_owned())
    }))
}
