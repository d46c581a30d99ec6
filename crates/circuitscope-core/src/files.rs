//! What crates that have not come to `circuitscope-files` yet use of it: with errors of the standard library.

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
