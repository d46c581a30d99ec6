//! The hub's settings, from the environment variables that all of its tools share.

use std::env;
use std::path::{Path, PathBuf};

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
    let caches = path("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")));
    let home = match path("HF_HOME") {
        Some(home) => home,
        None => caches
            .as_ref()
            .context("found no home folder: set HF_HOME to a folder for the models of the hub")?
            .join("huggingface"),
    };
    let mut settings = HubSettings::new(path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")));
    if let Some(endpoint) = text("HF_ENDPOINT") {
        endpoint
            .trim_end_matches('/')
            .clone_into(&mut settings.endpoint);
    }
    settings.token = token(&home);
    settings.offline = switched_on("HF_HUB_OFFLINE");
    settings.checked = caches.map(|caches| caches.join("circuitscope").join("checked"));
    Ok(settings)
}

/// `HF_TOKEN`, or what logging in with the hub's own tools has left.
fn token(home: &Path) -> Option<String> {
    text("HF_TOKEN").or_else(|| {
        if switched_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return None;
        }
        let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = fs_err::read_to_string(file).ok()?;
        let token = token.trim();
        (!token.is_empty()).then(|| token.to_owned())
    })
}

fn text(variable: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the variables of the hub's tools, read here and nowhere else"
    )]
    let value = env::var(variable).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn path(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn switched_on(variable: &str) -> bool {
    let value = text(variable).unwrap_or_default().to_ascii_lowercase();
    ["1", "true", "yes", "on"].contains(&value.as_str())
}
