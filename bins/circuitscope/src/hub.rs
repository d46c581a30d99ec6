//! The hub's settings, from the environment variables that all of its tools share.

use std::env;

use anyhow::{Context as _, Result};
use circuitscope::Progress;
use circuitscope::model::hub::{self, HubId, HubSettings, Snapshot};

use crate::interrupt::{self, Kept};

/// Downloads a model of the hub, or finds it in the cache.
pub(crate) fn fetch(id: &HubId, progress: &dyn Progress) -> Result<Snapshot> {
    let settings = settings()?;
    let said = format!(
        "what was downloaded of {id} is kept in {}: run the same command to go on",
        settings.cache.display()
    );
    let before = interrupt::keep(Kept { said, json: None });
    let fetched = hub::fetch(id, &settings, progress)?;
    interrupt::keep(before);
    Ok(fetched)
}

fn settings() -> Result<HubSettings> {
    HubSettings::of_variables(|name| env::var_os(name), env::home_dir())
        .context("found no home folder: set HF_HOME to a folder for the models of the hub")
}
