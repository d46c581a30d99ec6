//! Tasks in the tokens of other tokenizers than GPT-2's.

use std::collections::BTreeSet;

use circuitscope_core::Seed;
use circuitscope_tasks::{
    BoxError, DOCSTRING, GREATER_THAN, INDUCTION, IOI, PromptSet, Result, Vocabulary, following,
    generate,
};

use crate::lists::id;

/// Words with the space before them, and digits in runs of at most `digits` from the left; `parted` says
/// whether the space before a number is a token of its own.
fn pieces(text: &str, digits: usize, parted: bool) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for char in text.chars() {
        let goes_on = pieces.last().is_some_and(|last| {
            let run = last.trim_start();
            if char.is_ascii_digit() {
                let of_digits = run.bytes().all(|byte| byte.is_ascii_digit());
                of_digits && run.len() < digits && !(run.is_empty() && parted)
            } else {
                char.is_alphabetic() && run.chars().all(char::is_alphabetic)
            }
        });
        match pieces.last_mut() {
            Some(last) if goes_on => last.push(char),
            _ => pieces.push(char.to_string()),
        }
    }
    pieces
}

pub(crate) fn tokenizer(
    digits: usize,
    parted: bool,
) -> impl Fn(&str) -> Result<Vec<u32>, BoxError> {
    move |text| {
        Ok(pieces(text, digits, parted)
            .iter()
            .map(|piece| id(piece))
            .collect())
    }
}

fn greater_than(tokens: impl Fn(&str) -> Result<Vec<u32>, BoxError>, n: usize) -> PromptSet {
    let set = generate(
        &GREATER_THAN,
        Vocabulary::Gpt2,
        n,
        Seed::new(0),
        Some(&tokens),
    )
    .unwrap();
    for pair in &set.pairs {
        let [positive, negative] = [&pair.positive, &pair.negative].map(|prompt| &prompt.text);
        assert_eq!(
            tokens(positive).unwrap().len(),
            tokens(negative).unwrap().len()
        );
        // Every answer is one token after the prompt, and no two are the same.
        let answers = pair
            .positive
            .answers
            .iter()
            .chain(&pair.positive.wrong_answers);
        let answers = answers.map(|answer| following(&tokens, positive, answer).unwrap().unwrap());
        let answers: Vec<Vec<u32>> = answers.collect();
        assert!(answers.iter().all(|tokens| tokens.len() == 1), "{positive}");
        let distinct: BTreeSet<_> = answers.iter().collect();
        assert_eq!(distinct.len(), answers.len());
        assert!(!pair.positive.answers.is_empty() && !pair.positive.wrong_answers.is_empty());
    }
    set
}

/// The first year of a prompt, and the digits it ends in.
fn years(text: &str) -> (String, String) {
    let words: Vec<&str> = text.split(' ').collect();
    let year = words.iter().position(|word| *word == "year").unwrap();
    (
        words[year + 1].to_owned(),
        words[words.len() - 1].to_owned(),
    )
}

fn digits(range: core::ops::Range<u8>) -> Vec<String> {
    range.map(|digit| digit.to_string()).collect()
}

#[test]
fn numbers_of_two_digits_are_asked_whole() {
    let set = greater_than(tokenizer(2, false), 97);
    let plain = generate(&GREATER_THAN, Vocabulary::Gpt2, 97, Seed::new(0), None).unwrap();
    assert_eq!(set.notes, [""; 0]);
    for (pair, plain) in set.pairs.iter().zip(&plain.pairs) {
        assert_eq!(pair.positive.answers, plain.positive.answers);
    }
}

#[test]
fn single_digits_ask_the_third() {
    for parted in [false, true] {
        let set = greater_than(tokenizer(1, parted), 160);
        assert!(
            set.notes[0].contains("the third digit of the year is asked"),
            "{:?}",
            set.notes
        );
        for pair in &set.pairs {
            let (first, last) = years(&pair.positive.text);
            assert_eq!(first[..2], last, "{}", pair.positive.text);
            let third = first.as_bytes()[2] - b'0';
            assert_eq!(pair.positive.answers, digits(third + 1..10));
            assert_eq!(pair.positive.wrong_answers, digits(0..third));
            assert_eq!(years(&pair.negative.text).0, format!("{last}01"));
        }
    }
}

