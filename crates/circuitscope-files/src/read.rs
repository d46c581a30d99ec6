use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{FileError, Result};

/// The most bytes that [`read`] takes: prompts, settings and codes are smaller by far.
pub const MOST: u64 = 512 << 20;

/// What was read from pipes, which give it once.
static PIPES: Mutex<BTreeMap<PathBuf, Arc<Vec<u8>>>> = Mutex::new(BTreeMap::new());

/// Whether a path names no pipe, device or folder: opening a file that is not there is the better error.
#[must_use]
pub fn is_regular(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |there| there.is_file())
}

/// Reads a file of at most [`MOST`] bytes. What comes from a pipe is kept for whoever reads it again.
///
/// # Errors
/// Those of opening and reading, and a file that is larger or has no end.
pub fn read(path: &Path) -> Result<Arc<Vec<u8>>> {
    let regular = is_regular(path);
    let pipes = || PIPES.lock().unwrap_or_else(PoisonError::into_inner);
    if !regular && let Some(kept) = pipes().get(path) {
        return Ok(Arc::clone(kept));
    }
    let bytes = Arc::new(within_bounds(path).map_err(|error| FileError::cannot_read(path, error))?);
    if !regular {
        pipes().insert(path.to_owned(), Arc::clone(&bytes));
    }
    Ok(bytes)
}

fn within_bounds(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("found more than {} MiB, expected at most that", MOST >> 20),
        ));
    }
    Ok(bytes)
}

/// The same for a text.
///
/// # Errors
/// As [`read`], and bytes that are not UTF-8, with where the first of them stands.
pub fn read_to_string(path: &Path) -> Result<String> {
    let bytes = read(path)?;
    let text = str::from_utf8(&bytes).map_err(|error| {
        let at = error.valid_up_to();
        let line = bytes[..at].split(|byte| *byte == b'\n').count();
        let why = format!(
            "line {line}: found the byte 0x{:02x}, expected UTF-8",
            bytes[at]
        );
        FileError::cannot_read(path, io::Error::new(io::ErrorKind::InvalidData, why))
    })?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_has_no_end_is_not_read() {
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot read `/dev/zero`: found more than 512 MiB, expected at most that"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_read_once_and_hashed_as_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let writer = std::thread::spawn({
            let path = path.clone();
            move || fs_err::write(path, "abc")
        });
        // The hash opens the pipe before anybody else does.
        let hash = crate::sha256(&path).unwrap();
        writer.join().unwrap().unwrap();
        assert!(hash.starts_with("ba7816bf"), "{hash}");
        // Nobody writes any more: opening it would wait for ever.
        let again = std::thread::spawn({
            let path = path.clone();
            move || read(&path).unwrap()
        });
        assert_eq!(&*again.join().unwrap(), b"abc");
    }

    #[test]
    fn what_is_no_text_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.txt");
        fs_err::write(&path, b"fine\nnot \xff\n").unwrap();
        let error = read_to_string(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("line 2: found the byte 0xff, expected UTF-8"),
            "{error}"
        );
    }
}
