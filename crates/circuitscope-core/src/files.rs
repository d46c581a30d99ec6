//! `circuitscope-files` as it was while it was part of this crate: with errors of the standard library.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

pub use circuitscope_files::is_regular;

/// [`circuitscope_files::read`].
///
/// # Errors
/// The same.
pub fn read(path: &Path) -> io::Result<Arc<Vec<u8>>> {
    Ok(circuitscope_files::read(path)?)
}

/// [`circuitscope_files::read_to_string`].
///
/// # Errors
/// The same.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    Ok(circuitscope_files::read_to_string(path)?)
}

/// [`circuitscope_files::sha256`].
///
/// # Errors
/// The same.
pub fn sha256(path: &Path) -> io::Result<String> {
    Ok(circuitscope_files::sha256(path)?)
}

/// [`circuitscope_files::write_atomic`].
///
/// # Errors
/// The same.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    Ok(circuitscope_files::write_atomic(path, write)?)
}

/// [`circuitscope_files::write_new`].
///
/// # Errors
/// The same.
pub fn write_new(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    Ok(circuitscope_files::write_new(path, write)?)
}

/// What an error of reading or writing `path` says, with the file in it once.
#[must_use]
pub fn describe(path: &Path, error: &io::Error) -> String {
    let text = error.to_string();
    if text.contains(&format!("`{}`", path.display())) {
        text
    } else {
        format!("{}: {text}", path.display())
    }
}
