use std::collections::BTreeSet;

use circuitscope_core::{Polarity, Seed};
use circuitscope_tasks::{
    DOCSTRING, Error, GREATER_THAN, INDUCTION, IOI, MAX_DRAWS, PromptPair, PromptSet, TASKS,
    TaskSpec, Vocabulary, check_answers, generate,
};
use proptest::prelude::*;

use crate::lists::{differences, gpt2, id, lexicon, strings, words};

fn draw(task: &TaskSpec, vocabulary: Vocabulary, n: usize, seed: u64) -> PromptSet {
    generate(task, vocabulary, n, Seed::new(seed), None).unwrap()
}

fn names(vocabulary: Vocabulary) -> BTreeSet<String> {
    let names = match vocabulary {
        Vocabulary::Gpt2 => strings(&gpt2("ioi")["names"]),
        Vocabulary::Reference => strings(&lexicon()["ioi"]["names"]),
    };
    names.into_iter().collect()
}

/// The names of a text in order, repetitions included.
fn named(names: &BTreeSet<String>, text: &str) -> Vec<String> {
    let words = words(text).into_iter();
    words
        .filter(|word| names.contains(*word))
        .map(str::to_owned)
        .collect()
}

/// The arguments of a docstring prompt: after `def`, the function's name and `self`.
fn signature(text: &str) -> Vec<&str> {
    words(text)[3..9].to_vec()
}

fn tasks() -> impl Strategy<Value = &'static TaskSpec> {
    prop::sample::select(TASKS.to_vec())
}

