//! Models by name from the Hugging Face hub, through its standard cache.
//!
//! The cache is laid out as every tool of the hub does
//! ([documented](https://huggingface.co/docs/huggingface_hub/guides/manage-cache):
//! `models--owner--name/{blobs,refs,snapshots}`), so files that another tool downloaded are found and the other way
//! round.
//!
//! Only `config.json`, the files of the tokenizer and safetensors are downloaded, never pickles. Every file is
//! checked against the hash that the hub announces in its entity tag: SHA-256 for large files, git's
//! SHA-1 of the blob for small ones. A file that the cache has already is checked against the same hash, by
//! which it is named, once.

mod cache;
mod checked;
mod client;
mod error;
mod id;
mod paths;
mod request;

use core::fmt;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use burn::tensor::backend::Backend;
use circuitscope_core::Progress;
use derive_setters::Setters;

pub use error::HubError;
pub use id::HubId;

use crate::bytes::KnownFile;
use crate::loaded::{CONFIG, load_folder};
use crate::pickle::is_pickle;
use crate::source::{INDEX, SINGLE};
use crate::tokenizer::{TOKENIZER, TOKENIZER_FILES};
use crate::{Error, HubOrigin, LoadSettings, Loaded, Result};
use cache::RepoCache;
use checked::Checked;
use client::Client;
use error::shown;
use request::Failure;

/// Where the hub and its cache are. This crate reads no environment variables: the caller does.
#[derive(Clone, PartialEq, Eq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct HubSettings {
    /// The hub, without a slash at the end.
    pub endpoint: String,
    /// The cache's folder, usually `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// Sent to the endpoint's scheme, host and port and to no other.
    pub token: Option<String>,
    /// Whether requests are forbidden.
    pub offline: bool,
    /// A folder that remembers which files of the cache have been checked against their hashes, usually
    /// `~/.cache/circuitscope/checked`. Without one, or where it cannot be written, they are checked each time.
    pub checked: Option<PathBuf>,
    /// How long headers, or a whole listing, may take. A minute by default.
    pub answer: Duration,
    /// How long a download may bring nothing before it is asked for again. Half a minute by default.
    pub idle: Duration,
}

impl HubSettings {
    /// The public hub.
    pub const ENDPOINT: &str = "https://huggingface.co";

    /// The public hub without a token, and no memory of what was checked.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: Self::ENDPOINT.to_owned(),
            cache: cache.into(),
            token: None,
            offline: false,
            checked: None,
            answer: Duration::from_mins(1),
            idle: Duration::from_secs(30),
        }
    }

    /// What the variables say that all tools of the hub share (`HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`,
    /// `HF_HUB_OFFLINE` and others, `XDG_CACHE_HOME`), as `variable` looks them up, for a user whose home folder is `home`.
    /// Nothing where neither says where the cache is.
    #[must_use]
    pub fn of_variables(
        variable: impl Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
    ) -> Option<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let text = |name: &str| {
            let value = variable(name)?.into_string().ok()?;
            let value = value.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let switched_on = |name: &str| {
            let value = text(name).unwrap_or_default().to_ascii_lowercase();
            ["1", "true", "yes", "on"].contains(&value.as_str())
        };
        let caches = path("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache")));
        let home = path("HF_HOME").or_else(|| Some(caches.as_ref()?.join("huggingface")))?;
        let mut settings = Self::new(path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")));
        if let Some(endpoint) = text("HF_ENDPOINT") {
            endpoint
                .trim_end_matches('/')
                .clone_into(&mut settings.endpoint);
        }
        // Or what logging in with the hub's own tools has left.
        settings.token = text("HF_TOKEN").or_else(|| {
            if switched_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                return None;
            }
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
            let token = circuitscope_files::read_to_string(&file).ok()?;
            let token = token.trim();
            (!token.is_empty()).then(|| token.to_owned())
        });
        settings.offline = switched_on("HF_HUB_OFFLINE");
        settings.checked = caches.map(|caches| caches.join("circuitscope").join("checked"));
        Some(settings)
    }
}

impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("checked", &self.checked)
            .field("answer", &self.answer)
            .field("idle", &self.idle)
            .finish()
    }
}

/// A model in the cache. Two are equal that are the same files of the same commit.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot {
    /// A folder for [`load_dir`](crate::load_dir).
    pub folder: PathBuf,
    /// Repository, revision asked for, commit.
    pub origin: HubOrigin,
    /// Names of its files, sorted.
    pub files: Vec<String>,
    /// What is known of the contents of some of them.
    known: Vec<KnownFile>,
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        (&self.folder, &self.origin, &self.files) == (&other.folder, &other.origin, &other.files)
    }
}

impl Eq for Snapshot {}

impl Snapshot {
    /// Loads it as [`load_dir`](crate::load_dir) does its folder, and says in the provenance where it came from.
    ///
    /// Large files are named by their SHA-256 in the cache, and [`fetch`] has made sure that they have it: they are not
    /// hashed once more, unless their size or time of modification is another by now.
    ///
    /// # Errors
    /// As [`load_dir`](crate::load_dir).
    pub fn load<B: Backend>(
        &self,
        settings: impl Into<LoadSettings>,
        device: &B::Device,
        progress: &dyn Progress,
    ) -> Result<Loaded<B>> {
        let settings = settings.into();
        let mut loaded = load_folder(&self.folder, &[], &self.known, settings, device, progress)?;
        loaded.provenance.name.clone_from(&self.origin.repo);
        loaded.provenance.hub = Some(self.origin.clone());
        Ok(loaded)
    }
}

