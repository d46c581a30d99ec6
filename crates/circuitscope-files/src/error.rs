use core::error::Error;
use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with a file. The text names the file, once.
///
/// ```
/// use circuitscope_files::read;
/// use std::path::Path;
///
/// let error = read(Path::new("no/such.json")).unwrap_err();
/// assert!(error.to_string().starts_with("cannot read `no/such.json`: "));
/// assert_eq!(error.io_kind(), Some(std::io::ErrorKind::NotFound));
/// ```
#[derive(Debug)]
pub struct FileError {
    path: PathBuf,
    kind: FileErrorKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of [`FileError`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileErrorKind {
    /// It could not be opened or read.
    Read,
    /// It could not be written.
    Write,
    /// It is not a safetensors file.
    NotSafetensors,
    /// A tensor or metadata key is missing, unknown, or has a wrong type, shape or value.
    Field {
        /// What is wrong, e.g. ``tensor `labels` ``.
        field: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
}

/// Result of this crate.
pub type Result<T, E = FileError> = core::result::Result<T, E>;

impl FileError {
    /// A file that could not be opened or read. `source` says why and does not name the file: errors of the standard
    /// library do not.
    #[must_use]
    pub fn cannot_read(path: &Path, source: io::Error) -> Self {
        Self::of(path, FileErrorKind::Read, Some(source.into()))
    }

    /// A file that could not be written; `source` as for [`cannot_read`](Self::cannot_read).
    #[must_use]
    pub fn cannot_write(path: &Path, source: io::Error) -> Self {
        Self::of(path, FileErrorKind::Write, Some(source.into()))
    }

    /// A file that is no safetensors file, and why.
    #[must_use]
    pub fn not_safetensors(path: &Path, why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::of(path, FileErrorKind::NotSafetensors, Some(why.into()))
    }

    /// A tensor or metadata key that is not as it should be.
    #[must_use]
    pub fn field(
        path: &Path,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        let kind = FileErrorKind::Field {
            field: field.into(),
            found: found.into(),
            expected: expected.into(),
        };
        Self::of(path, kind, None)
    }

    fn of(path: &Path, kind: FileErrorKind, source: Option<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            path: path.to_owned(),
            kind,
            source,
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of error it is.
    pub const fn kind(&self) -> &FileErrorKind {
        &self.kind
    }

    /// What the operating system says, where it is the one that refused.
    #[must_use]
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        let source = self.source.as_ref()?;
        Some(source.downcast_ref::<io::Error>()?.kind())
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let why = self.source.as_ref();
        let why = why.map_or_else(String::new, ToString::to_string);
        match &self.kind {
            FileErrorKind::Read => write!(f, "cannot read `{path}`: {why}"),
            FileErrorKind::Write => write!(f, "cannot write `{path}`: {why}"),
            FileErrorKind::NotSafetensors => write!(f, "{path}: not a safetensors file: {why}"),
            FileErrorKind::Field {
                field,
                found,
                expected,
            } => write!(f, "{path}: {field}: found {found}, expected {expected}"),
        }
    }
}

impl Error for FileError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}

impl From<FileError> for io::Error {
    /// For those who have other errors of input and output beside it.
    fn from(error: FileError) -> Self {
        let kind = error.io_kind().unwrap_or(io::ErrorKind::InvalidData);
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_named_once_and_the_cause_is_kept() {
        let path = Path::new("no/such");
        let error = FileError::cannot_read(path, std::fs::File::open(path).unwrap_err());
        let text = error.to_string();
        assert!(text.starts_with("cannot read `no/such`: "), "{text}");
        assert_eq!(text.matches("no/such").count(), 1, "{text}");
        assert_eq!(error.io_kind(), Some(io::ErrorKind::NotFound));
        assert!(error.source().is_some());
        let error = io::Error::from(error);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn fields_say_what_was_found_and_expected() {
        let path = Path::new("a.safetensors");
        let error = FileError::field(path, "tensor `x`", "type I8", "F32");
        assert_eq!(
            error.to_string(),
            "a.safetensors: tensor `x`: found type I8, expected F32"
        );
        assert_eq!((error.io_kind(), error.path()), (None, path));
    }
}
