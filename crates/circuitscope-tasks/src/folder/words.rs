//! The file of templates and word lists.

use std::collections::BTreeMap;
use std::path::Path;

use circuitscope_core::{did_you_mean, nearest};
use circuitscope_files as files;
use serde_json::Value;

use super::fields::Fields;
use crate::data::{DataFile, SCHEMA};
use crate::error::list;
use crate::template::Template;
use crate::templates::{List, PairTemplate, Place, Templates};
use crate::{Error, Result};

/// Reads the templates of `task`. `one_length` names lists, as `task_file` has them.
pub(super) fn read(
    path: &Path,
    task: &str,
    one_length: &[&str],
    task_file: &Path,
) -> Result<Templates> {
    let text = files::read_to_string(path)?;
    let name = path.display().to_string();
    let file = DataFile {
        name: &name,
        text: &text,
    };
    let value: Value =
        serde_json::from_str(&text).map_err(|error| file.error(format!("not JSON: {error}")))?;
    let keys = ["schema", "source", "templates", "slots", "words"];
    let fields = Fields::new(path, "", &value, &keys)?;
    let schema = fields.needed("schema", "1")?;
    if schema.as_u64() != Some(u64::from(SCHEMA)) {
        return Err(fields.wrong("schema", schema, "1"));
    }
    let mut lists = lists(path, &fields)?;
    let slots = slots(path, &fields, &mut lists)?;
    let pairs = pairs(path, file, &fields, &slots)?;
    used(&fields, &pairs, &slots, &lists)?;
    let one_length = one_length.iter().enumerate().map(|(at, name)| {
        let names = lists.iter().enumerate().flat_map(|(at, list)| {
            let columns = list.columns.iter().enumerate();
            columns.map(move |(column, _)| (list.name_of(column), (at, column)))
        });
        let names: BTreeMap<String, (usize, usize)> = names.collect();
        names.get(*name).copied().ok_or_else(|| {
            let hint = did_you_mean(nearest(name, names.keys().map(String::as_str)));
            let known: Vec<&str> = names.keys().map(String::as_str).collect();
            Error::TaskField {
                file: task_file.to_owned(),
                field: format!("tokenizer.one_length[{at}]"),
                found: format!("{name:?}{hint}"),
                expected: format!("{}, a word list of {}", list(&known), path.display()),
            }
        })
    });
    Ok(Templates {
        task: task.to_owned(),
        one_length: one_length.collect::<Result<_>>()?,
        pairs,
        lists,
        slots,
    })
}

impl List {
    /// A column as `one_length` names it.
    fn name_of(&self, column: usize) -> String {
        match self.columns[column].as_str() {
            "" => self.name.clone(),
            column => format!("{}.{column}", self.name),
        }
    }
}

fn lists(path: &Path, fields: &Fields<'_>) -> Result<Vec<List>> {
    let expected = "lists of words, by name";
    let words = Fields::open(path, "words", fields.needed("words", expected)?)?;
    let lists = words.entries().map(|(name, value)| {
        let expected = "a list of words, or of objects with the same keys";
        let entries = words.list_of(name, value, expected)?;
        let columns: Vec<String> = match &entries[0] {
            Value::Object(first) => first.keys().cloned().collect(),
            _ => vec![String::new()],
        };
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let place = format!("{name}[{at}]");
            let row = if columns == [""] {
                vec![words.text_of(&place, entry, "a word")?.to_owned()]
            } else {
                let known: Vec<&str> = columns.iter().map(String::as_str).collect();
                let entry = Fields::new(path, &words.place(&place), entry, &known)?;
                let row = columns.iter().map(|column| {
                    let word = entry.needed_text(column, "a word, as the first entry has");
                    word.map(str::to_owned)
                });
                row.collect::<Result<_>>()?
            };
            if rows.contains(&row) {
                return Err(words.error(
                    &place,
                    format!("{:?} again", row.join(", ")),
                    "each once",
                ));
            }
            rows.push(row);
        }
        if let Some(column) = columns
            .iter()
            .find(|column| column.contains(['.', '[', ']']))
        {
            return Err(words.error(name, format!("the key {column:?}"), "no dots or brackets"));
        }
        Ok(List {
            name: name.clone(),
            columns,
            rows,
            taken: 0,
        })
    });
    lists.collect()
}

