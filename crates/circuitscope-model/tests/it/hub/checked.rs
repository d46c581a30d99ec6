//! What lies in the cache is compared with its hash once.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use circuitscope_core::{NoProgress, Progress};
use circuitscope_model::hub::{HubError, Snapshot, fetch};
use circuitscope_model::{Error, Processing};

use circuitscope_testkit::device;

use super::{Bench, WEIGHTS, names, sharded, size, tiny};
use crate::{B, try_load};

/// Notes stages and their sizes, and how much of them was done.
#[derive(Default)]
struct Stages {
    seen: Mutex<Vec<(String, u64)>>,
    advanced: Mutex<u64>,
    stop: bool,
}

impl Progress for Stages {
    fn begin(&self, stage: &str, total: u64) {
        self.seen.lock().unwrap().push((stage.to_owned(), total));
    }

    fn advance(&self, steps: u64) {
        *self.advanced.lock().unwrap() += steps;
    }

    fn cancelled(&self) -> bool {
        self.stop && *self.advanced.lock().unwrap() > 0
    }
}

/// A filled cache of which nothing is known, and the folder for what is.
fn filled() -> (Bench, Snapshot, PathBuf) {
    let mut bench = Bench::new();
    let snapshot = bench.fetch("owner/tiny").unwrap();
    let records = bench.folder.path().join("caches/checked");
    bench.settings.checked = Some(records.clone());
    (bench, snapshot, records)
}

/// What is checked when the model is fetched.
fn checked(bench: &Bench) -> Vec<String> {
    let stages = Stages::default();
    fetch(&"owner/tiny".parse().unwrap(), &bench.settings, &stages).unwrap();
    let seen = stages.seen.into_inner().unwrap();
    let total: u64 = seen.iter().map(|(_, size)| size).sum();
    assert_eq!(total, stages.advanced.into_inner().unwrap());
    let of_check = |(stage, _): &(String, u64)| Some(stage.strip_prefix("checking ")?.to_owned());
    seen.iter().filter_map(of_check).collect()
}

fn blob(snapshot: &Snapshot, file: &str) -> PathBuf {
    snapshot.folder.join(file).canonicalize().unwrap()
}

fn spoil(path: &PathBuf) {
    let mut data = fs_err::read(path).unwrap();
    *data.last_mut().unwrap() ^= 1;
    fs_err::write(path, data).unwrap();
}

#[test]
fn a_changed_file_is_refused_however_it_is_found() {
    for (file, kind) in [(WEIGHTS, "SHA-256"), ("config.json", "git SHA-1")] {
        let (mut bench, snapshot, _) = filled();
        // Known to be right before it changes.
        assert_eq!(checked(&bench).len(), 2);
        let blob = blob(&snapshot, file);
        spoil(&blob);
        let endpoint = bench.settings.endpoint.clone();
        for (endpoint, offline) in [
            (endpoint.as_str(), false),
            ("http://127.0.0.1:9", false),
            (endpoint.as_str(), true),
        ] {
            bench.settings.endpoint = endpoint.to_owned();
            bench.settings.offline = offline;
            let error = bench.error("owner/tiny").to_string();
            let start = format!("owner/tiny: {file}: found {kind} ");
            let end = format!(
                " in the cache, expected {}: delete `{}` and run the same command again",
                blob.file_name().unwrap().display(),
                blob.display()
            );
            assert!(
                error.starts_with(&start) && error.ends_with(&end),
                "{error}"
            );
        }
        // What the message says helps.
        assert!(blob.is_file());
        fs_err::remove_file(&blob).unwrap();
        bench.settings.offline = false;
        assert_eq!(bench.fetch("owner/tiny").unwrap(), snapshot);
        assert!(blob.is_file());
    }
}

#[test]
fn an_index_is_checked_before_it_is_believed() {
    let mut bench = Bench::with(sharded(["a.safetensors", "b.safetensors"]));
    let snapshot = bench.fetch("owner/tiny").unwrap();
    let index = "model.safetensors.index.json";
    fs_err::write(blob(&snapshot, index), "{").unwrap();
    for offline in [false, true] {
        bench.settings.offline = offline;
        let error = bench.error("owner/tiny").to_string();
        let start = format!("owner/tiny: {index}: found git SHA-1 ");
        assert!(error.starts_with(&start), "{error}");
    }
}

#[test]
fn a_file_is_checked_once_and_again_when_it_changed() {
    let (mut bench, snapshot, records) = filled();
    assert_eq!(checked(&bench), ["config.json", WEIGHTS]);
    let hashes = names(&bench.repo().join("blobs"));
    assert_eq!(names(&records), hashes);
    assert!(checked(&bench).is_empty());
    bench.settings.offline = true;
    assert!(checked(&bench).is_empty());
    // Written anew, with the same contents: nobody knows that.
    let weights = fs_err::OpenOptions::new()
        .append(true)
        .open(blob(&snapshot, WEIGHTS))
        .unwrap();
    let yesterday = SystemTime::now() - Duration::from_hours(24);
    weights.file().set_modified(yesterday).unwrap();
    assert_eq!(checked(&bench), [WEIGHTS]);
    assert!(checked(&bench).is_empty());
    // A record of something else.
    for record in hashes {
        fs_err::write(records.join(record), "1 2 3").unwrap();
    }
    assert_eq!(checked(&bench).len(), 2);
    // Other tools walk the cache: nothing of ours lies there.
    let left = names(&bench.repo());
    assert_eq!(left, ["blobs", "refs", "snapshots"]);
}

