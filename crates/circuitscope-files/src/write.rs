use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::{FileError, Result};

/// What temporary files begin with.
const TEMPORARY: &str = ".circuitscope-";

/// An empty temporary file younger than this may have been made a moment ago, and not be locked yet.
const YOUNG: Duration = Duration::from_secs(10);

/// Read by whoever writes a file.
static WRITES: RwLock<()> = RwLock::new(());

/// How often a folder that goes while a file is begun in it is made again.
const TRIES: usize = 3;

/// Files that are not to be written.
static INPUTS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Folders in which temporary files of killed programs were looked for.
static CLEANED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on [`write_atomic`] refuses to write this file: somebody reads it.
pub fn protect(path: &Path) {
    if let Ok(path) = path.canonicalize() {
        locked(&INPUTS).insert(path);
    }
}

/// Fails where a result may not be written to `path`: onto a folder, a device or a pipe, or onto an input
/// ([`protect`]).
///
/// # Errors
/// What is there instead.
pub fn check_output(path: &Path) -> io::Result<()> {
    let wrong = |found: &str| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("found {found}, expected a regular file or none"),
        )
    };
    match std::fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(wrong("a folder")),
        Ok(there) if !there.is_file() => Err(wrong("a device or a pipe")),
        Ok(_)
            if path
                .canonicalize()
                .is_ok_and(|path| locked(&INPUTS).contains(&path)) =>
        {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is an input of this command",
            ))
        }
        _ => Ok(()),
    }
}

/// The folder that a file stands in, or is to: the current one for a bare name.
///
/// ```
/// use circuitscope_files::folder_of;
/// use std::path::Path;
///
/// assert_eq!(folder_of(Path::new("a/b.json")), Path::new("a"));
/// assert_eq!(folder_of(Path::new("b.json")), Path::new("."));
/// ```
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes `path` through a temporary file in the same folder, renamed at the end.
///
/// `write` gets the temporary file, buffered. Missing parent folders are created. A link is followed.
/// Temporary files that killed programs left in the folder are removed.
///
/// # Errors
/// Whatever `write` returns, those of [`check_output`], and the errors of creating, syncing or renaming the
/// file, which name `path`. `path` is untouched then.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    write_with(path, write, |file, path| file.persist(path))
}

/// The same for a file that must not be there yet: of several programs that write it at once, one does.
///
/// # Errors
/// As [`write_atomic`], and [`io::ErrorKind::AlreadyExists`].
pub fn write_new(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    write_with(path, write, |file, path| file.persist_noclobber(path))
}

fn write_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    persist: impl FnOnce(NamedTempFile, &Path) -> Result<File, tempfile::PersistError>,
) -> Result<()> {
    let _writing = WRITES.read().unwrap_or_else(PoisonError::into_inner);
    let mut pending = Pending::new(path)?;
    let mut buffered = io::BufWriter::new(pending.file());
    let written = write(&mut buffered).and_then(|()| buffered.flush());
    drop(buffered);
    written.map_err(|error| FileError::cannot_write(&pending.path, error))?;
    pending.place(persist)
}

/// A file that takes long to write: at its place once it is [finished](Self::finish), nowhere before.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    file: NamedTempFile,
}

impl Pending {
    /// A temporary file beside `path`.
    ///
    /// # Errors
    /// As [`write_atomic`].
    pub fn new(path: &Path) -> Result<Self> {
        check_output(path).map_err(|error| FileError::cannot_write(path, error))?;
        // Renaming onto a link would replace the link.
        let linked = path.is_symlink().then(|| path.canonicalize().ok());
        let path = linked.flatten().unwrap_or_else(|| path.to_owned());
        let mut file = temporary_beside(&path);
        for _ in 0..TRIES {
            // Somebody who only looked whether a new folder can be written has removed it again.
            if !file
                .as_ref()
                .is_err_and(|error| error.io_kind() == Some(io::ErrorKind::NotFound))
            {
                break;
            }
            file = temporary_beside(&path);
        }
        let file = file?;
        // Says that somebody is at work on it. Where files cannot be locked, nobody removes what is left.
        file.as_file().try_lock().ok();
        Ok(Self { path, file })
    }

    /// The temporary file.
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Puts the file at its place.
    ///
    /// # Errors
    /// Those of syncing and renaming, which name the file.
    pub fn finish(self) -> Result<()> {
        let _writing = WRITES.read().unwrap_or_else(PoisonError::into_inner);
        self.place(|file, path| file.persist(path))
    }

    fn place(
        self,
        persist: impl FnOnce(NamedTempFile, &Path) -> Result<File, tempfile::PersistError>,
    ) -> Result<()> {
        let Self { path, file } = self;
        let mut ready = file.as_file().sync_all();
        // Who could not read the old file cannot read the new one.
        if let Ok(old) = std::fs::metadata(&path) {
            ready = ready.and_then(|()| file.as_file().set_permissions(old.permissions()));
        }
        ready.map_err(|error| FileError::cannot_write(&path, error))?;
        persist(file, &path).map_err(|error| FileError::cannot_write(&path, error.error))?;
        sync_folder(folder_of(&path));
        Ok(())
    }
}

