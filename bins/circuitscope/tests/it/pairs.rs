//! Prompts and answers of one's own, and whose circuits are known.

use serde_json::{Value, json};

use crate::support::{Bench, floats, rotated_pairs};

/// Two pairs with answers in the words of the reference model.
fn pair(answers: &str) -> String {
    let prompt = |giver: &str| {
        format!(
            "In spring Maurice and Elsa rented a corner of the chapel . Soon {giver} sold a ribbon to"
        )
    };
    let (clean, corrupt) = (prompt("Elsa"), prompt("Maurice"));
    format!("{{\"positive\": \"{clean}\", \"negative\": \"{corrupt}\"{answers}}}\n")
}

#[test]
fn answer_numbers_beyond_the_vocabulary_name_file_line_and_field() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    let good =
        r#"{"positive": "abcab", "negative": "abdab", "answers": [99], "wrong_answers": [100]}"#;
    let jsonl = |answers: &str| {
        format!("{good}\n{{\"positive\": \"abcab\", \"negative\": \"abdab\", {answers}}}\n")
    };
    bench.write(
        "a.jsonl",
        jsonl(r#""answers": [300], "wrong_answers": [5]"#),
    );
    bench.write(
        "b.jsonl",
        jsonl(r#""answers": [3], "wrong_answers": [5, 257]"#),
    );
    bench.write(
        "c.csv",
        "clean,corrupted,correct_idx,incorrect_idx\nabcab,abdab,47764,26757\n",
    );
    let prompt =
        json!({ "clean": "abcab", "corrupt": "abdab", "answers": [4000], "wrong_answers": [1] });
    bench.write("d.json", json!({ "prompts": [prompt] }).to_string());
    for (file, place) in [
        ("a.jsonl", r#"a.jsonl:2: field "answers": found token 300"#),
        (
            "b.jsonl",
            r#"b.jsonl:2: field "wrong_answers": found token 257"#,
        ),
        (
            "c.csv",
            r#"c.csv:2: field "correct_idx": found token 47764"#,
        ),
        (
            "d.json",
            r#"d.json: prompts[0]: field "answers": found token 4000"#,
        ),
    ] {
        let line = format!("discover --model m --pairs {file} --method activation-patching");
        bench.fails(&line, &format!("{place}, expected 0 to 256"));
        // Nothing reads answers here.
        bench.json(&format!("{line} --metric kl"));
    }
    bench.fails(
        "discover --model m --pairs a.jsonl --method mean-difference --faithfulness",
        r#"a.jsonl:2: field "answers": found token 300, expected 0 to 256"#,
    );
}

#[test]
fn fields_that_look_like_answers_are_read_or_refused() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    let run =
        |file: &str| format!("discover --model m --pairs {file} --method activation-patching");
    bench.write("t.csv", "clean,corrupted,gold\nabcab,abdab,104\n");
    let refused = bench.run(&run("t.csv"));
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stderr
            .starts_with("error: t.csv:1: field \"gold\" looks like answers and is not read"),
        "{}",
        refused.stderr
    );
    let prompt =
        json!({ "clean": "abcab", "corrupt": "abdab", "answers": ["c"], "wrong_answer": ["d"] });
    bench.write("t.json", json!({ "prompts": [prompt] }).to_string());
    bench.fails(
        &run("t.json"),
        "t.json: prompts[0]: unknown field \"wrong_answer\" (did you mean `wrong_answers`?): expected \
         \"clean\", \"corrupt\", \"answers\", \"wrong_answers\" or \"spans\"",
    );
    let with =
        r#"{"positive": "abcab", "negative": "abdab", "answers": ["c"], "wrong_answers": ["d"]}"#;
    let without = r#"{"positive": "xyzxy", "negative": "xywxy"}"#;
    bench.write("some.jsonl", format!("{with}\n{without}\n"));
    bench.fails(
        &run("some.jsonl"),
        "some.jsonl:2: field \"answers\": found none, expected answers as other pairs have them, or \
         the metric `contrast`, which reads none",
    );
    for metric in ["contrast", "kl"] {
        bench.json(&format!("{} --metric {metric}", run("some.jsonl")));
    }

    // Columns of answers by other names are read.
    let numbers = "clean,corrupted,RIGHT,WRONG\nabcab,abdab,99,100\nabxab,abyab,120,121\n";
    let found = |right: &str, wrong: &str| {
        let table = numbers.replace("RIGHT", right).replace("WRONG", wrong);
        bench.write("n.csv", table);
        bench.json(&run("n.csv"))
    };
    let plain = found("correct_idx", "incorrect_idx");
    assert_eq!(
        plain["metric"],
        json!({ "metric": "logit-difference", "why": "every pair has right and wrong answers" })
    );
    let other = found("clean_answer_idx", "corrupted_answer_idx");
    assert_eq!(other["heads"], plain["heads"]);
}

