//! Prompts of templates with word lists, as a task's folder holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::Rng;

use crate::generate::{draw, words};
use crate::generator::Generator;
use crate::template::Template;
use crate::{PromptPair, Result, TokenEncoder};

/// Pairs of templates, and what is drawn into their slots.
#[derive(Debug, Clone)]
pub(crate) struct Templates {
    pub(crate) task: String,
    pub(crate) pairs: Vec<PairTemplate>,
    pub(crate) lists: Vec<List>,
    /// What each slot stands for, by the text between its brackets.
    pub(crate) slots: BTreeMap<String, Place>,
    /// Lists and their columns whose words must have one length in tokens.
    pub(crate) one_length: Vec<(usize, usize)>,
}

/// The two prompts of a pair and their answers.
#[derive(Debug, Clone)]
pub(crate) struct PairTemplate {
    pub(crate) positive: Template,
    pub(crate) negative: Template,
    pub(crate) answers: Vec<Template>,
    pub(crate) wrong_answers: Vec<Template>,
}

/// A list of words, or of rows of words that belong together.
#[derive(Debug, Clone)]
pub(crate) struct List {
    pub(crate) name: String,
    /// Names of the columns; a list of single words has one without a name.
    pub(crate) columns: Vec<String>,
    /// A word for each column.
    pub(crate) rows: Vec<Vec<String>>,
    /// How many rows a pair takes, all of them different.
    pub(crate) taken: usize,
}

/// Where the word of a slot is found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) list: usize,
    /// Which of the rows that are drawn.
    pub(crate) draw: usize,
    pub(crate) column: usize,
}

impl Templates {
    /// With the words that a tokenizer has.
    ///
    /// # Errors
    /// [`Error::Unposable`](crate::Error::Unposable) where too few of them have one length.
    pub(crate) fn generator(
        templates: &Arc<Self>,
        tokens: Option<&TokenEncoder<'_>>,
    ) -> Result<impl Generator + use<>> {
        let mut rows: Vec<_> = templates
            .lists
            .iter()
            .map(|list| list.rows.clone())
            .collect();
        let mut notes = Vec::new();
        for &(at, column) in &templates.one_length {
            let list = &templates.lists[at];
            let all: BTreeSet<&String> = rows[at].iter().map(|row| &row[column]).collect();
            let all = all.into_iter().cloned().collect();
            let what = match list.columns[column].as_str() {
                "" => list.name.clone(),
                name => format!("{} ({name})", list.name),
            };
            let (kept, note) =
                words::of_one_length(&templates.task, &what, all, list.taken, tokens)?;
            let kept: BTreeSet<String> = kept.into_iter().collect();
            rows[at].retain(|row| kept.contains(&row[column]));
            notes.extend(note);
        }
        Ok(Drawing {
            templates: Arc::clone(templates),
            rows,
            notes,
        })
    }
}

struct Drawing {
    templates: Arc<Templates>,
    /// Of each list.
    rows: Vec<Vec<Vec<String>>>,
    notes: Vec<String>,
}

impl Generator for Drawing {
    fn pair(&self, _: usize, rng: &mut dyn Rng) -> PromptPair {
        let pair = draw::one(rng, &self.templates.pairs);
        let lists = self.templates.lists.iter().zip(&self.rows);
        let drawn: Vec<Vec<&Vec<String>>> = lists
            .map(|(list, rows)| draw::distinct(rng, rows, list.taken))
            .collect();
        let word = |place: Place| drawn[place.list][place.draw][place.column].as_str();
        let slots = &self.templates.slots;
        let render = |template: &Template| template.render(|slot, _| word(slots[slot]));
        let prompt =
            |template: &Template| template.render_named(|slot, _| (word(slots[slot]), Some(slot)));
        let variables = |template: &Template| {
            // All words of the entries that the prompt takes from, for its answers may take others of them.
            let entry = |place: Place| (place.list, place.draw);
            let taken: BTreeSet<_> = template.slots().map(|slot| entry(slots[slot])).collect();
            let known = slots
                .iter()
                .filter(|(_, place)| taken.contains(&entry(**place)));
            known
                .map(|(slot, place)| (slot.clone(), word(*place).to_owned()))
                .collect()
        };
        let (positive, negative) = (prompt(&pair.positive), prompt(&pair.negative));
        PromptPair::new(
            positive.0,
            negative.0,
            pair.answers.iter().map(render).collect(),
            pair.wrong_answers.iter().map(render).collect(),
        )
        .with_slots(positive.1, negative.1)
        .with_variables(variables(&pair.positive), variables(&pair.negative))
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}
