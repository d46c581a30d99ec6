//! The claim that the words of the GPT-2 prompts are single tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use circuitscope_core::Seed;
use circuitscope_tasks::{BoxError, GREATER_THAN, TASKS, Vocabulary, check_answers, generate};
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::lists::{gpt2, strings};

fn listed() -> BTreeMap<String, u32> {
    let text = include_str!("../../../../datasets/gpt2_tokens.json");
    let file: Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(file["tokens"].clone()).unwrap()
}

/// Without the tokenizer: every answer and every word that varies is in the committed list, which
/// `datasets/gpt2_tokens.py` made with it.
#[test]
fn words_are_in_the_committed_list() {
    let listed = listed();
    let distinct: BTreeSet<_> = listed.values().collect();
    assert_eq!(
        distinct.len(),
        listed.len(),
        "different words are different tokens"
    );
    for (task, lists) in [
        ("ioi", vec!["names", "places", "objects"]),
        ("greater-than", vec!["nouns"]),
        ("docstring", vec!["arguments", "descriptions"]),
        ("induction", vec!["words"]),
    ] {
        for list in lists {
            for word in strings(&gpt2(task)[list]) {
                assert!(
                    listed.contains_key(&format!(" {word}")),
                    "{task} {list}: {word}"
                );
            }
        }
    }
    for task in TASKS.iter().copied() {
        let set = generate(task, Vocabulary::Gpt2, 100, Seed::new(2), None).unwrap();
        let tokens =
            |word: &str| Ok::<_, BoxError>(listed.get(word).copied().into_iter().collect());
        assert_eq!(check_answers(&set, &tokens).unwrap(), [], "{task}");
    }
}

/// With GPT-2's tokenizer, if it is there.
#[test]
fn gpt2s_tokenizer_agrees() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/fixtures/tokenizers/gpt2/tokenizer.json");
    if !file.exists() {
        println!("skipped: no {}", file.display());
        return;
    }
    let tokenizer = Tokenizer::from_file(&file).unwrap();
    let ids = |text: &str| -> Result<Vec<u32>, BoxError> {
        Ok(tokenizer.encode(text, false)?.get_ids().to_vec())
    };
    for (word, id) in listed() {
        assert_eq!(ids(&word).unwrap(), [id], "{word:?}");
    }
    let count = |text: &str| ids(text).map(|ids| ids.len());
    for task in TASKS.iter().copied() {
        let set = generate(task, Vocabulary::Gpt2, 250, Seed::new(0), Some(&ids)).unwrap();
        assert_eq!(check_answers(&set, &ids).unwrap(), [], "{task}");
        let plain = generate(task, Vocabulary::Gpt2, 250, Seed::new(0), None).unwrap();
        assert_eq!(
            set, plain,
            "{task}: GPT-2 has all words, and no pair had to be drawn again"
        );
        // Outside IOI, whose templates differ, all prompts have the same length.
        let lengths: BTreeSet<_> = set
            .pairs
            .iter()
            .map(|pair| count(&pair.positive.text).unwrap())
            .collect();
        match task.name.as_ref() {
            "ioi" => assert!(lengths.len() > 1),
            "greater-than" => assert_eq!(lengths, BTreeSet::from([12])),
            "docstring" => assert_eq!(lengths.len(), 1),
            _ => assert_eq!(lengths, BTreeSet::from([20])),
        }
        if task.name == GREATER_THAN.name {
            for pair in &set.pairs {
                // The first year is at position 6 and 7, and position 7 alone differs.
                let (a, b) = (
                    ids(&pair.positive.text).unwrap(),
                    ids(&pair.negative.text).unwrap(),
                );
                let differing: Vec<_> = (0..12).filter(|&at| a[at] != b[at]).collect();
                assert_eq!(differing, [7]);
                assert_eq!(a[6], a[11], "the century");
            }
        }
    }
}
