use std::path::PathBuf;

use circuitscope_core::Polarity;
use circuitscope_tasks::{
    AnswerToken, Answers, LabelledPrompts, Result, read_lines, read_pairs, read_prompts,
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
         \"negative\", \"answers\", \"wrong_answers\", \"spans\", \"slots\" or \"variables\""
    );
    assert_eq!(
        second(r#"{"positive": "a", "negative": "b", "label": 1}"#),
        "my.jsonl:2: field \"label\" looks like answers and is not read: answers are read from \
         `answers` and `wrong_answers`"
    );
    assert_eq!(
        second(r#"{"positive": "a", "negative": "b", "wrong_answer": " x"}"#),
        "my.jsonl:2: unknown field \"wrong_answer\" (did you mean `wrong_answers`?): expected \
         \"positive\", \"negative\", \"answers\", \"wrong_answers\", \"spans\", \"slots\" or \"variables\""
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

#[test]
fn other_fields_are_named_and_left() {
    let prompts = pairs(
        "{\"positive\": \"a\", \"negative\": \"b\", \"id\": 1}\n\
         {\"positive\": \"c\", \"negative\": \"d\", \"group\": \"g\", \"id\": 2}\n",
    )
    .unwrap();
    let [note] = prompts.notes.as_slice() else {
        panic!("{:?}", prompts.notes)
    };
    assert!(
        note.ends_with("my.jsonl: the fields `group`, `id` are kept as variables"),
        "{note}"
    );
    assert!(prompts.place(1).ends_with("my.jsonl:2"));
    assert!(
        pairs("{\"positive\": \"a\", \"negative\": \"b\"}")
            .unwrap()
            .notes
            .is_empty()
    );
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
    assert_eq!(
        fault(
            "a.json",
            r#"{"prompts": [{"clean": "a", "corrupt": "b", "answers": ["c"], "wrong_answer": ["d"]}]}"#
        ),
        "a.json: prompts[0]: unknown field \"wrong_answer\" (did you mean `wrong_answers`?): expected \
         \"clean\", \"corrupt\", \"answers\", \"wrong_answers\" or \"spans\""
    );
    assert_eq!(
        prompts.place(1).rsplit('/').next(),
        Some("ioi.json: prompts[1]")
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
    // Alone, it holds a year, which the prompt must name.
    assert_eq!(
        fault("t.csv", "clean,corrupted,correct_idx\na,b,32\n"),
        "t.csv:2: field \"correct_idx\": found `32`, expected the last two digits, below 99, of a year \
         that the prompt names, and a prompt that ends in the year's first two"
    );
    let looks = "looks like answers and is not read: answers are read from `correct_idx` and \
                 `incorrect_idx` (numbers of tokens), `clean_answer_idx` and `corrupted_answer_idx`, or \
                 `label` (a year)";
    assert_eq!(
        fault("t.csv", "clean,corrupted,gold_token\na,b,32\n"),
        format!("t.csv:1: field \"gold_token\" {looks}")
    );
    assert_eq!(
        fault(
            "t.csv",
            "clean,corrupted,correct_id,incorrect_id\na,b,3,4\n"
        ),
        "t.csv:1: unknown field \"correct_id\" (did you mean `correct_idx`?): expected \"clean\", \
         \"corrupted\", \"correct_idx\", \"incorrect_idx\", \"clean_answer_idx\", \
         \"corrupted_answer_idx\", \"label\" or \"spans\""
    );
    assert_eq!(
        fault(
            "t.csv",
            "clean,corrupted,correct_idx,incorrect_idx,label\na,b,3,4,9\n"
        ),
        format!("t.csv:1: field \"label\" {looks}")
    );
    let prompts = named(
        "g.csv",
        "clean,corrupted,clean_answer_idx,corrupted_answer_idx\na,b,5,6\n",
    );
    let prompts = prompts.unwrap();
    assert_eq!(prompts.answers[0].right, [AnswerToken::Id(5)]);
    assert_eq!(prompts.answers[0].wrong, [AnswerToken::Id(6)]);
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
fn greater_than_tables_give_a_year() {
    let table = "clean,corrupted,label\n\
                 It ran from the year 1746 to the year 17,It ran from the year 1701 to the year 17,46\n\
                 It ran from the year 1604 to the year 16,It ran from the year 1601 to the year 16,4\n";
    let prompts = named("gt.csv", table).unwrap();
    let origin = prompts.origin.as_ref().unwrap();
    assert!(origin.years && origin.fields[0] == "label");
    let years = |years: core::ops::RangeInclusive<u8>| -> Vec<AnswerToken> {
        let word = |year| AnswerToken::Word(format!("{year:02}"));
        years.map(word).collect()
    };
    assert_eq!(prompts.answers[0].right, years(47..=99));
    assert_eq!(prompts.answers[0].wrong, years(0..=46));
    assert_eq!(prompts.answers[1].wrong, years(0..=4));
    // The older form, and a column of that name that holds something else.
    let older = named("gt.csv", &table.replace("label", "correct_idx")).unwrap();
    assert_eq!(older.answers, prompts.answers);
    assert!(fault("gt.csv", &table.replace("17,46", "17,47")).starts_with(
        "gt.csv:2: field \"label\": found `47`, expected the last two digits, below 99, of a year"
    ));

    let row = r#"{"clean": "from 1752 to 17", "corrupted": "from 1701 to 17", "year": "1752"}"#;
    let of_mib = named("gt.jsonl", row).unwrap();
    assert_eq!(of_mib.answers[0].right, years(53..=99));
}

#[test]
fn rows_of_mib_with_choices_and_labels() {
    let mcqa = r#"{"prompt": "Q\nA", "choices": {"label": ["A", "B"]}, "answerKey": 1, "idx": 4,
        "symbol_counterfactual": {"prompt": "Q\nC", "choices": {"label": ["X", "Y"]}, "answerKey": "X"},
        "answerPosition_counterfactual": {"prompt": "n"}, "randomLetter_counterfactual": {"prompt": "n"}}"#;
    let prompts = named("mcqa.jsonl", &mcqa.replace("\n        ", "")).unwrap();
    assert_eq!(prompts.texts[1], "Q\nC");
    assert_eq!(prompts.answers[0].right, words(&["B"]));
    assert_eq!(prompts.answers[0].wrong, words(&["X"]));
    assert!(
        prompts.notes[0].ends_with("the field `idx` is kept as a variable"),
        "{:?}",
        prompts.notes
    );

    let sums = "{\"prompt\": \"1 + 2 = \", \"label\": 3, \"random_counterfactual\": {\"prompt\": \"1 + 4 = \", \"label\": \"5\"}}\n\
                {\"prompt\": \"9 + 2 = \", \"label\": 11, \"random_counterfactual\": null}\n";
    let prompts = named("sums.jsonl", sums).unwrap();
    assert_eq!(prompts.answers[0].right, words(&["3"]));
    assert_eq!(prompts.answers[0].wrong, words(&["5"]));
    assert_eq!(prompts.texts.len(), 2);
    assert!(
        prompts.notes[0].ends_with("1 row without a counterfactual left out, the first in line 2"),
        "{:?}",
        prompts.notes
    );

    let row =
        |rest: &str| format!(r#"{{"prompt": "p", {rest}, "x_counterfactual": {{"prompt": "n"}}}}"#);
    assert_eq!(
        fault("m.jsonl", &row(r#""choices": ["A"], "answerKey": 3"#)),
        "m.jsonl:1: field \"answerKey\": found 3, expected the number of one of `choices`, from 0, or its \
         label"
    );
    assert_eq!(
        fault("m.jsonl", &row(r#""correct_answer": "A""#)),
        "m.jsonl:1: field \"correct_answer\" looks like answers and is not read: answers are read from \
         `metadata`, `choices` and `answerKey`, or `label`"
    );
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
         column of counterfactuals, or `s2_io_flip_counterfactual`, `symbol_counterfactual` or \
         `random_counterfactual` among them"
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
    // A line ends at a line feed, alone or after a carriage return, and nowhere else.
    let odd = files.write("odd.txt", "\u{feff}\ta \r\n  b\rc\u{2028}d\t \n e  ");
    assert_eq!(
        read_prompts(&odd).unwrap(),
        ["\ta ", "  b\rc\u{2028}d\t ", " e  "]
    );
    let gap = files.write("gap.txt", "a\n\nb\n");
    let error = read_lines(&gap, &two).unwrap_err().to_string();
    assert!(error.ends_with("gap.txt:2: the line is empty: every line holds a prompt"));
}

#[test]
fn spans_are_found_by_their_text() {
    let spans = |spans: &str| {
        pairs(&format!(
            "{{\"positive\": \"Ann met Ann Lee\", \"negative\": \"Bo met Cy\", \"spans\": {spans}}}"
        ))
    };
    let prompts = spans(r#"[["Ann", "Bo"], ["Ann Lee", "Cy"]]"#).unwrap();
    let found: Vec<_> = prompts.spans[0]
        .iter()
        .map(|span| (span.positive.clone(), span.negative.clone()))
        .collect();
    assert_eq!(found, [(0..3, 0..2), (8..15, 7..9)]);
    let message = |text: &str| {
        let message = spans(text).unwrap_err().to_string();
        message[message.find("my.jsonl").unwrap()..].to_owned()
    };
    let expected = "expected a list of pairs such as [[\"Mary Ann\", \"John\"], …], texts of the positive and \
                    the negative prompt in the order in which they stand there, and a name if they have one";
    assert_eq!(
        message(r#"[["Lee", "Cy"], ["Ann", "Bo"]]"#),
        format!("my.jsonl:1: field \"spans\": found \"Ann\", which is not there, {expected}")
    );
    assert_eq!(
        message(r#"["Ann"]"#),
        format!("my.jsonl:1: field \"spans\": found \"Ann\", {expected}")
    );
    let table = "clean,corrupted,spans\nAnn met Al,Bo met Al,\"[[\"\"Ann\"\", \"\"Bo\"\"]]\"\n";
    let prompts = named("t.csv", table).unwrap();
    assert_eq!(prompts.spans[0][0].negative, 0..2);
    assert!(
        named("t.csv", "clean,corrupted\na,b\n")
            .unwrap()
            .spans
            .is_empty()
    );
}

/// Answers in a place that is not read, wherever a form has room for them.
#[test]
fn answers_elsewhere_in_a_file_are_refused() {
    for (name, content, field) in [
        (
            "t.json",
            r#"{"prompts": [{"clean": "a", "corrupt": "b"}], "answers": ["c"]}"#,
            "answers",
        ),
        (
            "t.json",
            r#"{"prompts": [{"clean": "a", "corrupt": "b"}], "answer_idx": [3]}"#,
            "answer_idx",
        ),
        (
            "m.jsonl",
            r#"{"prompt": "a", "label": "c", "random_counterfactual": {"prompt": "b", "gold": "d"}}"#,
            "gold",
        ),
    ] {
        let said = fault(name, content);
        let expected = format!("field \"{field}\" looks like answers and is not read");
        assert!(said.contains(&expected), "{said}");
    }
    let half = r#"{"prompt": "a", "metadata": {"subject": "d"}, "random_counterfactual": {"prompt": "b"}}"#;
    assert_eq!(
        fault("m.jsonl", half),
        "m.jsonl:1: field \"metadata.indirect_object\" is missing"
    );
    assert_eq!(
        fault(
            "t.csv",
            "clean,corrupted,correct_idx,incorrect_idx,incorrect_idx\na,b,1,2,3\n"
        ),
        "t.csv:1: field \"incorrect_idx\" is given twice"
    );
    let described =
        r#"{"prompts": [{"clean": "a", "corrupt": "b"}], "seq_labels": ["x"], "word_idxs": {}}"#;
    let prompts = named("t.json", described).unwrap();
    assert!(
        prompts.notes[0].ends_with("the fields `seq_labels`, `word_idxs` are not read"),
        "{:?}",
        prompts.notes
    );
}
