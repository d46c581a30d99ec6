//! Models of the hub, from a server on the loopback interface.

#[cfg(unix)]
mod checked;
mod redirects;
mod stalls;
mod texts;

use std::path::Path;

use circuitscope_core::{NoProgress, Progress, Seed};
use circuitscope_model::hub::{HubError, HubId, HubSettings, Snapshot, fetch};
use circuitscope_model::{DecoderConfig, Error, Processing, save_gpt2};
use circuitscope_testhub::{COMMIT, HubServer};
use circuitscope_testkit::device;
use tempfile::TempDir;

use crate::{B, try_load};

const WEIGHTS: &str = "model.safetensors";

/// A server with a tiny model, and an empty cache.
struct Bench {
    server: HubServer,
    settings: HubSettings,
    folder: TempDir,
}

/// The files of a tiny GPT-2.
fn tiny() -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let model = DecoderConfig::gpt2(2, 2, 8, 16, 10).init::<B>(Seed::new(3), &device());
    save_gpt2(&model, folder.path()).unwrap();
    ["config.json", WEIGHTS]
        .map(|file| {
            let path = folder.path().join(file);
            (file.to_owned(), fs_err::read(path).unwrap())
        })
        .into()
}

impl Bench {
    fn new() -> Self {
        Self::with(tiny())
    }

    fn with(files: Vec<(String, Vec<u8>)>) -> Self {
        let server = HubServer::start(files);
        let folder = tempfile::tempdir().unwrap();
        let mut settings = HubSettings::new(folder.path().join("hub"));
        settings.endpoint = server.endpoint();
        Self {
            server,
            settings,
            folder,
        }
    }

    fn fetch(&self, id: &str) -> Result<Snapshot, Error> {
        fetch(&id.parse().unwrap(), &self.settings, &NoProgress)
    }

