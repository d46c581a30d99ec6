//! Requests to the hub.

use std::fs::TryLockError;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use circuitscope_core::Progress;
use fs_err::File;
use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, Uri};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder};

use super::cache::{RepoCache, io, parent};
use super::{HubError, HubId, HubSettings, is_commit, is_hex};
use crate::bytes::hex;
use crate::{Error, Result};

const CONNECT: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_mins(1);

/// How often in a row a download may break without bringing a byte.
const PATIENCE: u32 = 3;

/// The wait after the first of them; the n-th waits n times as long.
const PAUSE: Duration = Duration::from_millis(300);

/// The answer to a listing is JSON of some kilobytes; more than this is not one.
const MAX_LISTING: u64 = 64 << 20;

const BLOCK: usize = 1 << 16;

/// Redirects that stay on the hub: renamed repositories.
const MAX_HOPS: usize = 5;

/// Why a request brought nothing.
pub(super) enum Failure {
    /// The hub cannot be reached or is out of order.
    Network(String),
    /// The hub answered, and the answer is no.
    Known(HubError),
}

impl From<Failure> for HubError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Known(error) => error,
            Failure::Network(reason) => Self::Network { reason },
        }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Known(error)
    }
}

/// The commit that a revision is, and its files.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// What the hub says of a file before it is downloaded.
struct Announced {
    /// SHA-256 of a large file, git's SHA-1 of a small one, in hexadecimal.
    hash: String,
    bytes: u64,
}

pub(super) struct Client<'a> {
    follow: Agent,
    stay: Agent,
    settings: &'a HubSettings,
    repo: String,
    revision: &'a str,
}

