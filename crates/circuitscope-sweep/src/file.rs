//! `plan.toml`, as written by hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use circuitscope_core::{did_you_mean, nearest};
use circuitscope_files::{FileError, read_to_string, sha256_of, shown};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Keys of a plan.
const KEYS: [&str; 9] = [
    "store", "models", "tasks", "methods", "seeds", "seed", "device", "lease", "settings",
];

/// Most seeds of a plan.
const SEEDS: u64 = 10_000;
/// Seconds of a lease.
const LEASE: core::ops::RangeInclusive<u64> = 2..=86_400;

/// A set of settings: options of `eval` with their values, as text; of switches `true` or `false`.
pub type Settings = BTreeMap<String, String>;

/// A plan as written by hand: what is to be combined, and where results go.
///
/// ```toml
/// store = "results"              # a folder beside this file, or s3://bucket/prefix, gs://…, az://…
/// models = ["reference"]         # what --model takes; folders from this file on
/// tasks = ["ioi", "own-task/"]   # names, and folders from this file on
/// methods = ["quick"]            # names, and groups of them
/// seeds = 3                      # how many, counted from `seed` (0)
/// device = "cpu"                 # what --device takes
/// lease = 300                    # seconds after which the claim of a worker that is silent lapses
///
/// [settings.default]             # a table for each set: options of `eval` without the dashes
/// examples = 250
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanFile {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of it.
    pub hash: String,
    /// Where results go, as written.
    pub store: String,
    /// Models.
    pub models: Vec<String>,
    /// Tasks.
    pub tasks: Vec<String>,
    /// Methods and groups of them.
    pub methods: Vec<String>,
    /// The first seed, which draws the prompts as well.
    pub seed: u64,
    /// How many seeds there are.
    pub seeds: u64,
    /// What computes.
    pub device: String,
    /// Seconds after which a claim lapses whose worker says nothing.
    pub lease: u64,
    /// Sets of settings, by name.
    pub settings: BTreeMap<String, Settings>,
}

impl PlanFile {
    /// Reads a plan.
    ///
    /// # Errors
    /// [`Error::File`] where it cannot be read, for a key that is unknown or missing and for a value that is not as it should be;
    /// [`Error::NotToml`].
    ///
    /// ```
    /// use circuitscope_sweep::PlanFile;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = &folder.path().join("plan.toml");
    /// # let write = |text: &str| circuitscope_files::write_atomic(path, |out| out.write_all(text.as_bytes()));
    /// write("store = 'results'\nmodels = ['reference']\ntasks = ['ioi']\nmethods = ['sae']\n")?;
    /// let plan = PlanFile::read(path)?;
    /// assert_eq!((plan.seed, plan.seeds, plan.lease), (0, 3, 300));
    ///
    /// write("store = 'results'\nmodel = ['reference']\n")?;
    /// let error = PlanFile::read(path).unwrap_err().to_string();
    /// assert!(error.contains("plan.toml: model: found an unknown key (did you mean `models`?)"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_to_string(path)?;
        let value: Value = toml::from_str(&text).map_err(|error| not_toml(path, &text, &error))?;
        let empty = Map::new();
        let fields = Fields {
            file: path,
            map: value.as_object().unwrap_or(&empty),
        };
        fields.know()?;
        let seeds = fields.number("seeds", 3, 1..=SEEDS)?;
        let seed = fields.number("seed", 0, 0..=u64::MAX - seeds)?;
        Ok(Self {
            path: path.to_owned(),
            hash: sha256_of(text.as_bytes()),
            store: fields.needed_text("store", "a folder, s3://…, gs://… or az://…")?,
            models: fields.texts("models", "a list of models, such as [\"reference\"]")?,
            tasks: fields.texts("tasks", "a list of tasks, such as [\"ioi\"]")?,
            methods: fields.texts("methods", "a list of methods, such as [\"quick\"]")?,
            seed,
            seeds,
            device: fields.text("device", "cpu", "a device, such as \"cpu\"")?,
            lease: fields.number("lease", 300, LEASE)?,
            settings: fields.settings()?,
        })
    }

    #[cfg(test)]
    pub(crate) fn of_tests(path: PathBuf, seeds: u64) -> Self {
        Self {
            path,
            hash: "hash".to_owned(),
            store: "results".to_owned(),
            models: Vec::new(),
            tasks: Vec::new(),
            methods: Vec::new(),
            seed: 0,
            seeds,
            device: "cpu".to_owned(),
            lease: 300,
            settings: BTreeMap::new(),
        }
    }

    /// The folder that paths in the plan start from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        circuitscope_files::folder_of(&self.path)
    }

    /// Where results go: an address as it stands, a path from the plan's folder on.
    #[must_use]
    pub fn location(&self) -> String {
        if self.store.contains("://") {
            self.store.clone()
        } else {
            self.folder().join(&self.store).display().to_string()
        }
    }

    /// An error of one field.
    #[must_use]
    pub fn wrong(&self, field: &str, found: &str, expected: &str) -> Error {
        wrong(&self.path, field, found, expected)
    }
}

