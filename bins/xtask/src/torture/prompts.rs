//! A tokenizer for the smallest model of the tests, and prompts that fit it, in every form that is read.

use std::path::Path;

use anyhow::Result;
use fs_err as fs;
use serde_json::{Value, json};

/// A tokenizer for the model of 29 tokens: letters, a space, a merge and the end of the text.
pub(crate) fn tokenizer(model: &Path) -> Result<()> {
    let letters = ('a'..='z').chain(['Ġ']).map(|letter| letter.to_string());
    let tokens = letters.chain(["Ġt".to_owned(), "<|endoftext|>".to_owned()]);
    let vocabulary: serde_json::Map<_, _> = tokens
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let end = json!({
        "id": 28, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [end], "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": bytes, "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
            "merges": ["Ġ t"]
        }
    });
    let config = json!({
        "add_bos_token": false, "add_prefix_space": false, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
        "model_max_length": 9, "tokenizer_class": "GPT2Tokenizer",
        "chat_template": "{% for message in messages %}u{{ message['content'] | trim }}{% endfor %}"
    });
    let files = [
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", config),
        ("added_tokens.json", json!({"<|endoftext|>": 28})),
        (
            "special_tokens_map.json",
            json!({"bos_token": "<|endoftext|>", "eos_token": {"content": "<|endoftext|>", "lstrip": false}}),
        ),
    ];
    for (name, value) in files {
        fs::write(model.join(name), serde_json::to_vec_pretty(&value)?)?;
    }
    Ok(())
}

/// A pair of prompts with an answer.
struct Pair {
    positive: &'static str,
    negative: &'static str,
    right: &'static str,
    wrong: &'static str,
}

const fn pair(
    positive: &'static str,
    negative: &'static str,
    right: &'static str,
    wrong: &'static str,
) -> Pair {
    Pair {
        positive,
        negative,
        right,
        wrong,
    }
}

const PAIRS: [Pair; 4] = [
    pair("ab cd", "ab ce", " t", "x"),
    pair("dog t", "dig t", "a", "b"),
    pair("so be", "so he", "q", "z"),
    pair("at it", "at in", "c", "d"),
];

impl Pair {
    fn own(&self) -> Value {
        json!({
            "positive": self.positive, "negative": self.negative,
            "answers": [self.right], "wrong_answers": [self.wrong]
        })
    }

    fn spans(&self) -> Value {
        json!({"positive": self.positive, "negative": self.negative, "spans": [[self.positive, self.negative]]})
    }

    fn mib(&self) -> Value {
        json!({
            "prompt": self.positive,
            "metadata": {"indirect_object": self.right, "subject": self.wrong},
            "s2_io_flip_counterfactual": {
                "prompt": self.negative, "metadata": {"indirect_object": self.wrong, "subject": self.right}
            }
        })
    }

    fn task(&self) -> Value {
        json!({
            "clean": self.positive, "corrupt": self.negative,
            "answers": [self.right], "wrong_answers": [self.wrong]
        })
    }
}

/// Writes files of prompts.
pub(crate) fn write(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let lines = |row: fn(&Pair) -> String| {
        let mut lines = PAIRS.iter().map(row).collect::<Vec<_>>().join("\n");
        lines.push('\n');
        lines
    };
    let task: Vec<Value> = PAIRS.iter().map(Pair::task).collect();
    let rows = lines(|pair| format!("\"{}\",{},3,9", pair.positive, pair.negative));
    let tokens =
        json!({"tokens": [[1, 2, 3], [3, 4, 5]], "attention_mask": [[1, 1, 1], [1, 1, 0]]});
    let files = [
        ("pairs.jsonl", lines(|pair| pair.own().to_string())),
        ("spans.jsonl", lines(|pair| pair.spans().to_string())),
        ("mib.jsonl", lines(|pair| pair.mib().to_string())),
        ("task.json", json!({"prompts": task}).to_string()),
        (
            "table.csv",
            format!("clean,corrupted,correct_idx,incorrect_idx\n{rows}"),
        ),
        ("yes.txt", lines(|pair| pair.positive.to_owned())),
        ("no.txt", lines(|pair| pair.negative.to_owned())),
        ("tokens.json", tokens.to_string()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
