//! Tasks that a folder holds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use circuitscope_core::{Metric, Seed};
use circuitscope_tasks::{
    Error, LabelledPrompts, TaskSpec, Vocabulary, draw, generate, read_circuits, read_task,
};
use tempfile::TempDir;

const TASK: &str = r#"
schema = 1
name = "capitals"
summary = "a country's capital is named."
metric = "logit-difference"

[prompts]
templates = "prompts.json"
examples = 6

[dictionary]
l1 = 0.1

[tokenizer]
one_length = ["countries.capital"]
"#;

const PROMPTS: &str = r#"{
  "schema": 1,
  "templates": [{
    "positive": "The [thing] of [X.country] is not [Y.capital] but",
    "negative": "The [thing] of [Y.country] is not [Y.capital] but",
    "answers": " [X.capital]",
    "wrong_answers": [" [Y.capital]"]
  }],
  "slots": {"thing": "things", "X": "countries", "Y": "countries"},
  "words": {
    "things": ["capital", "seat"],
    "countries": [
      {"country": "France", "capital": "Paris"}, {"country": "Japan", "capital": "Tokyo"},
      {"country": "Chile", "capital": "Santiago"}
    ]
  }
}"#;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("task.toml", TASK);
        folder.write("prompts.json", PROMPTS);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs_err::write(self.path(name), text).unwrap();
    }

    fn read(&self) -> circuitscope_tasks::Result<TaskSpec> {
        read_task(self.0.path())
    }

    /// The message with one text in `task.toml`, or else in `prompts.json`, replaced.
    fn with(&self, from: &str, to: &str) -> String {
        let (file, text) = if TASK.contains(from) {
            ("task.toml", TASK)
        } else {
            assert!(PROMPTS.contains(from), "{from}");
            ("prompts.json", PROMPTS)
        };
        self.write(file, &text.replacen(from, to, 1));
        let error = self.read().map(|_| ()).unwrap_err().to_string();
        self.write(file, text);
        let folder = format!("{}/", self.0.path().display());
        error.replace(&folder, "")
    }
}

fn draws(task: &TaskSpec, pairs: usize, seed: u64) -> LabelledPrompts {
    draw(task, Vocabulary::Gpt2, pairs, Seed::new(seed), None).unwrap()
}

#[test]
fn a_folder_of_templates_is_a_task() {
    let folder = Folder::new();
    let task = folder.read().unwrap();
    assert_eq!(task.name, "capitals");
    assert_eq!(task.summary, "a country's capital is named");
    assert_eq!(task.metric, Some(Metric::LogitDifference));
    assert_eq!(task.l1_coefficient, 0.1);
    assert_eq!((task.examples_or(50), task.available()), (6, None));
    assert_eq!(
        task.files,
        [folder.path("task.toml"), folder.path("prompts.json")]
    );

    let set = generate(&task, Vocabulary::Gpt2, 40, Seed::new(3), None).unwrap();
    let mut texts = BTreeSet::new();
    for pair in &set.pairs {
        let capital = |country| match country {
            "France" => " Paris",
            "Japan" => " Tokyo",
            _ => " Santiago",
        };
        let words: Vec<&str> = pair.positive.text.split(' ').collect();
        assert!(matches!(words[1], "capital" | "seat"));
        assert_eq!(pair.positive.answers, [capital(words[3])]);
        let other: Vec<&str> = pair.negative.text.split(' ').collect();
        assert_eq!(pair.positive.wrong_answers, [capital(other[3])]);
        assert_ne!(
            words[3], other[3],
            "slots of one list get different entries"
        );
        assert_eq!((words[1], &words[4..]), (other[1], &other[4..]));
        assert_eq!(format!(" {}", words[6]), capital(other[3]));
        // Its slots are those of the template; its variables, the entries that it takes words from.
        for (prompt, country) in [(&pair.positive, "X"), (&pair.negative, "Y")] {
            let slots = prompt.slots.iter();
            let names: Vec<&str> = slots.map(|slot| slot.name.as_str()).collect();
            let country = format!("{country}.country");
            assert_eq!(names, ["thing", country.as_str(), "Y.capital"]);
            for slot in &prompt.slots {
                assert_eq!(
                    prompt.text[slot.range.clone()],
                    prompt.variables[&slot.name]
                );
            }
        }
        let names: Vec<&String> = pair.positive.variables.keys().collect();
        let expected = ["X.capital", "X.country", "Y.capital", "Y.country", "thing"];
        assert_eq!(names, expected);
        let x_capital = &pair.positive.variables["X.capital"];
        assert_eq!(pair.positive.answers, [format!(" {x_capital}")]);
        let names: Vec<&String> = pair.negative.variables.keys().collect();
        assert_eq!(names, expected[2..]);
        texts.insert(pair.positive.text.clone());
    }
    assert_eq!(texts.len(), 12, "2 things, 3 countries, 2 other capitals");

    // The same seed draws the same, a larger set begins with the smaller one.
    let small = generate(&task, Vocabulary::Gpt2, 5, Seed::new(3), None).unwrap();
    assert_eq!(small.pairs, set.pairs[..5]);
    let other = generate(&task, Vocabulary::Gpt2, 5, Seed::new(4), None).unwrap();
    assert_ne!(small.pairs, other.pairs);
}

