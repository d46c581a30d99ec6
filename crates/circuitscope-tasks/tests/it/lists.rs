//! The word lists of `datasets/`, read without the crate under test.

use serde_json::Value;

pub(crate) fn gpt2(task: &str) -> Value {
    let text = match task {
        "ioi" => include_str!("../../../../datasets/ioi/gpt2.json"),
        "greater-than" => include_str!("../../../../datasets/greater-than/gpt2.json"),
        "docstring" => include_str!("../../../../datasets/docstring/gpt2.json"),
        _ => include_str!("../../../../datasets/induction/gpt2.json"),
    };
    serde_json::from_str(text).unwrap()
}

pub(crate) fn lexicon() -> Value {
    let text = include_str!("../../../../datasets/reference/lexicon.json");
    serde_json::from_str(text).unwrap()
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().unwrap().iter();
    list.map(|word| word.as_str().unwrap().to_owned()).collect()
}

/// The words of a text: runs of letters and digits.
pub(crate) fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect()
}

/// The places where two texts of equally many words differ.
pub(crate) fn differences<'a>(a: &'a str, b: &'a str) -> Vec<(&'a str, &'a str)> {
    let (a, b) = (words(a), words(b));
    assert_eq!(a.len(), b.len(), "{a:?} {b:?}");
    a.into_iter().zip(b).filter(|(a, b)| a != b).collect()
}

/// A number for a word, different for all words that occur.
pub(crate) fn id(word: &str) -> u32 {
    let add = |sum: u32, byte: u8| sum.wrapping_mul(257).wrapping_add(u32::from(byte));
    word.bytes().fold(7, add)
}
