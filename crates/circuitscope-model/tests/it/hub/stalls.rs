//! Hubs that stop sending, or never end.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use circuitscope_core::{NoProgress, Progress};
use circuitscope_model::Error;
use circuitscope_model::hub::{HubError, HubSettings, Snapshot, fetch};
use circuitscope_testhub::Fault;

use super::{Bench, WEIGHTS, size, tiny};

/// Long for a hub on this machine, short for a test.
const SHORT: Duration = Duration::from_millis(400);

const LISTING: &str = "GET /api/";
const HEAD: &str = "HEAD /owner/tiny/resolve/";
const DIRECT: &str = "GET /owner/tiny/resolve/";
const CONTENTS: &str = "GET /contents/";

/// Fetches with a limit of the test's own: what hangs fails and does not hang the test.
fn within(
    limit: Duration,
    settings: &HubSettings,
    progress: impl Progress + Send + 'static,
) -> Result<Snapshot, Error> {
    let (sender, receiver) = channel();
    let settings = settings.clone();
    std::thread::spawn(move || {
        let id = "owner/tiny".parse().unwrap();
        sender.send(fetch(&id, &settings, &progress)).ok();
    });
    receiver.recv_timeout(limit).expect("the hub is waited for")
}

fn impatient() -> Bench {
    let mut bench = Bench::new();
    bench.settings.answer = SHORT;
    bench.settings.idle = SHORT;
    bench
}

fn reason(bench: &Bench) -> String {
    match within(Duration::from_secs(20), &bench.settings, NoProgress) {
        Err(Error::Hub(
            HubError::Unreachable { reason, .. }
            | HubError::Network { reason }
            | HubError::Cut { reason, .. },
        )) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_silent_hub_is_given_up() {
    for fault in [
        Fault::Silence,
        Fault::Stall(7),
        Fault::TrickledHeaders,
        Fault::TrickledBody,
    ] {
        let bench = impatient();
        bench.server.fault(LISTING, fault.clone(), 1);
        let started = Instant::now();
        assert_eq!(
            reason(&bench),
            "no whole answer came within 0.4 s",
            "{fault:?}"
        );
        assert!(started.elapsed() >= SHORT);
        // The next one is answered.
        bench.fetch("owner/tiny").unwrap();
    }
    for fault in [Fault::Silence, Fault::TrickledHeaders] {
        let bench = impatient();
        bench.server.fault(HEAD, fault.clone(), 1);
        assert_eq!(
            reason(&bench),
            "no whole answer came within 0.4 s",
            "{fault:?}"
        );
        bench.fetch("owner/tiny").unwrap();
    }
}

#[test]
fn endless_headers_and_listings_are_cut_off() {
    for request in [LISTING, HEAD] {
        let bench = Bench::new();
        bench.server.fault(request, Fault::EndlessHeaders, 1);
        let reason = reason(&bench);
        assert!(!reason.contains("whole answer"), "{reason}");
    }
    let bench = Bench::new();
    bench.server.fault(LISTING, Fault::EndlessBody, 1);
    let limit = Duration::from_secs(50);
    let error = within(limit, &bench.settings, NoProgress).unwrap_err();
    let end = ": body: found more than 64 MiB, expected the JSON of a model";
    assert!(error.to_string().ends_with(end), "{error}");
}

#[test]
fn a_stalled_listing_leaves_the_cached_copy() {
    let bench = impatient();
    let snapshot = bench.fetch("owner/tiny").unwrap();
    bench.server.fault(LISTING, Fault::Stall(7), 1);
    let again = within(Duration::from_secs(20), &bench.settings, NoProgress);
    assert_eq!(again.unwrap(), snapshot);
}

#[test]
fn a_stalled_download_is_resumed() {
    let bench = impatient();
    bench.server.fault(CONTENTS, Fault::Stall(1000), 1);
    let snapshot = within(Duration::from_secs(20), &bench.settings, NoProgress).unwrap();
    let length = fs_err::metadata(snapshot.folder.join(WEIGHTS)).unwrap();
    assert_eq!(length.len(), size(&tiny(), WEIGHTS) as u64);
    let asked = bench.server.take_asked();
    let bodies: Vec<_> = asked
        .iter()
        .filter(|asked| asked.path.starts_with("/contents/"))
        .map(|asked| asked.range.as_deref())
        .collect();
    assert_eq!(bodies, [None, Some("bytes=1000-")]);
}

#[test]
fn a_download_that_stalls_again_and_again_is_one_line() {
    for (fault, why) in [
        (Fault::Stall(0), "nothing came for 0.4 s"),
        (Fault::Silence, "no whole answer came within 0.4 s"),
    ] {
        let bench = impatient();
        bench.server.fault(CONTENTS, fault, usize::MAX);
        let error = within(Duration::from_secs(20), &bench.settings, NoProgress).unwrap_err();
        let all = size(&tiny(), WEIGHTS);
        assert_eq!(
            error.to_string(),
            format!(
                "owner/tiny: model.safetensors: the connection broke after 0 of {all} bytes ({why}); what is there is kept: run the same command to go on"
            )
        );
    }
}

/// Asks to stop from some time on.
struct StopAfter(Instant);

impl StopAfter {
    fn short() -> Self {
        Self(Instant::now() + SHORT)
    }
}

impl Progress for StopAfter {
    fn cancelled(&self) -> bool {
        Instant::now() >= self.0
    }
}

/// The limits are those of every day here, far above a second.
#[test]
fn any_wait_for_the_hub_ends_within_a_second_when_asked_to_stop() {
    for (request, fault) in [
        (LISTING, Fault::Silence),
        (LISTING, Fault::Stall(7)),
        (LISTING, Fault::TrickledHeaders),
        (LISTING, Fault::TrickledBody),
        (HEAD, Fault::Silence),
        (HEAD, Fault::TrickledHeaders),
        (DIRECT, Fault::Silence),
        (DIRECT, Fault::Stall(7)),
        (CONTENTS, Fault::Silence),
        (CONTENTS, Fault::Stall(1000)),
        (CONTENTS, Fault::TrickledHeaders),
    ] {
        let bench = Bench::new();
        bench.server.fault(request, fault.clone(), usize::MAX);
        stops(&bench, &format!("{request} {fault:?}"));
    }
}

fn stops(bench: &Bench, what: &str) {
    let started = Instant::now();
    let stop = StopAfter::short();
    let outcome = within(Duration::from_secs(20), &bench.settings, stop);
    assert!(
        matches!(outcome, Err(Error::Cancelled)),
        "{what} {outcome:?}"
    );
    let took = started.elapsed();
    assert!(took < SHORT + Duration::from_secs(1), "{what} {took:?}");
}

#[test]
fn waiting_for_another_program_ends_when_asked_to_stop() {
    let bench = Bench::new();
    let announced = "0".repeat(64);
    bench.server.announce(WEIGHTS, &announced);
    let locks = bench.folder.path().join("hub/.locks/models--owner--tiny");
    fs_err::create_dir_all(&locks).unwrap();
    let lock = fs_err::File::create(locks.join(format!("{announced}.lock"))).unwrap();
    lock.file().lock().unwrap();
    stops(&bench, "a lock");
}
