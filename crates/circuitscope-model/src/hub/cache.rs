//! The standard folders of the cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use circuitscope_files::write_atomic;

use super::checked::Checked;
use super::error::shown;
use super::paths::{io, parent, unread};
use super::{HubId, Snapshot, is_commit};
use crate::bytes::KnownFile;
use crate::loaded::CONFIG;
use crate::source::{INDEX, SINGLE, weight_map};
use crate::tokenizer::TOKENIZER_FILES;
use crate::{Error, HubOrigin, Result};

/// What the cache holds of one repository.
pub(super) struct RepoCache {
    root: PathBuf,
    folder: String,
    repo: String,
    revision: String,
}

impl RepoCache {
    pub(super) fn new(root: &Path, id: &HubId) -> Self {
        Self {
            folder: folder_name(&id.repo()),
            repo: id.repo(),
            root: root.to_owned(),
            revision: id.revision().to_owned(),
        }
    }

    /// A file of a commit, whether it is there or not.
    pub(super) fn path(&self, commit: &str, file: &str) -> PathBuf {
        self.snapshot_folder(commit).join(file)
    }

    pub(super) fn snapshot_folder(&self, commit: &str) -> PathBuf {
        self.repo_folder().join("snapshots").join(commit)
    }

    /// Contents by their hash.
    pub(super) fn blob(&self, hash: &str) -> PathBuf {
        self.blobs().join(hash)
    }

    fn blobs(&self) -> PathBuf {
        self.repo_folder().join("blobs")
    }

    /// The file whose lock other tools take while they download a blob.
    pub(super) fn lock(&self, hash: &str) -> PathBuf {
        let name = format!("{hash}.lock");
        self.root.join(".locks").join(&self.folder).join(name)
    }

