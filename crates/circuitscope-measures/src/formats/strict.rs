//! JSON of other tools into types, with errors that name the field, what is there and what should be.

use core::fmt;
use core::marker::PhantomData;
use core::str::FromStr;
use std::path::Path;

use circuitscope_core::nearest;
use circuitscope_files::shown;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::{FormatError, python_json};

/// What the file at `path` holds.
pub(super) fn read<T: DeserializeOwned>(path: &Path, value: &Value) -> Result<T, FormatError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let message = error.inner().to_string();
        let place = at(value, error.path().iter());
        let mut field = match error.path().to_string().as_str() {
            "." => String::new(),
            field => field.to_owned(),
        };
        let missing = message.strip_prefix("missing field `");
        let (found, expected) = if let Some(name) = missing.and_then(|rest| rest.strip_suffix('`'))
        {
            let dot = if field.is_empty() { "" } else { "." };
            field = format!("{field}{dot}{name}");
            (nothing(name, place), format!("`{name}`"))
        } else if let Some((key, expected)) = message.split_once(KEY) {
            (key.to_owned(), expected.to_owned())
        } else {
            let expected = message.rsplit_once(", expected ");
            let expected = expected.map_or(message.as_str(), |(_, expected)| expected);
            (shown(place), plain(expected).to_owned())
        };
        if field.is_empty() {
            "the file".clone_into(&mut field);
        }
        FormatError::Field {
            path: path.to_owned(),
            field,
            found,
            expected,
        }
    })
}

/// Between a key that is wrong and what was expected in its place.
const KEY: &str = "\u{1}";

/// The value at a place.
fn at<'a>(mut value: &'a Value, path: impl Iterator<Item = &'a Segment>) -> &'a Value {
    for segment in path {
        let next = match segment {
            Segment::Map { key } => value.get(key),
            Segment::Seq { index } => value.get(index),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        value = next.unwrap_or(value);
    }
    value
}

/// What is there instead of a field.
fn nothing(name: &str, object: &Value) -> String {
    let keys = object.as_object().into_iter().flat_map(|map| map.keys());
    match nearest(name, keys.map(String::as_str)) {
        Some(like) => format!("nothing, but `{like}`"),
        None => "nothing".to_owned(),
    }
}

/// A type as a user knows it.
fn plain(expected: &str) -> &str {
    match expected {
        "usize" | "u64" => "a whole number",
        "a boolean" => "true or false",
        other => other,
    }
}

/// What an object holds; a list of the same values is none.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Self::Value, M::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// The entries of an object whose keys are names of something.
#[derive(Debug)]
pub(super) struct Named<K, V>(pub(super) Vec<(K, V)>);

/// Something that has a name.
pub(super) trait Name: FromStr {
    /// What a name looks like.
    const FORM: &'static str;

    /// What else a name must have, where this one lacks it.
    fn lacks(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }
}

impl<'de, K: Name, V: Deserialize<'de>> Deserialize<'de> for Named<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Name, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = Named<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or_default());
                while let Some(name) = map.next_key::<String>()? {
                    let key = K::from_str(&name).ok().ok_or_else(|| K::FORM.to_owned());
                    let key = key.and_then(|key| key.lacks(&name).map_or(Ok(key), Err));
                    let key = key.map_err(|expected| {
                        M::Error::custom(format!("{}{KEY}{expected}", Value::from(name)))
                    })?;
                    entries.push((key, map.next_value()?));
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// A score; nothing for `null` and `NaN`.
pub(super) fn score<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    let number = python_json::number(&value).ok_or_else(|| D::Error::custom("a number"))?;
    Ok(Some(number).filter(|number| !number.is_nan()))
}