/// Words that a tokenizer splits are not drawn where the task says that it needs them whole.
#[test]
fn lists_of_one_length_are_cut_to_what_the_tokenizer_has() {
    let folder = Folder::new();
    let task = folder.read().unwrap();
    // A token for each word, but two for one of them.
    let tokens = |text: &str| {
        let words = text.split(' ').flat_map(|word| {
            let sum = word.bytes().map(u32::from).sum();
            std::iter::repeat_n(sum, 1 + usize::from(word == "Santiago"))
        });
        Ok(words.collect())
    };
    let set = generate(&task, Vocabulary::Gpt2, 30, Seed::new(0), Some(&tokens)).unwrap();
    assert!(!format!("{set:?}").contains("Santiago"));
    assert_eq!(
        set.notes,
        ["2 of 3 countries (capital) are drawn from: those that are one token in this model"]
    );
}

#[test]
fn a_folder_of_pairs_is_a_task() {
    let folder = Folder::new();
    folder.write(
        "task.toml",
        "schema = 1\nname = \"own\"\nsummary = \"s\"\n[prompts]\npairs = \"pairs.jsonl\"\n",
    );
    let lines = (0..8).map(|at| {
        format!("{{\"positive\": \"p{at}\", \"negative\": \"n{at}\", \"answers\": {at}}}\n")
    });
    folder.write("pairs.jsonl", &lines.collect::<String>());
    let task = folder.read().unwrap();
    assert_eq!((task.metric, task.l1_coefficient), (None, 0.02));
    assert_eq!((task.examples_or(50), task.examples_or(5)), (8, 5));
    let all = draws(&task, 8, 0);
    let texts: BTreeSet<&String> = all.texts.iter().collect();
    assert_eq!(texts.len(), 16, "each once");
    for (pair, &(positive, negative)) in all.pairs.iter().enumerate() {
        let number = &all.texts[positive][1..];
        assert_eq!(all.texts[negative], format!("n{number}"));
        assert_eq!(
            format!("{:?}", all.answers[pair].right),
            format!("[Id({number})]")
        );
        let line = 1 + number.parse::<usize>().unwrap();
        assert!(all.place(pair).ends_with(&format!("pairs.jsonl:{line}")));
    }
    // Some of them: at random, and a larger set begins with the smaller one.
    assert_eq!(draws(&task, 3, 0).texts[..3], all.texts[..3]);
    assert_ne!(draws(&task, 8, 1).texts, all.texts);
    let error = draw(&task, Vocabulary::Gpt2, 9, Seed::new(0), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "task own: found 8 pairs, expected at least the 9 that were asked for"
    );
    let error = generate(&task, Vocabulary::Gpt2, 1, Seed::new(0), None).unwrap_err();
    assert!(matches!(error, Error::NotGenerated { .. }), "{error}");
}

