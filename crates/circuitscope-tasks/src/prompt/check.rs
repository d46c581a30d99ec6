//! What is read back must be what was written.

use std::collections::BTreeSet;

use circuitscope_core::Polarity;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LabelledPrompts, Slot};

impl Serialize for LabelledPrompts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for LabelledPrompts {
    /// Refuses parts that do not fit together ([`LabelledPrompts::check`]).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let prompts = Self::deserialize(deserializer)?;
        prompts.check().map_err(D::Error::custom)?;
        Ok(prompts)
    }
}

impl LabelledPrompts {
    /// Whether its parts fit together: what everything that takes it relies on.
    ///
    /// # Errors
    /// The field that is wrong, what was found and what was expected.
    ///
    /// ```
    /// use circuitscope_tasks::LabelledPrompts;
    ///
    /// let mut prompts = LabelledPrompts::from_pairs([("yes".to_owned(), "no".to_owned())]);
    /// assert_eq!(prompts.check(), Ok(()));
    /// prompts.pairs[0] = (0, 2);
    /// let text = serde_json::to_string(&prompts).unwrap();
    /// let error = serde_json::from_str::<LabelledPrompts>(&text).unwrap_err();
    /// let expected = "pairs: entry 0: found (0, 2), expected a positive and a negative prompt of 2";
    /// assert_eq!(error.to_string(), expected);
    /// ```
    pub fn check(&self) -> Result<(), String> {
        let texts = self.texts.len();
        if self.labels.len() != texts {
            let found = self.labels.len();
            return Err(format!(
                "labels: found {found}, expected {texts}, one for each text"
            ));
        }
        if !self.labels.is_sorted() {
            return Err(
                "labels: found a positive one after a negative, expected positives first"
                    .to_owned(),
            );
        }
        let mut paired = BTreeSet::new();
        for (at, &(positive, negative)) in self.pairs.iter().enumerate() {
            let classes = [self.labels.get(positive), self.labels.get(negative)];
            if classes != [Some(&Polarity::Positive), Some(&Polarity::Negative)] {
                return Err(format!(
                    "pairs: entry {at}: found ({positive}, {negative}), expected a positive and a negative prompt of \
                     {texts}"
                ));
            }
            if !paired.insert(positive) || !paired.insert(negative) {
                return Err(format!(
                    "pairs: entry {at}: found a prompt of an earlier pair, expected each in one"
                ));
            }
        }
        let pairs = self.pairs.len();
        let places = self.origin.as_ref().map_or(0, |origin| origin.places.len());
        for (field, found) in [
            ("answers", self.answers.len()),
            ("appended", self.appended.len()),
            ("spans", self.spans.len()),
            ("origin: places", places),
        ] {
            if found != 0 && found != pairs {
                return Err(format!(
                    "{field}: found {found}, expected {pairs}, one for each pair, or none"
                ));
            }
        }
        for (field, found) in [
            ("slots", self.slots.len()),
            ("variables", self.variables.len()),
        ] {
            if found != 0 && found != texts {
                return Err(format!(
                    "{field}: found {found}, expected {texts}, one for each text, or none"
                ));
            }
        }
        for (at, (slots, text)) in self.slots.iter().zip(&self.texts).enumerate() {
            for Slot { name, range } in slots {
                if text.get(range.clone()).is_none() {
                    return Err(format!(
                        "slots: entry {at}: found bytes {range:?} for {name:?}, expected a part of {text:?}"
                    ));
                }
            }
            if !slots.is_sorted_by_key(|slot| slot.range.start) {
                return Err(format!(
                    "slots: entry {at}: found a part before an earlier one, expected the order of the text"
                ));
            }
        }
        for (at, (spans, &(positive, negative))) in self.spans.iter().zip(&self.pairs).enumerate() {
            for span in spans {
                for (range, text) in [(&span.positive, positive), (&span.negative, negative)] {
                    if self.texts[text].get(range.clone()).is_none() {
                        return Err(format!(
                            "spans: entry {at}: found bytes {range:?}, expected a part of {:?}",
                            self.texts[text]
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
