//! Named parts and variables in the user's own files.

use circuitscope_tasks::{AnswerToken, LabelledPrompts, Result, read_pairs, write_pairs};
use proptest::prelude::*;

fn named(name: &str, text: &str) -> Result<LabelledPrompts> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs_err::write(&path, text).unwrap();
    read_pairs(&path)
}

/// The message for a file, from its name on.
fn fault(name: &str, text: &str) -> String {
    let message = named(name, text).unwrap_err().to_string();
    message[message.find(name).unwrap()..].to_owned()
}

/// The parts of a prompt with their words.
fn parts(prompts: &LabelledPrompts, prompt: usize) -> Vec<(&str, usize, &str)> {
    let parts = prompts.slots[prompt].iter();
    let parts = parts.map(|slot| {
        let word = &prompts.texts[prompt][slot.range.clone()];
        (&*slot.name, slot.range.start, word)
    });
    parts.collect()
}

/// The notes, without the file that they begin with.
fn notes(prompts: &LabelledPrompts) -> Vec<&str> {
    let notes = prompts.notes.iter();
    notes.map(|note| note.split_once(": ").unwrap().1).collect()
}

/// Written and read again, they are what they were.
fn survives(prompts: &LabelledPrompts) {
    let text = write_pairs(prompts).unwrap();
    let again = named("again.jsonl", &text).unwrap();
    let bare = |prompts: &LabelledPrompts| {
        let mut prompts = prompts.clone();
        prompts.origin = None;
        prompts.notes.clear();
        prompts
    };
    assert_eq!(bare(&again), bare(prompts), "{text}");
    assert_eq!(write_pairs(&again).unwrap(), text);
}

