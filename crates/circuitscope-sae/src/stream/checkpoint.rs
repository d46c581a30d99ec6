//! Where training stands, in one file.

use std::path::Path;

use circuitscope_core::Seed;
use circuitscope_files::{Entry, FileError, Metadata, Reader, Writer};
use serde::Deserialize;
use serde_json::{Value, json};

use super::StreamConfig;
use super::params::{PARAMS, Params, shapes};
use super::statistics::Window;
use crate::{Error, Result};

/// Name of the file of a checkpoint.
pub const CHECKPOINT_FILE: &str = "stream.safetensors";

/// Version of the file.
const SCHEMA: u64 = 1;

/// What each parameter has: itself, and Adam's sums of its gradients and of their squares.
const PARTS: [&str; 3] = ["weights", "first", "second"];

/// All that training depends on beside settings and rows.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) seed: Seed,
    pub(super) step: u64,
    pub(super) threshold: Option<f64>,
    pub(super) since: Vec<u64>,
    pub(super) window: Window,
    /// In the order of [`PARTS`].
    pub(super) params: [Params; 3],
}

/// One file, not two: there is no moment at which weights and settings are of different checkpoints.
pub(super) fn write(config: &StreamConfig, saved: &Saved, folder: &Path) -> Result<()> {
    let path = folder.join(CHECKPOINT_FILE);
    let no_json = |source| Error::Json {
        path: path.clone(),
        source,
    };
    let metadata = Metadata::from([
        ("schema".to_owned(), json!(SCHEMA)),
        ("seed".to_owned(), json!(saved.seed)),
        ("step".to_owned(), json!(saved.step)),
        ("threshold".to_owned(), json!(saved.threshold)),
        (
            "config".to_owned(),
            serde_json::to_value(config).map_err(no_json)?,
        ),
        (
            "statistics".to_owned(),
            serde_json::to_value(&saved.window).map_err(no_json)?,
        ),
    ]);
    let mut entries = vec![Entry::of::<i64>("since_fired", &[config.d_sae])];
    for (name, shape) in present(config) {
        for part in PARTS {
            entries.push(Entry::of::<f32>(format!("{part}.{name}"), &shape));
        }
    }
    let mut writer = Writer::create(&path, entries, metadata)?;
    let since: Vec<i64> = saved.since.iter().map(|&steps| steps as i64).collect();
    writer.fill("since_fired", &since)?;
    for (part, params) in PARTS.into_iter().zip(&saved.params) {
        for ((name, _), list) in shapes(config).into_iter().zip(params.lists()) {
            if !list.is_empty() {
                writer.fill(&format!("{part}.{name}"), list)?;
            }
        }
    }
    Ok(writer.finish()?)
}

/// The parameters that a configuration has.
fn present(config: &StreamConfig) -> impl Iterator<Item = (&'static str, Vec<usize>)> {
    let some = |(_, shape): &(&str, Vec<usize>)| !shape.contains(&0);
    shapes(config).into_iter().filter(some)
}

pub(super) fn read(config: &StreamConfig, folder: &Path) -> Result<Saved> {
    let file = Reader::open(&folder.join(CHECKPOINT_FILE))?;
    let schema = value(&file, "schema")?;
    if *schema != json!(SCHEMA) {
        return Err(file
            .wrong_metadata("schema", schema.to_string(), SCHEMA.to_string())
            .into());
    }
    same_settings(&file, config)?;
    let since = file.tensor("since_fired")?.shape(&[config.d_sae])?;
    let since = since.whole_numbers()?;
    let window: Window = parsed(&file, "statistics", "sums over steps")?;
    if !window.fits(config.d_out, config.d_sae) {
        return Err(wrong(&file, "statistics", "lists of d_out and d_sae numbers").into());
    }
    let mut params = PARTS.map(|_| Params::zeros(config));
    for (part, params) in PARTS.into_iter().zip(&mut params) {
        let mut lists = Vec::with_capacity(PARAMS);
        for (name, shape) in shapes(config) {
            lists.push(if shape.contains(&0) {
                Vec::new()
            } else {
                let name = format!("{part}.{name}");
                file.tensor(&name)?.shape(&shape)?.finite()?
            });
        }
        let mut lists = lists.into_iter();
        *params = Params::of(core::array::from_fn(|_| lists.next().unwrap_or_default()));
    }
    Ok(Saved {
        seed: parsed(&file, "seed", "a seed")?,
        step: parsed(&file, "step", "a number of steps")?,
        threshold: parsed(&file, "threshold", "a number, or null")?,
        since: since.into_iter().map(|steps| steps as u64).collect(),
        window,
        params,
    })
}

/// Fails with the first setting that differs.
fn same_settings(file: &Reader, config: &StreamConfig) -> Result<()> {
    let written = value(file, "config")?;
    let asked = serde_json::to_value(config).map_err(|source| Error::Json {
        path: file.path().to_owned(),
        source,
    })?;
    let (Value::Object(written), Value::Object(asked)) = (written, &asked) else {
        return Err(wrong(file, "config", "an object").into());
    };
    let keys = asked.keys().chain(written.keys());
    let differs = |key: &&String| asked.get(*key) != written.get(*key);
    let Some(field) = keys.into_iter().find(differs) else {
        return Ok(());
    };
    let shown =
        |value: Option<&Value>| value.map_or_else(|| "missing".to_owned(), Value::to_string);
    Err(Error::Field {
        path: file.path().to_owned(),
        field: field.clone(),
        found: shown(written.get(field)),
        expected: format!(
            "{}, as it is resumed with: a checkpoint goes on with the settings it was made with",
            shown(asked.get(field))
        ),
        nearest: None,
    })
}

fn value<'a>(file: &'a Reader, key: &str) -> Result<&'a Value> {
    let missing = || file.wrong_metadata(key, "no such key", "it to be there");
    Ok(file.metadata().get(key).ok_or_else(missing)?)
}

fn parsed<T: for<'a> Deserialize<'a>>(file: &Reader, key: &str, expected: &str) -> Result<T> {
    let value = value(file, key)?;
    let parsed = T::deserialize(value).map_err(|_error| wrong(file, key, expected));
    Ok(parsed?)
}

fn wrong(file: &Reader, key: &str, expected: &str) -> FileError {
    let found = file
        .metadata()
        .get(key)
        .map_or_else(String::new, Value::to_string);
    let found: String = found.chars().take(80).collect();
    file.wrong_metadata(key, found, expected)
}