impl<'a> Client<'a> {
    pub(super) fn new(id: &'a HubId, settings: &'a HubSettings) -> Self {
        let agent = |redirects: u32| -> Agent {
            let mut config = Agent::config_builder()
                .http_status_as_error(false)
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(ANSWER))
                .redirect_auth_headers(RedirectAuthHeaders::SameHost)
                .max_redirects(redirects)
                .max_redirects_will_error(false)
                .user_agent(concat!("circuitscope/", env!("CARGO_PKG_VERSION")));
            if is_loopback(&settings.endpoint) {
                config = config.proxy(None);
            }
            config.build().into()
        };
        Self {
            follow: agent(10),
            stay: agent(0),
            settings,
            repo: id.repo(),
            revision: id.revision(),
        }
    }

    /// With the token, if there is one.
    fn authorised(&self, request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        match &self.settings.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// Asks what the revision holds.
    pub(super) fn listing(&self) -> Result<Listing, Failure> {
        #[derive(Deserialize)]
        struct Answer {
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
        let request = self.authorised(self.follow.get(&url));
        let response = request.call().map_err(|error| network(&error))?;
        let unknown = response
            .headers()
            .get("X-Error-Code")
            .is_some_and(|code| code == "RevisionNotFound");
        let what = if unknown { "revision" } else { "repository" };
        self.check(&response, &url, what)?;
        let mut text = Vec::new();
        response
            .into_body()
            .into_reader()
            .take(MAX_LISTING)
            .read_to_end(&mut text)
            .map_err(|error| Failure::Network(error.to_string()))?;
        let protocol = |field, found: String, expected| HubError::Protocol {
            url: url.clone(),
            field,
            found,
            expected,
        };
        let answer: Answer = serde_json::from_slice(&text)
            .map_err(|error| protocol("body", error.to_string(), "the JSON of a model"))?;
        if !is_commit(&answer.sha) {
            let expected = "40 hexadecimal digits";
            return Err(protocol("sha", format!("{:?}", answer.sha), expected).into());
        }
        Ok(Listing {
            commit: answer.sha,
            files: answer.siblings.into_iter().map(|s| s.rfilename).collect(),
        })
    }

    /// Makes a file of a commit part of the cache.
    pub(super) fn download(
        &self,
        cache: &RepoCache,
        commit: &str,
        file: &str,
        progress: &dyn Progress,
    ) -> Result<()> {
        if cache.path(commit, file).is_file() {
            return Ok(());
        }
        let url = format!(
            "{}/{}/resolve/{commit}/{file}",
            self.settings.endpoint, self.repo
        );
        let announced = self.announced(&url, file).map_err(HubError::from)?;
        let blob = cache.blob(&announced.hash);
        parent(&blob)?;
        let _lock = lock(&cache.lock(&announced.hash), progress)?;
        // Another program may have had the lock, and the file.
        if !blob.is_file() {
            let part = blob.with_extension("incomplete");
            progress.begin_bytes(&format!("downloading {file}"), announced.bytes);
            let outcome = self
                .stream(&url, file, &announced, &part, progress)
                .and_then(|()| self.verify(file, &announced, &part, progress));
            progress.end();
            outcome?;
            fs_err::rename(&part, &blob).map_err(|source| io(&blob, source))?;
        }
        cache.link(&announced.hash, commit, file)
    }

    /// Asks for hash and size of a file.
    fn announced(&self, url: &str, file: &str) -> Result<Announced, Failure> {
        let mut at = url.to_owned();
        let mut hops = 0;
        let response = loop {
            let request = self.authorised(self.stay.head(&at));
            let response = request.call().map_err(|error| network(&error))?;
            // A path alone is a renamed repository; another host stores the contents, but the hub has
            // said all that matters.
            let moved = header(&response, "Location").filter(|to| to.starts_with('/'));
            match moved.filter(|to| !to.starts_with("//")) {
                Some(to) if response.status().is_redirection() && hops < MAX_HOPS => {
                    at = format!("{}{to}", origin(&self.settings.endpoint));
                    hops += 1;
                }
                _ => break response,
            }
        };
        if !response.status().is_redirection() {
            self.check(&response, url, file)?;
        }
        let protocol = |field, found: Option<&str>, expected| HubError::Protocol {
            url: url.to_owned(),
            field,
            found: found.map_or_else(|| "nothing".to_owned(), |text| format!("{text:?}")),
            expected,
        };
        let tag = header(&response, "X-Linked-Etag").or_else(|| header(&response, "ETag"));
        let hash = tag.map(|tag| tag.trim_start_matches("W/").trim_matches('"'));
        let Some(hash) = hash.filter(|hash| is_hex(hash, 40) || is_hex(hash, 64)) else {
            return Err(protocol("ETag", tag, "40 or 64 hexadecimal digits").into());
        };
        let size =
            header(&response, "X-Linked-Size").or_else(|| header(&response, "Content-Length"));
        let Some(bytes) = size.and_then(|size| size.parse().ok()) else {
            return Err(protocol("Content-Length", size, "the size in bytes").into());
        };
        Ok(Announced {
            hash: hash.to_owned(),
            bytes,
        })
    }

    /// Brings a partial file to its full size, resuming where it stops.
    fn stream(
        &self,
        url: &str,
        name: &str,
        announced: &Announced,
        part: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
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
        progress.advance(received);
        let mut failures = 0;
        while received < size {
            let before = received;
            let reason = match self.range(url, name, received, size, &mut file, part, progress) {
                Ok(()) => "the answer ended early".to_owned(),
                Err(Stop::Broken(reason)) => reason,
                Err(Stop::For(error)) => return Err(error),
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
            tracing::debug!(name, received, size, reason, "resuming a download");
            std::thread::sleep(PAUSE * failures);
        }
        file.sync_all().map_err(|source| io(part, source))
    }

    /// One request for the bytes from `start`, appended to `file`.
    #[expect(clippy::too_many_arguments, reason = "one request has that many sides")]
    fn range(
        &self,
        url: &str,
        name: &str,
        start: u64,
        size: u64,
        file: &mut File,
        part: &Path,
        progress: &dyn Progress,
    ) -> Result<(), Stop> {
        let mut request = self.authorised(self.follow.get(url));
        if start > 0 {
            request = request.header("Range", format!("bytes={start}-"));
        }
        let response = request.call().map_err(|error| network(&error))?;
        self.check(&response, url, name)?;
        let resumed = header(&response, "Content-Range")
            .is_some_and(|range| range.starts_with(&format!("bytes {start}-")));
        if start > 0 && !(response.status().as_u16() == 206 && resumed) {
            // The server sends the file from its beginning.
            file.set_len(0)
                .map_err(|source| Stop::For(io(part, source)))?;
        }
        // A server that sends more than it announced is cut off; the hash decides.
        let at = file
            .metadata()
            .map_err(|source| Stop::For(io(part, source)))?
            .len();
        let mut body = response.into_body().into_reader().take(size - at);
        let mut block = vec![0; BLOCK];
        loop {
            if progress.cancelled() {
                return Err(Stop::For(Error::Cancelled));
            }
            match body.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    file.write_all(&block[..read])
                        .map_err(|source| Stop::For(io(part, source)))?;
                    progress.advance(read as u64);
                }
                Err(error) => return Err(Stop::Broken(error.to_string())),
            }
        }
    }

    /// Compares a downloaded file with its announced hash, and deletes it if it differs.
    fn verify(
        &self,
        name: &str,
        announced: &Announced,
        part: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (kind, found) = if announced.hash.len() == 64 {
            ("SHA-256", digest(Sha256::new(), part, progress)?)
        } else {
            let mut hash = Sha1::new();
            hash.update(format!("blob {}\0", announced.bytes));
            ("git SHA-1", digest(hash, part, progress)?)
        };
        if found == announced.hash {
            return Ok(());
        }
        fs_err::remove_file(part).map_err(|source| io(part, source))?;
        Err(Error::Hub(HubError::Hash {
            repo: self.repo.clone(),
            file: name.to_owned(),
            kind,
            found,
            expected: announced.hash.clone(),
        }))
    }

    fn check(&self, response: &Response<Body>, url: &str, what: &str) -> Result<(), Failure> {
        let status = response.status().as_u16();
        match status {
            200..=299 => Ok(()),
            401 | 403 => Err(Failure::Known(HubError::Refused {
                repo: self.repo.clone(),
                status,
                had_token: self.settings.token.is_some(),
            })),
            404 => Err(Failure::Known(HubError::NotFound {
                repo: self.repo.clone(),
                revision: self.revision.to_owned(),
                what: what.to_owned(),
            })),
            429 | 500..=599 => Err(Failure::Network(format!("HTTP {status}"))),
            _ => Err(Failure::Known(HubError::Status {
                url: url.to_owned(),
                status,
            })),
        }
    }
}