#[test]
fn three_digits_ask_the_fourth() {
    let set = greater_than(tokenizer(3, true), 160);
    assert!(
        set.notes[0].contains("the fourth is asked"),
        "{:?}",
        set.notes
    );
    for pair in &set.pairs {
        let (first, last) = years(&pair.positive.text);
        assert_eq!(first[..3], last, "{}", pair.positive.text);
        let fourth = first.as_bytes()[3] - b'0';
        assert_eq!(pair.positive.answers, digits(fourth + 1..10));
        assert_eq!(pair.positive.wrong_answers, digits(0..fourth + 1));
        assert_eq!(years(&pair.negative.text), (format!("{last}0"), last));
    }
}

#[test]
fn a_year_that_is_one_token_cannot_be_asked() {
    let tokens = tokenizer(4, true);
    let error = generate(
        &GREATER_THAN,
        Vocabulary::Gpt2,
        1,
        Seed::new(0),
        Some(&tokens),
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "task greater-than cannot be posed in this model's tokens: a year must part into tokens after its \
         first two or three digits, the same for every year; of 776 years from 1102 on, 776 part otherwise"
    );
}

/// Words of up to five letters are one token, others are split into letters.
#[expect(clippy::unnecessary_wraps, reason = "as tokenizers are")]
fn short_words(text: &str) -> Result<Vec<u32>, BoxError> {
    let pieces = pieces(text, 2, false);
    let tokens = pieces.iter().flat_map(|piece| {
        if piece.trim().len() <= 5 {
            vec![id(piece)]
        } else {
            piece.chars().map(u32::from).collect()
        }
    });
    Ok(tokens.collect())
}

#[test]
fn words_are_those_that_are_one_token() {
    for task in [&IOI, &DOCSTRING, &INDUCTION] {
        let set = generate(task, Vocabulary::Gpt2, 60, Seed::new(1), Some(&short_words)).unwrap();
        let note = &set.notes[0];
        assert!(
            note.ends_with("are drawn from: those that are one token in this model"),
            "{note}"
        );
        for pair in &set.pairs {
            let answers = pair
                .positive
                .answers
                .iter()
                .chain(&pair.positive.wrong_answers);
            for answer in answers {
                assert_eq!(short_words(answer).unwrap().len(), 1, "{task}: {answer:?}");
            }
            let lengths = [&pair.positive, &pair.negative].map(|prompt| short_words(&prompt.text));
            assert_eq!(
                lengths[0].as_ref().unwrap().len(),
                lengths[1].as_ref().unwrap().len()
            );
        }
    }
}

#[test]
fn a_space_before_every_text_does_not_hide_that_a_word_is_one_token() {
    // As SentencePiece has it: a dummy space first, which is a token where a space follows.
    let dummy = |text: &str| {
        let text = format!(" {text}");
        Ok(pieces(&text, 1, true)
            .iter()
            .map(|piece| id(piece))
            .collect())
    };
    let set = generate(&IOI, Vocabulary::Gpt2, 60, Seed::new(1), Some(&dummy)).unwrap();
    assert_eq!(set.notes, [""; 0], "all names are one token after a word");
    let plain = generate(&IOI, Vocabulary::Gpt2, 60, Seed::new(1), None).unwrap();
    assert_eq!(set.pairs, plain.pairs);
}

#[test]
fn letters_alone_leave_words_of_one_length() {
    let letters = |text: &str| Ok(text.chars().map(u32::from).collect());
    let set = generate(&IOI, Vocabulary::Gpt2, 60, Seed::new(1), Some(&letters)).unwrap();
    assert!(
        set.notes[0].ends_with("the same number of tokens in this model"),
        "{:?}",
        set.notes
    );
    let lengths: BTreeSet<usize> = set
        .pairs
        .iter()
        .map(|pair| pair.positive.answers[0].len())
        .collect();
    assert_eq!(lengths.len(), 1);
}

#[test]
fn words_that_a_tokenizer_does_not_know_are_no_words() {
    // Every word is the one token for what is unknown.
    let unknown = |text: &str| Ok(text.split(' ').map(|_| 0).collect());
    let error = generate(&IOI, Vocabulary::Gpt2, 1, Seed::new(0), Some(&unknown)).unwrap_err();
    let message = error.to_string();
    assert!(
        message.starts_with(
            "task ioi cannot be posed in this model's tokens: it needs 3 names of one length in tokens; of"
        ) && message.contains("0 are one token after a space"),
        "{message}"
    );
}
