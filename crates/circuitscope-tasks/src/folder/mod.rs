//! A task in a folder.

mod fields;
mod words;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use circuitscope_core::{Metric, did_you_mean, nearest};
use circuitscope_files as files;
use serde_json::Value;

use crate::data::SCHEMA;
use crate::spec::Prompts;
use crate::{Error, MODELS, OwnCircuit, Result, TASKS, TaskSpec, read_pairs};
use fields::Fields;

/// What a folder with a task holds.
pub const TASK_FILE: &str = "task.toml";

/// Most letters of a name: it is part of names of files.
const LONGEST_NAME: usize = 60;

const KEYS: &[&str] = &[
    "schema",
    "name",
    "summary",
    "metric",
    "prompts",
    "dictionary",
    "tokenizer",
    "circuits",
];

/// Reads a task from a folder with a `task.toml`, or from that file.
///
/// ```toml
/// schema = 1                           # of this form
/// name = "capitals"                    # small letters, digits and hyphens
/// summary = "a country's capital is named"
/// metric = "logit-difference"          # may be left out: then the answers decide
///
/// [prompts]
/// templates = "prompts.json"           # templates and word lists, or instead:
/// # pairs = "pairs.jsonl"              # pairs, in any form that `read_pairs` reads
/// examples = 40                        # pairs that are drawn unless another number is asked for
///
/// [dictionary]
/// l1 = 0.05                            # default 0.02
///
/// [tokenizer]
/// one_length = ["countries.capital"]   # words that must have one length in tokens after a space
///
/// [[circuits]]                         # where one is known
/// file = "circuit.json"
/// models = ["reference", "owner/name", "sha256:…"]
/// ```
///
/// Only `schema`, `name`, `summary` and `prompts` must be there. The file of `templates` is JSON:
///
/// ```json
/// {
///   "schema": 1,
///   "templates": [{
///     "positive": "The capital of [X.country] is",
///     "negative": "The capital of [Y.country] is",
///     "answers": " [X.capital]",
///     "wrong_answers": " [Y.capital]"
///   }],
///   "slots": {"X": "countries", "Y": "countries"},
///   "words": {"countries": [
///     {"country": "France", "capital": "Paris"}, {"country": "Japan", "capital": "Tokyo"}
///   ]}
/// }
/// ```
///
/// `words` holds lists of words, for slots like `[A]`, or of objects with the same keys, for slots like
/// `[X.country]`. `slots` says which list a slot is drawn from; slots of one list get different entries.
/// Answers are those of the positive prompt, a text or a list of texts, with the leading space that the
/// vocabulary has. Texts hold no square brackets but those of slots. Pairs whose prompts differ in length in
/// tokens are drawn again.
///
/// # Errors
/// [`Error::Io`] (which names the file), [`Error::TaskField`] and [`Error::Data`], which name file and field, for
/// anything that is missing, unknown or of another kind; those of [`read_pairs`](crate::read_pairs).
pub fn read_task(path: &Path) -> Result<TaskSpec> {
    let file = if path.is_dir() {
        path.join(TASK_FILE)
    } else {
        path.to_owned()
    };
    let text = files::read_to_string(&file)?;
    let value: Value = toml::from_str(&text).map_err(|error| not_toml(&file, &text, &error))?;
    let fields = Fields::new(&file, "", &value, KEYS)?;
    let schema = fields.needed("schema", "1")?;
    if schema.as_u64() != Some(u64::from(SCHEMA)) {
        return Err(fields.wrong("schema", schema, "1"));
    }
    let name = name(&fields)?;
    let summary = fields.needed_text("summary", "a sentence that says what the behaviour is")?;
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let mut spec = prompts(&fields, &file, &folder, name, summary)?;
    if let Some(value) = fields.get("metric") {
        let metric = fields.text_of("metric", value, "the name of a metric")?;
        let metric = metric.parse::<Metric>();
        spec.metric = Some(metric.map_err(|error| {
            let found = format!("{:?}{}", error.name, did_you_mean(error.nearest));
            fields.error("metric", found, error.known)
        })?);
    }
    if let Some(value) = fields.get("dictionary") {
        let dictionary = Fields::new(&file, "dictionary", value, &["l1"])?;
        if let Some(value) = dictionary.get("l1") {
            let l1 = value.as_f64().filter(|l1| l1.is_finite() && *l1 >= 0.0);
            spec.l1_coefficient =
                l1.ok_or_else(|| dictionary.wrong("l1", value, "a number, at least 0"))?;
        }
    }
    if let Some(value) = fields.get("circuits") {
        let expected = "tables [[circuits]] of `file` and `models`";
        for (at, value) in fields
            .list_of("circuits", value, expected)?
            .iter()
            .enumerate()
        {
            let place = format!("circuits[{at}]");
            let entry = Fields::new(&file, &place, value, &["file", "models"])?;
            spec.circuits.push(circuit(&entry, &folder)?);
        }
    }
    let circuits = spec.circuits.iter().map(|circuit| circuit.file.clone());
    let circuits: Vec<PathBuf> = circuits.collect();
    spec.files.insert(0, file.clone());
    spec.files.extend(circuits);
    Ok(spec)
}