/// Why a download stopped.
enum Stop {
    /// The connection: worth another try.
    Broken(String),
    /// Anything else.
    For(Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Network(reason) => Self::Broken(reason),
            Failure::Known(error) => Self::For(Error::Hub(error)),
        }
    }
}

fn network(error: &ureq::Error) -> Failure {
    Failure::Network(error.to_string())
}

fn header<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// Scheme and host of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    &url[..end]
}

fn is_loopback(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// Takes the lock of a blob, waiting for another program that has it.
fn lock(path: &PathBuf, progress: &dyn Progress) -> Result<File> {
    parent(path)?;
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| io(path, source))?;
    loop {
        match file.file().try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(io(path, source)),
            Err(TryLockError::WouldBlock) if progress.cancelled() => return Err(Error::Cancelled),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
        }
    }
}

fn digest<D: Digest>(mut hash: D, path: &Path, progress: &dyn Progress) -> Result<String> {
    let mut file = File::open(path).map_err(|source| io(path, source))?;
    let mut block = vec![0; BLOCK];
    loop {
        if progress.cancelled() {
            return Err(Error::Cancelled);
        }
        match file.read(&mut block).map_err(|source| io(path, source))? {
            0 => break,
            read => hash.update(&block[..read]),
        }
    }
    Ok(hex(&hash.finalize()))
}
