//! Parts of prompts: named ones, and those of a pair that correspond.

use core::ops::Range;

use serde::{Deserialize, Serialize};

use super::{LabelledPrompts, Span};

/// A named part of a prompt. Several parts may have one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Where it stands, in bytes of the text: the words alone, without the space before them.
    pub range: Range<usize>,
}

impl Slot {
    /// The part `range` by `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, range: Range<usize>) -> Self {
        Self {
            name: name.into(),
            range,
        }
    }
}

/// Slots in the order of the text, each once.
pub(crate) fn in_order(mut slots: Vec<Slot>) -> Vec<Slot> {
    slots.sort_by(|a, b| {
        let key = |slot: &Slot| (slot.range.start, slot.range.end);
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    slots.dedup();
    slots
}

impl LabelledPrompts {
    /// Moves spans and slots to where their parts stand since the texts, which were `plain`, were put into others,
    /// such as a chat template's. Spans of pairs and slots of prompts that are not there as they were are dropped.
    pub fn move_parts(&mut self, plain: &[String]) {
        let moved = |prompt: usize, part: &Range<usize>| {
            let before = &plain[prompt];
            if self.texts[prompt] == *before {
                return Some(part.clone());
            }
            let text = before.trim();
            let trimmed = before.find(text).filter(|_| !text.is_empty())?;
            let at = self.texts[prompt].find(text)?;
            let start = (at + part.start).checked_sub(trimmed)?;
            let inside = trimmed <= part.start && part.end <= trimmed + text.len();
            Some(start..start + part.len()).filter(|_| inside)
        };
        let spans = self.spans.iter().zip(&self.pairs);
        let spans = spans.map(|(spans, &(positive, negative))| {
            let spans = spans.iter().map(|span| {
                Some(Span {
                    positive: moved(positive, &span.positive)?,
                    negative: moved(negative, &span.negative)?,
                })
            });
            spans.collect::<Option<Vec<_>>>().unwrap_or_default()
        });
        let slots = self.slots.iter().enumerate().map(|(prompt, slots)| {
            let slots = slots.iter().filter_map(|slot| {
                let range = moved(prompt, &slot.range)?;
                Some(Slot::new(slot.name.clone(), range))
            });
            slots.collect()
        });
        (self.spans, self.slots) = (spans.collect(), slots.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_move_with_their_texts() {
        let pair = (" Ann met Al".to_owned(), "Bo met Al ".to_owned());
        let mut prompts = LabelledPrompts::from_pairs([pair]);
        let spans = vec![Span {
            positive: 1..4,
            negative: 0..2,
        }];
        // A slot that takes in a space at the end of the prompt, which the template trims, cannot stay.
        let slots = vec![
            vec![Slot::new("S", 1..4), Slot::new("O", 9..11)],
            vec![Slot::new("S", 0..2), Slot::new("O", 7..10)],
        ];
        (prompts.spans, prompts.slots) = (vec![spans.clone()], slots.clone());
        let plain = prompts.texts.clone();
        prompts.move_parts(&plain);
        assert_eq!(prompts.spans, [spans]);
        assert_eq!(prompts.slots, slots);
        for text in &mut prompts.texts {
            *text = format!("<user>{}<model>", text.trim());
        }
        prompts.move_parts(&plain);
        let span = &prompts.spans[0][0];
        assert_eq!(&prompts.texts[0][span.positive.clone()], "Ann");
        assert_eq!(&prompts.texts[1][span.negative.clone()], "Bo");
        let words = |prompt: usize| {
            let slots = prompts.slots[prompt].iter();
            let words = slots.map(|slot| (&*slot.name, &prompts.texts[prompt][slot.range.clone()]));
            words.collect::<Vec<_>>()
        };
        assert_eq!(words(0), [("S", "Ann"), ("O", "Al")]);
        assert_eq!(words(1), [("S", "Bo")]);
        prompts.texts[0].clear();
        prompts.move_parts(&plain);
        assert!(prompts.spans[0].is_empty() && prompts.slots[0].is_empty());
        assert_eq!(prompts.check(), Ok(()));
    }
}