    fn error(&self, id: &str) -> HubError {
        match self.fetch(id) {
            Err(Error::Hub(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn repo(&self) -> std::path::PathBuf {
        self.folder.path().join("hub/models--owner--tiny")
    }
}

fn size(files: &[(String, Vec<u8>)], name: &str) -> usize {
    let (_, data) = files.iter().find(|(file, _)| file == name).unwrap();
    data.len()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs_err::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_model_lands_in_the_standard_cache_and_is_not_asked_for_again() {
    let mut bench = Bench::with(
        [
            tiny(),
            vec![("pytorch_model.bin".to_owned(), b"pickle".to_vec())],
        ]
        .concat(),
    );
    let snapshot = bench.fetch("owner/tiny").unwrap();
    assert_eq!(snapshot.folder, bench.repo().join("snapshots").join(COMMIT));
    assert_eq!(snapshot.files, ["config.json", WEIGHTS]);
    assert_eq!(snapshot.origin.repo, "owner/tiny");
    assert_eq!(snapshot.origin.revision, "main");
    assert_eq!(snapshot.origin.commit, COMMIT);
    let reference = fs_err::read_to_string(bench.repo().join("refs/main")).unwrap();
    assert_eq!(reference, COMMIT);

    // Blobs are named by what the hub announced: 64 digits of SHA-256, 40 of git's SHA-1.
    let blobs = names(&bench.repo().join("blobs"));
    let mut digits: Vec<usize> = blobs.iter().map(String::len).collect();
    digits.sort_unstable();
    assert_eq!(digits, [40, 64]);
    let loaded = try_load(&snapshot.folder, Processing::Raw).unwrap();
    let files = &loaded.provenance.files;
    let weights = files.iter().find(|file| file.name == WEIGHTS).unwrap();
    assert!(blobs.contains(&weights.sha256));
    #[cfg(unix)]
    assert_eq!(
        fs_err::read_link(snapshot.folder.join(WEIGHTS)).unwrap(),
        Path::new("../../blobs").join(&weights.sha256)
    );

    // Again: the listing only. By commit, or offline: nothing at all.
    bench.server.take_asked();
    assert_eq!(bench.fetch("owner/tiny").unwrap(), snapshot);
    assert_eq!(bench.server.take_asked().len(), 1);
    let by_commit = bench.fetch(&format!("owner/tiny@{COMMIT}")).unwrap();
    assert_eq!(by_commit.folder, snapshot.folder);
    bench.settings.offline = true;
    assert_eq!(bench.fetch("owner/tiny").unwrap(), snapshot);
    assert_eq!(bench.server.take_asked(), []);
}

/// The tokenizer comes with all its files, of which older parts only where there is no `tokenizer.json`.
#[test]
fn the_files_of_the_tokenizer_come_too() {
    let files = |names: &[&str]| {
        let more = names
            .iter()
            .map(|name| ((*name).to_owned(), b"{}".to_vec()));
        let bench = Bench::with([tiny(), more.collect()].concat());
        bench.fetch("owner/tiny").unwrap().files
    };
    let beside = [
        "added_tokens.json",
        "chat_template.jinja",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ];
    let parts = ["merges.txt", "vocab.json"];
    let others = ["README.md", "tokenizer.model", "generation_config.json"];
    let all = [&beside[..], &parts, &others].concat();
    let expected = |parts: &[&'static str]| {
        let mut names = [&["config.json", WEIGHTS], &beside[..], parts].concat();
        names.sort_unstable();
        names
    };
    assert_eq!(files(&all), expected(&parts));
    let whole = [&all[..], &["tokenizer.json"]].concat();
    assert_eq!(files(&whole), expected(&["tokenizer.json"]));
}

#[test]
fn without_network_the_cached_copy_is_used() {
    let mut bench = Bench::new();
    let snapshot = bench.fetch("owner/tiny").unwrap();
    // Port 9 of the loopback interface: nobody listens there.
    bench.settings.endpoint = "http://127.0.0.1:9".to_owned();
    assert_eq!(bench.fetch("owner/tiny").unwrap(), snapshot);
    let error = bench.error("owner/other");
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains('\n'));
}

#[test]
fn offline_with_a_cold_or_incomplete_cache_is_one_clear_line() {
    let mut bench = Bench::new();
    bench.settings.offline = true;
    let cache = bench.settings.cache.display();
    let expected = format!(
        "owner/tiny: not complete in the cache {cache}, and HF_HUB_OFFLINE forbids downloading: run once without it"
    );
    assert_eq!(bench.error("owner/tiny").to_string(), expected);

    bench.settings.offline = false;
    let snapshot = bench.fetch("owner/tiny").unwrap();
    fs_err::remove_file(snapshot.folder.join(WEIGHTS)).unwrap();
    bench.settings.offline = true;
    assert_eq!(bench.error("owner/tiny").to_string(), expected);
}

/// A beginning that another server sent is not what the file begins with: it is fetched anew, at once.
#[test]
fn a_wrong_beginning_is_fetched_anew() {
    let bench = Bench::new();
    let snapshot = bench.fetch("owner/tiny").unwrap();
    let blob = fs_err::canonicalize(snapshot.folder.join(WEIGHTS)).unwrap();
    fs_err::remove_dir_all(&snapshot.folder).unwrap();
    fs_err::remove_file(&blob).unwrap();
    fs_err::write(blob.with_extension("incomplete"), [b'['; 500]).unwrap();
    let snapshot = bench.fetch("owner/tiny").unwrap();
    try_load(&snapshot.folder, Processing::Raw).unwrap();
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let bench = Bench::new();
    bench.server.cut(WEIGHTS, 1000);
    let snapshot = bench.fetch("owner/tiny").unwrap();
    try_load(&snapshot.folder, Processing::Raw).unwrap();
    let asked = bench.server.take_asked();
    let bodies: Vec<_> = asked
        .iter()
        .filter(|asked| asked.path == "/contents/model.safetensors")
        .map(|asked| (asked.range.as_deref(), asked.sent))
        .collect();
    let rest = size(&tiny(), WEIGHTS) - 1000;
    assert_eq!(bodies, [(None, 1000), (Some("bytes=1000-"), rest)]);
}

#[test]
fn a_download_that_was_given_up_goes_on_in_the_next_run() {
    let bench = Bench::new();
    bench.server.cut(WEIGHTS, 700);
    for _ in 0..3 {
        bench.server.cut(WEIGHTS, 0);
    }
    let error = bench.error("owner/tiny").to_string();
    let all = size(&tiny(), WEIGHTS);
    let start =
        format!("owner/tiny: model.safetensors: the connection broke after 700 of {all} bytes (");
    assert!(error.starts_with(&start), "{error}");
    assert!(!bench.repo().join("refs/main").exists());

    bench.server.take_asked();
    bench.fetch("owner/tiny").unwrap();
    let asked = bench.server.take_asked();
    let bodies: Vec<_> = asked.iter().filter(|asked| asked.sent > 0).collect();
    // The listing, and what was missing.
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[1].range.as_deref(), Some("bytes=700-"));
    assert_eq!(bodies[1].sent, all - 700);
}

#[test]
fn a_server_that_ignores_ranges_sends_the_file_anew() {
    let bench = Bench::new();
    bench.server.ignore_ranges();
    bench.server.cut(WEIGHTS, 1000);
    let snapshot = bench.fetch("owner/tiny").unwrap();
    let length = fs_err::metadata(snapshot.folder.join(WEIGHTS))
        .unwrap()
        .len();
    assert_eq!(length, size(&tiny(), WEIGHTS) as u64);
}

#[test]
fn a_wrong_hash_is_refused_and_the_file_deleted() {
    let bench = Bench::new();
    let good = bench.fetch("owner/tiny").unwrap();
    let loaded = try_load(&good.folder, Processing::Raw).unwrap();
    for (file, kind, announced) in [
        (WEIGHTS, "SHA-256", "0".repeat(64)),
        ("config.json", "git SHA-1", "0".repeat(40)),
    ] {
        let bench = Bench::new();
        bench.server.announce(file, &announced);
        let error = bench.error("owner/tiny").to_string();
        let start = format!("owner/tiny: {file}: found {kind} ");
        let end =
            format!(", expected {announced}: deleted, run the same command to download it again");
        assert!(
            error.starts_with(&start) && error.ends_with(&end),
            "{error}"
        );
        if file == WEIGHTS {
            let files = &loaded.provenance.files;
            let weights = files.iter().find(|file| file.name == WEIGHTS).unwrap();
            assert!(error.contains(&weights.sha256), "{error}");
        }
        let left = names(&bench.repo().join("blobs"));
        assert!(
            !left.iter().any(|name| name.starts_with(&announced)),
            "{left:?}"
        );
        assert!(!bench.repo().join("refs/main").exists());
    }
}

#[test]
fn no_right_to_a_repository_says_how_to_give_a_token_and_never_shows_it() {
    let mut bench = Bench::new();
    bench.server.require_token("hf_secret");
    assert_eq!(
        bench.error("owner/tiny").to_string(),
        "owner/tiny: the hub refused access (HTTP 401): the repository is gated or private, or does not exist; set HF_TOKEN to a token that has a right to it"
    );
    bench.settings.token = Some("hf_wrong".to_owned());
    assert_eq!(
        bench.error("owner/tiny").to_string(),
        "owner/tiny: the hub refused access (HTTP 401): the repository is gated or private, or does not exist; the token given has no right to it"
    );
    assert!(!format!("{:?}", bench.settings).contains("hf_wrong"));
    bench.server.take_asked();
    bench.settings.token = Some("hf_secret".to_owned());
    bench.fetch("owner/tiny").unwrap();
    // The token goes to the hub and not to where it sends us.
    for asked in bench.server.take_asked() {
        let to_hub = !asked.path.starts_with("/contents/");
        assert_eq!(asked.host.starts_with("127."), to_hub, "{asked:?}");
        assert_eq!(asked.authorization.is_some(), to_hub, "{asked:?}");
    }
}

#[test]
fn what_the_hub_does_not_have_is_named() {
    let bench = Bench::new();
    assert_eq!(
        bench.error("owner/none").to_string(),
        "owner/none@main: the hub has no such repository (HTTP 404)"
    );
    assert_eq!(
        bench.error("owner/tiny@v2").to_string(),
        "owner/tiny@v2: the hub has no such revision (HTTP 404)"
    );
    let files = tiny().into_iter().filter(|(file, _)| file == WEIGHTS);
    assert_eq!(
        Bench::with(files.collect()).error("owner/tiny").to_string(),
        "owner/tiny@main: the hub has no such config.json (HTTP 404)"
    );
}

#[test]
fn a_revision_with_slashes_is_found_and_remembered() {
    let mut bench = Bench::new();
    let snapshot = bench.fetch("owner/tiny@refs/pr/1").unwrap();
    assert_eq!(snapshot.origin.revision, "refs/pr/1");
    let reference = bench.repo().join("refs/refs/pr/1");
    assert_eq!(fs_err::read_to_string(reference).unwrap(), COMMIT);
    bench.settings.offline = true;
    assert_eq!(bench.fetch("owner/tiny@refs/pr/1").unwrap(), snapshot);
}

/// The tiny model's file under other names, each tensor said to be in one of them.
fn sharded(shards: [&str; 2]) -> Vec<(String, Vec<u8>)> {
    let mut files = tiny();
    let (_, weights) = files.pop().unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let mut map = serde_json::Map::new();
    for (at, shard) in shards.into_iter().enumerate() {
        let mut part = tensors.tensors();
        part.sort_by(|a, b| a.0.cmp(&b.0));
        let part: Vec<_> = part.into_iter().skip(at).step_by(2).collect();
        map.extend(part.iter().map(|(name, _)| (name.clone(), shard.into())));
        files.push((
            shard.to_owned(),
            safetensors::serialize(part, None).unwrap(),
        ));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    files.push((
        "model.safetensors.index.json".to_owned(),
        index.to_string().into_bytes(),
    ));
    files
}

#[test]
fn shards_are_those_that_the_index_names() {
    let shards = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let mut files = sharded(shards);
    files.push(("other.safetensors".to_owned(), b"not asked for".to_vec()));
    let mut bench = Bench::with(files);
    let snapshot = bench.fetch("owner/tiny").unwrap();
    let expected = [
        "config.json",
        shards[0],
        shards[1],
        "model.safetensors.index.json",
    ];
    assert_eq!(snapshot.files, expected);
    try_load(&snapshot.folder, Processing::Raw).unwrap();
    bench.settings.offline = true;
    assert_eq!(bench.fetch("owner/tiny").unwrap(), snapshot);
    fs_err::remove_file(snapshot.folder.join(shards[1])).unwrap();
    assert!(matches!(
        bench.error("owner/tiny"),
        HubError::Offline { .. }
    ));

    let outside = Bench::with(sharded(["a.safetensors", "../../b.safetensors"]));
    let error = outside.fetch("owner/tiny").unwrap_err().to_string();
    let expected = "weight_map: found the file \"../../b.safetensors\", expected NAME.safetensors";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn pickles_are_refused_with_the_command_that_converts_them() {
    let mut files = tiny();
    files[1].0 = "pytorch_model.bin".to_owned();
    let bench = Bench::with(files);
    let error = bench.error("owner/tiny").to_string();
    let start = "owner/tiny@main: only pytorch_model.bin, no model.safetensors here, and PyTorch pickles are never loaded; convert it once: python -c ";
    assert!(error.starts_with(start), "{error}");
    assert!(error.contains("safe_serialization=True"));
    // Nothing but the listing was asked for.
    assert_eq!(bench.server.take_asked().len(), 1);
}

#[test]
fn a_cancelled_download_keeps_what_it_has() {
    struct Stop;
    impl Progress for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let bench = Bench::new();
    let id: HubId = "owner/tiny".parse().unwrap();
    let outcome = fetch(&id, &bench.settings, &Stop);
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    bench.fetch("owner/tiny").unwrap();
}
