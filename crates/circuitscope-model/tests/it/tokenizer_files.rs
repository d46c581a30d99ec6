//! The files of a tokenizer together, against `AutoTokenizer` (`golden/tokenizers/make.py`).

use std::collections::BTreeMap;

use circuitscope_model::{Error, Loaded, PrependBos, Processing};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::folder::ModelFolder;
use crate::{B, golden_folder, try_load};

#[derive(Deserialize)]
struct Golden {
    bases: BTreeMap<String, Value>,
    texts: Vec<String>,
    cases: Vec<Case>,
    messages: Vec<String>,
    chats: Vec<Chat>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    model_type: String,
    files: BTreeMap<String, Value>,
    bos: Option<u32>,
    ids: Vec<Vec<u32>>,
    whole: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct Chat {
    name: String,
    tokenizer_config: Value,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    ids: Vec<u32>,
}

impl Golden {
    fn read() -> Self {
        let path = golden_folder("tokenizers").join("cases.json");
        serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
    }

    /// A model of a type with these files beside it.
    fn folder(&self, model_type: &str, files: &BTreeMap<String, Value>) -> ModelFolder {
        let model = match model_type {
            "gpt2" => golden_folder("gpt2_tiny"),
            other => golden_folder("families").join(other),
        };
        let folder = ModelFolder::copy_of(&model);
        folder.edit_config(|config| drop(config.remove("bos_token_id")));
        for (name, content) in files {
            let bytes = match content {
                Value::String(text) => match text.strip_prefix('@') {
                    Some(base) => serde_json::to_vec(&self.bases[base]).unwrap(),
                    None => text.clone().into_bytes(),
                },
                json => serde_json::to_vec(json).unwrap(),
            };
            folder.write(name, &bytes);
        }
        folder
    }
}

fn load(folder: &ModelFolder) -> Loaded<B> {
    try_load(folder.path(), Processing::Raw).unwrap()
}

#[test]
fn files_together_give_what_auto_tokenizer_gives() {
    let golden = Golden::read();
    assert!(golden.cases.len() >= 20);
    for case in &golden.cases {
        let name = &case.name;
        let loaded = load(&golden.folder(&case.model_type, &case.files));
        let tokenizer = loaded.tokenizer().unwrap();
        if case.bos.is_some() {
            assert_eq!(tokenizer.bos(), case.bos, "{name}");
        }
        let prepended = loaded.prepends_bos(PrependBos::Auto);
        for ((text, ids), whole) in golden.texts.iter().zip(&case.ids).zip(&case.whole) {
            let found = tokenizer.encode(text, false).unwrap();
            assert_eq!(found, *ids, "{name}: {text:?}");
            let found = tokenizer.encode(text, prepended).unwrap();
            // A text that begins with the token gets no second one; GPT-2's models get one, as in the paper.
            let begins = !ids.is_empty() && ids.first().copied() == tokenizer.bos();
            if case.model_type != "gpt2" {
                let expected = if begins { ids } else { whole };
                assert_eq!(found, *expected, "{name}: {text:?}");
            } else if !begins {
                assert_eq!(found[1..], *ids, "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn every_file_that_was_read_is_in_the_provenance() {
    let golden = Golden::read();
    let name = "added_tokens.json and special_tokens_map.json";
    let case = golden.cases.iter().find(|case| case.name == name).unwrap();
    let provenance = load(&golden.folder(&case.model_type, &case.files)).provenance;
    for file in case.files.keys() {
        assert!(
            provenance.files.iter().any(|hash| hash.name == *file),
            "{file}"
        );
    }
    let note = provenance
        .notes
        .iter()
        .find(|note| note.contains("<|im_start|>"));
    assert!(note.is_some(), "{:?}", provenance.notes);
}

/// The word of the tokenizer's files goes before that of `config.json`, and a guess is said.
#[test]
fn the_token_that_begins_a_sequence() {
    let golden = Golden::read();
    let bos = |files: &[(&str, Value)], id: Option<u32>| {
        let files = files
            .iter()
            .cloned()
            .map(|(name, file)| (name.to_owned(), file));
        let folder = golden.folder("llama", &files.collect());
        folder.edit_config(|config| config.extend(id.map(|id| ("bos_token_id".into(), json!(id)))));
        let loaded = load(&folder);
        (loaded.tokenizer().unwrap().bos(), loaded.provenance.notes)
    };
    let plain = ("tokenizer.json", json!("@chat"));
    let (found, notes) = bos(std::slice::from_ref(&plain), Some(7));
    assert_eq!((found, notes.len()), (Some(7), 0));
    let (found, notes) = bos(std::slice::from_ref(&plain), None);
    assert_eq!(found, Some(262));
    assert!(notes[0].contains("<|endoftext|>"), "{notes:?}");
    let named = ("tokenizer_config.json", json!({"bos_token": "<s>"}));
    let (found, notes) = bos(&[plain, named], Some(7));
    assert_eq!(found, Some(265));
    assert!(
        notes.len() == 1 && notes[0].contains("bos_token_id 7"),
        "{notes:?}"
    );
    let first = ("tokenizer.json", json!("@first"));
    let (found, _) = bos(&[first], Some(7));
    assert_eq!(found, Some(262));
}

#[test]
fn what_comes_before_prompts() {
    let golden = Golden::read();
    let with = |model: &str, base: &str| {
        let files = BTreeMap::from([("tokenizer.json".to_owned(), json!(base))]);
        load(&golden.folder(model, &files))
    };
    let asked = [PrependBos::Auto, PrependBos::Always, PrependBos::Never];
    let all = |loaded: &Loaded<B>| asked.map(|asked| loaded.prepends_bos(asked));
    assert_eq!(all(&with("llama", "@plain")), [false, true, false]);
    assert_eq!(all(&with("llama", "@first")), [true, true, false]);
    // As in the paper, though GPT-2's tokenizer adds nothing.
    assert_eq!(all(&with("gpt2", "@plain")), [true, true, false]);
    assert_eq!("auto".parse(), Ok(PrependBos::Auto));
    assert_eq!("true".parse(), Ok(PrependBos::Always));
    assert_eq!(PrependBos::Never.to_string(), "false");
    assert!("yes".parse::<PrependBos>().is_err());
    // No second one.
    let loaded = with("llama", "@plain");
    let tokenizer = loaded.tokenizer().unwrap();
    let once = tokenizer.encode("hello", true).unwrap();
    assert_eq!(tokenizer.encode("<|endoftext|>hello", true).unwrap(), once);
    assert_eq!(tokenizer.encode("<|endoftext|>hello", false).unwrap(), once);
    assert!(tokenizer.begins_with_bos("<|endoftext|>hello").unwrap());
    assert!(!tokenizer.begins_with_bos("hello<|endoftext|>").unwrap());
}

#[test]
fn chat_templates_give_what_transformers_gives() {
    let golden = Golden::read();
    assert!(golden.chats.len() >= 5);
    for chat in &golden.chats {
        let files = BTreeMap::from([
            ("tokenizer.json".to_owned(), json!("@chat")),
            (
                "tokenizer_config.json".to_owned(),
                chat.tokenizer_config.clone(),
            ),
        ]);
        let loaded = load(&golden.folder("llama", &files));
        let tokenizer = loaded.tokenizer().unwrap();
        for (message, expected) in golden.messages.iter().zip(&chat.prompts) {
            let prompt = tokenizer.chat_prompt(message).unwrap();
            assert_eq!(prompt.text, expected.text, "{}: {message:?}", chat.name);
            let ids = tokenizer.encode(&prompt.text, false).unwrap();
            assert_eq!(ids, expected.ids, "{}: {message:?}", chat.name);
            assert_eq!(prompt.date, None);
        }
    }
}

#[test]
fn templates_that_cannot_be_used() {
    let golden = Golden::read();
    let with = |files: &[(&str, Value)]| {
        let files = files
            .iter()
            .cloned()
            .map(|(name, file)| (name.to_owned(), file));
        load(&golden.folder("llama", &files.collect()))
    };
    let plain = ("tokenizer.json", json!("@chat"));
    let prompt = |loaded: &Loaded<B>| loaded.tokenizer().unwrap().chat_prompt("hello");
    let error = prompt(&with(std::slice::from_ref(&plain))).unwrap_err();
    assert!(matches!(error, Error::NoChatTemplate), "{error}");
    for (template, reason) in [
        ("{{ raise_exception('only system') }}", "only system"),
        ("{% if %}", "syntax error"),
    ] {
        let config = ("tokenizer_config.json", json!({"chat_template": template}));
        let error = prompt(&with(&[plain.clone(), config])).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    // The file goes before the field, and of several templates the default one is taken.
    let several = json!({"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]});
    let config = ("tokenizer_config.json", several);
    assert_eq!(
        prompt(&with(&[plain.clone(), config.clone()]))
            .unwrap()
            .text,
        "d"
    );
    let file = ("chat_template.jinja", json!("f"));
    assert_eq!(
        prompt(&with(&[plain.clone(), config, file])).unwrap().text,
        "f"
    );
    let dated = json!({"chat_template": "{{ strftime_now('%Y') }}"});
    let prompt = prompt(&with(&[plain, ("tokenizer_config.json", dated)])).unwrap();
    assert_eq!(prompt.date, Some(prompt.text));
}

/// A vocabulary of a class whose pipeline is not known without its `tokenizer.json`.
#[test]
fn vocabularies_of_other_classes() {
    let golden = Golden::read();
    let name = "vocab.json and merges.txt";
    let case = golden.cases.iter().find(|case| case.name == name).unwrap();
    let mut files = case.files.clone();
    files.insert(
        "tokenizer_config.json".to_owned(),
        json!({"tokenizer_class": "Qwen2Tokenizer"}),
    );
    let folder = golden.folder("llama", &files);
    let error = try_load(folder.path(), Processing::Raw)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("vocab.json") && error.contains("Qwen2Tokenizer"),
        "{error}"
    );
}
