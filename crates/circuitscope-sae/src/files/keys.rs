//! The keys of one JSON or YAML file, read strictly.

use std::path::{Path, PathBuf};

use circuitscope_core::nearest;
use circuitscope_files as files;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The object of a JSON or YAML file, or one within it.
#[derive(Debug)]
pub(super) struct Keys {
    path: PathBuf,
    /// Where the object stands: `trainer.`; empty for the file's own.
    within: String,
    fields: Map<String, Value>,
}

impl Keys {
    /// # Errors
    /// [`Error::File`], [`Error::Json`].
    pub(super) fn read(path: PathBuf) -> Result<Self> {
        let text = files::read(&path)?;
        match serde_json::from_slice(&text) {
            Ok(fields) => Ok(Self::of(path, fields)),
            Err(source) => Err(Error::Json { path, source }),
        }
    }

    /// # Errors
    /// [`Error::File`], [`Error::Yaml`].
    pub(super) fn read_yaml(path: PathBuf) -> Result<Self> {
        let text = files::read(&path)?;
        match serde_saphyr::from_slice(&text) {
            Ok(fields) => Ok(Self::of(path, fields)),
            Err(error) => Err(Error::Yaml {
                path,
                reason: error.to_string(),
            }),
        }
    }

    const fn of(path: PathBuf, fields: Map<String, Value>) -> Self {
        Self {
            path,
            within: String::new(),
            fields,
        }
    }

    /// The object of a key.
    pub(super) fn object(&self, key: &str) -> Result<Self> {
        match self.fields.get(key) {
            Some(Value::Object(fields)) => Ok(Self {
                path: self.path.clone(),
                within: format!("{}{key}.", self.within),
                fields: fields.clone(),
            }),
            found => Err(self.wrong(key, found, "an object")),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// A value that is not `null`.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.fields.remove(key)
    }

    /// Fails if there is a key that is none of these.
    pub(super) fn only(&self, known: &[&[&str]]) -> Result<()> {
        let known = known.iter().copied().flatten().copied();
        let unknown = |key: &&String| !known.clone().any(|known| known == *key);
        let Some(field) = self.fields.keys().find(unknown) else {
            return Ok(());
        };
        Err(Error::UnknownField {
            path: self.path.clone(),
            field: format!("{}{field}", self.within),
            nearest: nearest(field, known.clone()).map(str::to_owned),
        })
    }

    /// The error of a key with a value that does not do.
    pub(super) fn wrong(&self, key: &str, found: Option<&Value>, expected: &str) -> Error {
        self.wrong_near(key, found, expected, None)
    }

    fn wrong_near(
        &self,
        key: &str,
        found: Option<&Value>,
        expected: &str,
        nearest: Option<&str>,
    ) -> Error {
        Error::Field {
            path: self.path.clone(),
            field: format!("{}{key}", self.within),
            found: found.map_or_else(|| "missing".to_owned(), Value::to_string),
            expected: expected.to_owned(),
            nearest: nearest.map(str::to_owned),
        }
    }

    /// A text; `None` where it is absent or `null`.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            found => Err(self.wrong(key, found, "a text")),
        }
    }

    /// A text that must be there.
    pub(super) fn needed_text(&self, key: &str) -> Result<String> {
        self.text(key)?
            .ok_or_else(|| self.wrong(key, self.fields.get(key), "a text"))
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, key: &str) -> Result<f64> {
        let found = self.fields.get(key);
        found
            .and_then(Value::as_f64)
            .filter(|number| number.is_normal() && *number > 0.0)
            .ok_or_else(|| self.wrong(key, found, "a number above 0"))
    }

    /// A number from 1 on, of what can be counted in codes.
    pub(super) fn size(&self, key: &str) -> Result<usize> {
        self.size_of(key, self.fields.get(key))
    }

    /// The same of a value that stands elsewhere.
    pub(super) fn size_of(&self, key: &str, found: Option<&Value>) -> Result<usize> {
        found
            .and_then(Value::as_u64)
            .filter(|size| (1..=i32::MAX as u64).contains(size))
            .map(|size| size as usize)
            .ok_or_else(|| self.wrong(key, found, "an integer of at least 1"))
    }

    /// `k`: a number of features among `d_sae`.
    pub(super) fn k(&self, key: &str, found: Option<&Value>, d_sae: usize) -> Result<usize> {
        let k = self.size_of(key, found)?;
        if k > d_sae {
            return Err(self.wrong(
                key,
                found,
                &format!("at most {d_sae}, the number of features"),
            ));
        }
        Ok(k)
    }

    /// True or false; `default` where it is absent or `null`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            found => Err(self.wrong(key, found, "true or false")),
        }
    }

    /// One of these texts; `default` where it is absent.
    pub(super) fn one_of(
        &self,
        key: &str,
        choices: &[&'static str],
        default: Option<&'static str>,
    ) -> Result<&'static str> {
        let found = self.fields.get(key);
        let name = match found {
            None => default,
            Some(value) => value.as_str(),
        };
        let choice = choices.iter().find(|choice| Some(**choice) == name);
        choice.copied().ok_or_else(|| {
            let expected: Vec<_> = choices.iter().map(|choice| format!("{choice:?}")).collect();
            let expected = match expected.as_slice() {
                [most @ .., last] if !most.is_empty() => format!("{} or {last}", most.join(", ")),
                _ => expected.concat(),
            };
            let near = name.and_then(|name| nearest(name, choices.iter().copied()));
            self.wrong_near(key, found, &expected, near)
        })
    }
}