fn wrong(file: &Path, field: &str, found: &str, expected: &str) -> Error {
    FileError::field(file, field, found, expected).into()
}

fn not_toml(file: &Path, text: &str, error: &toml::de::Error) -> Error {
    let at = error.span().map_or(0, |span| span.start);
    Error::NotToml {
        file: file.to_owned(),
        reason: circuitscope_files::not_toml(text, at, error.message()),
    }
}

/// The keys of the file.
struct Fields<'a> {
    file: &'a Path,
    map: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn know(&self) -> Result<()> {
        match self.map.keys().find(|key| !KEYS.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let hint = did_you_mean(nearest(key, KEYS));
                let found = format!("an unknown key{hint}");
                Err(wrong(self.file, key, &found, &KEYS.join(", ")))
            }
        }
    }

    fn wrong(&self, key: &str, value: Option<&Value>, expected: &str) -> Error {
        let found = value.map_or_else(|| "nothing".to_owned(), shown);
        wrong(self.file, key, &found, expected)
    }

    fn needed_text(&self, key: &str, expected: &str) -> Result<String> {
        let value = self.map.get(key);
        let text = value.and_then(Value::as_str);
        let text = text.filter(|text| !text.trim().is_empty());
        text.map(str::to_owned)
            .ok_or_else(|| self.wrong(key, value, expected))
    }

    fn text(&self, key: &str, usual: &str, expected: &str) -> Result<String> {
        if self.map.contains_key(key) {
            self.needed_text(key, expected)
        } else {
            Ok(usual.to_owned())
        }
    }

    fn number(&self, key: &str, usual: u64, range: core::ops::RangeInclusive<u64>) -> Result<u64> {
        let Some(value) = self.map.get(key) else {
            return Ok(usual);
        };
        let number = value.as_u64().filter(|number| range.contains(number));
        let (least, most) = range.into_inner();
        let expected = format!("a whole number, from {least} to {most}");
        number.ok_or_else(|| self.wrong(key, Some(value), &expected))
    }

    /// A list of different texts, with something in it.
    fn texts(&self, key: &str, expected: &str) -> Result<Vec<String>> {
        let value = self.map.get(key);
        let list = value.and_then(Value::as_array);
        let list = list.filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| self.wrong(key, value, expected))?;
        let mut texts = Vec::new();
        for (at, value) in list.iter().enumerate() {
            let text = value.as_str().filter(|text| !text.trim().is_empty());
            let field = format!("{key}[{at}]");
            let text = text.ok_or_else(|| self.wrong(&field, Some(value), "a text"))?;
            if texts.iter().any(|other| other == text) {
                let found = format!("{} twice", shown(value));
                return Err(wrong(self.file, &field, &found, "entries that differ"));
            }
            texts.push(text.to_owned());
        }
        Ok(texts)
    }

    fn settings(&self) -> Result<BTreeMap<String, Settings>> {
        const EXPECTED: &str = "tables [settings.NAME] of options of `eval`";
        let Some(value) = self.map.get("settings") else {
            return Ok(BTreeMap::from([("default".to_owned(), Settings::new())]));
        };
        let sets = value.as_object().filter(|sets| !sets.is_empty());
        let sets = sets.ok_or_else(|| self.wrong("settings", Some(value), EXPECTED))?;
        let mut all = BTreeMap::new();
        for (name, value) in sets {
            let field = format!("settings.{name}");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if name.is_empty() || name.len() > 60 || !name.chars().all(plain) {
                let expected = "a name of small letters, digits and hyphens, 60 at most";
                return Err(wrong(self.file, &field, &format!("{name:?}"), expected));
            }
            let set = value.as_object();
            let set = set.ok_or_else(|| self.wrong(&field, Some(value), EXPECTED))?;
            let mut settings = Settings::new();
            for (key, value) in set {
                let text = match value {
                    Value::String(text) => text.clone(),
                    Value::Bool(_) | Value::Number(_) => value.to_string(),
                    _ => {
                        let field = format!("{field}.{key}");
                        let expected = "a text, a number, true or false";
                        return Err(self.wrong(&field, Some(value), expected));
                    }
                };
                settings.insert(key.clone(), text);
            }
            all.insert(name.clone(), settings);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PlanFile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        circuitscope_files::write_atomic(&path, |out| out.write_all(text.as_bytes())).unwrap();
        PlanFile::read(&path)
    }

    const LEAST: &str = "store = 'r'\nmodels = ['reference']\ntasks = ['ioi']\nmethods = ['sae']\n";

    #[test]
    fn what_is_not_said_has_a_value() {
        let plan = read(LEAST).unwrap();
        assert_eq!((plan.seed, plan.seeds, plan.device.as_str()), (0, 3, "cpu"));
        assert_eq!(
            plan.settings,
            BTreeMap::from([("default".to_owned(), Settings::new())])
        );
        let plan = read(&format!(
            "{LEAST}[settings.wide]\ncodes = 1000\nfaithfulness = true\nl1 = 0.5\n"
        ));
        let wide = &plan.unwrap().settings["wide"];
        let values: Vec<&str> = wide.values().map(String::as_str).collect();
        assert_eq!(values, ["1000", "true", "0.5"]);
    }

    #[test]
    fn every_wrong_field_is_named_with_what_it_may_be() {
        for (added, expected) in [
            (
                "seeds = 0",
                "seeds: found 0, expected a whole number, from 1 to 10000",
            ),
            ("seeds = 'x'", "seeds: found \"x\", expected a whole number"),
            (
                "lease = 1",
                "lease: found 1, expected a whole number, from 2 to 86400",
            ),
            ("seed = -1", "seed: found -1, expected a whole number"),
            (
                "leese = 1",
                "leese: found an unknown key (did you mean `lease`?), expected store, models",
            ),
            (
                "settings = 1",
                "settings: found 1, expected tables [settings.NAME]",
            ),
            (
                "[settings.Wide]",
                "settings.Wide: found \"Wide\", expected a name of small letters",
            ),
            (
                "[settings.wide]\ncodes = [1]",
                "settings.wide.codes: found [1], expected a text, a number",
            ),
            ("device = ''", "device: found \"\", expected a device"),
        ] {
            let error = read(&format!("{LEAST}{added}\n")).unwrap_err().to_string();
            assert!(error.contains(&format!("plan.toml: {expected}")), "{error}");
        }
        let error = read("store = 'r'\nmodels = []\n").unwrap_err().to_string();
        assert!(
            error.contains("models: found [], expected a list of models"),
            "{error}"
        );
        let error = read("store = 'r'\nmodels = ['a', 'a']\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("models[1]: found \"a\" twice"), "{error}");
        let error = read("models = ['a']\n").unwrap_err().to_string();
        assert!(
            error.contains("store: found nothing, expected a folder"),
            "{error}"
        );
        let error = read("store = \n").unwrap_err().to_string();
        assert!(error.contains("plan.toml: line 1: not TOML"), "{error}");
    }

    #[test]
    fn paths_start_from_the_folder_of_the_plan() {
        let plan = read(LEAST).unwrap();
        assert_eq!(
            plan.location(),
            plan.folder().join("r").display().to_string()
        );
        let plan = read(&LEAST.replace("'r'", "'s3://bucket/r'")).unwrap();
        assert_eq!(plan.location(), "s3://bucket/r");
    }
}
