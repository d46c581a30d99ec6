//! The tokenizer.

use circuitscope_model::{Error, Processing, Tokenizer};
use circuitscope_testkit::fixture;
use serde_json::{Value, json};

use crate::folder::ModelFolder;
use crate::{golden_folder, try_load};

#[test]
#[ignore = "needs ../shared/fixtures"]
fn gpt2_gives_the_recorded_ids() {
    let folder = fixture("tokenizers/gpt2");
    let path = folder.join("tokenizer.json");
    let tokenizer = Tokenizer::from_bytes(&path, &fs_err::read(&path).unwrap(), None).unwrap();
    let examples = fs_err::read(folder.join("examples.json")).unwrap();
    let examples: Vec<Value> = serde_json::from_slice(&examples).unwrap();
    assert_eq!(examples.len(), 15);
    for example in &examples {
        let text = example["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(example["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
        // A text that begins with the token gets no second one.
        let bos: &[u32] = if ids.first() == Some(&50_256) {
            &[]
        } else {
            &[50_256]
        };
        let with_bos = [bos, ids.as_slice()].concat();
        assert_eq!(tokenizer.encode(text, true).unwrap(), with_bos, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    assert_eq!(tokenizer.bos(), Some(50_256));
    assert_eq!(tokenizer.single_token(" Mary").unwrap(), 5335);
    assert_eq!(tokenizer.token(5335).unwrap(), "ĠMary");
    assert_eq!(tokenizer.token(50_257), None);
    let error = tokenizer.single_token(" Marynka").unwrap_err();
    assert!(
        matches!(error, Error::NotOneToken { tokens: 2.., .. }),
        "{error}"
    );
}

/// Words split at spaces; no beginning-of-sequence token unless one is named.
const WORDS: &str = r#"{
  "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
  "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"},
  "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
  "post_processor": null, "decoder": null,
  "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"}
}"#;

#[test]
fn padding_and_truncation_of_the_file_are_off() {
    let words = |bos| Tokenizer::from_bytes("words.json".as_ref(), WORDS.as_bytes(), bos).unwrap();
    assert_eq!(words(None).encode("a b b a", false).unwrap(), [0, 1, 1, 0]);
    assert_eq!(words(Some(1)).encode("a", true).unwrap(), [1, 0]);
    assert!(matches!(words(None).encode("a", true), Err(Error::NoBos)));
}

#[test]
fn a_transformer_lens_folder_names_the_token_that_begins_a_sequence() {
    let folder = ModelFolder::copy_of(&golden_folder("attn_only_shortformer"));
    folder.write("tokenizer.json", WORDS.as_bytes());
    let bos = || {
        let loaded = try_load(folder.path(), Processing::Raw).unwrap();
        loaded.tokenizer().unwrap().bos()
    };
    assert_eq!(bos(), None);
    folder.edit_config(|config| {
        config.insert("bos_token_id".into(), json!(1));
    });
    assert_eq!(bos(), Some(1));
}

#[test]
fn a_broken_file_is_named() {
    for bytes in [&b""[..], b"{}", b"not json", &WORDS.as_bytes()[..200]] {
        let error = Tokenizer::from_bytes("some/tokenizer.json".as_ref(), bytes, None).unwrap_err();
        assert!(
            error.to_string().starts_with("some/tokenizer.json: "),
            "{error}"
        );
    }
}
