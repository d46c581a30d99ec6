//! How the prompts of a pair correspond, token by token.

use core::ops::Range;

use circuitscope_eval::causal::Alignment;
use circuitscope_model::Tokenizer;
use circuitscope_tasks::{LabelledPrompts, Span};

use crate::{Error, Result};

/// The alignment of a pair: by its spans where it names some, around the one span in which its prompts
/// differ where they have different lengths, and none where they correspond position by position.
///
/// `tokens` are those of all prompts, whatever stands before or after their texts included.
///
/// # Errors
/// [`Error::Unaligned`].
pub(crate) fn alignment(
    tokenizer: &Tokenizer,
    prompts: &LabelledPrompts,
    pair: usize,
    tokens: &[Vec<u32>],
) -> Result<Option<Alignment>> {
    let (positive, negative) = prompts.pairs[pair];
    let lengths = (tokens[positive].len(), tokens[negative].len());
    let unaligned = |why: String| Error::Unaligned {
        place: prompts.place(pair),
        positive: lengths.0,
        negative: lengths.1,
        why,
    };
    let spans = prompts.spans.get(pair).map_or(&[][..], Vec::as_slice);
    if spans.is_empty() {
        if lengths.0 == lengths.1 {
            return Ok(None);
        }
        let (here, there) = (&tokens[positive], &tokens[negative]);
        // What stands before every text is no beginning that these two share.
        let text = prompts.texts[positive].as_str();
        let appended = prompts.appended.get(pair).map_or(0, Vec::len);
        let before = here.len() - tokenizer.encode(text, false)?.len() - appended;
        let share = here.get(before) == there.get(before) || here.last() == there.last();
        let around = Alignment::around_one_span(here, there).filter(|_| share);
        return around.map(Some).ok_or_else(|| {
            unaligned(
                "they share no tokens at either end, or the negative has none where the positive differs"
                    .to_owned(),
            )
        });
    }
    let appended = prompts.appended.get(pair).map_or(0, Vec::len);
    let of = |prompt: usize, part: fn(&Span) -> &Range<usize>| {
        let text = prompts.texts[prompt].as_str();
        let whole = tokenizer.encode(text, false)?;
        let before = tokens[prompt].len() - whole.len() - appended;
        let ranges = spans.iter().map(|span| {
            let part = part(span);
            let boundary = |end: usize| {
                let head = if end == 0 {
                    Vec::new()
                } else {
                    tokenizer.encode(&text[..end], false)?
                };
                let parts = whole.starts_with(&head);
                parts.then_some(before + head.len()).ok_or_else(|| {
                    let span = &text[part.clone()];
                    unaligned(format!("the span {span:?} begins or ends inside a token"))
                })
            };
            // A word's token begins with the space before it.
            let space = usize::from(text[..part.start].ends_with(' '));
            Ok(boundary(part.start - space)?..boundary(part.end)?)
        });
        ranges.collect::<Result<Vec<_>>>()
    };
    let positives = of(positive, |span| &span.positive)?;
    let negatives = of(negative, |span| &span.negative)?;
    let spans: Vec<_> = positives.into_iter().zip(negatives).collect();
    let aligned = Alignment::of_spans(lengths, &spans);
    aligned.map(Some).ok_or_else(|| {
        unaligned("what stands between the spans has different lengths in tokens".to_owned())
    })
}
