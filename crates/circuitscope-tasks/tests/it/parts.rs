//! Named parts of prompts and their variables.

use circuitscope_core::Seed;
use circuitscope_tasks::{
    DOCSTRING, GREATER_THAN, INDUCTION, IOI, Prompt, PromptSet, TASKS, Vocabulary, draw, generate,
    read_pairs, write_pairs,
};
use proptest::prelude::*;

use crate::other_tokenizers::tokenizer;

/// The words of a prompt's parts by their names, in the order of the text.
fn parts(prompt: &Prompt) -> Vec<(&str, &str)> {
    let parts = prompt.slots.iter();
    let parts = parts.map(|slot| {
        let word = prompt.text.get(slot.range.clone());
        (&*slot.name, word.expect("ranges lie on characters"))
    });
    parts.collect()
}

/// The word of the one part of this name.
fn part<'a>(prompt: &'a Prompt, name: &str) -> &'a str {
    let found: Vec<_> = parts(prompt);
    let mut found = found.into_iter().filter(|(found, _)| *found == name);
    let (_, word) = found.next().unwrap_or_else(|| panic!("no {name}"));
    assert!(found.next().is_none(), "{name} twice");
    word
}

fn prompts(set: &PromptSet) -> impl Iterator<Item = &Prompt> {
    let pairs = set.pairs.iter();
    pairs.flat_map(|pair| [&pair.positive, &pair.negative])
}