#[test]
fn the_metric_is_said_with_its_reason() {
    let bench = Bench::new();
    let metric = |answers: &str, options: &str| -> Value {
        bench.write("p.jsonl", pair(answers));
        bench.json(&format!(
            "discover --pairs p.jsonl --method activation-patching {options}"
        ))["metric"]
            .clone()
    };
    let both = r#", "answers": ["Maurice"], "wrong_answers": ["Elsa"]"#;
    for (answers, options, name, why) in [
        (
            both,
            "",
            "logit-difference",
            "every pair has right and wrong answers",
        ),
        (
            r#", "answers": ["Maurice"]"#,
            "",
            "log-probability",
            "pairs have right answers and no wrong ones",
        ),
        ("", "", "contrast", "no pair has answers"),
        (both, "--metric accuracy", "accuracy", "as asked for"),
    ] {
        let expected = json!({ "metric": name, "why": why });
        assert_eq!(metric(answers, options), expected);
    }
    let task = bench.json("discover --task greater-than --examples 4 --method mean-difference");
    assert_eq!(
        task["metric"],
        json!({ "metric": "probability-difference", "why": "the metric of task `greater-than`" })
    );
}

#[test]
fn other_fields_are_kept_and_named_in_a_note() {
    let bench = Bench::new();
    bench.write("p.jsonl", pair(r#", "group": "x", "id": 3"#));
    let ran = bench.run("discover --pairs p.jsonl --method mean-difference");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr
            .contains("note: p.jsonl: the fields `group`, `id` are kept as variables"),
        "{}",
        ran.stderr
    );
}

/// Answers count by the first token that tells them apart, and which that was is said.
#[test]
fn answers_that_begin_alike_are_told_apart() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    let run =
        |file: &str| format!("discover --model m --pairs {file} --method activation-patching");
    let file = |positive: &str, negative: &str, right: &str, wrong: &str| {
        let pair = json!({
            "positive": positive, "negative": negative, "answers": right, "wrong_answers": wrong,
        });
        bench.write("p.jsonl", pair.to_string());
        bench.run(&format!("{} --format json", run("p.jsonl")))
    };
    let alike = file("ab cab", "ab dab", " Maria", " Martin");
    assert_eq!(alike.code, Some(0), "{alike:?}");
    assert!(
        alike.stderr.contains(
            "note: p.jsonl:1: right and wrong answers begin with \" Mar\", which is put after both \
             prompts; the next token is compared"
        ),
        "{}",
        alike.stderr
    );
    // The same by hand.
    let by_hand = file("ab cab Mar", "ab dab Mar", "i", "t");
    let heads = |stdout: &str| serde_json::from_str::<Value>(stdout).unwrap()["heads"].clone();
    assert_eq!(heads(&alike.stdout), heads(&by_hand.stdout));

    let begins = file("ab cab", "ab dab", " Mar", " Martin");
    assert_eq!(begins.code, Some(1));
    assert!(
        begins.stderr.contains(
            "p.jsonl:1: field \"answers\": no token tells the right answers (such as \" Mar\") from the \
             wrong ones (such as \" Martin\")"
        ),
        "{}",
        begins.stderr
    );
    let split = file("ab cab", "ab dab", "xyz", "uvw");
    assert!(
        split
            .stderr
            .contains("the tokenizer splits the answer \"uvw\", which counts by its token \"u\""),
        "{}",
        split.stderr
    );
}

