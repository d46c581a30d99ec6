use std::path::PathBuf;

use circuitscope_core::Polarity;
use circuitscope_tasks::{LabelledPrompts, Result, check_pair_lengths, read_lines, read_pairs};
use tempfile::TempDir;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs_err::write(&path, text).unwrap();
        path
    }
}

fn pairs(text: &str) -> Result<LabelledPrompts> {
    read_pairs(&Files::new().write("my.jsonl", text))
}

/// The message for a file, from its name on.
fn message(text: &str) -> String {
    let message = pairs(text).unwrap_err().to_string();
    let at = message
        .find("my.jsonl")
        .expect("the message names the file");
    message[at..].to_owned()
}

#[test]
fn pairs_are_read_as_written() {
    let prompts = pairs(
        "\u{feff}{\"positive\": \" a\\nb \", \"negative\": \"c\"}\r\n\
         {\"negative\": \"d\", \"positive\": \"é\"}\n\n  \n",
    )
    .unwrap();
    assert_eq!(prompts.texts, [" a\nb ", "é", "c", "d"]);
    assert_eq!(prompts.pairs, [(0, 2), (1, 3)]);
    assert_eq!(prompts.labels[1], Polarity::Positive);
    assert_eq!(prompts.labels[2], Polarity::Negative);
}

#[test]
fn faults_name_file_line_field_and_the_nearest() {
    let good = r#"{"positive": "a", "negative": "b"}"#;
    let second = |line: &str| message(&format!("{good}\n{line}\n{good}\n"));
    assert_eq!(
        second(r#"{"positiv": "a", "negative": "b"}"#),
        "my.jsonl:2: unknown field \"positiv\" (did you mean `positive`?): expected \"positive\" \
         and \"negative\""
    );
    assert_eq!(
        second(r#"{"positive": "a", "negative": "b", "x": 1}"#),
        "my.jsonl:2: unknown field \"x\": expected \"positive\" and \"negative\""
    );
    assert_eq!(
        second(r#"{"positive": "a"}"#),
        "my.jsonl:2: field \"negative\" is missing"
    );
    assert_eq!(
        second(r#"{"positive": "a", "negative": ["b"]}"#),
        "my.jsonl:2: field \"negative\": found a list, expected a string"
    );
    assert_eq!(
        second(r#"{"positive": "a", "positive": "a", "negative": "b"}"#),
        "my.jsonl:2: field \"positive\" is given twice"
    );
    assert_eq!(
        second(r#"{"positive": "", "negative": "b"}"#),
        "my.jsonl:2: field \"positive\" is an empty prompt"
    );
    assert_eq!(
        second(r#"["a", "b"]"#),
        "my.jsonl:2: found a list, expected an object {\"positive\": \"…\", \"negative\": \"…\"}"
    );
    assert_eq!(
        second(""),
        "my.jsonl:2: the line is empty: every line holds a prompt"
    );
    let broken = second(r#"{"positive": "a", "#);
    assert!(
        broken.starts_with("my.jsonl:2: not JSON: ") && broken.contains("at column"),
        "{broken}"
    );
    assert!(second(&format!("{good} {good}")).starts_with("my.jsonl:2: not JSON: trailing"));
}

#[test]
fn empty_classes_and_unreadable_files_are_errors() {
    assert_eq!(
        message("\n"),
        "my.jsonl has no positive prompt: both classes need at least one"
    );
    let files = Files::new();
    let (full, empty) = (files.write("p.txt", "a\n"), files.write("n.txt", ""));
    let error = read_lines(&full, &empty).unwrap_err().to_string();
    assert!(error.ends_with("n.txt has no negative prompt: both classes need at least one"));
    let error = read_lines(&empty, &full).unwrap_err().to_string();
    assert!(error.ends_with("n.txt has no positive prompt: both classes need at least one"));

    let missing = files.0.path().join("missing.jsonl");
    assert!(
        read_pairs(&missing)
            .unwrap_err()
            .to_string()
            .contains("missing.jsonl")
    );
    let binary = files.write("binary.jsonl", [0xff, 0xfe, 0x00]);
    assert!(
        read_pairs(&binary)
            .unwrap_err()
            .to_string()
            .contains("binary.jsonl")
    );
    assert!(read_pairs(files.0.path()).is_err(), "a folder");
}

#[test]
fn two_files_of_equal_length_are_matched() {
    let files = Files::new();
    let two = files.write("two.txt", "a \n b\n");
    let three = files.write("three.txt", "c\r\nd\r\ne\r\n\r\n");
    let matched = read_lines(&two, &two).unwrap();
    assert_eq!(matched.texts, ["a ", " b", "a ", " b"]);
    assert_eq!(matched.pairs, [(0, 2), (1, 3)]);
    let unmatched = read_lines(&two, &three).unwrap();
    assert_eq!(unmatched.texts, ["a ", " b", "c", "d", "e"]);
    assert!(unmatched.pairs.is_empty());
    let gap = files.write("gap.txt", "a\n\nb\n");
    let error = read_lines(&gap, &two).unwrap_err().to_string();
    assert!(error.ends_with("gap.txt:2: the line is empty: every line holds a prompt"));
}

#[test]
fn unequal_pairs_are_counted_and_the_first_is_named() {
    check_pair_lengths(&[]).unwrap();
    let message = |lengths: &[_]| check_pair_lengths(lengths).unwrap_err().to_string();
    assert_eq!(
        message(&[(3, 3), (4, 5), (2, 2)]),
        "pair 2: the positive prompt has 4 tokens, the negative 5: the prompts of a pair must have \
         the same length"
    );
    assert!(message(&[(1, 2), (4, 5), (2, 3)]).ends_with("(and so for 2 more pairs)"));
}
