//! Named parts of prompts and their variables.

use circuitscope_core::Seed;
use circuitscope_tasks::{TASKS, Vocabulary, generate};

/// FNV-1a of 64 bits.
fn hash(texts: impl Iterator<Item = String>) -> u64 {
    let bytes = texts.flat_map(|text| (text + "\n").into_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Hashes of the texts that were drawn before prompts knew their parts.
#[test]
fn naming_parts_changes_no_draw() {
    let mut found = Vec::new();
    for task in TASKS {
        for vocabulary in Vocabulary::ALL {
            let set = generate(task, vocabulary, 50, Seed::new(11), None).unwrap();
            let texts = set.pairs.into_iter().flat_map(|pair| {
                let answers = [pair.positive.answers, pair.positive.wrong_answers].concat();
                [pair.positive.text, pair.negative.text, answers.join("|")]
            });
            found.push(format!("{task} {vocabulary} {:016x}", hash(texts)));
        }
    }
    assert_eq!(
        found,
        [
            "ioi gpt2 8d6da86be390efc7",
            "ioi reference cf6db8883812f4ff",
            "greater-than gpt2 80b2e33d6747b7be",
            "greater-than reference e605dc1b9b7d0bb0",
            "docstring gpt2 e9cdd614f149d5c1",
            "docstring reference bad314ede00e7ef6",
            "induction gpt2 4896349f2bf77db7",
            "induction reference 31e461239fe963b2"
        ]
    );
}