#[test]
fn answers_that_a_tokenizer_does_not_know_are_refused() {
    let bench = Bench::new();
    bench.write(
        "p.jsonl",
        pair(r#", "answers": ["Zebulon"], "wrong_answers": ["Elsa"]"#),
    );
    bench.fails(
        "discover --pairs p.jsonl --method activation-patching",
        "p.jsonl:1: field \"answers\": found \"Zebulon\", expected text that the tokenizer has tokens for",
    );
}

/// EAP-IG's greater-than table, in a model that writes digit by digit.
#[test]
fn greater_than_tables_are_read_as_years() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    bench.write(
        "gt.csv",
        "clean,corrupted,label\n\
         It ran from the year 1746 to the year 17,It ran from the year 1701 to the year 17,46\n\
         It ran from the year 1593 to the year 15,It ran from the year 1501 to the year 15,93\n",
    );
    let line = "discover --model m --method activation-patching --pairs";
    let ran = bench.run(&format!("{line} gt.csv --format json"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        found["metric"],
        json!({
            "metric": "probability-difference",
            "why": "`label` gives years: later ones are right, all others wrong",
        })
    );
    // By hand: the third digit of 47 to 99 against 00 to 46, where 4 is in both; and, as all years after
    // 93 begin with 9, the fourth.
    let pair = |clean: &str, corrupt: &str, right: &[&str], wrong: &[&str]| json!({ "positive": clean, "negative": corrupt, "answers": right, "wrong_answers": wrong });
    let first = pair(
        "It ran from the year 1746 to the year 17",
        "It ran from the year 1701 to the year 17",
        &["5", "6", "7", "8", "9"],
        &["0", "1", "2", "3"],
    );
    let second = pair(
        "It ran from the year 1593 to the year 159",
        "It ran from the year 1501 to the year 159",
        &["4", "5", "6", "7", "8", "9"],
        &["0", "1", "2", "3"],
    );
    bench.write("hand.jsonl", format!("{first}\n{second}\n"));
    let by_hand = bench.json(&format!(
        "{line} hand.jsonl --metric probability-difference"
    ));
    assert_eq!(found["heads"], by_hand["heads"]);
}

/// Every character of a line counts, in files of either line ending.
#[test]
fn prompt_files_keep_every_character_of_a_line() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    bench.write("p.txt", "ab \r\n  cd\t\r\ne\rf  \r\n");
    let report =
        bench.json("capture --model m --prompts p.txt --sites logits --output p.safetensors");
    assert_eq!(report["lengths"], json!([4, 6, 6]));
    assert_eq!(floats(&bench.path("p.safetensors"))["logits"].0[0], 3);
    // The last line, too, where no other follows.
    bench.write("p.txt", "ab  ");
    let report =
        bench.json("capture --model m --prompts p.txt --sites logits --output p.safetensors");
    assert_eq!(report["lengths"], json!([5]));
    bench.write("p.txt", "\n");
    bench.fails(
        "capture --model m --prompts p.txt --sites logits --output q.safetensors",
        "p.txt: found no prompt, expected one a line",
    );
}

#[test]
fn known_circuits_belong_to_a_model_and_not_to_its_shape() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 12, 12);
    let eval =
        "eval --model m --task ioi --examples 6 --seeds 1 --resamples 2 --method mean-difference";
    bench.fails(
        &format!("{eval} --output e"),
        "no circuit is known for task `ioi` in m (known: in GPT-2 small, attn-only-4l and the reference model, \
         told by their names on the hub and the hashes of their weights): `eval` needs one, and --circuit \
         names one all the same, or a file with one; `discover` does not",
    );
    let discover = "discover --model m --task ioi --examples 6 --method mean-difference";
    assert_eq!(bench.json(discover)["known_circuit"], Value::Null);
    // Asked for, it is taken, and that is written.
    let asked = json!({ "model": "gpt2-small", "why": "as asked for" });
    assert_eq!(
        bench.json(&format!("{discover} --circuit gpt2-small"))["known_circuit"],
        asked
    );
    let results = bench.json(&format!("{eval} --output e --circuit gpt2-small"));
    let settings = &results["provenance"]["settings"];
    assert_eq!(settings["circuits"], "gpt2-small");
    assert_eq!(settings["circuits_why"], "as asked for");
    bench.fails(
        &format!("{eval} --output f --circuit reference"),
        "the circuits of reference are of 4 layers × 8 heads, the model has 12 × 12",
    );
    let ran = bench.run(&format!("{eval} --output f --circuit gpt2-smal"));
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("did you mean `gpt2-small`?"),
        "{}",
        ran.stderr
    );

    // The reference model is known by the hash of its weights, wherever it lies; with other weights it is
    // another model.
    bench.reference_model("r");
    let found = bench.json("discover --model r --task ioi --examples 4 --method mean-difference");
    assert_eq!(
        found["known_circuit"],
        json!({ "model": "reference", "why": "by the hash of its weights" })
    );
    let mut weights = fs_err::read(bench.path("r/model.safetensors")).unwrap();
    let end = weights.len();
    weights[end - 4..].copy_from_slice(&0.5f32.to_le_bytes());
    bench.write("r/model.safetensors", &weights);
    let ran = bench.run("eval --model r --task ioi --output f");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("no circuit is known for task `ioi` in r"),
        "{}",
        ran.stderr
    );
}

