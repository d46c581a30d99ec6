//! Writing files so that nothing half-written is ever seen.

use core::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

/// Read by whoever writes a file.
static WRITES: RwLock<()> = RwLock::new(());

/// Writes `path` through a temporary file in the same folder, renamed at the end.
///
/// `write` gets the temporary file, buffered. Missing parent folders are created.
///
/// # Errors
/// Whatever `write` returns, and the errors of creating, syncing or renaming the file, which name
/// `path`. `path` is untouched then.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let named = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("cannot write `{}`: {}", path.display(), cause(&error)),
        )
    };
    let _writing = WRITES.read().unwrap_or_else(PoisonError::into_inner);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs_err::create_dir_all(folder)?;
    let file = tempfile::Builder::new()
        .prefix(".circuitscope-")
        .tempfile_in(folder)
        .map_err(named)?;
    let mut buffered = io::BufWriter::new(file);
    write(&mut buffered).map_err(named)?;
    let file = buffered
        .into_inner()
        .map_err(|error| named(error.into_error()))?;
    file.as_file().sync_all().map_err(named)?;
    set_default_mode(file.path()).map_err(named)?;
    file.persist(path).map_err(|error| named(error.error))?;
    Ok(())
}

/// Waits until no file is being written by [`write_atomic`]; none is begun while the result lives. For a
/// program that is about to exit in the middle of its work.
pub fn hold_writes() -> RwLockWriteGuard<'static, ()> {
    WRITES.write().unwrap_or_else(PoisonError::into_inner)
}

/// What an error of reading or writing `path` says, with the file in it once: errors of `fs_err` and
/// of [`write_atomic`] name it already, those of the operating system do not.
///
/// ```
/// use circuitscope_core::files::describe;
/// use std::path::Path;
///
/// let path = Path::new("no/such.json");
/// let of_system = std::fs::read(path).unwrap_err();
/// assert_eq!(describe(path, &of_system), format!("no/such.json: {of_system}"));
/// let naming_the_file = fs_err::read(path).unwrap_err();
/// assert_eq!(describe(path, &naming_the_file), naming_the_file.to_string());
/// ```
#[must_use]
pub fn describe(path: &Path, error: &io::Error) -> String {
    let text = error.to_string();
    if text.contains(&format!("`{}`", path.display())) {
        text
    } else {
        format!("{}: {text}", path.display())
    }
}

/// What the operating system said, without the path that a library put around it.
fn cause(error: &io::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Temporary files are private to their owner; a result should be as readable as any other file.
#[cfg(unix)]
fn set_default_mode(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_default_mode(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file_and_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        fs_err::create_dir(&path).unwrap();
        let error = write_atomic(&path, |out| out.write_all(b"new")).unwrap_err();
        let text = error.to_string();
        let named = format!("cannot write `{}`: ", path.display());
        assert!(text.starts_with(&named), "{text}");
        assert_eq!(
            text.matches(&folder.path().display().to_string()).count(),
            1,
            "{text}"
        );
        assert_eq!(describe(&path, &error), text);
        let path = folder.path().join("other.json");
        let error = write_atomic(&path, |_| Err(io::Error::other("disk on fire"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot write `{}`: disk on fire", path.display())
        );
    }

    #[test]
    fn failing_writer_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/result.json");
        write_atomic(&path, |out| out.write_all(b"old")).unwrap();
        let error = write_atomic(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("disk on fire"))
        });
        assert!(error.is_err());
        assert_eq!(fs_err::read(&path).unwrap(), b"old");
        assert_eq!(
            fs_err::read_dir(folder.path().join("deep"))
                .unwrap()
                .count(),
            1,
            "no temporary file stays"
        );
    }
}
