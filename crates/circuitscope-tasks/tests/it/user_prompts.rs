use std::path::PathBuf;

use circuitscope_core::Polarity;
use circuitscope_tasks::{
    AnswerToken, Answers, LabelledPrompts, Result, check_pair_lengths, read_lines, read_pairs,
};
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
        "my.jsonl:2: unknown field \"positiv\" (did you mean `positive`?): expected \"positive\", \
         \"negative\", \"answers\" or \"wrong_answers\""
    );
    assert_eq!(
        second(r#"{"positive": "a", "negative": "b", "x": 1}"#),
        "my.jsonl:2: unknown field \"x\": expected \"positive\", \"negative\", \"answers\" or \
         \"wrong_answers\""
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
        second(r#"{"positive": "a", "negative": "b", "answers": [" x", {}]}"#),
        "my.jsonl:2: field \"answers\": found an object, expected a word or the number of a token, or \
         a list of them"
    );
    assert_eq!(
        second(r#"{"positive": "a", "negative": "b", "wrong_answers": -1}"#),
        "my.jsonl:2: field \"wrong_answers\": found -1, expected a word or the number of a token, or \
         a list of them"
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

fn named(name: &str, text: &str) -> Result<LabelledPrompts> {
    read_pairs(&Files::new().write(name, text))
}

fn fault(name: &str, text: &str) -> String {
    let message = named(name, text).unwrap_err().to_string();
    let at = message.find(name).expect("the message names the file");
    message[at..].to_owned()
}

fn words(words: &[&str]) -> Vec<AnswerToken> {
    let word = |word: &&str| AnswerToken::Word((*word).to_owned());
    words.iter().map(word).collect()
}

#[test]
fn answers_are_read_where_a_line_has_them() {
    let prompts = pairs(
        "{\"positive\": \"a\", \"negative\": \"b\", \"answers\": [\" x\", 7], \"wrong_answers\": \" y\"}\n\
         {\"positive\": \"c\", \"negative\": \"d\"}\n",
    )
    .unwrap();
    let [first, second] = prompts.answers.as_slice() else {
        panic!("{:?}", prompts.answers)
    };
    assert_eq!(
        first.right,
        [words(&[" x"]), vec![AnswerToken::Id(7)]].concat()
    );
    assert_eq!(first.wrong, words(&[" y"]));
    assert_eq!(*second, Answers::default());
    // Without any, nothing is known.
    let none = pairs("{\"positive\": \"a\", \"negative\": \"b\"}").unwrap();
    assert!(none.answers.is_empty());
}

#[test]
fn task_files_of_auto_circuit() {
    let prompts = named(
        "ioi.json",
        r#"{"seq_labels": ["x"], "prompts": [
            {"clean": "When A and B", "corrupt": "When C and B", "answers": [" A"], "wrong_answers": [" B"]},
            {"clean": "p", "corrupt": "n", "answers": [12], "wrong_answers": [13, 14]}
        ]}"#,
    )
    .unwrap();
    assert_eq!(prompts.texts, ["When A and B", "p", "When C and B", "n"]);
    assert_eq!(prompts.pairs, [(0, 2), (1, 3)]);
    assert_eq!(prompts.answers[0].right, words(&[" A"]));
    assert_eq!(
        prompts.answers[1].wrong,
        [AnswerToken::Id(13), AnswerToken::Id(14)]
    );

    assert_eq!(
        fault("a.json", r#"{"prompts": [{"clean": "a"}]}"#),
        "a.json: prompts[0]: field \"corrupt\" is missing"
    );
    assert_eq!(
        fault(
            "a.json",
            r#"{"prompts": [{"clean": ["a", "b"], "corrupt": "c"}]}"#
        ),
        "a.json: prompts[0]: field \"clean\": found a list, expected a string"
    );
    let none = fault("a.json", r#"{"positive": "a", "negative": "b"}"#);
    assert!(
        none.starts_with("a.json: the file: field \"prompts\": found nothing, expected a list")
            && none.contains(".jsonl"),
        "{none}"
    );
    assert!(fault("a.json", "{").starts_with("a.json: the file: not JSON: "));
    assert!(fault("a.json", r#"{"prompts": []}"#).contains("has no positive prompt"));
}

#[test]
fn task_tables_of_eap() {
    let prompts = named(
        "ioi.csv",
        "clean,corrupted,country,correct_idx,incorrect_idx\n\
         \"When Mary, and John\",\"When Amy, and John\",x,5335,1757\n\
         p,n,y,1,2\n",
    )
    .unwrap();
    assert_eq!(
        prompts.texts,
        ["When Mary, and John", "p", "When Amy, and John", "n"]
    );
    assert_eq!(prompts.answers[0].right, [AnswerToken::Id(5335)]);
    assert_eq!(prompts.answers[1].wrong, [AnswerToken::Id(2)]);
    assert!(
        named("t.csv", "clean,corrupted\na,b\n")
            .unwrap()
            .answers
            .is_empty()
    );

    let expected = "expected columns `clean` and `corrupted`, and for answers `correct_idx` and \
                    `incorrect_idx`";
    assert_eq!(
        fault("t.csv", "clean,corupted\na,b\n"),
        format!("t.csv:1: field \"corrupted\": found no such column, but `corupted`, {expected}")
    );
    // Greater-than files have a year in this column and no other.
    assert!(
        fault("t.csv", "clean,corrupted,correct_idx\na,b,32\n")
            .starts_with("t.csv:1: field \"incorrect_idx\"")
    );
    assert_eq!(
        fault(
            "t.csv",
            "clean,corrupted,correct_idx,incorrect_idx\na,b,1,2\na,b, Mary,2\n"
        ),
        "t.csv:3: field \"correct_idx\": found `Mary`, expected the number of a token"
    );
    assert_eq!(
        fault("t.csv", "clean,corrupted\na,\n"),
        "t.csv:2: field \"corrupted\" is an empty prompt"
    );
    assert!(fault("t.csv", "clean,corrupted\na,b\nc\n").starts_with("t.csv:3: not CSV: "));
}

#[test]
fn rows_of_mib() {
    let ioi = r#"{"prompt": "Mary and John, John", "metadata": {"indirect_object": "Mary", "subject": "John"}, "abc_counterfactual": {"prompt": "x"}, "s2_io_flip_counterfactual": {"prompt": "Mary and John, Mary"}}"#;
    let prompts = named("ioi.jsonl", ioi).unwrap();
    assert_eq!(
        prompts.texts,
        ["Mary and John, John", "Mary and John, Mary"]
    );
    assert_eq!(prompts.answers[0].right, words(&[" Mary"]));
    assert_eq!(prompts.answers[0].wrong, words(&[" John"]));

    let choices = r#"{"prompt": "p", "choices": {"label": ["A", "B"], "text": ["x", "y"]}, "answerKey": 1, "answerPosition_counterfactual": {"prompt": "n", "choices": {"label": ["A", "B"]}, "answerKey": 0}}"#;
    let prompts = named("mcqa.jsonl", choices).unwrap();
    assert_eq!(prompts.answers[0].right, words(&["B"]));
    assert_eq!(prompts.answers[0].wrong, words(&["A"]));

    let two = r#"{"prompt": "p", "a_counterfactual": {"prompt": "n"}, "b_counterfactual": {"prompt": "n"}}"#;
    assert_eq!(
        fault("m.jsonl", two),
        "m.jsonl:1: field \"*_counterfactual\": found a_counterfactual, b_counterfactual, expected one \
         column of counterfactuals, or `s2_io_flip_counterfactual` among them"
    );
    assert_eq!(
        fault("m.jsonl", r#"{"prompt": "p", "a_counterfactual": {}}"#),
        "m.jsonl:1: field \"a_counterfactual.prompt\": found null, expected a string"
    );
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