/// Means over positions do not ask for prompts of one length; which pairs differ is said.
#[test]
fn pairs_of_unequal_length_are_compared_by_means() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    bench.write(
        "p.jsonl",
        "{\"positive\": \"abcab\", \"negative\": \"abdab\"}\n\
         {\"positive\": \"xyzxy\", \"negative\": \"xywwxy\"}\n",
    );
    for method in ["mean-difference", "paired-flip-rate"] {
        let line =
            format!("discover --model m --pairs p.jsonl --method {method} --codes 8 --steps 2");
        let ran = bench.run(&format!("{line} --train-examples 2 --format json"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(
            ran.stderr.contains(
                "note: p.jsonl:2: its prompts have 5 and 6 tokens: means over positions are compared"
            ),
            "{}",
            ran.stderr
        );
    }
}

/// What runs the model again aligns such pairs: around the span in which they differ, or by spans that
/// the file names.
#[test]
fn pairs_of_unequal_length_are_aligned_where_the_model_is_run() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    let answers = r#""answers": ["c"], "wrong_answers": ["d"]"#;
    let run = |line: &str| {
        bench.write("p.jsonl", format!("{{{line}, {answers}}}\n"));
        bench.run("discover --model m --pairs p.jsonl --method activation-patching --format json")
    };
    let around = run(r#""positive": "abXab", "negative": "abYYab""#);
    assert_eq!(around.code, Some(0), "{around:?}");
    assert!(
        around
            .stderr
            .contains("methods that run the model align them around the one span"),
        "{}",
        around.stderr
    );
    let named = run(r#""positive": "abXab", "negative": "abYYab", "spans": [["X", "YY"]]"#);
    assert!(
        named.stderr.contains("align them by their spans"),
        "{}",
        named.stderr
    );
    let heads = |stdout: &str| serde_json::from_str::<Value>(stdout).unwrap()["heads"].clone();
    assert_eq!(heads(&named.stdout), heads(&around.stdout));
    // Another counterpart is another experiment.
    let other =
        run(r#""positive": "abXab", "negative": "abYYab", "spans": [["bX", "bYY"], ["b", "b"]]"#);
    assert_ne!(heads(&other.stdout), heads(&around.stdout));

    let refused = run(r#""positive": "abXab", "negative": "cdefgh""#);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .stderr
            .contains("p.jsonl:1: prompts of 6 and 7 tokens that cannot be aligned"),
        "{}",
        refused.stderr
    );
    let between = run(r#""positive": "abXab", "negative": "abYYab", "spans": [["a", "a"]]"#);
    assert!(
        between
            .stderr
            .contains("what stands between the spans has different lengths in tokens"),
        "{}",
        between.stderr
    );
}

#[test]
fn prompts_that_show_little_are_warned_of() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    let warned = |options: &str| {
        let ran = bench.run(&format!(
            "discover --model m --method mean-difference {options}"
        ));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stdout
    };
    bench.write("rotated.jsonl", rotated_pairs());
    let stdout = warned("--pairs rotated.jsonl");
    assert!(
        stdout.contains("warning: 6 of 6 negatives are positives, too"),
        "{stdout}"
    );
    bench.write(
        "one.jsonl",
        "{\"positive\": \"ab c\", \"negative\": \"ab d\"}\n",
    );
    let stdout = warned("--pairs one.jsonl");
    assert!(
        stdout.contains("warning: 1 pair: heads that differ here"),
        "{stdout}"
    );
    bench.write("yes.txt", "ab c\nab d\nab e\n");
    bench.write("no.txt", "ab f\nab g\n");
    let stdout = warned("--positive yes.txt --negative no.txt");
    assert!(
        stdout.contains("warning: 3 positives and 2 negatives are not matched"),
        "{stdout}"
    );
    let stdout = warned("--task ioi --examples 2");
    assert!(
        stdout.contains("warning: 2 pairs: heads that differ here"),
        "{stdout}"
    );
    let stdout = warned("--task ioi --examples 5");
    assert!(!stdout.contains("heads that differ here"), "{stdout}");
}

/// The tasks are posed in the tokens of the model.
#[test]
fn tasks_are_posed_in_the_tokens_of_a_model() {
    let bench = Bench::new();
    bench.model_of_bytes("m", 2, 2);
    let ran =
        bench.run("discover --model m --task greater-than --examples 4 --method mean-difference");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr
            .contains("note: this model writes years digit by digit"),
        "{}",
        ran.stderr
    );
    for task in ["ioi", "docstring", "induction"] {
        let line = format!("discover --model m --task {task} --examples 4 --method nap");
        let ran = bench.run(&line);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(
            ran.stderr
                .contains("the same number of tokens in this model"),
            "{}",
            ran.stderr
        );
    }
    // A tokenizer of other words.
    bench.reference_model("r");
    let mut weights = fs_err::read(bench.path("r/model.safetensors")).unwrap();
    let end = weights.len();
    weights[end - 4..].copy_from_slice(&0.5f32.to_le_bytes());
    bench.write("r/model.safetensors", &weights);
    let ran = bench.run("discover --model r --task ioi --examples 4 --method mean-difference");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("the tokenizer cannot read"),
        "{}",
        ran.stderr
    );
}
