//! The reference model's files agree with each other and with its prompts.

use std::collections::BTreeSet;

use circuitscope_core::Seed;
use circuitscope_reference::FILES;
use circuitscope_tasks::{
    BoxError, GREATER_THAN, TASKS, Vocabulary, check_answers, generate, ground_truths,
};
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::lists::{lexicon, strings};

#[test]
fn every_task_has_a_planted_circuit() {
    let config: Value = serde_json::from_slice(FILES.config).unwrap();
    let mut planted = BTreeSet::new();
    for task in TASKS.iter().copied() {
        let truths = ground_truths(task, "reference").unwrap();
        let [truth] = &truths[..] else {
            panic!("{task}: {} variants", truths.len());
        };
        assert_eq!(truth.variant, "planted");
        let grid = truth.circuit.grid;
        assert_eq!(config["n_layer"], grid.n_layers);
        assert_eq!(config["n_head"], grid.n_heads);
        // The heads of greater-than work side by side, and MLPs sum what they carry.
        let joined = !truth.circuit.head_pairs().is_empty();
        assert_eq!(joined, task.name != GREATER_THAN.name, "{task}");
        for edge in &truth.circuit.edges {
            assert!(edge.source.precedes(edge.destination), "{task}: {edge}");
        }
        for head in truth.circuit.heads() {
            assert!(planted.insert(head), "{head} is in two circuits");
            assert!(!truth.decoys.contains(&head), "{task}: {head} is a decoy");
        }
        assert!(!truth.decoys.is_empty());
    }
}

#[test]
fn one_word_is_one_token() {
    let tokenizer = Tokenizer::from_bytes(FILES.tokenizer).unwrap();
    for (id, word) in strings(&lexicon()["vocabulary"]).iter().enumerate() {
        assert_eq!(tokenizer.token_to_id(word), Some(id as u32), "{word}");
    }
    let tokens = |text: &str| -> Result<Vec<String>, BoxError> {
        Ok(tokenizer.encode(text, false)?.get_tokens().to_vec())
    };
    let ids = |text: &str| -> Result<Vec<u32>, BoxError> {
        Ok(tokenizer.encode(text, false)?.get_ids().to_vec())
    };
    for task in TASKS.iter().copied() {
        let set = generate(task, Vocabulary::Reference, 50, Seed::new(1), Some(&ids)).unwrap();
        assert_eq!(check_answers(&set, &ids).unwrap(), [], "{task}");
        let plain = generate(task, Vocabulary::Reference, 50, Seed::new(1), None).unwrap();
        assert_eq!(set, plain, "{task}: no pair had to be drawn again");
        for pair in &set.pairs {
            for text in [&pair.positive.text, &pair.negative.text] {
                let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
                assert_eq!(tokens(text).unwrap(), words);
            }
        }
    }
}

#[test]
fn weights_are_a_safetensors_file_of_modest_size() {
    let weights = FILES.weights;
    assert!(weights.len() < 4 << 20, "{} bytes", weights.len());
    let header = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&weights[8..8 + header]).unwrap();
    assert!(header.as_object().is_some_and(|tensors| tensors.len() > 4));
}
