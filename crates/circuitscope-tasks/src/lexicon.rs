use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::data::{DataFile, data_file};
use crate::{Error, Result};

pub(crate) const FILE: DataFile<'static> = data_file!("reference/lexicon.json");

/// The words that the reference model has for a task, each of them one token, joined by single spaces in
/// prompts: the section of the task's name, with underscores.
///
/// # Errors
/// [`Error::Unposable`] where the reference model has no words for it.
pub(crate) fn section<T: DeserializeOwned>(task: &str) -> Result<T> {
    let mut lexicon: Map<String, Value> = FILE.parse()?;
    let schema = lexicon.get("schema").and_then(Value::as_u64);
    FILE.check_schema(
        schema
            .and_then(|schema| schema.try_into().ok())
            .unwrap_or(0),
    )?;
    let section = lexicon.remove(&task.replace('-', "_"));
    let section = section.ok_or_else(|| Error::Unposable {
        task: task.to_owned(),
        why: "the reference model was not trained for it".to_owned(),
    })?;
    serde_json::from_value(section).map_err(|error| FILE.error(format!("{task}: {error}")))
}