fn not_toml(file: &Path, text: &str, error: &toml::de::Error) -> Error {
    let at = error.span().map_or(0, |span| span.start);
    Error::Data {
        file: file.display().to_string(),
        problem: files::not_toml(text, at, error.message()),
    }
}

fn name(fields: &Fields<'_>) -> Result<String> {
    let expected = "small letters, digits and hyphens, a letter or digit first, 60 at most";
    let name = fields.needed_text("name", expected)?;
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let fits = name.len() <= LONGEST_NAME
        && name.starts_with(plain)
        && name.chars().all(|letter| plain(letter) || letter == '-');
    if !fits {
        return Err(fields.error("name", format!("{name:?}"), expected));
    }
    if name == "all" || TASKS.iter().any(|task| task.name == name) {
        let expected = "a name that no task of this program has";
        return Err(fields.error("name", format!("{name:?}"), expected));
    }
    Ok(name.to_owned())
}

/// The task with its prompts and what goes with them.
fn prompts(
    fields: &Fields<'_>,
    file: &Path,
    folder: &Path,
    name: String,
    summary: &str,
) -> Result<TaskSpec> {
    let expected = "a table [prompts] with `templates` or `pairs`";
    let value = fields.needed("prompts", expected)?;
    let prompts = Fields::new(file, "prompts", value, &["templates", "pairs", "examples"])?;
    let path = |key: &str, value| {
        let path = folder.join(prompts.text_of(key, value, "the name of a file")?);
        if path.is_file() {
            return Ok(path);
        }
        let found = format!("no file {}", path.display());
        Err(prompts.error(key, found, "a file"))
    };
    let one_length = match fields.get("tokenizer") {
        None => Vec::new(),
        Some(value) => {
            let tokenizer = Fields::new(file, "tokenizer", value, &["one_length"])?;
            let expected = "names of word lists, such as \"names\" or \"countries.capital\"";
            let value = tokenizer.needed("one_length", expected)?;
            tokenizer.texts_of("one_length", value, expected)?
        }
    };
    let summary = summary.trim_end_matches('.').to_owned();
    let (read, source) = match (prompts.get("templates"), prompts.get("pairs")) {
        (Some(value), None) => {
            let source = path("templates", value)?;
            let templates = words::read(&source, &name, &one_length, file)?;
            (Prompts::Templates(Arc::new(templates)), source)
        }
        (None, Some(value)) => {
            if !one_length.is_empty() {
                let expected = "nothing beside `pairs`, which are taken as they are";
                return Err(fields.error("tokenizer", "`one_length`", expected));
            }
            let source = path("pairs", value)?;
            (Prompts::Pairs(Arc::new(read_pairs(&source)?)), source)
        }
        (Some(_), Some(_)) => {
            return Err(prompts.error("pairs", "`templates` beside it", "one of the two"));
        }
        (None, None) => return Err(fields.error("prompts", "neither", expected)),
    };
    let mut spec = TaskSpec::of_files(name, summary, read);
    spec.needs = Cow::Owned(if one_length.is_empty() {
        "no words in particular".to_owned()
    } else {
        let names = one_length.join(", ");
        format!("words of one length in tokens after a space in {names}")
    });
    spec.files.push(source);
    if let Some(value) = prompts.get("examples") {
        let examples = value.as_u64().and_then(|n| usize::try_from(n).ok());
        let examples = examples.filter(|examples| *examples > 0);
        let examples = examples
            .ok_or_else(|| prompts.wrong("examples", value, "a number of pairs, at least 1"))?;
        if let Some(most) = spec.available().filter(|most| *most < examples) {
            let expected = format!("at most {most}, as many as there are pairs");
            return Err(prompts.error("examples", examples.to_string(), expected));
        }
        spec.examples = Some(examples);
    }
    Ok(spec)
}

fn circuit(entry: &Fields<'_>, folder: &Path) -> Result<OwnCircuit> {
    let file = folder.join(entry.needed_text("file", "the name of a file")?);
    if !file.is_file() {
        let found = format!("no file {}", file.display());
        return Err(entry.error("file", found, "a file with a circuit"));
    }
    let expected = format!(
        "whose circuit it is: {}, a name of the Hugging Face hub (owner/name), or sha256: and the hash of its \
         weights",
        crate::error::list(&MODELS)
    );
    let value = entry.needed("models", &expected)?;
    let models = entry.texts_of("models", value, &expected)?;
    for (at, model) in models.iter().enumerate() {
        let hash = model.strip_prefix("sha256:");
        let hash = hash.is_some_and(|hash| {
            hash.len() == 64
                && hash
                    .bytes()
                    .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        });
        if !(hash || MODELS.contains(model) || (model.contains('/') && !model.contains(':'))) {
            let hint = did_you_mean(nearest(model, MODELS));
            let key = format!("models[{at}]");
            return Err(entry.error(&key, format!("{model:?}{hint}"), expected));
        }
    }
    Ok(OwnCircuit {
        file,
        models: models.into_iter().map(str::to_owned).collect(),
    })
}
