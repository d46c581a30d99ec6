use std::fs;
use std::path::Path;

use circuitscope_files::FileError;

use crate::{Error, Result};

/// Makes the folder of a file.
pub(super) fn parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(|source| io(folder, source)),
        None => Ok(()),
    }
}

/// An error of writing `path`.
pub(super) fn io(path: &Path, source: std::io::Error) -> Error {
    FileError::cannot_write(path, source).into()
}

/// An error of reading `path`.
pub(super) fn unread(path: &Path, source: std::io::Error) -> Error {
    FileError::cannot_read(path, source).into()
}
