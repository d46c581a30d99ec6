use std::path::Path;

use crate::{Error, Result};

/// Makes the folder of a file.
pub(super) fn parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => fs_err::create_dir_all(folder).map_err(|source| io(folder, source)),
        None => Ok(()),
    }
}

pub(super) fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_owned(),
        source,
    }
}