#[test]
fn what_cannot_be_meant_is_refused_by_file_and_field() {
    let folder = Folder::new();
    for (from, to, message) in [
        (
            "metric =",
            "metrics =",
            "task.toml: metrics: found an unknown key (did you mean `metric`?), expected \"schema\", \"name\", \"summary\", \"metric\", \"prompts\", \"dictionary\", \"tokenizer\" or \"circuits\"",
        ),
        (
            "schema = 1",
            "schema = 2",
            "task.toml: schema: found 2, expected 1",
        ),
        (
            "schema = 1",
            "schema = = 1",
            "task.toml: line 2: not TOML: ",
        ),
        (
            "\"capitals\"",
            "\"Capitals\"",
            "task.toml: name: found \"Capitals\", expected small letters, digits and hyphens, a letter or digit first, 60 at most",
        ),
        (
            "\"capitals\"",
            "\"ioi\"",
            "task.toml: name: found \"ioi\", expected a name that no task of this program has",
        ),
        (
            "name = \"capitals\"",
            "",
            "task.toml: name: found nothing, expected small letters",
        ),
        (
            "logit-difference",
            "logit-diference",
            "task.toml: metric: found \"logit-diference\" (did you mean `logit-difference`?), expected logit-difference, probability-difference, ",
        ),
        (
            "l1 = 0.1",
            "l1 = -1",
            "task.toml: dictionary.l1: found -1, expected a number, at least 0",
        ),
        (
            "l1 = 0.1",
            "lambda = 1",
            "task.toml: dictionary.lambda: found an unknown key, expected \"l1\"",
        ),
        (
            "examples = 6",
            "examples = 0",
            "task.toml: prompts.examples: found 0, expected a number of pairs, at least 1",
        ),
        (
            "templates = \"prompts.json\"",
            "",
            "task.toml: prompts: found neither, expected a table [prompts] with `templates` or `pairs`",
        ),
        (
            "templates = \"prompts.json\"",
            "templates = \"prompts.json\"\npairs = \"p\"",
            "task.toml: prompts.pairs: found `templates` beside it, expected one of the two",
        ),
        (
            "prompts.json",
            "promts.json",
            "task.toml: prompts.templates: found no file promts.json, expected a file",
        ),
        (
            "countries.capital",
            "countries.capitol",
            "task.toml: tokenizer.one_length[0]: found \"countries.capitol\" (did you mean `countries.capital`?), expected \"countries.capital\", \"countries.country\" or \"things\", a word list of prompts.json",
        ),
        (
            "\"slots\"",
            "\"slot\"",
            "prompts.json: slot: found an unknown key (did you mean `slots`?)",
        ),
        (
            "\"X\": \"countries\"",
            "\"X\": \"contries\"",
            "prompts.json: slots.X: found \"contries\" (did you mean `countries`?), expected \"things\" or \"countries\"",
        ),
        (
            "[X.country]",
            "[Z.country]",
            "prompts.json: template \"The [thing] of [Z.country] is not [Y.capital] but\": unknown slot [Z.country], expected [X.capital], [X.country]",
        ),
        (
            "\"negative\"",
            "\"negativ\"",
            "prompts.json: templates[0].negativ: found an unknown key (did you mean `negative`?)",
        ),
        (
            "\"The [thing] of [Y.country]",
            "\"The [thing] of [X.country]",
            "prompts.json: templates[0].negative: found the positive prompt, expected another prompt",
        ),
        (
            "\"thing\": \"things\"",
            "\"thing\": \"things\", \"Q\": \"things\"",
            "prompts.json: slots.Q: found a slot of no template, expected one that a template has",
        ),
        (
            "\"things\": [",
            "\"spare\": [\"a\"], \"things\": [",
            "prompts.json: words.spare: found a list of no slot, expected one that a slot takes from",
        ),
        (
            "\"seat\"",
            "\"capital\"",
            "prompts.json: words.things[1]: found \"capital\" again, expected each once",
        ),
        (
            "\"seat\"",
            "3",
            "prompts.json: words.things[1]: found 3, expected a word",
        ),
        (
            "\"capital\": \"Tokyo\"",
            "\"kapital\": \"Tokyo\"",
            "prompts.json: words.countries[1].kapital: found an unknown key (did you mean `capital`?), expected \"country\" or \"capital\"",
        ),
    ] {
        let found = folder.with(from, to);
        assert!(found.starts_with(message), "{found}\nexpected {message}");
    }
    assert!(folder.read().is_ok());
    let missing = read_task(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/at/all"), "{missing}");
}

#[test]
fn circuits_of_a_folder_say_whose_they_are() {
    let folder = Folder::new();
    let with = |circuits: &str| {
        folder.write("task.toml", &format!("{TASK}\n{circuits}"));
        folder.read().map_err(|error| error.to_string())
    };
    folder.write("circuit.json", "{}");
    let hash = "0123456789abcdef".repeat(4);
    let task = with(&format!(
        "[[circuits]]\nfile = \"circuit.json\"\nmodels = [\"reference\", \"owner/name\", \"sha256:{hash}\"]"
    ));
    let task = task.unwrap();
    assert_eq!(task.circuits[0].models.len(), 3);
    assert_eq!(task.files[2], folder.path("circuit.json"));
    for (circuits, message) in [
        (
            "file = \"circuit.json\"",
            "circuits[0].models: found nothing, expected whose circuit it is: \"gpt2-small\",",
        ),
        (
            "file = \"none.json\"\nmodels = [\"reference\"]",
            "circuits[0].file: found no file ",
        ),
        (
            "file = \"circuit.json\"\nmodels = []",
            "circuits[0].models: found [], expected",
        ),
        (
            "file = \"circuit.json\"\nmodels = [\"refrence\"]",
            "circuits[0].models[0]: found \"refrence\" (did you mean `reference`?), expected",
        ),
        (
            "file = \"circuit.json\"\nmodels = [\"sha256:12\"]",
            "circuits[0].models[0]: found \"sha256:12\", expected",
        ),
    ] {
        let error = with(&format!("[[circuits]]\n{circuits}")).unwrap_err();
        assert!(error.contains(message), "{error}\nexpected {message}");
    }
}

#[test]
fn circuit_files_of_both_forms_are_read() {
    let folder = Folder::new();
    let read = |text: &str, task: &str| {
        folder.write("c.json", text);
        read_circuits(&folder.path("c.json"), task).map_err(|error| {
            let prefix = format!("{}: ", folder.path("c.json").display());
            error.to_string().replace(&prefix, "")
        })
    };
    // As the converter for InterpBench writes it: the case has a name of its own.
    let case = r#"{"schema": 1, "model": "11", "n_layers": 2, "n_heads": 4, "tasks": {"11": {
        "source": "InterpBench", "groups": {"circuit": ["L0H1", "L1H3"]},
        "edges": ["input->a0.h1", "a0.h1->m0", "m0->a1.h3", "a1.h3->logits"]}}, "decoys": []}"#;
    let truth = read(case, "sum").unwrap().unwrap().remove(0);
    assert_eq!(
        (
            truth.task.as_str(),
            truth.variant.as_str(),
            truth.model.as_str()
        ),
        ("sum", "11", "11")
    );
    assert_eq!(truth.circuit.heads().count(), 2);
    assert_eq!(truth.circuit.edges.len(), 4);
    // Several tasks: by name.
    let two = case.replacen("\"tasks\": {", "\"tasks\": {\"subtract\": {\"source\": \"s\", \"groups\": {\"a\": [\"L0H0\"]}, \"edges\": []}, ", 1);
    assert_eq!(
        read(&two, "substract").unwrap_err(),
        "tasks: found \"11\", \"subtract\", expected \"substract\" (did you mean `subtract`?)"
    );
    assert_eq!(
        read(&two, "subtract").unwrap().unwrap()[0]
            .circuit
            .heads()
            .count(),
        1
    );
    assert_eq!(
        read(&case.replace("L1H3\"", "L1H4\""), "11").unwrap_err(),
        "group \"circuit\": L1H4, but the model has 2 layers of 4 heads"
    );
    assert_eq!(
        read(&case.replace("\"L0H1\", \"L1H3\"", ""), "11").unwrap_err(),
        "no heads"
    );
    assert_eq!(
        read(&case.replace("\"schema\": 1, ", ""), "11").unwrap_err(),
        "schema: found null, expected 1"
    );

    let rules = fs_err::read_to_string("../../datasets/ioi/ground_truth.json").unwrap();
    assert_eq!(read(&rules, "ioi").unwrap().unwrap().len(), 2);
    assert_eq!(
        read(&rules, "io").unwrap_err(),
        "task: found \"ioi\", expected \"io\" (did you mean `ioi`?)"
    );
    // Other forms are for others to read.
    assert_eq!(
        read(r#"{"cfg": {}, "nodes": {}, "edges": {}}"#, "ioi").unwrap(),
        None
    );
    assert_eq!(read("NaN", "ioi").unwrap(), None);
}