fn vocabularies() -> impl Strategy<Value = Vocabulary> {
    prop::sample::select(Vocabulary::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn same_seed_same_prompts_and_a_larger_set_begins_with_the_smaller(
        task in tasks(), vocabulary in vocabularies(), seed: u64,
    ) {
        let small = draw(task, vocabulary, 3, seed);
        let large = draw(task, vocabulary, 7, seed);
        prop_assert_eq!(&small, &draw(task, vocabulary, 3, seed));
        prop_assert_eq!(&small.pairs[..], &large.pairs[..3]);
        prop_assert_ne!(&small.pairs, &draw(task, vocabulary, 3, seed ^ 1).pairs);
    }

    #[test]
    fn sets_survive_json(task in tasks(), vocabulary in vocabularies(), seed: u64) {
        let set = draw(task, vocabulary, 2, seed);
        let json = serde_json::to_string(&set).unwrap();
        prop_assert_eq!(serde_json::from_str::<PromptSet>(&json).unwrap(), set);
    }

    #[test]
    fn both_prompts_of_a_pair_are_judged_by_the_same_words(
        task in tasks(), vocabulary in vocabularies(), seed: u64,
    ) {
        for pair in draw(task, vocabulary, 5, seed).pairs {
            let (positive, negative) = (pair.get(Polarity::Positive), pair.get(Polarity::Negative));
            prop_assert_ne!(&positive.text, &negative.text);
            prop_assert_eq!(&positive.answers, &negative.answers);
            prop_assert_eq!(&positive.wrong_answers, &negative.wrong_answers);
            prop_assert!(!positive.answers.is_empty() && !positive.wrong_answers.is_empty());
            let right: BTreeSet<_> = positive.answers.iter().collect();
            let wrong: BTreeSet<_> = positive.wrong_answers.iter().collect();
            prop_assert!(right.is_disjoint(&wrong));
        }
    }

    #[test]
    fn ioi_repeats_the_giver_in_positives_and_no_name_in_negatives(
        vocabulary in vocabularies(), seed: u64,
    ) {
        let names = names(vocabulary);
        for PromptPair { positive, negative } in draw(&IOI, vocabulary, 10, seed).pairs {
            let (io, s) = (positive.answers[0].trim(), positive.wrong_answers[0].trim());
            let in_positive = named(&names, &positive.text);
            let in_negative = named(&names, &negative.text);
            // Two people are introduced, then the giver is named again.
            prop_assert_eq!(in_positive.len(), 3);
            prop_assert_eq!(&in_positive[2], s);
            let introduced: BTreeSet<_> = in_positive[..2].iter().map(String::as_str).collect();
            prop_assert_eq!(introduced, BTreeSet::from([io, s]));
            // Three different people; the giver's first mention is now the receiver's name.
            prop_assert_eq!(in_negative.iter().collect::<BTreeSet<_>>().len(), 3);
            prop_assert_eq!(&in_negative[2], s);
            let first = in_positive.iter().position(|name| name == s).unwrap();
            prop_assert_eq!(&in_negative[first], io);
            prop_assert!(!in_positive.contains(&in_negative[1 - first]));
            // Nothing else differs, and the text stops before the receiver.
            prop_assert_eq!(differences(&positive.text, &negative.text).len(), 2);
            prop_assert_eq!(words(&positive.text).pop().unwrap(), "to");
        }
    }

    #[test]
    fn docstring_names_neighbours_and_negatives_repeat_no_argument(
        vocabulary in vocabularies(), seed: u64,
    ) {
        for PromptPair { positive, negative } in draw(&DOCSTRING, vocabulary, 5, seed).pairs {
            let (before, after) = (signature(&positive.text), signature(&negative.text));
            let described: Vec<_> = words(&positive.text)
                .windows(2)
                .filter(|pair| pair[0] == "param")
                .map(|pair| pair[1])
                .collect();
            // A and B are neighbours, C comes after them, the other five arguments are wrong.
            let first = before.iter().position(|word| *word == described[0]).unwrap();
            prop_assert_eq!(&described[..], &before[first..first + 2]);
            prop_assert_eq!(positive.answers[0].trim(), before[first + 2]);
            let wrong: Vec<_> = positive.wrong_answers.iter().map(|word| word.trim()).collect();
            prop_assert_eq!([&before[..first + 2], &before[first + 3..]].concat(), wrong);
            prop_assert!(positive.text.ends_with(":param"));
            // Everything that differs is fresh, and none of it is there twice.
            let old = words(&positive.text);
            let changed = differences(&positive.text, &negative.text);
            let fresh: BTreeSet<_> = changed.iter().map(|(_, after)| *after).collect();
            prop_assert_eq!(fresh.len(), changed.len());
            prop_assert!(fresh.iter().all(|word| !old.contains(word)));
            let kept = before.iter().zip(&after).map(|(a, b)| a == b).collect::<Vec<_>>();
            match vocabulary {
                Vocabulary::Gpt2 => {
                    prop_assert_eq!(first, 2);
                    prop_assert_eq!(changed.len(), 5);
                    prop_assert_eq!(kept, [true, true, false, false, false, true]);
                }
                Vocabulary::Reference => {
                    prop_assert_eq!(changed.len(), 2);
                    prop_assert_eq!(before, after);
                }
            }
        }
    }

    #[test]
    fn reference_prompts_are_words_of_its_vocabulary(task in tasks(), seed: u64) {
        let lexicon = lexicon();
        let known: BTreeSet<_> = strings(&lexicon["vocabulary"]).into_iter().collect();
        for pair in draw(task, Vocabulary::Reference, 5, seed).pairs {
            for prompt in [pair.positive, pair.negative] {
                let answers = prompt.answers.iter().chain(&prompt.wrong_answers);
                for word in prompt.text.split(' ').chain(answers.map(String::as_str)) {
                    prop_assert!(known.contains(word), "{word:?} in {:?}", prompt.text);
                }
            }
        }
    }

    #[test]
    fn induction_continues_what_followed_the_last_word(vocabulary in vocabularies(), seed: u64) {
        for PromptPair { positive, negative } in draw(&INDUCTION, vocabulary, 5, seed).pairs {
            let text = words(&positive.text);
            let (last, before) = text.split_last().unwrap();
            let first_time = before.iter().position(|word| word == last).unwrap();
            prop_assert_eq!(text[first_time + 1], positive.answers[0].trim());
            let fresh = words(&negative.text);
            prop_assert_eq!(fresh.iter().collect::<BTreeSet<_>>().len(), fresh.len());
            let length = text.iter().collect::<BTreeSet<_>>().len();
            prop_assert_eq!(&text[..length], &fresh[..length]);
            let changed = differences(&positive.text, &negative.text).len();
            prop_assert_eq!(changed, text.len() - length);
        }
    }
}

#[test]
fn greater_than_runs_through_the_years_and_ends_after_the_start() {
    for vocabulary in Vocabulary::ALL {
        let set = draw(&GREATER_THAN, vocabulary, 194, 5);
        for (index, PromptPair { positive, negative }) in set.pairs.iter().enumerate() {
            let year = 2 + index % 97;
            // The GPT-2 text joins century and year, the other separates them.
            let squeeze = |text: &str| text.replace(' ', "");
            let joined = squeeze(&positive.text);
            let (_, after) = joined.split_once("year").unwrap();
            let (start, end) = after.split_once("totheyear").unwrap();
            assert_eq!(start, format!("{end}{year:02}"), "{}", positive.text);
            let years = |range: core::ops::Range<usize>| {
                range.map(|year| format!("{year:02}")).collect::<Vec<_>>()
            };
            assert_eq!(positive.answers, years(year + 1..100));
            assert_eq!(positive.wrong_answers, years(0..year + 1));
            assert_eq!(
                squeeze(&negative.text),
                joined.replacen(start, &format!("{end}01"), 1),
                "the negative differs in the year alone"
            );
        }
    }
}

#[test]
fn seeds_and_pairs_draw_from_different_streams() {
    for vocabulary in Vocabulary::ALL {
        let texts: BTreeSet<_> = (0..20)
            .flat_map(|seed| draw(&IOI, vocabulary, 5, seed).pairs)
            .map(|pair| pair.positive.text)
            .collect();
        assert_eq!(texts.len(), 100, "{vocabulary}");
    }
}

#[test]
fn ioi_uses_every_template_in_both_orders() {
    let data = gpt2("ioi");
    let names = names(Vocabulary::Gpt2);
    let places = strings(&data["places"]);
    let objects = strings(&data["objects"]);
    let mut seen = BTreeSet::new();
    for pair in draw(&IOI, Vocabulary::Gpt2, 600, 0).pairs {
        let (io, text) = (pair.positive.answers[0].trim(), &pair.positive.text);
        let skeleton: Vec<_> = words(text)
            .into_iter()
            .map(|word| match word {
                _ if word == io => "[A]",
                _ if names.contains(word) => "[B]",
                _ if places.iter().any(|place| place == word) => "PLACE",
                _ if objects.iter().any(|object| object == word) => "OBJECT",
                _ => word,
            })
            .collect();
        seen.insert(skeleton.join(" "));
    }
    assert_eq!(seen.len(), 30, "15 templates, BABA and ABBA");
    let abba = seen.iter().filter(|skeleton| {
        let roles = skeleton.split(' ').filter(|w| ["[A]", "[B]"].contains(w));
        roles.eq(["[A]", "[B]", "[B]"])
    });
    assert_eq!(abba.count(), 15);
}

/// A change here changes every result recorded with a seed: it needs a new release and a note.
#[test]
fn the_draws_of_seed_0_are_pinned() {
    let first = |task| {
        let pair = draw(task, Vocabulary::Gpt2, 1, 0).pairs.remove(0);
        [pair.positive.text, pair.negative.text]
    };

    assert_eq!(
        first(&IOI),
        [
            "The old hotel belonged to Hector and Zoe. In the spring Zoe left a mirror to",
            "The old hotel belonged to Angela and Hector. In the spring Zoe left a mirror to",
        ]
    );
    assert_eq!(
        first(&GREATER_THAN),
        [
            "The agreement continued from the year 1702 to the year 17",
            "The agreement continued from the year 1701 to the year 17",
        ]
    );
    assert_eq!(
        first(&DOCSTRING),
        [
            "def wave(self, delay, date, power, shift, name, table):\n    \"\"\"night train king\n\n    \
             :param power: stone music\n    :param shift: river carbon\n    :param",
            "def wave(self, delay, date, force, number, weight, table):\n    \"\"\"night train king\n\n    \
             :param token: stone music\n    :param peak: river carbon\n    :param",
        ]
    );
    assert_eq!(
        first(&INDUCTION),
        [
            " sheep image sender share token king sky guitar cloth array sheep image sender share \
             token king sky guitar cloth array",
            " sheep image sender share token king sky guitar cloth array process engine piano mouse \
             uncle bank rice prince barrel window",
        ]
    );
}

#[test]
fn unequal_pairs_are_drawn_again() {
    let plain = draw(&IOI, Vocabulary::Gpt2, 40, 3);
    // A tokenizer that has a name as one token or as two, depending on what follows.
    let split = |text: &str| {
        let mut tokens = Vec::new();
        for word in text.split_inclusive(' ') {
            tokens.push(id(word.trim_end()));
            if word.len() > 6 && word.ends_with(' ') {
                tokens.push(0);
            }
        }
        Ok(tokens)
    };
    let set = generate(&IOI, Vocabulary::Gpt2, 40, Seed::new(3), Some(&split)).unwrap();
    let count = |text: &str| split(text).unwrap().len();
    let mut kept = 0;
    for (pair, plain) in set.pairs.iter().zip(&plain.pairs) {
        assert_eq!(count(&pair.positive.text), count(&pair.negative.text));
        if count(&plain.positive.text) == count(&plain.negative.text) {
            assert_eq!(pair, plain, "pairs that already align are not touched");
            kept += 1;
        }
    }
    assert!(
        (1..40).contains(&kept),
        "the tokenizer splits some names: {kept}"
    );
}

#[test]
fn answers_of_several_tokens_are_listed() {
    let set = draw(&IOI, Vocabulary::Gpt2, 40, 3);
    let split = |text: &str| Ok(vec![0; 1 + text.trim().len() / 7]);
    let answers = check_answers(&set, &split).unwrap();
    assert!(
        answers
            .iter()
            .all(|answer| answer.word.trim().len() > 6 && answer.tokens == 2)
    );
    assert!(!answers.is_empty());
}

#[test]
fn what_cannot_be_drawn_is_an_error() {
    let error = generate(&IOI, Vocabulary::Gpt2, 0, Seed::new(0), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "zero pairs of ioi prompts were asked for: ask for at least one"
    );

    // No two different texts have the same length.
    let calls = core::cell::Cell::new(0);
    let never = |_: &str| {
        calls.set(calls.get() + 1);
        Ok(vec![0; calls.get()])
    };
    let error = generate(
        &INDUCTION,
        Vocabulary::Reference,
        3,
        Seed::new(0),
        Some(&never),
    );
    let error = error.unwrap_err();
    assert!(matches!(
        error,
        Error::NoEqualLengths {
            pair: 0,
            attempts: MAX_DRAWS,
            ..
        }
    ));
    assert_eq!(calls.get(), 2 * MAX_DRAWS);
    let message = error.to_string();
    let start = "no induction pair of equal token length in 100 draws for pair 1: the last one \
                 has 199 and 200 tokens (";
    assert!(message.starts_with(start), "{message}");

    let broken = |_: &str| Err("no such token".into());
    let error = generate(&IOI, Vocabulary::Gpt2, 1, Seed::new(0), Some(&broken)).unwrap_err();
    let source = core::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "no such token");
}
