//! What is read of `discovery.json`, which a discovery leaves behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use circuitscope_core::{HeadGrid, HeadId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::cards::{CARDS_SCHEMA, Cards};
use crate::{Error, Result, SETTINGS_FILE, read_json};

/// Name of the file in the folder of a discovery.
pub const DISCOVERY_FILE: &str = "discovery.json";

/// The form of it that is read.
const SCHEMA: u64 = 1;

/// What a comparison needs of a discovery. Fields of the file that are not here are passed over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct DiscoveryFile {
    /// The form of the file; absent in those from before it had a number.
    #[serde(default)]
    pub schema: Option<u64>,
    /// Where it was read from.
    #[serde(skip)]
    pub path: PathBuf,
    /// The task, or the files that show the behaviour.
    pub examples: String,
    /// Name of the method.
    pub method: String,
    /// Number of layers.
    pub n_layers: usize,
    /// Number of heads in each.
    pub n_heads: usize,
    /// Every head once, from the highest score to the lowest; equal scores in index order.
    pub heads: Vec<FoundHead>,
    /// Positive prompts.
    #[serde(default)]
    pub positives: Option<usize>,
    /// Negative prompts.
    #[serde(default)]
    pub negatives: Option<usize>,
    /// Name of the metric, where the model was run on pairs.
    #[serde(default, deserialize_with = "metric")]
    pub metric: Option<String>,
    /// What took the place of ablated heads.
    #[serde(default, deserialize_with = "said")]
    pub ablation: Option<String>,
    /// The rule that chose the circuit, such as `otsu` or `top:5`; absent where the work stopped before.
    #[serde(default, deserialize_with = "said")]
    pub selection: Option<String>,
    /// Heads that the rule chose, where a limit left some of them out.
    #[serde(default)]
    pub cut_from: Option<usize>,
    /// Pairs that the model gets right, where only they were used, and of how many.
    #[serde(default)]
    pub only_correct: Value,
    /// What the model is and where it came from; null where no model was run.
    #[serde(default)]
    pub model: Value,
    /// What the result depends on, apart from the inputs.
    #[serde(default)]
    pub settings: Value,
    /// What made it.
    #[serde(default)]
    pub provenance: Value,
    /// What the circuit keeps, where it was run with the rest ablated.
    #[serde(default)]
    pub quality: Option<CircuitFigures>,
    /// What its heads do, where the file says so in the form that this program knows.
    #[serde(skip)]
    pub cards: Option<Cards>,
    /// The form of cards that this program does not know, which are not read then.
    #[serde(skip)]
    pub unknown_cards: Option<u64>,
    #[serde(rename = "cards", default)]
    raw_cards: Value,
}

/// A head with its score.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct FoundHead {
    /// The head.
    pub head: HeadId,
    /// Its score.
    #[serde(deserialize_with = "finite")]
    pub score: f64,
    /// The score with its sign, where the method has one.
    #[serde(default)]
    pub signed: Option<f64>,
    /// Whether it is in the circuit.
    pub selected: bool,
}

/// What a circuit keeps, in the metric itself, the mean over pairs: that part of a judged circuit that shares are made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CircuitFigures {
    /// Name of the metric.
    pub metric: String,
    /// Pairs of prompts run.
    pub pairs: usize,
    /// Of the whole model.
    pub full: f64,
    /// With all heads ablated.
    pub empty: f64,
    /// With all heads ablated but those of the circuit.
    pub circuit: f64,
    /// With the heads of the circuit ablated and all others kept.
    pub without: f64,
    /// As `circuit`, of random sets of as many heads.
    #[serde(default)]
    pub random: Vec<f64>,
}

impl DiscoveryFile {
    /// Reads the file, or [`DISCOVERY_FILE`] in a folder.
    ///
    /// # Errors
    /// [`Error::Io`] for what cannot be read; [`Error::File`] for a folder without the file, for what is no JSON of this
    /// form, naming the field, and for heads that are not those of the model, each once with a finite score.
    pub fn read(folder_or_file: &Path) -> Result<Self> {
        let path = if folder_or_file.is_dir() {
            in_folder(folder_or_file)?
        } else {
            folder_or_file.to_owned()
        };
        let mut file: Self = read_json(&path).map_err(|error| match error {
            Error::File { path, reason } => Error::File {
                path,
                reason: format!("{reason}; expected the {DISCOVERY_FILE} of `discover`"),
            },
            other => other,
        })?;
        file.path.clone_from(&path);
        let wrong = |reason: String| Error::File { path, reason };
        let cards = file.check().and_then(|()| file.read_cards());
        (file.cards, file.unknown_cards) = cards.map_err(wrong)?;
        file.raw_cards = Value::Null;
        let order = |a: &FoundHead, b: &FoundHead| {
            b.score
                .total_cmp(&a.score)
                .then_with(|| a.head.cmp(&b.head))
        };
        file.heads.sort_by(order);
        Ok(file)
    }

