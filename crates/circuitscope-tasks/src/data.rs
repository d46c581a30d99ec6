//! Reading data files: those that the crate carries, and those of a task's folder.

use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// The schema version that this release reads and its data files carry.
pub(crate) const SCHEMA: u32 = 1;

/// A data file: its name as errors give it, and its text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DataFile<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
}

/// A file below `datasets/`, compiled into the crate.
macro_rules! data_file {
    ($name:literal) => {
        $crate::data::DataFile {
            name: concat!("datasets/", $name),
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/", $name)),
        }
    };
}
pub(crate) use data_file;

impl DataFile<'_> {
    /// Parses the file; the record must check its `schema` with [`DataFile::check_schema`].
    pub(crate) fn parse<T: DeserializeOwned>(self) -> Result<T> {
        serde_json::from_str(self.text).map_err(|error| self.error(error.to_string()))
    }

    pub(crate) fn check_schema(self, found: u32) -> Result<()> {
        self.require(found == SCHEMA, || {
            format!("schema: found {found}, expected {SCHEMA}")
        })
    }

    pub(crate) fn require(self, holds: bool, problem: impl FnOnce() -> String) -> Result<()> {
        if holds {
            Ok(())
        } else {
            Err(self.error(problem()))
        }
    }

    /// Words must be there, and each only once: `what` needs at least `least` of them.
    pub(crate) fn check_words(self, what: &str, words: &[String], least: usize) -> Result<()> {
        self.require(words.len() >= least, || {
            format!("{} {what}, expected at least {least}", words.len())
        })?;
        let mut sorted: Vec<_> = words.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(self.error(format!("{what}: {:?} is listed twice", pair[0]))),
            None => Ok(()),
        }
    }

    pub(crate) fn error(self, problem: String) -> Error {
        Error::Data {
            file: self.name.to_owned(),
            problem,
        }
    }
}
