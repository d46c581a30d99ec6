//! Words that a tokenizer has as a task needs them.

use std::collections::BTreeMap;

use crate::next::following;
use crate::{Error, Result, TokenEncoder};

/// Where at least this many words are one token, no others are drawn.
const ENOUGH: usize = 10;

/// Those of `words` that are one token after a space; where fewer than [`ENOUGH`] of them, or than the task
/// needs, are, those of the token count that most of them have. With a note where that is not all of
/// them.
///
/// Words that share all their tokens count as one: to such a tokenizer they are unknown.
pub(crate) fn of_one_length(
    task: &str,
    what: &str,
    words: Vec<String>,
    needed: usize,
    tokens: Option<&TokenEncoder<'_>>,
) -> Result<(Vec<String>, Option<String>)> {
    let Some(tokens) = tokens else {
        return Ok((words, None));
    };
    let all = words.len();
    let mut seen: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
    let (mut read, mut unread) = (Vec::new(), None);
    for word in words {
        // What comes before does not matter, as long as something does.
        match following(tokens, "to", &format!(" {word}")) {
            Ok(Some(found)) => {
                *seen.entry(found.clone()).or_default() += 1;
                read.push((word, found));
            }
            Ok(None) => {}
            Err(error) => unread = Some(error),
        }
    }
    // Some tokenizers fail on words that they do not know; one that fails on all of them is broken.
    if let (true, Some(error)) = (read.is_empty(), unread) {
        return Err(error);
    }
    let mut by_length: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (word, found) in read {
        if seen[&found] == 1 {
            by_length.entry(found.len()).or_default().push(word);
        }
    }
    let single = by_length.get(&1).map_or(0, Vec::len);
    let length = if single >= needed.max(ENOUGH) {
        1
    } else {
        let most = by_length
            .iter()
            .max_by_key(|(length, words)| (words.len(), usize::MAX - **length));
        most.map_or(1, |(length, _)| *length)
    };
    let taken = by_length.remove(&length).unwrap_or_default();
    if taken.len() < needed {
        return Err(Error::Unposable {
            task: task.to_owned(),
            why: format!(
                "it needs {needed} {what} of one length in tokens; of {all}, {single} are one token after a \
                 space, and {} have {length}, the most of any length",
                taken.len()
            ),
        });
    }
    let note = (taken.len() < all).then(|| {
        let tokens = if length == 1 {
            "one token"
        } else {
            "the same number of tokens"
        };
        format!(
            "{} of {all} {what} are drawn from: those that are {tokens} in this model",
            taken.len()
        )
    });
    Ok((taken, note))
}