/// That the parts follow one another, each a word without spaces, and have the same names on both sides.
fn well_named(set: &PromptSet) {
    for prompt in prompts(set) {
        assert!(!prompt.slots.is_empty() && !prompt.variables.is_empty());
        for (name, word) in parts(prompt) {
            assert!(!word.is_empty() && !word.contains(' '), "{name}: {word:?}");
        }
        for two in prompt.slots.windows(2) {
            assert!(two[0].range.end <= two[1].range.start, "{prompt:?}");
        }
    }
    for pair in &set.pairs {
        let [positive, negative] = [&pair.positive, &pair.negative].map(|prompt| {
            let slots = prompt.slots.iter();
            slots.map(|slot| slot.name.as_str()).collect::<Vec<_>>()
        });
        assert_eq!(positive, negative);
        let names = |prompt: &Prompt| prompt.variables.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&pair.positive), names(&pair.negative));
    }
    assert_eq!(set.labelled().check(), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_part_is_the_word_that_it_names(
        vocabulary in prop::sample::select(Vocabulary::ALL.to_vec()), seed: u64,
    ) {
        let of = |task| {
            let set = generate(task, vocabulary, 5, Seed::new(seed), None).unwrap();
            well_named(&set);
            set
        };
        for pair in of(&IOI).pairs {
            for (prompt, repeats) in [(&pair.positive, true), (&pair.negative, false)] {
                let variables = &prompt.variables;
                prop_assert_eq!(part(prompt, "IO"), &variables["IO"]);
                prop_assert_eq!(part(prompt, "S2"), &variables["S"]);
                prop_assert_eq!(part(prompt, "S1") == variables["S"], repeats);
                prop_assert_eq!(part(prompt, "PLACE"), &variables["place"]);
                prop_assert_eq!(part(prompt, "OBJECT"), &variables["object"]);
                let names = parts(prompt).into_iter().map(|(name, _)| name);
                let names: Vec<_> = names.filter(|name| name.len() == 2).collect();
                let expected = match variables["order"].as_str() {
                    "ABBA" => ["IO", "S1", "S2"],
                    "BABA" => ["S1", "IO", "S2"],
                    other => panic!("{other}"),
                };
                prop_assert_eq!(names, expected);
                prop_assert!(variables["template"].parse::<usize>().unwrap() < 20);
            }
            prop_assert_eq!(pair.positive.answers[0].trim(), &pair.positive.variables["IO"]);
            prop_assert_eq!(pair.positive.wrong_answers[0].trim(), &pair.positive.variables["S"]);
            // The receiver of the positive stands where the giver was.
            prop_assert_eq!(part(&pair.negative, "S1"), &pair.positive.variables["IO"]);
        }
        for prompt in prompts(&of(&GREATER_THAN)) {
            let variables = &prompt.variables;
            prop_assert_eq!(
                parts(prompt),
                [
                    ("NOUN", variables["noun"].as_str()),
                    ("CENTURY", &variables["century"]),
                    ("YEAR", &variables["year"]),
                    ("CENTURY2", &variables["century"]),
                ]
            );
            prop_assert_eq!(format!("{}{}", variables["tens"], variables["units"]), variables["year"].clone());
        }
        for pair in of(&DOCSTRING).pairs {
            for prompt in [&pair.positive, &pair.negative] {
                let variables = &prompt.variables;
                for name in ["A", "B", "C"] {
                    prop_assert_eq!(part(prompt, &format!("{name}_def")), &variables[name]);
                }
                let first = prompt.slots.iter().position(|slot| slot.name == "A_def");
                prop_assert_eq!(first.unwrap().to_string(), variables["position"].clone());
                prop_assert_eq!(prompt.slots.len(), 8);
            }
            prop_assert_eq!(part(&pair.positive, "A_doc"), &pair.positive.variables["A"]);
            prop_assert_eq!(part(&pair.positive, "B_doc"), &pair.positive.variables["B"]);
            prop_assert_ne!(part(&pair.negative, "A_doc"), part(&pair.negative, "A_def"));
            prop_assert_eq!(pair.positive.answers[0].trim(), &pair.positive.variables["C"]);
        }
        for pair in of(&INDUCTION).pairs {
            for prompt in [&pair.positive, &pair.negative] {
                let [first, after, second] = [&prompt.slots[0], &prompt.slots[1], &prompt.slots[2]];
                prop_assert_eq!(first.range.end + 1, after.range.start);
                prop_assert_eq!(second.range.end, prompt.text.len());
                prop_assert_eq!(part(prompt, "AFTER"), &prompt.variables["answer"]);
                prop_assert_eq!(part(prompt, "SECOND"), &prompt.variables["repeated"]);
            }
            let positive = &pair.positive;
            prop_assert_eq!(part(positive, "FIRST"), part(positive, "SECOND"));
            prop_assert_eq!(positive.answers[0].trim(), &positive.variables["answer"]);
            prop_assert_eq!(part(&pair.negative, "FIRST"), part(positive, "FIRST"));
        }
    }

    #[test]
    fn pairs_survive_being_written(
        task in prop::sample::select(TASKS.to_vec()),
        vocabulary in prop::sample::select(Vocabulary::ALL.to_vec()),
        seed: u64,
    ) {
        let prompts = draw(task, vocabulary, 7, Seed::new(seed), None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.jsonl");
        let text = write_pairs(&prompts).unwrap();
        prop_assert_eq!(text.lines().count(), 7);
        fs_err::write(&path, &text).unwrap();
        let mut read = read_pairs(&path).unwrap();
        prop_assert_eq!(&read.notes, &[""; 0]);
        read.origin = None;
        prop_assert_eq!(&read, &prompts);
        // Some pairs keep what is theirs.
        let some = read.only_pairs(&[4, 1]);
        prop_assert_eq!(&some.slots[1], &prompts.slots[1]);
        prop_assert_eq!(&some.slots[2], &prompts.slots[7 + 4]);
        prop_assert_eq!(&some.variables[3], &prompts.variables[7 + 1]);
        prop_assert_eq!(some.check(), Ok(()));
    }
}

/// Where single digits are asked, they are parts.
#[test]
fn digits_are_parts_where_they_are_asked() {
    for (tokens, expected) in [
        (
            1,
            ["NOUN", "CENTURY", "TENS", "UNITS", "CENTURY2"].as_slice(),
        ),
        (
            3,
            &["NOUN", "CENTURY", "TENS", "UNITS", "CENTURY2", "TENS2"],
        ),
    ] {
        let tokens = tokenizer(tokens, false);
        let (task, vocabulary) = (&GREATER_THAN, Vocabulary::Gpt2);
        let set = generate(task, vocabulary, 30, Seed::new(1), Some(&tokens)).unwrap();
        well_named(&set);
        for prompt in prompts(&set) {
            let names: Vec<_> = parts(prompt).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, expected);
            let variables = &prompt.variables;
            for (slot, word) in parts(prompt) {
                let variable = slot.trim_end_matches('2').to_lowercase();
                assert_eq!(word, variables[&variable], "{prompt:?}");
            }
            let year = format!("{}{}", variables["century"], variables["year"]);
            assert!(prompt.text.contains(&year));
        }
    }
}

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
