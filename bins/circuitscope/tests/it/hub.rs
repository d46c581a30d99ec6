//! `--model owner/name`, from a hub on the loopback interface.

use std::process::Command;

use circuitscope_testhub::{COMMIT, Fault, HubServer};
use serde_json::{Value, json};

use crate::support::{Bench, Ran};

/// The model as the hub has it.
fn files(bench: &Bench) -> [(String, Vec<u8>); 3] {
    bench.reference_model("m");
    ["config.json", "model.safetensors", "tokenizer.json"].map(|file| {
        (
            file.to_owned(),
            fs_err::read(bench.path("m").join(file)).unwrap(),
        )
    })
}

fn run(bench: &Bench, endpoint: &str, offline: bool, line: &str) -> Ran {
    let mut command = command(bench, endpoint, line);
    if offline {
        command.env("HF_HUB_OFFLINE", "1");
    }
    Ran::of(command.output().unwrap())
}

fn command(bench: &Bench, endpoint: &str, line: &str) -> Command {
    let mut command = bench.command(line);
    for name in [
        "HF_TOKEN",
        "HF_HUB_CACHE",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
    ] {
        command.env_remove(name);
    }
    // A hub on this machine is not reached through a proxy: nobody listens on port 9.
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, "http://127.0.0.1:9");
    }
    command
        .env("HF_HOME", bench.path("hf"))
        .env("XDG_CACHE_HOME", bench.path("caches"))
        .env("HF_ENDPOINT", endpoint);
    command
}

#[test]
fn a_model_of_the_hub_is_fetched_once_and_its_commit_recorded() {
    let bench = Bench::new();
    let server = HubServer::start(files(&bench));
    server.require_token("hf_secret");
    bench.write("hf/token", "hf_secret\n");
    let line = "discover --model owner/tiny --task ioi --examples 4 --method mean-difference --format json";
    let ran = run(&bench, &server.endpoint(), false, line);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["model"]["name"], "owner/tiny");
    assert_eq!(
        found["model"]["hub"],
        json!({ "repo": "owner/tiny", "revision": "main", "commit": COMMIT })
    );
    assert!(!server.take_asked().is_empty());
    assert!(bench.path("hf/hub/models--owner--tiny/refs/main").is_file());

    let ran = run(&bench, &server.endpoint(), true, line);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(server.take_asked(), []);
}

/// A file of the cache that has changed is refused before anything is computed from it.
#[cfg(unix)]
#[test]
fn a_changed_file_of_the_cache_is_named() {
    let bench = Bench::new();
    let server = HubServer::start(files(&bench));
    let line = "discover --model owner/tiny --task ioi --examples 4 --method mean-difference --format json";
    let ran = run(&bench, &server.endpoint(), false, line);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let repo = bench.path("hf/hub/models--owner--tiny");
    let snapshot = repo.join("snapshots").join(COMMIT);
    let link = fs_err::read_link(snapshot.join("model.safetensors")).unwrap();
    let hash = link.file_name().unwrap();
    assert!(
        bench
            .path("caches/circuitscope/checked")
            .join(hash)
            .is_file()
    );
    let blob = repo.join("blobs").join(hash);
    let mut data = fs_err::read(&blob).unwrap();
    *data.last_mut().unwrap() ^= 1;
    fs_err::write(&blob, data).unwrap();
    let ran = run(&bench, &server.endpoint(), true, line);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let start = "error: --model owner/tiny: no such folder, so taken from the hub: owner/tiny: model.safetensors: found SHA-256 ";
    assert!(ran.stderr.starts_with(start), "{ran:?}");
    let end = "and run the same command again\n";
    assert!(ran.stderr.ends_with(end), "{ran:?}");
    assert!(blob.is_file());
}

/// Ctrl-C in a download that does not go on: what came is kept, and the same command goes on with it.
#[cfg(unix)]
#[test]
fn an_interrupted_download_goes_on() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    let bench = Bench::new();
    let server = HubServer::start(files(&bench));
    server.fault("GET /contents/", Fault::Stall(1000), 1);
    let line = "discover --model owner/tiny --task ioi --examples 4 --method mean-difference";
    let child = command(&bench, &server.endpoint(), line)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let mut asked = Vec::new();
    while !asked
        .iter()
        .any(|path: &String| path.starts_with("/contents/"))
    {
        assert!(start.elapsed() < Duration::from_secs(30), "{asked:?}");
        std::thread::sleep(Duration::from_millis(50));
        asked.extend(server.take_asked().into_iter().map(|asked| asked.path));
    }
    std::thread::sleep(Duration::from_millis(300));
    crate::support::interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stderr).unwrap();
    let cache = bench.path("hf/hub");
    let kept = format!(
        "interrupted: what was downloaded of owner/tiny is kept in {}: run the same command to go on\n",
        cache.display()
    );
    assert!(said.ends_with(&kept), "{said}");
    let ran = run(&bench, &server.endpoint(), false, line);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ranges: Vec<_> = server
        .take_asked()
        .into_iter()
        .filter_map(|asked| asked.range)
        .collect();
    // The hub's own address, and where it sends whoever asks there.
    assert_eq!(ranges, ["bytes=1000-"; 2]);
}

#[test]
fn what_goes_wrong_with_the_hub_is_one_line() {
    let bench = Bench::new();
    let server = HubServer::start([]);
    let line = "capture --model owner/none --task ioi --sites logits --output x.safetensors";
    let ran = run(&bench, &server.endpoint(), false, line);
    assert_eq!(
        ran.stderr,
        "error: --model owner/none: no such folder, so taken from the hub: owner/none@main: the hub has no such repository (HTTP 404)\n"
    );
    assert_eq!(ran.code, Some(1));
    let ran = run(&bench, &server.endpoint(), true, line);
    assert!(ran.stderr.contains("not complete in the cache"), "{ran:?}");
    assert!(ran.stderr.contains("HF_HUB_OFFLINE"), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1);
    let line = line.replace("owner/none", "a/b/c");
    let ran = run(&bench, &server.endpoint(), false, &line);
    let end = "as a name of the hub, \"a/b/c\": found '/' in the name, expected owner/name or owner/name@revision\n";
    assert!(ran.stderr.ends_with(end), "{ran:?}");
}
