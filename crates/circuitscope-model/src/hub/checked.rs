//! Hashes of what lies in the cache, and which of them are known to be right.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use circuitscope_core::Progress;
use circuitscope_files::{digest, write_atomic};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::error::shown;
use super::paths::unread;
use super::{HubError, is_hex};
use crate::bytes::KnownFile;
use crate::{Error, Result};

/// The hash that a blob is named by.
pub(super) enum Hash {
    /// Of a large file.
    Sha256(String),
    /// Of git's blob, of a small one.
    Git(String),
}

impl Hash {
    /// `None` if it is no hash: 40 or 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if is_hex(text, 64) {
            Some(Self::Sha256(text.to_owned()))
        } else {
            is_hex(text, 40).then(|| Self::Git(text.to_owned()))
        }
    }

    pub(super) fn digits(&self) -> &str {
        let (Self::Sha256(digits) | Self::Git(digits)) = self;
        digits
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "git SHA-1",
        }
    }

    /// The hash of the same kind that a file has, in hexadecimal. `read` hears of every block.
    pub(super) fn found(
        &self,
        path: &Path,
        read: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<String> {
        match self {
            Self::Sha256(_) => digest(Sha256::new(), path, read),
            Self::Git(_) => {
                let bytes = std::fs::metadata(path).map_err(|source| unread(path, source))?;
                let mut hash = Sha1::new();
                hash.update(format!("blob {}\0", bytes.len()));
                digest(hash, path, read)
            }
        }
    }
}

/// Which blobs have been checked, in this run and in earlier ones.
pub(super) struct Checked<'a> {
    /// One file for a hash, which says of which blob as it then was.
    folder: Option<&'a Path>,
    now: RefCell<BTreeSet<PathBuf>>,
    progress: &'a dyn Progress,
}

impl<'a> Checked<'a> {
    pub(super) fn new(folder: Option<&'a Path>, progress: &'a dyn Progress) -> Self {
        Self {
            folder,
            now: RefCell::default(),
            progress,
        }
    }

    /// Notes that a blob has its hash.
    pub(super) fn note(&self, hash: &Hash, blob: &Path) -> Result<()> {
        let metadata = std::fs::metadata(blob).map_err(|source| unread(blob, source))?;
        self.remember(hash, blob, &metadata);
        Ok(())
    }

    /// Makes sure that a file of a snapshot, if it is a link to one of `blobs`, is what its name says; returns what is
    /// known of it then, where its name is the SHA-256 of its contents.
    pub(super) fn check(&self, repo: &str, path: &Path, blobs: &Path) -> Result<Option<KnownFile>> {
        let Some((hash, blob)) = blob_of(path, blobs) else {
            return Ok(None);
        };
        // Taken before the contents are read: what changes meanwhile is not known.
        let metadata = std::fs::metadata(&blob).map_err(|source| unread(&blob, source))?;
        let known = || match &hash {
            Hash::Sha256(digits) => KnownFile::new(path, digits, &metadata),
            Hash::Git(_) => None,
        };
        if self.knows(&hash, &blob, &metadata) {
            return Ok(known());
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let stage = format!("checking {}", shown(&name));
        let stage = self.progress.stage_of_bytes(&stage, metadata.len());
        let found = hash.found(&blob, &mut |bytes| {
            self.progress.advance(bytes);
            go_on(self.progress)
        });
        drop(stage);
        let found = found?;
        if found != hash.digits() {
            return Err(Error::Hub(HubError::Corrupt {
                repo: repo.to_owned(),
                file: name.into_owned(),
                kind: hash.kind(),
                found,
                expected: hash.digits().to_owned(),
                blob,
            }));
        }
        self.remember(&hash, &blob, &metadata);
        Ok(known())
    }

    fn knows(&self, hash: &Hash, blob: &Path, metadata: &Metadata) -> bool {
        let told = || {
            let record = self.record(hash)?;
            Some(fs_err::read_to_string(record).ok()? == state(blob, metadata)?)
        };
        self.now.borrow().contains(blob) || told().unwrap_or(false)
    }

    fn remember(&self, hash: &Hash, blob: &Path, metadata: &Metadata) {
        self.now.borrow_mut().insert(blob.to_owned());
        if let (Some(record), Some(state)) = (self.record(hash), state(blob, metadata)) {
            let written = write_atomic(&record, |out| out.write_all(state.as_bytes()));
            if let Err(error) = written {
                tracing::debug!(%error, "a checked file will be checked again");
            }
        }
    }

    fn record(&self, hash: &Hash) -> Option<PathBuf> {
        Some(self.folder?.join(hash.digits()))
    }
}

/// Size, time of modification and place of a blob. `None` where there is no such time.
fn state(blob: &Path, metadata: &Metadata) -> Option<String> {
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let blob = blob.canonicalize().ok()?;
    Some(format!(
        "{} {}.{:09} {}\n",
        metadata.len(),
        modified.as_secs(),
        modified.subsec_nanos(),
        blob.display()
    ))
}

/// The blob that a file of a snapshot is, with its hash; `None` if it is another file.
fn blob_of(path: &Path, blobs: &Path) -> Option<(Hash, PathBuf)> {
    let target = path.parent()?.join(path.read_link().ok()?);
    let hash = Hash::parse(target.file_name()?.to_str()?)?;
    let folder = target.parent()?.canonicalize().ok()?;
    if folder != blobs.canonicalize().ok()? {
        return None;
    }
    let blob = blobs.join(hash.digits());
    Some((hash, blob))
}

/// # Errors
/// [`Error::Cancelled`] if the work should stop.
pub(super) fn go_on(progress: &dyn Progress) -> Result<()> {
    if progress.cancelled() {
        Err(Error::Cancelled)
    } else {
        Ok(())
    }
}
