#![expect(
    clippy::disallowed_types,
    reason = "what the reader of the format returns; nothing iterates over it"
)]

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anamnesis::{GgufMetadataArray, GgufMetadataValue};
use serde_json::Value;

use crate::{Error, Result};

/// What a GGUF file says about its model. Keys of the architecture, `{arch}.…`, are asked for without
/// that prefix; which were asked for is kept, so that the others can be named.
pub(super) struct Metadata<'a> {
    path: &'a Path,
    map: &'a HashMap<String, GgufMetadataValue>,
    pub(super) arch: &'a str,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Metadata<'a> {
    pub(super) fn new(path: &'a Path, map: &'a HashMap<String, GgufMetadataValue>) -> Result<Self> {
        let key = "general.architecture";
        let bad = |reason: &str| Error::NotGguf {
            path: path.to_owned(),
            reason: format!("`{key}` {reason}"),
        };
        let value = map.get(key).ok_or_else(|| bad("is missing"))?;
        let arch = value.as_string().ok_or_else(|| bad("is no text"))?;
        Ok(Self {
            path,
            map,
            arch,
            asked: RefCell::default(),
        })
    }

    pub(super) const fn path(&self) -> &'a Path {
        self.path
    }

    /// The full name of a key of the architecture.
    fn of_arch(&self, key: &str) -> String {
        format!("{}.{key}", self.arch)
    }

    pub(super) fn unsupported(&self, key: &str, found: String, expected: &str) -> Error {
        Error::Unsupported {
            path: self.path.to_owned(),
            key: key.to_owned(),
            found,
            expected: expected.to_owned(),
        }
    }

    pub(super) fn missing(&self, key: &str) -> Error {
        Error::Config {
            path: self.path.to_owned(),
            reason: format!("metadata key `{key}` is missing"),
        }
    }

    /// The value under a full key.
    pub(super) fn get(&self, key: &str) -> Option<&'a GgufMetadataValue> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.map.get(key)
    }

    /// A whole number of the architecture, not below 0. A list of one number for each layer counts as
    /// that number if all are the same.
    pub(super) fn count(&self, key: &str) -> Result<Option<u64>> {
        let key = self.of_arch(key);
        let Some(value) = self.get(&key) else {
            return Ok(None);
        };
        let one = match value {
            GgufMetadataValue::Array(list) => same(&whole_numbers(list)),
            value => whole(value),
        };
        let expected = "a whole number, the same for every layer";
        one.map(Some)
            .ok_or_else(|| self.unsupported(&key, shown(value), expected))
    }

    pub(super) fn needed(&self, key: &str) -> Result<u64> {
        self.count(key)?
            .ok_or_else(|| self.missing(&self.of_arch(key)))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        let key = self.of_arch(key);
        let Some(value) = self.get(&key) else {
            return Ok(None);
        };
        let number = match value {
            GgufMetadataValue::F32(x) => Some(written(*x)),
            GgufMetadataValue::F64(x) => Some(*x),
            value => whole(value).map(|n| n as f64),
        };
        number
            .filter(|x| x.is_finite())
            .map(Some)
            .ok_or_else(|| self.unsupported(&key, shown(value), "a finite number"))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_string()
            .map(Some)
            .ok_or_else(|| self.unsupported(key, shown(value), "text"))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| self.unsupported(key, shown(value), "true or false"))
    }

    /// A whole number under a full key.
    pub(super) fn whole(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        whole(value)
            .map(Some)
            .ok_or_else(|| self.unsupported(key, shown(value), "a whole number"))
    }

    /// A token's id under a full key.
    pub(super) fn token(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        // Some programs write 2^32 - 1 or -1 where there is none.
        if matches!(
            value,
            GgufMetadataValue::I32(-1) | GgufMetadataValue::U32(u32::MAX)
        ) {
            return Ok(None);
        }
        let id = whole(value).and_then(|id| u32::try_from(id).ok());
        id.map(Some)
            .ok_or_else(|| self.unsupported(key, shown(value), "the number of a token"))
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<&'a [String]>> {
        self.list(key, "a list of texts", GgufMetadataArray::as_string_slice)
    }

    pub(super) fn floats(&self, key: &str) -> Result<Option<&'a [f32]>> {
        self.list(
            key,
            "a list of numbers in f32",
            GgufMetadataArray::as_f32_slice,
        )
    }

    pub(super) fn integers(&self, key: &str) -> Result<Option<&'a [i32]>> {
        self.list(
            key,
            "a list of numbers in i32",
            GgufMetadataArray::as_i32_slice,
        )
    }

    fn list<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a GgufMetadataArray) -> Option<&'a [T]>,
    ) -> Result<Option<&'a [T]>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let list = value.as_array().and_then(read);
        list.map(Some)
            .ok_or_else(|| self.unsupported(key, shown(value), expected))
    }

    /// Refuses options of the architecture that are not implemented, unless they are absent or have the
    /// value that switches them off.
    pub(super) fn off(&self, options: &[(&str, f64)]) -> Result<()> {
        for &(key, neutral) in options {
            let full = self.of_arch(key);
            let Some(value) = self.get(&full) else {
                continue;
            };
            let number = match value {
                GgufMetadataValue::Bool(is) => Some(f64::from(u8::from(*is))),
                GgufMetadataValue::Array(list) => same(&whole_numbers(list)).map(|n| n as f64),
                _ => self.number(key)?,
            };
            if number != Some(neutral) {
                return Err(self.unsupported(&full, shown(value), &neutral.to_string()));
            }
        }
        Ok(())
    }

    /// Keys of the architecture that nothing asked for.
    pub(super) fn unread(&self) -> Vec<&'a str> {
        let prefix = self.of_arch("");
        let asked = self.asked.borrow();
        let keys = self.map.keys().map(String::as_str);
        let mut unread: Vec<&str> = keys
            .filter(|key| key.starts_with(&prefix) && !asked.contains(*key))
            .collect();
        unread.sort_unstable();
        unread
    }
}