/// Makes sure that a model is in the cache, complete and intact.
///
/// What is there already is not downloaded again; if the revision is a commit that is complete, no
/// request is made. Without network, or where the hub stays silent, the copy that the cache has of the
/// revision is used. A partial download is kept and resumed. The network is reached through the proxy that
/// the usual environment variables name, except for a hub on this very machine.
///
/// The configuration, the files of the tokenizer and the weights are compared with the hashes that their
/// blobs are named by, unless [`HubSettings::checked`] says that this was done. Files that are no links to
/// blobs are taken as they are.
///
/// # Errors
/// [`Error::Hub`], [`Error::File`], and [`Error::Cancelled`] within a second after `progress` asks to stop.
pub fn fetch(id: &HubId, settings: &HubSettings, progress: &dyn Progress) -> Result<Snapshot> {
    let cache = RepoCache::new(&settings.cache, id);
    let checked = Checked::new(settings.checked.as_deref(), progress);
    let mut snapshot = locate(id, settings, &cache, &checked, progress)?;
    snapshot.known = cache.check(&snapshot, &checked)?;
    Ok(snapshot)
}

fn locate(
    id: &HubId,
    settings: &HubSettings,
    cache: &RepoCache,
    checked: &Checked<'_>,
    progress: &dyn Progress,
) -> Result<Snapshot> {
    if is_commit(id.revision())
        && let Some(snapshot) = cache.complete(id, checked)?
    {
        return Ok(snapshot);
    }
    if settings.offline {
        return cache.complete(id, checked)?.ok_or_else(|| {
            Error::Hub(HubError::Offline {
                id: id.to_string(),
                cache: settings.cache.display().to_string(),
            })
        });
    }
    let client = Client::new(id, settings, progress);
    let listing = match client.listing() {
        Ok(listing) => listing,
        Err(Failure::Known(error)) => return Err(error),
        Err(Failure::Network(reason)) => {
            let unreachable = HubError::Unreachable {
                id: id.to_string(),
                endpoint: settings.endpoint.clone(),
                reason: reason.clone(),
                cache: settings.cache.display().to_string(),
            };
            let snapshot = cache
                .complete(id, checked)?
                .ok_or(Error::Hub(unreachable))?;
            let reason = shown(&reason);
            tracing::warn!(%id, reason, "cannot reach the hub, using the cached copy");
            return Ok(snapshot);
        }
    };
    let get = |file: &str| client.download(cache, checked, &listing.commit, file);
    let has = |file: &str| listing.files.iter().any(|name| name == file);
    if !has(SINGLE) && !has(INDEX) {
        let pickle = |name: &&String| is_pickle(name.as_ref());
        return Err(Error::Hub(HubError::NoSafetensors {
            repo: id.repo(),
            revision: id.revision().to_owned(),
            pickle: listing.files.iter().find(pickle).cloned(),
        }));
    }
    // Weights come last: a snapshot that has them has everything.
    get(CONFIG)?;
    let whole = has(TOKENIZER);
    for file in TOKENIZER_FILES {
        // Where the tokenizer lies in one file, its older parts are not read.
        if has(file) && !(whole && ["vocab.json", "merges.txt"].contains(&file)) {
            get(file)?;
        }
    }
    if has(SINGLE) {
        get(SINGLE)?;
    } else {
        get(INDEX)?;
        for shard in cache.shards(&listing.commit, checked)? {
            get(&shard)?;
        }
    }
    cache.point_at(&listing.commit)?;
    cache.snapshot(id, &listing.commit)
}

fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)], home: Option<&str>) -> Option<HubSettings> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        HubSettings::of_variables(variable, home.map(PathBuf::from))
    }

    #[test]
    fn variables_mean_what_they_mean_to_other_tools() {
        assert_eq!(of(&[], None), None, "nothing says where the cache is");
        let usual = of(&[], Some("/home/me")).unwrap();
        assert_eq!(
            usual.cache,
            PathBuf::from("/home/me/.cache/huggingface/hub")
        );
        assert_eq!(usual.endpoint, HubSettings::ENDPOINT);
        assert!(!usual.offline && usual.token.is_none());
        let set = of(
            &[
                ("HF_HOME", "/models"),
                ("HF_ENDPOINT", "https://mirror.example/"),
                ("HF_TOKEN", " secret "),
                ("HF_HUB_OFFLINE", "True"),
                ("XDG_CACHE_HOME", ""),
            ],
            Some("/home/me"),
        );
        let set = set.unwrap();
        assert_eq!(set.cache, PathBuf::from("/models/hub"));
        assert_eq!(set.endpoint, "https://mirror.example");
        assert_eq!(set.token.as_deref(), Some("secret"));
        assert!(set.offline);
        assert_eq!(
            set.checked,
            Some(PathBuf::from("/home/me/.cache/circuitscope/checked"))
        );
        let elsewhere = of(&[("HF_HOME", "/models"), ("HF_HUB_CACHE", "/cache")], None);
        assert_eq!(elsewhere.unwrap().cache, PathBuf::from("/cache"));
    }
}
