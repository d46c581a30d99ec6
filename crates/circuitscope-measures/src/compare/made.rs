use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::DiscoveryFile;
use crate::discovery::in_words;

/// What stands for something that a file does not say.
const NOTHING: &str = "–";

/// Digits of a hash that are shown.
const DIGITS: usize = 12;

/// Kinds of files that hold weights.
const WEIGHTS: [&str; 7] = [
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".gguf",
    ".npz",
    ".ckpt",
];

/// One thing that a discovery was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Made {
    /// What it is, such as `method`; settings by their path in the file, such as `methods.patching.ig_steps`.
    pub name: String,
    /// Which it is in A; `–` where the file does not say.
    pub a: String,
    /// Which it is in B.
    pub b: String,
}

impl Made {
    /// Whether the two differ.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.a != self.b
    }
}

/// Facts by name, those that differ and those that do not; of settings only those that differ.
pub(super) fn made(a: &DiscoveryFile, b: &DiscoveryFile) -> Vec<Made> {
    let pair = |name: &str, of: &dyn Fn(&DiscoveryFile) -> Option<String>| Made {
        name: name.to_owned(),
        a: of(a).unwrap_or_else(|| NOTHING.to_owned()),
        b: of(b).unwrap_or_else(|| NOTHING.to_owned()),
    };
    let number = |number: Option<usize>| number.map(|number| number.to_string());
    let mut made = vec![
        pair("model", &|file| text(&file.model, "name")),
        hashes("weights", a, b, true),
        hashes("configuration and tokenizer", a, b, false),
        pair("precision", &|file| text(&file.model, "dtype")),
        pair("processing", &|file| text(&file.model, "processing")),
        pair("prompts", &|file| Some(file.examples.clone())),
        pair("prompt files", &|file| inputs(&file.provenance)),
        pair("positive prompts", &|file| number(file.positives)),
        pair("negative prompts", &|file| number(file.negatives)),
        pair("only pairs answered right", &|file| {
            let kept = text(&file.only_correct, "kept")?;
            Some(format!("{kept} of {}", text(&file.only_correct, "of")?))
        }),
        pair("method", &|file| Some(file.method.clone())),
        pair("rule", &|file| file.selection.clone()),
        pair("heads before the limit", &|file| number(file.cut_from)),
        pair("metric", &|file| file.metric.clone()),
        pair("reference", &|file| file.ablation.clone()),
        pair("seed", &|file| text(&file.settings, "seed")),
    ];
    let settings = [a, b].map(|file| {
        let mut leaves = BTreeMap::new();
        flatten("", &file.settings, &mut leaves);
        leaves.remove("seed");
        // How many prompts began so is of the prompts, not of the settings.
        leaves.remove("prepend_bos.there_already");
        leaves
    });
    let [first, second] = &settings;
    let names = first
        .keys()
        .chain(second.keys().filter(|name| !first.contains_key(*name)));
    let of = |leaves: &BTreeMap<String, String>, name: &String| {
        leaves
            .get(name)
            .cloned()
            .unwrap_or_else(|| NOTHING.to_owned())
    };
    let settings = names.map(|name| Made {
        name: name.clone(),
        a: of(first, name),
        b: of(second, name),
    });
    made.extend(settings.filter(Made::differs));
    made.push(pair("program", &|file| text(&file.provenance, "program")));
    made.push(pair("device", &|file| text(&file.provenance, "device")));
    made.retain(|made| made.a != NOTHING || made.b != NOTHING);
    made
}

/// A field in words; `None` where it is not there.
fn text(of: &Value, field: &str) -> Option<String> {
    let value = of.get(field)?;
    (!value.is_null()).then(|| in_words(value))
}

fn digits(hash: &str) -> String {
    hash.chars().take(DIGITS).collect()
}

/// Hashes of the files of the model: the first one, or the first that differs.
fn hashes(name: &str, a: &DiscoveryFile, b: &DiscoveryFile, weights: bool) -> Made {
    let of = |file: &DiscoveryFile| -> Vec<(String, String)> {
        let files = file.model.get("files").and_then(Value::as_array);
        let files = files.into_iter().flatten().filter_map(|file| {
            let (name, hash) = (text(file, "name")?, text(file, "sha256")?);
            let lower = name.to_ascii_lowercase();
            let holds = WEIGHTS.iter().any(|kind| lower.ends_with(kind));
            (holds == weights).then_some((name, hash))
        });
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    };
    let (first, second) = (of(a), of(b));
    let longest = first.len().max(second.len());
    let hash = |files: &[(String, String)], at: usize| files.get(at).map(|(_, hash)| hash.clone());
    let differing = (0..longest).find(|at| hash(&first, *at) != hash(&second, *at));
    let shown = differing.unwrap_or(0);
    let said = |files: &[(String, String)]| match files {
        [] => NOTHING.to_owned(),
        [(_, hash)] if longest == 1 => digits(hash),
        all => {
            let one = all.get(shown);
            let one = one.map_or_else(
                || "none".to_owned(),
                |(name, hash)| format!("{name} {}", digits(hash)),
            );
            format!("{one} ({} files)", all.len())
        }
    };
    Made {
        name: name.to_owned(),
        a: said(&first),
        b: said(&second),
    }
}

/// Names and hashes of files that were read.
fn inputs(provenance: &Value) -> Option<String> {
    let inputs = provenance.get("inputs")?.as_object()?;
    let files = inputs.iter().map(|(path, hash)| {
        let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
        format!("{name} {}", digits(&in_words(hash)))
    });
    let mut files: Vec<String> = files.collect();
    files.sort();
    (!files.is_empty()).then(|| files.join(", "))
}

/// Values by their paths.
fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                flatten(&path, value, leaves);
            }
        }
        Value::Null => {}
        value => {
            leaves.insert(path.to_owned(), in_words(value));
        }
    }
}
