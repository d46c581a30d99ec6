//! Files as they lie on the disk, and their hashes.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use circuitscope_files::{FileError, Hash, is_regular, read, sha256_of};
use memmap2::Mmap;

use crate::Result;
use crate::loaded::FileHash;

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
    // SAFETY: the map is read-only and lives as long as loading takes; a program that truncates the
    // file meanwhile stops the process, and one that writes into it makes what is read undefined, as with every
    // mapped file.
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