/// A temporary file in the folder of `path`, which is made where it is missing.
fn temporary_beside(path: &Path) -> Result<NamedTempFile> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder).map_err(|error| FileError::cannot_write(folder, error))?;
    if locked(&CLEANED).insert(folder.to_owned()) {
        remove_left(folder);
    }
    let prefix = format!("{TEMPORARY}{}-", std::process::id());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    as_umask_says(&mut builder);
    let file = builder.tempfile_in(folder);
    file.map_err(|error| FileError::cannot_write(path, error))
}

/// Whether the process in the name of a temporary file is no more, where the system tells.
fn is_of_the_dead(name: &str) -> bool {
    let process = name
        .strip_prefix(TEMPORARY)
        .and_then(|rest| rest.split_once('-'));
    process.is_some_and(|(process, _)| {
        let processes = Path::new("/proc");
        process.parse::<u32>().is_ok()
            && processes.join("self").exists()
            && !processes.join(process).exists()
    })
}

/// Removes temporary files of programs that are no more.
fn remove_left(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
    });
    for entry in ours {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
        let young = metadata.len() == 0
            && age.is_none_or(|age| age < YOUNG)
            && !is_of_the_dead(&entry.file_name().to_string_lossy());
        if !metadata.is_file() || young {
            continue;
        }
        let file = File::options().append(true).open(entry.path());
        if file.is_ok_and(|file| file.try_lock().is_ok()) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}

/// Removes a file; nothing where there is none.
///
/// # Errors
/// If it is there and cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::cannot_write(path, error))
        }
        _ => Ok(()),
    }
}

/// Waits until no file is being written by [`write_atomic`]; none is begun while the result lives. For a
/// program that is about to exit in the middle of its work.
pub fn hold_writes() -> RwLockWriteGuard<'static, ()> {
    WRITES.write().unwrap_or_else(PoisonError::into_inner)
}

/// Results are as readable as any other file that the user makes, where temporary files are private: what `umask`
/// leaves of it decides.
#[cfg(unix)]
fn as_umask_says(builder: &mut tempfile::Builder<'_, '_>) {
    use std::os::unix::fs::PermissionsExt as _;
    builder.permissions(std::fs::Permissions::from_mode(0o666));
}

#[cfg(not(unix))]
fn as_umask_says(_: &mut tempfile::Builder<'_, '_>) {}

/// Makes a rename survive the loss of power, where folders can be opened as files.
fn sync_folder(folder: &Path) {
    if cfg!(unix)
        && let Ok(folder) = File::open(folder)
    {
        folder.sync_all().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_folders_and_devices_are_not_written_onto() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.txt");
        fs_err::write(&path, "prompt").unwrap();
        protect(&path);
        let write = |path: &Path| write_atomic(path, |out| out.write_all(b"new"));
        let error = write(&path).unwrap_err().to_string();
        assert!(error.ends_with("it is an input of this command"), "{error}");
        assert_eq!(fs_err::read(&path).unwrap(), b"prompt");
        assert!(write(folder.path()).is_err());
        #[cfg(unix)]
        {
            let error = write(Path::new("/dev/null")).unwrap_err().to_string();
            assert!(error.contains("found a device or a pipe"), "{error}");
            let link = folder.path().join("link");
            let target = folder.path().join("target");
            fs_err::write(&target, "old").unwrap();
            std::os::unix::fs::symlink(&target, &link).unwrap();
            write(&link).unwrap();
            assert!(link.is_symlink());
            assert_eq!(fs_err::read(&target).unwrap(), b"new");
        }
    }

    #[test]
    fn one_of_several_writers_makes_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        let won = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8u8)
                .map(|at| {
                    scope.spawn({
                        let path = &path;
                        move || write_new(path, |out| out.write_all(&[at]))
                    })
                })
                .collect();
            let outcomes = writers.into_iter().map(|writer| writer.join().unwrap());
            let outcomes: Vec<Result<()>> = outcomes.collect();
            let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
            assert!(
                lost.into_iter()
                    .all(|error| error.io_kind() == Some(io::ErrorKind::AlreadyExists))
            );
            outcomes.iter().position(Result::is_ok).unwrap()
        });
        assert_eq!(fs_err::read(&path).unwrap(), [won as u8]);
    }

    #[test]
    fn what_killed_programs_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(".circuitscope-left");
        let used = folder.path().join(".circuitscope-used");
        let new = folder.path().join(".circuitscope-1-new");
        let dead = folder
            .path()
            .join(format!(".circuitscope-{}-new", u32::MAX));
        for path in [&new, &dead] {
            fs_err::write(path, "").unwrap();
        }
        let other = folder.path().join(".other-left");
        for path in [&left, &used, &other] {
            fs_err::write(path, "half").unwrap();
        }
        let lock = File::open(&used).unwrap();
        lock.lock().unwrap();
        write_atomic(&folder.path().join("result"), |out| out.write_all(b"all")).unwrap();
        assert!(!left.exists());
        assert!(used.exists() && other.exists() && new.exists());
        assert_eq!(dead.exists(), !cfg!(target_os = "linux"));
    }

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
