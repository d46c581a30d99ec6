//! Files as they lie on the disk, and their hashes.

use std::fs::File;
#[cfg(feature = "hub")]
use std::fs::Metadata;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use circuitscope_files::{FileError, Hash, is_regular, read, sha256_of};
use memmap2::Mmap;

use crate::Result;
use crate::provenance::FileHash;

/// The bytes of a file.
pub(crate) enum Bytes<'a> {
    Mapped(Mmap),
    Embedded(&'a [u8]),
    /// Part of a file that another has mapped, read-only.
    Lent(&'a [u8]),
    Owned(Vec<u8>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) | Self::Lent(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Maps a file into memory; what is no regular file is read.
pub(crate) fn map(path: &Path) -> Result<Bytes<'static>> {
    if !is_regular(path) {
        return Ok(Bytes::Owned(Arc::unwrap_or_clone(read(path)?)));
    }
    let cannot = |source| FileError::cannot_read(path, source);
    let file = File::open(path).map_err(cannot)?;
    let length = file.metadata().map_err(cannot)?.len();
    if length == 0 {
        return Err(FileError::not_safetensors(path, "the file is empty").into());
    }
    #[expect(
        unsafe_code,
        reason = "mapping a file is unsafe in general: see the safety comment"
    )]
    // SAFETY: the map is read-only, and nothing here writes to the file. Another program that does so while the map
    // lives, which is as long as loading takes, breaks what Rust asks of `&[u8]`: that is undefined behaviour, which
    // no program that maps files can rule out. What can be done is done: headers of safetensors files, which decide
    // what is accessed, are copied before they are checked (`crate::source`), and of numbers any bit pattern is valid. A
    // file that is truncated stops the process.
    let mapped = unsafe { Mmap::map(&file) };
    Ok(mapped.map(Bytes::Mapped).map_err(cannot)?)
}

impl Bytes<'_> {
    /// Lets go of the pages of a mapped file that lie wholly within a range which has been read. They
    /// are read again from the file if they are needed again.
    pub(crate) fn release(&self, offset: usize, length: usize) {
        #[cfg(unix)]
        if matches!(self, Self::Mapped(_) | Self::Lent(_)) && offset + length <= self.len() {
            let page = 1 << 16; // a multiple of every platform's page
            let address = self.as_ptr() as usize + offset;
            let start = address.next_multiple_of(page);
            let end = (address + length) / page * page;
            if start < end {
                #[expect(unsafe_code, reason = "advice on a map: see the safety comment")]
                // SAFETY: the range lies within a map of a file that is never written to, so dropping
                // its pages loses nothing; a later access reads the same bytes from the file.
                let failed = unsafe {
                    libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED)
                };
                if failed != 0 {
                    let error = std::io::Error::last_os_error();
                    tracing::debug!(%error, "pages of a weights file stay in memory");
                }
            }
        }
    }
}

/// A file whose hash is known from before, as long as it is the file that it was then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownFile {
    path: PathBuf,
    sha256: String,
    bytes: u64,
    modified: SystemTime,
}

impl KnownFile {
    /// `None` where there is no time of modification to tell files apart by.
    #[cfg(feature = "hub")]
    pub(crate) fn new(path: &Path, sha256: &str, metadata: &Metadata) -> Option<Self> {
        Some(Self {
            path: path.to_owned(),
            sha256: sha256.to_owned(),
            bytes: metadata.len(),
            modified: metadata.modified().ok()?,
        })
    }

    /// The hash of the file `name` at `path`, if it is this one, unchanged.
    pub(crate) fn hash_of(&self, name: &str, path: &Path) -> Option<FileHash> {
        let metadata = fs_err::metadata(path).ok()?;
        let same = path == self.path
            && metadata.len() == self.bytes
            && metadata.modified().is_ok_and(|at| at == self.modified);
        same.then(|| FileHash {
            name: name.to_owned(),
            bytes: self.bytes,
            sha256: self.sha256.clone(),
        })
    }
}

/// Hashes a file piece by piece, letting go of what was read.
pub(crate) fn hash_file(name: &str, bytes: &Bytes<'_>) -> FileHash {
    const PIECE: usize = 16 << 20;
    let mut digest = Hash::new();
    for (at, piece) in bytes.chunks(PIECE).enumerate() {
        digest.update(piece);
        bytes.release(at * PIECE, piece.len());
    }
    file_hash(name, bytes.len(), digest.finish())
}

pub(crate) fn hash(name: &str, bytes: &[u8]) -> FileHash {
    file_hash(name, bytes.len(), sha256_of(bytes))
}

fn file_hash(name: &str, bytes: usize, sha256: String) -> FileHash {
    FileHash {
        name: name.to_owned(),
        bytes: bytes as u64,
        sha256,
    }
}
