//! Reading objects whose every key is known.

use std::path::Path;

use circuitscope_core::{did_you_mean, nearest};
use circuitscope_files::shown;
use serde_json::{Map, Value};

use crate::error::list;
use crate::{Error, Result};

/// An object of a file, with the place where it stands.
pub(super) struct Fields<'a> {
    file: &'a Path,
    /// Empty for the file itself, else with a point at its end.
    place: String,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The object `value` at `place`, which has none but `known` keys.
    pub(super) fn new(
        file: &'a Path,
        place: &str,
        value: &'a Value,
        known: &[&str],
    ) -> Result<Self> {
        let fields = Self::open(file, place, value)?;
        let known_keys = || known.iter().copied();
        match fields.map.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(fields),
            Some(key) => {
                let hint = did_you_mean(nearest(key, known_keys()));
                let found = format!("an unknown key{hint}");
                Err(fields.error(key, found, list(known)))
            }
        }
    }

    /// The object `value` at `place`, whatever its keys are.
    pub(super) fn open(file: &'a Path, place: &str, value: &'a Value) -> Result<Self> {
        let inside = if place.is_empty() {
            String::new()
        } else {
            format!("{place}.")
        };
        match value.as_object() {
            Some(map) => Ok(Self {
                file,
                place: inside,
                map,
            }),
            None => Err(Error::TaskField {
                file: file.to_owned(),
                field: if place.is_empty() { "the file" } else { place }.to_owned(),
                found: shown(value),
                expected: "an object".to_owned(),
            }),
        }
    }

    pub(super) fn error(
        &self,
        key: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Error {
        Error::TaskField {
            file: self.file.to_owned(),
            field: format!("{}{key}", self.place),
            found: found.into(),
            expected: expected.into(),
        }
    }

    pub(super) fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        self.error(key, shown(value), expected)
    }

    pub(super) fn place(&self, key: &str) -> String {
        format!("{}{key}", self.place)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.map.iter()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    pub(super) fn needed(&self, key: &str, expected: &str) -> Result<&'a Value> {
        self.get(key)
            .ok_or_else(|| self.error(key, "nothing", expected))
    }

    /// A string that is not empty.
    pub(super) fn text_of(&self, key: &str, value: &'a Value, expected: &str) -> Result<&'a str> {
        let text = value.as_str().filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| self.wrong(key, value, expected))
    }

    pub(super) fn needed_text(&self, key: &str, expected: &str) -> Result<&'a str> {
        self.text_of(key, self.needed(key, expected)?, expected)
    }

    /// A list with something in it.
    pub(super) fn list_of(
        &self,
        key: &str,
        value: &'a Value,
        expected: &str,
    ) -> Result<&'a [Value]> {
        let list = value.as_array().filter(|list| !list.is_empty());
        list.map(Vec::as_slice)
            .ok_or_else(|| self.wrong(key, value, expected))
    }

    /// A list of strings with something in it.
    pub(super) fn texts_of(
        &self,
        key: &str,
        value: &'a Value,
        expected: &str,
    ) -> Result<Vec<&'a str>> {
        let list = self.list_of(key, value, expected)?.iter();
        let texts = list.enumerate().map(|(at, text)| {
            self.text_of(&format!("{key}[{at}]"), text, "a string that is not empty")
        });
        texts.collect()
    }
}