#[test]
fn slots_are_found_by_their_text() {
    let line = |slots: &str| {
        let prompts =
            r#""positive": "Ann met John; John left", "negative": "Bo met Ann; John left""#;
        format!("{{{prompts}, \"slots\": {slots}}}")
    };
    let sides = line(
        r#"{"positive": {"S2": ["John", 2], "IO": "Ann"}, "negative": {"S2": "John", "IO": "Bo", "X": ["Ann", ["t", 1]]}}"#,
    );
    let prompts = named("p.jsonl", &sides).unwrap();
    assert_eq!(parts(&prompts, 0), [("IO", 0, "Ann"), ("S2", 14, "John")]);
    assert_eq!(
        parts(&prompts, 1),
        [
            ("IO", 0, "Bo"),
            ("X", 5, "t"),
            ("X", 7, "Ann"),
            ("S2", 12, "John")
        ]
    );
    assert_eq!(notes(&prompts), [""; 0]);
    survives(&prompts);
    let both = named("p.jsonl", &line(r#"{"verb": "met"}"#)).unwrap();
    assert_eq!(parts(&both, 0), [("verb", 4, "met")]);
    assert_eq!(parts(&both, 1), [("verb", 3, "met")]);
    survives(&both);
    // Of two pairs, one names nothing.
    let two = format!("{sides}\n{{\"positive\": \"a\", \"negative\": \"b\"}}\n");
    let two = named("p.jsonl", &two).unwrap();
    assert_eq!(
        two.slots.iter().map(Vec::len).collect::<Vec<_>>(),
        [2, 0, 4, 0]
    );
    survives(&two);

    let part = "expected a text that is there once, or [text, n] for the n-th time it is there, or a list of \
                these";
    for (slots, said) in [
        (
            r#"{"S": "John"}"#,
            r#"slots.S": found "John", which is twice in the positive prompt"#,
        ),
        (
            r#"{"IO": "Bo"}"#,
            r#"slots.IO": found "Bo", which is not in the positive prompt"#,
        ),
        (
            r#"{"negative": {"S": "Jon"}}"#,
            r#"slots.negative.S": found "Jon", which is not in the negative prompt (did you mean `John`?)"#,
        ),
        (
            r#"{"positive": {"S": ["Ann", 2]}}"#,
            r#"slots.positive.S": found ["Ann",2], which is once in the positive prompt"#,
        ),
        (r#"{"S": ["Ann", 0]}"#, r#"slots.S": found 0"#),
        (r#"{"S": ""}"#, r#"slots.S": found """#),
        (r#"{"S": []}"#, r#"slots.S": found an empty list"#),
        (
            r#"{"positive": {}, "S": "met"}"#,
            r#"slots.positive": found {}"#,
        ),
    ] {
        assert_eq!(
            fault("p.jsonl", &line(slots)),
            format!("p.jsonl:1: field \"{said}, {part}")
        );
    }
    assert_eq!(
        fault("p.jsonl", &line("7")),
        "p.jsonl:1: field \"slots\": found a number, expected parts by name, such as {\"IO\": \"Mary\", \
         \"S2\": [\"John\", 2]}, for both prompts or as {\"positive\": {…}, \"negative\": {…}}"
    );
}

#[test]
fn spans_with_a_name_are_slots() {
    let spans = r#"[["Ann", "Bo", "S"], [["Ann", 2], "Cy"]]"#;
    let line = format!(
        "{{\"positive\": \"Ann: Ann or Ann\", \"negative\": \"Bo or Cy\", \"spans\": {spans}, \"slots\": {{\"or\": \"or\"}}}}"
    );
    let prompts = named("p.jsonl", &line).unwrap();
    let found = prompts.spans[0].iter();
    let found: Vec<_> = found
        .map(|span| (span.positive.start, span.negative.start))
        .collect();
    assert_eq!(found, [(0, 0), (12, 6)]);
    assert_eq!(parts(&prompts, 0), [("S", 0, "Ann"), ("or", 9, "or")]);
    assert_eq!(parts(&prompts, 1), [("S", 0, "Bo"), ("or", 3, "or")]);
    survives(&prompts);
    let table =
        "clean,corrupted,spans\nAnn met Al,Bo met Al,\"[[\"\"Ann\"\", \"\"Bo\"\", \"\"S\"\"]]\"\n";
    let table = named("t.csv", table).unwrap();
    assert_eq!(parts(&table, 1), [("S", 0, "Bo")]);
    survives(&table);
}

#[test]
fn other_fields_are_variables() {
    let prompts = named(
        "p.jsonl",
        r#"{"positive": "a", "negative": "b", "noun": "war", "year": {"positive": 7, "negative": "01"}, "list": [1], "of": null}
{"positive": "c", "negative": "d", "wide": true, "of": 1.5, "variables": {"answer": "x", "noun": {"negative": "pact"}}}
"#,
    )
    .unwrap();
    assert_eq!(
        notes(&prompts),
        [
            "the fields `noun`, `wide`, `year` are kept as variables",
            "the field `of` is kept as a variable where it is a text, a number or a boolean",
            "the field `list` is not read",
        ]
    );
    let of = |prompt: usize| {
        let variables = prompts.variables[prompt].iter();
        let pairs: Vec<_> = variables
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join(" ")
    };
    assert_eq!(of(0), "noun=war year=7");
    assert_eq!(of(1), "answer=x of=1.5 wide=true");
    assert_eq!(of(2), "noun=war year=01");
    assert_eq!(of(3), "answer=x noun=pact of=1.5 wide=true");
    survives(&prompts);

    let line = |rest: &str| format!("{{\"positive\": \"a\", \"negative\": \"b\", {rest}}}");
    let values = "expected values by name, each a text, a number or a boolean, or {\"positive\": …, \
                  \"negative\": …} of them";
    assert_eq!(
        fault("p.jsonl", &line(r#""variables": {"x": [1]}"#)),
        format!("p.jsonl:1: field \"variables.x\": found [1], {values}")
    );
    assert_eq!(
        fault("p.jsonl", &line(r#""variables": "x""#)),
        format!("p.jsonl:1: field \"variables\": found a string, {values}")
    );
    assert_eq!(
        fault("p.jsonl", &line(r#""x": 1, "variables": {"x": 1}"#)),
        "p.jsonl:1: field \"variables.x\": found a field `x` beside it, expected each variable once"
    );
    assert!(
        fault("p.jsonl", &line(r#""variable": {"x": 1}"#)).contains("did you mean `variables`?")
    );
    assert!(fault("p.jsonl", &line(r#""slot": {"x": 1}"#)).contains("did you mean `slots`?"));
}

#[test]
fn other_columns_and_fields_of_other_forms_are_variables() {
    let table = "clean,corrupted,correct_idx,incorrect_idx,id,name,none\n\
                 a,b,1,2,7,\"{\"\"positive\"\": \"\"Al\"\", \"\"negative\"\": \"\"Bo\"\"}\",\n\
                 c,d,3,4,,x,\n";
    let prompts = named("t.csv", table).unwrap();
    assert_eq!(
        notes(&prompts),
        ["the fields `id`, `name` are kept as variables"]
    );
    assert_eq!(prompts.variables[0]["name"], "Al");
    assert_eq!(prompts.variables[2]["name"], "Bo");
    assert_eq!(prompts.variables[2]["id"], "7");
    assert_eq!(prompts.variables[1].len(), 1);
    assert_eq!(prompts.answers[1].right, [AnswerToken::Id(3)]);
    survives(&prompts);

    let prompts = named(
        "t.json",
        r#"{"word_idxs": {}, "prompts": [{"clean": "a", "corrupt": "b", "answers": [12, " x"], "kind": 3}]}"#,
    )
    .unwrap();
    assert_eq!(
        notes(&prompts),
        [
            "the field `kind` is kept as a variable",
            "the field `word_idxs` is not read"
        ]
    );
    assert_eq!(prompts.variables[1]["kind"], "3");
    survives(&prompts);

    let row = r#"{"prompt": "Al and Bo, Bo", "metadata": {"indirect_object": "Al", "subject": "Bo", "place": "bar"}, "template": 4, "x_counterfactual": {"prompt": "Al and Bo, Al", "metadata": {"indirect_object": "Bo", "subject": "Al"}, "template": 5}}"#;
    let prompts = named("m.jsonl", row).unwrap();
    let expected =
        "the fields `indirect_object`, `place`, `subject`, `template` are kept as variables";
    assert_eq!(notes(&prompts), [expected]);
    let of = |prompt: usize, name: &str| prompts.variables[prompt].get(name).map(String::as_str);
    assert_eq!(
        (of(0, "subject"), of(1, "subject")),
        (Some("Bo"), Some("Al"))
    );
    assert_eq!(
        (of(0, "template"), of(1, "template")),
        (Some("4"), Some("5"))
    );
    assert_eq!((of(0, "place"), of(1, "place")), (Some("bar"), None));
    survives(&prompts);
}

/// The example of docs/guides/files.md.
#[test]
fn the_example_of_the_guide_is_read() {
    let guide = include_str!("../../../../docs/guides/files.md");
    let (_, rest) = guide
        .split_once("<!-- two lines that the tests read -->")
        .unwrap();
    let lines = rest.trim_start().lines().take(2).map(str::trim);
    let prompts = named("p.jsonl", &lines.collect::<Vec<_>>().join("\n")).unwrap();
    let expected = [("IO", 0, "Mary"), ("S1", 9, "John"), ("S2", 19, "John")];
    assert_eq!(parts(&prompts, 0), expected);
    let expected = [("IO", 0, "Mary"), ("S1", 9, "John"), ("S2", 19, "Mary")];
    assert_eq!(parts(&prompts, 2), expected);
    assert_eq!(parts(&prompts, 3), [("verb", 10, "met")]);
    let of = |name: &str| {
        let all = prompts.variables.iter();
        all.map(|of| of[name].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("S"), ["John", "Al", "Mary", "Bo"]);
    assert_eq!(of("order"), ["ABBA", "BABA", "ABBA", "BABA"]);
    let expected = ["the fields `S`, `order` are kept as variables"];
    assert_eq!(notes(&prompts), expected);
    survives(&prompts);
}

#[test]
fn what_lines_cannot_hold_is_not_written() {
    let pair = || LabelledPrompts::from_pairs([("a b".to_owned(), "c d".to_owned())]);
    survives(&pair());
    let unmatched = LabelledPrompts::from_classes(vec!["a".to_owned()], vec!["b".to_owned()]);
    assert_eq!(write_pairs(&unmatched), None);
    assert_eq!(write_pairs(&LabelledPrompts::from_pairs([])), None);
    let mut appended = pair();
    appended.appended = vec![vec![1]];
    assert_eq!(write_pairs(&appended), None);
    let empty = LabelledPrompts::from_pairs([(String::new(), "b".to_owned())]);
    assert_eq!(write_pairs(&empty), None);
    let mut broken = pair();
    broken.pairs[0].0 = 7;
    assert_eq!(write_pairs(&broken), None);
}

proptest! {
    /// Parts of any text, however often it is there, are found again.
    #[test]
    fn parts_survive_being_written(
        texts in prop::array::uniform2("[ab é\n\"]{1,12}"),
        names in prop::collection::vec("[ab]{0,2}", 0..5),
        value in "\\PC{0,6}",
        at in 0usize..1000,
    ) {
        let line = serde_json::json!({"positive": texts[0], "negative": texts[1], "variables": {"": value}});
        let mut prompts = named("p.jsonl", &line.to_string()).unwrap();
        let text = &texts[0];
        let mut slots = Vec::new();
        for (turn, name) in names.iter().enumerate() {
            let ends: Vec<usize> = text.char_indices().map(|(at, char)| at + char.len_utf8()).collect();
            let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let start = (at * (turn + 1)) % starts.len();
            let end = start + (at / 7 + turn) % (ends.len() - start);
            slots.push((starts[start]..ends[end], name.clone()));
        }
        slots.sort_by_key(|(range, name)| (range.start, range.end, name.clone()));
        slots.dedup();
        if !slots.is_empty() {
            let slots = slots.into_iter();
            let slots = slots.map(|(range, name)| circuitscope_tasks::Slot::new(name, range));
            prompts.slots = vec![slots.collect(), Vec::new()];
        }
        survives(&prompts);
    }
}