/// An f32 as the decimal that was meant: 1e-5 is stored as 9.999999747378752e-6, and the configuration
/// that it came from said 1e-5.
fn written(x: f32) -> f64 {
    x.to_string().parse().unwrap_or_else(|_| f64::from(x))
}

fn whole(value: &GgufMetadataValue) -> Option<u64> {
    match *value {
        GgufMetadataValue::U8(n) => Some(u64::from(n)),
        GgufMetadataValue::U16(n) => Some(u64::from(n)),
        GgufMetadataValue::U32(n) => Some(u64::from(n)),
        GgufMetadataValue::U64(n) => Some(n),
        GgufMetadataValue::I8(n) => u64::try_from(n).ok(),
        GgufMetadataValue::I16(n) => u64::try_from(n).ok(),
        GgufMetadataValue::I32(n) => u64::try_from(n).ok(),
        GgufMetadataValue::I64(n) => u64::try_from(n).ok(),
        _ => None,
    }
}

fn whole_numbers(list: &GgufMetadataArray) -> Vec<Option<u64>> {
    match list {
        GgufMetadataArray::U32(list) => list.iter().map(|&n| Some(u64::from(n))).collect(),
        GgufMetadataArray::U64(list) => list.iter().map(|&n| Some(n)).collect(),
        GgufMetadataArray::I32(list) => list.iter().map(|&n| u64::try_from(n).ok()).collect(),
        GgufMetadataArray::I64(list) => list.iter().map(|&n| u64::try_from(n).ok()).collect(),
        _ => Vec::new(),
    }
}

/// The number that all entries are.
fn same(numbers: &[Option<u64>]) -> Option<u64> {
    let first = *numbers.first()?;
    numbers
        .iter()
        .all(|number| *number == first)
        .then_some(first)?
}

/// A value for an error.
fn shown(value: &GgufMetadataValue) -> String {
    match value {
        GgufMetadataValue::U8(n) => n.to_string(),
        GgufMetadataValue::I8(n) => n.to_string(),
        GgufMetadataValue::U16(n) => n.to_string(),
        GgufMetadataValue::I16(n) => n.to_string(),
        GgufMetadataValue::U32(n) => n.to_string(),
        GgufMetadataValue::I32(n) => n.to_string(),
        GgufMetadataValue::U64(n) => n.to_string(),
        GgufMetadataValue::I64(n) => n.to_string(),
        GgufMetadataValue::F32(x) => x.to_string(),
        GgufMetadataValue::F64(x) => x.to_string(),
        GgufMetadataValue::Bool(is) => is.to_string(),
        GgufMetadataValue::String(text) => {
            let mut short: String = text.chars().take(60).collect();
            if short.len() < text.len() {
                short.push('…');
            }
            Value::from(short).to_string()
        }
        GgufMetadataValue::Array(list) => format!("a list of {}", list.len()),
        _ => "a value of an unknown type".to_owned(),
    }
}
