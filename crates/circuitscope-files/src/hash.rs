use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{FileError, Result, is_regular, read};

const BLOCK: usize = 1 << 16;

/// In lowercase hexadecimal.
///
/// ```
/// assert_eq!(circuitscope_files::hex(&[0, 0x1f, 0xff]), "001fff");
/// ```
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| DIGITS[usize::from(digit)]).collect()
}

/// SHA-256 of what comes piece by piece.
///
/// ```
/// use circuitscope_files::{Hash, sha256_of};
///
/// let mut hash = Hash::new();
/// hash.update(b"a");
/// hash.update(b"bc");
/// assert_eq!(hash.finish(), sha256_of(b"abc"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Hash(Sha256);

impl Hash {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// In lowercase hexadecimal, 64 digits.
    #[must_use]
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// SHA-256 of bytes, in lowercase hexadecimal.
///
/// ```
/// let hash = circuitscope_files::sha256_of(b"abc");
/// assert!(hash.starts_with("ba7816bf") && hash.len() == 64);
/// ```
#[must_use]
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of a file, in lowercase hexadecimal: of what [`read`] gives, where it is no regular one.
///
/// # Errors
/// Those of reading.
pub fn sha256(path: &Path) -> Result<String> {
    if is_regular(path) {
        digest(Sha256::new(), path, |_| Ok(()))
    } else {
        Ok(sha256_of(&read(path)?))
    }
}

/// Any hash of a regular file, in lowercase hexadecimal: `hash` may have taken something before it. `each` hears of
/// the bytes of every block and may stop the work.
///
/// # Errors
/// Those of reading, and whatever `each` returns.
pub fn digest<D: Digest, E: From<FileError>>(
    mut hash: D,
    path: &Path,
    mut each: impl FnMut(u64) -> Result<(), E>,
) -> Result<String, E> {
    let cannot = |source| FileError::cannot_read(path, source);
    let mut file = File::open(path).map_err(cannot)?;
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block).map_err(cannot)? {
            0 => break,
            bytes => {
                hash.update(&block[..bytes]);
                each(bytes as u64)?;
            }
        }
    }
    Ok(hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hash_like_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..BLOCK * 2 + 5).map(|at| (at % 251) as u8).collect();
        fs_err::write(&path, &bytes).unwrap();
        assert_eq!(sha256(&path).unwrap(), sha256_of(&bytes));
        let mut heard = 0;
        let found = digest::<_, FileError>(Sha256::new(), &path, |read| {
            heard += read;
            Ok(())
        });
        assert_eq!(found.unwrap(), sha256_of(&bytes));
        assert_eq!(heard, bytes.len() as u64);
    }
}