    /// Shape of the model.
    #[must_use]
    pub const fn grid(&self) -> HeadGrid {
        HeadGrid::new(self.n_layers, self.n_heads)
    }

    /// Heads of the circuit, in the order of rank.
    pub fn circuit(&self) -> impl Iterator<Item = HeadId> {
        let selected = self.heads.iter().filter(|found| found.selected);
        selected.map(|found| found.head)
    }

    /// One score for each head, in index order.
    #[must_use]
    pub fn scores(&self) -> Vec<f64> {
        let mut scores = vec![0.0; self.heads.len()];
        for found in &self.heads {
            if let Some(at) = self.grid().index(found.head) {
                scores[at] = found.score;
            }
        }
        scores
    }

    /// Whether it is of this form, and every head is there once.
    fn check(&self) -> Result<(), String> {
        if let Some(found) = self.schema.filter(|schema| *schema != SCHEMA) {
            return Err(format!(
                "schema: found {found}, expected {SCHEMA}: another version wrote it"
            ));
        }
        let (layers, heads) = (self.n_layers, self.n_heads);
        let Some(expected) = layers.checked_mul(heads) else {
            return Err(format!(
                "n_heads: found {layers} layers of {heads}, expected numbers of layers and of heads in each"
            ));
        };
        let mut seen = BTreeSet::new();
        for (at, found) in self.heads.iter().enumerate() {
            let head = found.head;
            if !self.grid().contains(head) {
                return Err(format!(
                    "heads[{at}].head: found {head}, expected a head of {layers} layers of {heads}"
                ));
            }
            if !seen.insert(head) {
                return Err(format!(
                    "heads[{at}].head: found {head} twice, expected each head once"
                ));
            }
        }
        if seen.len() != expected {
            return Err(format!(
                "heads: found {}, expected {expected}, all of {layers} layers of {heads}",
                seen.len()
            ));
        }
        Ok(())
    }

    /// The cards, or the number of a form that is not known.
    fn read_cards(&self) -> Result<(Option<Cards>, Option<u64>), String> {
        if self.raw_cards.is_null() {
            return Ok((None, None));
        }
        let Some(schema) = self.raw_cards.get("schema").and_then(Value::as_u64) else {
            return Err("cards.schema: found none, expected a number".to_owned());
        };
        if schema != u64::from(CARDS_SCHEMA) {
            return Ok((None, Some(schema)));
        }
        let cards: Cards = serde_path_to_error::deserialize(&self.raw_cards)
            .map_err(|error| format!("cards.{}: {}", error.path(), error.inner()))?;
        let expected = self.heads.len();
        if cards.effects.len() != expected {
            return Err(format!(
                "cards.effects: found {}, expected {expected}, one for each head",
                cards.effects.len()
            ));
        }
        for (at, card) in cards.heads.iter().enumerate() {
            if !self.grid().contains(card.head) {
                return Err(format!(
                    "cards.heads[{at}].head: found {}, expected a head of {} layers of {}",
                    card.head, self.n_layers, self.n_heads
                ));
            }
        }
        Ok((Some(cards), None))
    }
}

/// The file in a folder, or what the folder is instead.
fn in_folder(folder: &Path) -> Result<PathBuf> {
    let path = folder.join(DISCOVERY_FILE);
    if path.is_file() {
        return Ok(path);
    }
    let evaluation = ["results.json", SETTINGS_FILE];
    let evaluation = evaluation.iter().any(|name| folder.join(name).is_file());
    let reason = if evaluation {
        format!(
            "found results of `eval`, expected a folder with {DISCOVERY_FILE}: what `discover` leaves in its folder can be compared"
        )
    } else {
        format!("found no {DISCOVERY_FILE}, expected the folder that `discover` wrote")
    };
    Err(Error::File {
        path: folder.to_owned(),
        reason,
    })
}

/// A number; JSON has null for what is not finite.
fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value: Option<f64> = Option::deserialize(deserializer)?;
    value.ok_or_else(|| {
        serde::de::Error::custom(
            "found null, which stands for what is not finite, expected a finite number",
        )
    })
}

/// The name of a metric, alone or with why it was chosen.
fn metric<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let name = value.get("metric").unwrap_or(&value);
    match name {
        Value::Null => Ok(None),
        Value::String(name) => Ok(Some(name.clone())),
        other => Err(serde::de::Error::custom(format!(
            "found {other}, expected the name of a metric"
        ))),
    }
}

/// A name, with its parameter if it has one.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok((!value.is_null()).then(|| in_words(&value)))
}

/// Text as it is, `{"top": 5}` as `top:5`, all else as JSON.
pub(crate) fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.len() == 1 => {
            let fields = fields.iter();
            let fields = fields.map(|(name, value)| format!("{name}:{}", in_words(value)));
            fields.collect()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_are_said_as_on_the_command_line() {
        assert_eq!(in_words(&json!("otsu")), "otsu");
        assert_eq!(in_words(&json!({ "top": 5 })), "top:5");
        assert_eq!(in_words(&json!(null)), "null");
    }
}