/// Every text that may stand between brackets.
fn slots(path: &Path, fields: &Fields<'_>, lists: &mut [List]) -> Result<BTreeMap<String, Place>> {
    let expected = "names of word lists, by slot";
    let names = Fields::open(path, "slots", fields.needed("slots", expected)?)?;
    let mut slots = BTreeMap::new();
    for (slot, value) in names.entries() {
        if slot.is_empty() || slot.contains(['.', '[', ']']) {
            return Err(names.error(slot, "its name", "a name without dots and brackets"));
        }
        let name = names.text_of(slot, value, "the name of a list in `words`")?;
        let at = lists.iter().position(|list| list.name == name);
        let Some(at) = at else {
            let known: Vec<&str> = lists.iter().map(|list| list.name.as_str()).collect();
            let hint = did_you_mean(nearest(name, known.iter().copied()));
            return Err(names.error(slot, format!("{name:?}{hint}"), list(&known)));
        };
        let found = &mut lists[at];
        let draw = found.taken;
        found.taken += 1;
        for (column, name) in found.columns.iter().enumerate() {
            let text = match name.as_str() {
                "" => slot.clone(),
                name => format!("{slot}.{name}"),
            };
            slots.insert(
                text,
                Place {
                    list: at,
                    draw,
                    column,
                },
            );
        }
    }
    Ok(slots)
}

fn pairs(
    path: &Path,
    file: DataFile<'_>,
    fields: &Fields<'_>,
    slots: &BTreeMap<String, Place>,
) -> Result<Vec<PairTemplate>> {
    let known: Vec<&str> = slots.keys().map(String::as_str).collect();
    let expected = "a list of objects of `positive` and `negative`";
    let entries = fields.list_of("templates", fields.needed("templates", expected)?, expected)?;
    let mut pairs: Vec<PairTemplate> = Vec::new();
    for (at, value) in entries.iter().enumerate() {
        let place = format!("templates[{at}]");
        let keys = ["positive", "negative", "answers", "wrong_answers"];
        let entry = Fields::new(path, &place, value, &keys)?;
        let parse = |text: &str| Template::parse(file, text, &known);
        let prompt = |key| parse(entry.needed_text(key, "a prompt with slots in brackets")?);
        let answers = |key: &str| match entry.get(key) {
            None => Ok(Vec::new()),
            Some(value) => {
                let texts = if value.is_string() {
                    vec![entry.text_of(key, value, "an answer")?]
                } else {
                    entry.texts_of(key, value, "an answer or a list of answers")?
                };
                texts.into_iter().map(parse).collect()
            }
        };
        let pair = PairTemplate {
            positive: prompt("positive")?,
            negative: prompt("negative")?,
            answers: answers("answers")?,
            wrong_answers: answers("wrong_answers")?,
        };
        if pair.positive == pair.negative {
            return Err(entry.error("negative", "the positive prompt", "another prompt"));
        }
        for (key, here, first) in [
            (
                "answers",
                &pair.answers,
                pairs.first().map(|first| &first.answers),
            ),
            (
                "wrong_answers",
                &pair.wrong_answers,
                pairs.first().map(|first| &first.wrong_answers),
            ),
        ] {
            if first.is_some_and(|first| first.is_empty() != here.is_empty()) {
                let (found, expected) = if here.is_empty() {
                    ("none", "some, as templates[0] has")
                } else {
                    ("some", "none, as templates[0] has")
                };
                return Err(entry.error(key, found, expected));
            }
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

/// Every slot and every list serves, and lists are long enough.
fn used(
    fields: &Fields<'_>,
    pairs: &[PairTemplate],
    slots: &BTreeMap<String, Place>,
    lists: &[List],
) -> Result<()> {
    let templates = pairs.iter().flat_map(|pair| {
        let answers = pair.answers.iter().chain(&pair.wrong_answers);
        [&pair.positive, &pair.negative].into_iter().chain(answers)
    });
    let mut drawn: Vec<Vec<bool>> = lists.iter().map(|list| vec![false; list.taken]).collect();
    for slot in templates.flat_map(Template::slots) {
        let place = slots[slot];
        drawn[place.list][place.draw] = true;
    }
    for (slot, place) in slots {
        if !drawn[place.list][place.draw] {
            let slot = slot.split('.').next().unwrap_or(slot);
            let place = format!("slots.{slot}");
            return Err(fields.error(&place, "a slot of no template", "one that a template has"));
        }
    }
    for list in lists {
        let place = format!("words.{}", list.name);
        if list.taken == 0 {
            return Err(fields.error(&place, "a list of no slot", "one that a slot takes from"));
        }
        if list.rows.len() < list.taken {
            let found = list.rows.len().to_string();
            let expected = format!("at least {}, one for each slot", list.taken);
            return Err(fields.error(&place, found, expected));
        }
    }
    Ok(())
}