#[test]
fn what_was_downloaded_has_been_checked() {
    for remembers in [false, true] {
        let mut bench = Bench::new();
        if remembers {
            bench.settings.checked = Some(bench.folder.path().join("checked"));
        }
        assert!(checked(&bench).is_empty());
        let expected = if remembers { 0 } else { 2 };
        assert_eq!(checked(&bench).len(), expected);
    }
}

#[test]
fn without_a_folder_for_it_files_are_checked_each_time() {
    let (mut bench, _, _) = filled();
    let file = bench.folder.path().join("file");
    fs_err::write(&file, "").unwrap();
    for nowhere in [None, Some(file.join("checked"))] {
        bench.settings.checked = nowhere;
        for _ in 0..2 {
            assert_eq!(checked(&bench), ["config.json", WEIGHTS]);
        }
    }
}

/// Only the name of a blob says what its hash should be.
#[test]
fn files_that_are_no_links_into_the_blobs_are_left_alone() {
    let (bench, snapshot, _) = filled();
    let path = snapshot.folder.join(WEIGHTS);
    spoil(&blob(&snapshot, WEIGHTS));
    let outside = bench.folder.path().join("0".repeat(64));
    fs_err::rename(blob(&snapshot, WEIGHTS), &outside).unwrap();
    fs_err::remove_file(&path).unwrap();
    fs_err::copy(&outside, &path).unwrap();
    assert_eq!(checked(&bench), ["config.json"]);
    fs_err::remove_file(&path).unwrap();
    fs_err::os::unix::fs::symlink(&outside, &path).unwrap();
    assert!(checked(&bench).is_empty());
}

#[test]
fn files_that_are_not_read_are_not_checked() {
    let (bench, snapshot, _) = filled();
    let pickle = bench.repo().join("blobs").join("0".repeat(64));
    fs_err::write(&pickle, "another tool's").unwrap();
    let link = snapshot.folder.join("pytorch_model.bin");
    fs_err::os::unix::fs::symlink(&pickle, link).unwrap();
    assert_eq!(checked(&bench), ["config.json", WEIGHTS]);
}

#[test]
fn a_check_can_be_stopped() {
    let (mut bench, _, records) = filled();
    bench.settings.offline = true;
    let stages = Stages {
        stop: true,
        ..Stages::default()
    };
    let outcome = fetch(&"owner/tiny".parse().unwrap(), &bench.settings, &stages);
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    assert!(!records.exists());
    assert_eq!(stages.seen.into_inner().unwrap().len(), 1);
    let config = size(&tiny(), "config.json") as u64;
    assert_eq!(stages.advanced.into_inner().unwrap(), config);
}

/// What a loaded model says of its weights: their hash.
fn hash_of_weights(snapshot: &Snapshot) -> String {
    let loaded = snapshot.load::<B>(Processing::Raw, &device(), &NoProgress);
    let provenance = loaded.unwrap().provenance;
    assert_eq!(provenance.name, "owner/tiny");
    assert_eq!(provenance.hub.as_ref(), Some(&snapshot.origin));
    let mut files = provenance.files.into_iter();
    files.find(|file| file.name == WEIGHTS).unwrap().sha256
}

/// Contents whose hash was compared with the blob's name are not hashed by a load once more; those that may be others by
/// now are.
#[test]
#[cfg(unix)]
fn a_load_takes_the_hash_from_the_name_while_the_file_is_the_same() {
    let (bench, snapshot, _) = filled();
    let blob = blob(&snapshot, WEIGHTS);
    let name = blob.file_name().unwrap().to_str().unwrap().to_owned();
    let modified = || fs_err::metadata(&blob).unwrap().modified().unwrap();
    let before = modified();
    assert_eq!(hash_of_weights(&snapshot), name);
    // One bit of the last weight, unseen: neither size nor time tells.
    spoil(&blob);
    let set = |at: SystemTime| {
        let file = std::fs::File::options().write(true).open(&blob).unwrap();
        file.set_modified(at).unwrap();
    };
    set(before);
    assert_eq!(
        hash_of_weights(&snapshot),
        name,
        "hashed although nothing tells of a change"
    );
    // Another time: read again, and found to be something else.
    set(before + Duration::from_secs(1));
    let found = hash_of_weights(&snapshot);
    assert_ne!(found, name);
    let folder = try_load(&snapshot.folder, Processing::Raw).unwrap();
    assert!(
        folder
            .provenance
            .files
            .iter()
            .any(|file| file.sha256 == found)
    );
    // And the next fetch refuses it.
    let error = bench.error("owner/tiny");
    assert!(matches!(error, HubError::Corrupt { .. }), "{error}");
}
