//! Files of JSON that this project wrote.

use std::path::Path;

use circuitscope_files::{read, write_atomic};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Reads a file of JSON.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] for what is no JSON of this form, naming the field.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read(path)?;
    let mut json = serde_json::Deserializer::from_slice(&text);
    let wrong = |reason: String| Error::File {
        path: path.to_owned(),
        reason,
    };
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        wrong(match field.as_str() {
            "." => error.inner().to_string(),
            field => format!("{field}: {}", error.inner()),
        })
    })?;
    json.end().map_err(|error| wrong(error.to_string()))?;
    Ok(value)
}

/// Reads a file that an earlier run kept and this one can make again; nothing where it is not there.
///
/// # Errors
/// As [`read_json`], and what to do then.
pub fn read_kept<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    read_json(path).map(Some).map_err(|error| match error {
        Error::File { path, reason } => Error::File {
            path,
            reason: format!("{reason}; delete it to run again"),
        },
        other => other,
    })
}

/// Writes a file of JSON, indented, whole or not at all.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] for what JSON cannot hold.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = pretty(path, value)?;
    Ok(write_atomic(path, |out| out.write_all(text.as_bytes()))?)
}

pub(crate) fn pretty(path: &Path, value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::File {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(text + "\n")
}
