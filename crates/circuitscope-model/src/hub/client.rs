//! What is asked of the hub.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use circuitscope_core::Progress;
use serde::Deserialize;

use super::cache::RepoCache;
use super::checked::{Checked, Hash, go_on};
use super::error::shown;
use super::paths::{io, parent};
use super::request::{Answer, Failure, POLL, Question, Requests};
use super::{HubError, HubId, HubSettings, is_commit};
use crate::{Error, Result};

/// How often in a row a download may break without bringing a byte.
const PATIENCE: u32 = 3;

/// The wait after the first of them; the n-th waits n times as long.
const PAUSE: Duration = Duration::from_millis(300);

/// The answer to a listing is JSON of some kilobytes; more than this is not one.
const MAX_LISTING: usize = 64 << 20;

/// The commit that a revision is, and its files.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// What the hub says of a file before it is downloaded.
struct Announced {
    hash: Hash,
    bytes: u64,
}

pub(super) struct Client<'a> {
    requests: Requests,
    settings: &'a HubSettings,
    repo: String,
    revision: &'a str,
    progress: &'a dyn Progress,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        id: &'a HubId,
        settings: &'a HubSettings,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            requests: Requests::new(settings),
            settings,
            repo: id.repo(),
            revision: id.revision(),
            progress,
        }
    }

    /// Asks what the revision holds.
    pub(super) fn listing(&self) -> Result<Listing, Failure> {
        #[derive(Deserialize)]
        struct Model {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let revision = self.revision.replace('/', "%2F");
        let url = format!(
            "{}/api/models/{}/revision/{revision}",
            self.settings.endpoint, self.repo
        );
        let answer = self.requests.ask(&Question::get(&url), self.progress)?;
        let unknown = answer.header("X-Error-Code") == Some("RevisionNotFound");
        let what = if unknown { "revision" } else { "repository" };
        self.check(&answer, &url, what)?;
        let text = answer.whole(MAX_LISTING)?;
        let protocol = |field, found: String, expected| HubError::Protocol {
            url: url.clone(),
            field,
            found,
            expected,
        };
        let json = "the JSON of a model";
        if text.len() > MAX_LISTING {
            let found = format!("more than {} MiB", MAX_LISTING >> 20);
            return Err(protocol("body", found, json).into());
        }
        let model: Model = serde_json::from_slice(&text)
            .map_err(|error| protocol("body", error.to_string(), json))?;
        if !is_commit(&model.sha) {
            let expected = "40 hexadecimal digits";
            return Err(protocol("sha", format!("{:?}", model.sha), expected).into());
        }
        Ok(Listing {
            commit: model.sha,
            files: model.siblings.into_iter().map(|s| s.rfilename).collect(),
        })
    }

    /// Makes a file of a commit part of the cache. One that is there already is left as it is.
    pub(super) fn download(
        &self,
        cache: &RepoCache,
        checked: &Checked<'_>,
        commit: &str,
        file: &str,
    ) -> Result<()> {
        if cache.path(commit, file).is_file() {
            return Ok(());
        }
        let url = format!(
            "{}/{}/resolve/{commit}/{file}",
            self.settings.endpoint, self.repo
        );
        let announced = self.announced(&url, file)?;
        let digits = announced.hash.digits();
        let blob = cache.blob(digits);
        parent(&blob)?;
        let _lock = self.lock(&cache.lock(digits))?;
        // Another program may have had the lock, and the file.
        if !blob.is_file() {
            let part = blob.with_extension("incomplete");
            let stage = format!("downloading {}", shown(file));
            let fetch = || {
                let _stage = self.progress.stage_of_bytes(&stage, announced.bytes);
                self.stream(&url, file, &announced, &part)?;
                self.verify(file, &announced, &part)
            };
            let resumed = fs::metadata(&part).is_ok_and(|begun| begun.len() > 0);
            match fetch() {
                // What an earlier run began may have been wrong from there on.
                Err(Error::Hub(HubError::Hash { .. })) if resumed => fetch(),
                outcome => outcome,
            }?;
            fs::rename(&part, &blob).map_err(|source| io(&blob, source))?;
            checked.note(&announced.hash, &blob)?;
        }
        cache.link(digits, commit, file)
    }

    /// Asks for hash and size of a file.
    fn announced(&self, url: &str, file: &str) -> Result<Announced, Failure> {
        let question = Question::Head(url.to_owned());
        let answer = self.requests.ask(&question, self.progress)?;
        let elsewhere = answer.is_redirection();
        if !elsewhere {
            self.check(&answer, url, file)?;
        }
        let protocol = |field, found: Option<&str>, expected| HubError::Protocol {
            url: url.to_owned(),
            field,
            found: found.map_or_else(|| "nothing".to_owned(), |text| format!("{text:?}")),
            expected,
        };
        // What a redirect says of itself is not said of the file.
        let own = |name| answer.header(name).filter(|_| !elsewhere);
        let tag = answer.header("X-Linked-Etag").or_else(|| own("ETag"));
        let hash = tag.map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
        let Some(hash) = hash.and_then(Hash::parse) else {
            return Err(protocol("ETag", tag, "40 or 64 hexadecimal digits").into());
        };
        let size = answer
            .header("X-Linked-Size")
            .or_else(|| own("Content-Length"));
        let Some(bytes) = size.and_then(|size| size.parse().ok()) else {
            return Err(protocol("Content-Length", size, "the size in bytes").into());
        };
        Ok(Announced { hash, bytes })
    }

    /// Brings a partial file to its full size, resuming where it stops.
    fn stream(&self, url: &str, name: &str, announced: &Announced, part: &Path) -> Result<()> {
        let size = announced.bytes;
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(part)
            .map_err(|source| io(part, source))?;
        let length = |file: &File| {
            let metadata = file.metadata().map_err(|source| io(part, source))?;
            Ok::<u64, Error>(metadata.len())
        };
        let mut received = length(&file)?;
        if received > size {
            file.set_len(0).map_err(|source| io(part, source))?;
            received = 0;
        }
        self.progress.advance(received);
        let mut failures = 0;
        while received < size {
            let before = received;
            let reason = match self.range(url, name, received, size, (&mut file, part)) {
                Ok(()) => "the answer ended early".to_owned(),
                Err(Failure::Network(reason)) => reason,
                Err(Failure::Known(error)) => return Err(error),
            };
            received = length(&file)?;
            if received >= size {
                break;
            }
            failures = if received > before { 0 } else { failures + 1 };
            if failures == PATIENCE {
                return Err(Error::Hub(HubError::Cut {
                    repo: self.repo.clone(),
                    file: name.to_owned(),
                    received,
                    size,
                    reason,
                }));
            }
            let name = shown(name);
            tracing::debug!(name, received, size, reason, "resuming a download");
            self.pause(PAUSE * failures)?;
        }
        file.sync_all().map_err(|source| io(part, source))
    }

    /// One request for the bytes from `start`, appended to `file`.
    fn range(
        &self,
        url: &str,
        name: &str,
        start: u64,
        size: u64,
        (file, part): (&mut File, &Path),
    ) -> Result<(), Failure> {
        let question = Question::Get(url.to_owned(), start);
        let answer = self.requests.ask(&question, self.progress)?;
        self.check(&answer, url, name)?;
        let resumed = answer
            .header("Content-Range")
            .is_some_and(|range| range.starts_with(&format!("bytes {start}-")));
        let of_file = |source| io(part, source);
        let mut left = size - start;
        if start > 0 && !(answer.status() == 206 && resumed) {
            // The server sends the file from its beginning.
            file.set_len(0).map_err(of_file)?;
            left = size;
        }
        // A server that sends more than it announced is cut off; the hash decides.
        while left > 0 {
            let Some(block) = answer.block()? else {
                break;
            };
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let block = &block[..block.len().min(most)];
            file.write_all(block).map_err(of_file)?;
            self.progress.advance(block.len() as u64);
            left -= block.len() as u64;
        }
        Ok(())
    }

    /// Compares a downloaded file with its announced hash, and deletes it if it differs.
    fn verify(&self, name: &str, announced: &Announced, part: &Path) -> Result<()> {
        let hash = &announced.hash;
        let found = hash.found(part, &mut |_| go_on(self.progress))?;
        if found == hash.digits() {
            return Ok(());
        }
        fs::remove_file(part).map_err(|source| io(part, source))?;
        Err(Error::Hub(HubError::Hash {
            repo: self.repo.clone(),
            file: name.to_owned(),
            kind: hash.kind(),
            found,
            expected: hash.digits().to_owned(),
        }))
    }

    /// Takes the lock of a blob, waiting for another program that has it.
    fn lock(&self, path: &PathBuf) -> Result<File> {
        parent(path)?;
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|source| io(path, source))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(source)) => return Err(io(path, source)),
                Err(TryLockError::WouldBlock) => self.pause(POLL)?,
            }
        }
    }

    fn pause(&self, time: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            go_on(self.progress)?;
            match time.saturating_sub(started.elapsed()) {
                Duration::ZERO => return Ok(()),
                left => thread::sleep(left.min(POLL)),
            }
        }
    }

    fn check(&self, answer: &Answer<'_>, url: &str, what: &str) -> Result<(), Failure> {
        let status = answer.status();
        match status {
            200..=299 => Ok(()),
            401 | 403 => Err(Failure::from(HubError::Refused {
                repo: self.repo.clone(),
                status,
                had_token: self.settings.token.is_some(),
            })),
            404 => Err(Failure::from(HubError::NotFound {
                repo: self.repo.clone(),
                revision: self.revision.to_owned(),
                what: what.to_owned(),
            })),
            429 | 500..=599 => Err(Failure::Network(format!("HTTP {status}"))),
            _ => Err(Failure::from(HubError::Status {
                url: url.to_owned(),
                status,
            })),
        }
    }
}