    fn repo_folder(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    /// The file that says which commit the revision is. A revision may have slashes: `refs/pr/1`.
    fn reference(&self) -> PathBuf {
        self.repo_folder().join("refs").join(&self.revision)
    }

    /// The commit that the cache knows the revision by.
    fn commit(&self) -> Option<String> {
        if is_commit(&self.revision) {
            return Some(self.revision.clone());
        }
        let text = fs_err::read_to_string(self.reference()).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// The snapshot of the revision asked for, if nothing of it is missing.
    pub(super) fn complete(&self, id: &HubId, checked: &Checked<'_>) -> Result<Option<Snapshot>> {
        let Some(commit) = self.commit() else {
            return Ok(None);
        };
        let has = |file: &str| self.path(&commit, file).is_file();
        let weights = if has(SINGLE) {
            true
        } else {
            has(INDEX)
                && self
                    .shards(&commit, checked)?
                    .iter()
                    .all(|shard| has(shard))
        };
        if !has(CONFIG) || !weights {
            return Ok(None);
        }
        self.snapshot(id, &commit).map(Some)
    }

    pub(super) fn snapshot(&self, id: &HubId, commit: &str) -> Result<Snapshot> {
        let folder = self.snapshot_folder(commit);
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|source| unread(&folder, source))? {
            let entry = entry.map_err(|source| unread(&folder, source))?;
            files.push(entry.file_name().to_string_lossy().into_owned());
        }
        files.sort();
        Ok(Snapshot {
            folder,
            origin: HubOrigin {
                repo: id.repo(),
                revision: id.revision().to_owned(),
                commit: commit.to_owned(),
            },
            files,
            known: Vec::new(),
        })
    }

    /// Makes sure that what a load reads of a snapshot is what its blobs are named by, and returns what is known of
    /// them by that.
    pub(super) fn check(
        &self,
        snapshot: &Snapshot,
        checked: &Checked<'_>,
    ) -> Result<Vec<KnownFile>> {
        let weights = |file: &str| file == INDEX || file.ends_with(".safetensors");
        let mut known = Vec::new();
        for file in &snapshot.files {
            let name = file.as_str();
            if name == CONFIG || TOKENIZER_FILES.contains(&name) || weights(name) {
                known.extend(checked.check(
                    &self.repo,
                    &snapshot.folder.join(file),
                    &self.blobs(),
                )?);
            }
        }
        Ok(known)
    }

    /// The shards that the index of a commit names, each a plain file name.
    pub(super) fn shards(&self, commit: &str, checked: &Checked<'_>) -> Result<BTreeSet<String>> {
        let path = self.path(commit, INDEX);
        checked.check(&self.repo, &path, &self.blobs())?;
        let shards: BTreeSet<String> = weight_map(&path)?.into_values().collect();
        let odd =
            |name: &&String| !name.ends_with(".safetensors") || name.contains(['/', '\\', ':']);
        match shards.iter().find(odd) {
            Some(name) => Err(Error::Config {
                path,
                reason: format!(
                    "weight_map: found the file \"{}\", expected NAME.safetensors",
                    shown(name)
                ),
            }),
            None => Ok(shards),
        }
    }

    /// Makes a blob visible as a file of a commit.
    pub(super) fn link(&self, hash: &str, commit: &str, file: &str) -> Result<()> {
        let path = self.path(commit, file);
        parent(&path)?;
        // A link to a blob that is gone counts as missing, and is in the way.
        if path.is_symlink() && !path.exists() {
            fs::remove_file(&path).map_err(|source| io(&path, source))?;
        }
        if path.exists() {
            return Ok(());
        }
        #[cfg(unix)]
        let linked = std::os::unix::fs::symlink(Path::new("../../blobs").join(hash), &path);
        // Links need a privilege there; other tools move the file, too.
        #[cfg(not(unix))]
        let linked = fs::rename(self.blob(hash), &path);
        linked.map_err(|source| io(&path, source))
    }

    /// Notes which commit the revision asked for is.
    pub(super) fn point_at(&self, commit: &str) -> Result<()> {
        if self.revision == commit {
            return Ok(());
        }
        let path = self.reference();
        parent(&path)?;
        Ok(write_atomic(&path, |out| out.write_all(commit.as_bytes()))?)
    }
}

/// The folder of a model's repository in the cache: `models--owner--name`.
fn folder_name(repo: &str) -> String {
    format!("models--{}", repo.replace('/', "--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// The example of the hub's documentation, "Manage the `huggingface_hub` cache-system".
    #[test]
    fn folders_are_those_of_the_documentation() {
        assert_eq!(
            folder_name("google-bert/bert-base-cased"),
            "models--google-bert--bert-base-cased"
        );
        // Repositories of the hub's early days have no owner.
        assert_eq!(folder_name("gpt2"), "models--gpt2");
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let id: HubId = "julien-c/EsperBERTo-small".parse().unwrap();
        let cache = RepoCache::new(root, &id);
        let repo = root.join("models--julien-c--EsperBERTo-small");
        assert_eq!(cache.blob("403450e2"), repo.join("blobs").join("403450e2"));
        let file = repo
            .join("snapshots")
            .join(COMMIT)
            .join("pytorch_model.bin");
        assert_eq!(cache.path(COMMIT, "pytorch_model.bin"), file);
        assert_eq!(cache.commit(), None);
        cache.point_at(COMMIT).unwrap();
        // The commit alone, without a line's end.
        let reference = repo.join("refs").join("main");
        assert_eq!(fs_err::read_to_string(&reference).unwrap(), COMMIT);
        assert_eq!(cache.commit().as_deref(), Some(COMMIT));
        let lock = root
            .join(".locks")
            .join("models--julien-c--EsperBERTo-small");
        assert_eq!(cache.lock("403450e2"), lock.join("403450e2.lock"));
    }

    #[test]
    fn revisions_with_slashes_are_folders() {
        let root = tempfile::tempdir().unwrap();
        let id: HubId = "owner/name@refs/pr/1".parse().unwrap();
        let cache = RepoCache::new(root.path(), &id);
        cache.point_at(COMMIT).unwrap();
        let reference = root.path().join("models--owner--name/refs/refs/pr/1");
        assert_eq!(fs_err::read_to_string(reference).unwrap(), COMMIT);
        assert_eq!(cache.commit().as_deref(), Some(COMMIT));
    }
}
