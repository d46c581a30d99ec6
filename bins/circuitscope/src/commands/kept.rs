//! What `discover` tells and keeps while it works.

use std::path::Path;

use anyhow::Result;
use circuitscope::found::Found;
use circuitscope::measures::DISCOVERY_FILE;

use super::found_text::FoundText as _;
use crate::interrupt::{self, Kept};
use crate::output::{Printer, indented};

/// Tells and keeps results as they come.
#[derive(Clone, Copy)]
pub(super) struct Report<'a> {
    pub(super) printer: Printer,
    pub(super) folder: Option<&'a Path>,
    /// Where activations were saved before.
    pub(super) activations: Option<&'a Path>,
}

pub(super) fn saved(activations: &Path) -> String {
    format!("the activations are in {}", activations.display())
}

impl Report<'_> {
    /// Choosing and judging may take long: the ranking is told and kept before.
    pub(super) fn ranked(&self, found: &Found, top: usize) -> Result<()> {
        // Without a model nothing was told of what it answers.
        if found.behaviour.is_none() && !found.prompt_warnings.is_empty() {
            self.printer.part(&indented(&found.behaviour_sentences()))?;
        }
        self.printer.part(&found.ranking_text(top))?;
        // What another run left beside it would be taken for this one's.
        if let Some(folder) = self.folder {
            Found::remove_beside(folder)?;
        }
        self.save(found)?;
        self.keep(found, ["the ranking is", "no circuit was chosen"])
    }

    pub(super) fn chosen(&self, found: &Found) -> Result<()> {
        self.printer.part(&found.circuit_text())?;
        self.save(found)?;
        let kept = "the ranking and the circuit are";
        self.keep(found, [kept, "what the circuit keeps was not measured"])
    }

    /// What the circuit keeps was told.
    pub(super) fn judged(&self, found: &Found) -> Result<()> {
        self.save(found)?;
        let kept = "the ranking, the circuit and what it keeps are";
        self.keep(found, [kept, "what else was asked for was not finished"])
    }

    pub(super) fn save(&self, found: &Found) -> Result<()> {
        let Some(folder) = self.folder else {
            return Ok(());
        };
        Ok(found.write(folder)?)
    }

    /// What is there if the user interrupts from here on; what was asked for as JSON is printed as such.
    fn keep(&self, found: &Found, [kept, missing]: [&str; 2]) -> Result<()> {
        let json = self.printer.is_json();
        let place = match self.folder {
            Some(folder) => format!("in {}", folder.join(DISCOVERY_FILE).display()),
            None if json => "on stdout".to_owned(),
            None => "above".to_owned(),
        };
        let before = self.activations.map(|path| format!("{}; ", saved(path)));
        interrupt::keep(Kept {
            said: format!("{}{kept} {place}; {missing}", before.unwrap_or_default()),
            json: json.then(|| serde_json::to_string(found)).transpose()?,
        });
        Ok(())
    }
}
