//! Part `hub`: a hub that stalls, lies, breaks off and never ends; then the same command with one that does as it should.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use circuitscope_testhub::{Fault as Wrong, HubServer};
use fs_err as fs;

use super::Torture;
use super::compare::{Results, results};
use super::dice::Dice;
use super::inputs::{smallest, words};
use super::judge::Fault;
use super::mutator::{Form, mutate};
use super::tally::copy;
use super::watch::Invocation;

const LINE: &str = "discover --model owner/tiny --positive yes.txt --negative no.txt --method mean-difference --output out";
const FILES: [&str; 3] = ["config.json", "model.safetensors", "tokenizer.json"];
const TOKEN: &str = "hf_secret";
/// What is asked: the list of files, what a file is, and files.
const REQUESTS: [&str; 4] = [
    "GET /api/",
    "HEAD /owner/tiny/resolve/",
    "GET /owner/tiny/resolve/",
    "GET /contents/",
];
const ANSWERS: [&str; 12] = [
    "200 OK",
    "204 No Content",
    "206 Partial Content\r\nContent-Range: bytes 99-1/0",
    "304 Not Modified",
    "401 Unauthorized",
    "403 Forbidden\r\nX-Error-Code: GatedRepo",
    "404 Not Found\r\nX-Error-Code: EntryNotFound",
    "416 Range Not Satisfiable",
    "429 Too Many Requests\r\nRetry-After: 999999999",
    "500 \x1b[2J\x1b]0;OWNED\x07",
    "503 Unavailable\r\nX-Error-Message: \x1b[31mred\x1b[0m",
    "999 None",
];
const PLACES: [&str; 8] = [
    "",
    "/",
    "ftp://127.0.0.1/x",
    "file:///etc/passwd",
    "http://[::1",
    "//",
    "http://127.0.0.1:9/nobody",
    "\x1b[2J",
];

/// What is done to one try.
enum Trouble {
    /// So many requests that begin so are answered so.
    Answers(&'static str, Wrong, usize),
    /// The connection ends after so many bytes of the weights.
    Cut(usize),
    /// Another hash is announced.
    Hash(&'static str),
    /// A file is broken, and announced as such.
    Broken(&'static str, Vec<u8>),
}

/// Asks `tries` hubs.
pub(crate) fn run(torture: &mut Torture, tries: usize) -> Result<()> {
    let inputs = torture.work.path().join("hub-inputs");
    smallest(&inputs)?;
    let files = FILES.map(|name| Ok((name.to_owned(), fs::read(inputs.join("m").join(name))?)));
    let files = files.into_iter().collect::<Result<Vec<_>>>()?;
    let honest = HubServer::start(files.clone());
    let elsewhere = HubServer::start(files.clone());
    let whole = good(torture, &honest, &inputs)?;
    for index in 0..tries {
        let mut dice = Dice::new(torture.seed, "hub", index as u64);
        let place = tempfile::tempdir_in(torture.work.path())?;
        copy(&inputs, place.path())?;
        let trouble = trouble(&mut dice, &files, &elsewhere);
        let (server, about, mends) = serve(&trouble, &files);
        let name = format!("hub-{index}");
        let mut invocation = ask(torture, &server, place.path());
        // The limits are minutes for a hub that is slow; a user who waits gives up before, and must be let go.
        let after = Duration::from_millis(500 + dice.below(1500) as u64);
        invocation = invocation.with_signal(libc::SIGINT, after);
        torture.attempt(name.clone(), &invocation, &about, |ended| {
            let mut faults = Vec::new();
            if mends && ended.code == Some(0) {
                faults.extend(whole.differ(&results(&place.path().join("out"))?));
            }
            if !matches!(ended.code, Some(0 | 1 | 130)) && ended.signal.is_none() {
                faults.push(Fault::Message(format!("exit code {:?}", ended.code)));
            }
            let told = elsewhere.take_asked();
            if told.iter().any(|asked| asked.authorization.is_some()) {
                faults.push(Fault::Message(
                    "the token went to another server".to_owned(),
                ));
            }
            Ok(faults)
        })?;
        let again = ask(torture, &honest, place.path());
        torture.attempt(name, &again, "a good hub after it", |ended| {
            let fault = match ended.code {
                _ if !mends => None,
                Some(0) => whole.differ(&results(&place.path().join("out"))?),
                _ => Some(Fault::Lost("a good hub does not help".to_owned())),
            };
            Ok(Vec::from_iter(fault))
        })?;
    }
    Ok(())
}

/// The command with this hub and the cache in the folder.
fn ask(torture: &Torture, server: &HubServer, place: &Path) -> Invocation {
    let mut invocation = Invocation::new(&torture.program, place, &words(LINE));
    let within = |name: &str| place.join(name).display().to_string();
    invocation.environment = vec![
        ("HF_HUB_OFFLINE", "0".to_owned()),
        ("HF_HOME", within("hf")),
        ("XDG_CACHE_HOME", within("caches")),
        ("HF_ENDPOINT", server.endpoint()),
        ("HF_TOKEN", TOKEN.to_owned()),
    ];
    invocation
}

fn good(torture: &Torture, honest: &HubServer, inputs: &Path) -> Result<Results> {
    let place = tempfile::tempdir_in(torture.work.path())?;
    copy(inputs, place.path())?;
    let ended = ask(torture, honest, place.path()).run()?;
    ensure!(
        ended.code == Some(0),
        "{LINE}: exit code {:?}: {}",
        ended.code,
        String::from_utf8_lossy(&ended.stderr)
    );
    results(&place.path().join("out"))
}

fn trouble(dice: &mut Dice, files: &[(String, Vec<u8>)], elsewhere: &HubServer) -> Trouble {
    let request = dice.pick(&REQUESTS);
    let times = [1, 2, usize::MAX][dice.below(3)];
    let wrong = match dice.below(12) {
        0 => Wrong::Silence,
        1 => Wrong::Stall(dice.below(4000)),
        2 => Wrong::TrickledHeaders,
        3 => Wrong::EndlessHeaders,
        4 => Wrong::TrickledBody,
        5 => Wrong::EndlessBody,
        6 => Wrong::Redirect(format!("{}/x", elsewhere.endpoint())),
        7 => Wrong::Redirect(dice.pick(&PLACES).to_owned()),
        8 => Wrong::Answer(dice.pick(&ANSWERS).to_owned()),
        9 => {
            let list = br#"{"id": "owner/tiny", "sha": "c0ffee0123456789c0ffee0123456789c0ffee01", "siblings": [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}, {"rfilename": "tokenizer.json"}]}"#;
            return Trouble::Answers(
                REQUESTS[0],
                Wrong::Body(mutate(list, Form::Json, dice)),
                times,
            );
        }
        10 => {
            let (name, bytes) = &files[dice.below(files.len())];
            let form = if name.ends_with("json") {
                Form::Json
            } else {
                Form::Safetensors
            };
            let name = FILES.into_iter().find(|file| file == name);
            return Trouble::Broken(name.unwrap_or(FILES[0]), mutate(bytes, form, dice));
        }
        _ => {
            return if dice.one_in(2) {
                Trouble::Cut(dice.below(4000))
            } else {
                Trouble::Hash(FILES[dice.below(FILES.len())])
            };
        }
    };
    Trouble::Answers(request, wrong, times)
}

/// A server that makes this trouble, what to say of it, and whether a good one is all that is needed afterwards.
fn serve(trouble: &Trouble, files: &[(String, Vec<u8>)]) -> (HubServer, String, bool) {
    let mut files = files.to_vec();
    if let Trouble::Broken(name, bytes) = trouble {
        for file in files.iter_mut().filter(|(file, _)| file == name) {
            file.1.clone_from(bytes);
        }
    }
    let server = HubServer::start(files);
    match trouble {
        Trouble::Answers(request, wrong, times) => {
            server.fault(request, wrong.clone(), *times);
            let what = format!("{wrong:?}");
            let short: String = what.chars().take(200).collect();
            // Whatever names it lists are taken for those of the commit.
            let listed = !matches!(wrong, Wrong::Body(_));
            (server, format!("{request}: {short}"), listed)
        }
        Trouble::Cut(bytes) => {
            server.cut("model.safetensors", *bytes);
            (server, format!("cut after {bytes} bytes"), true)
        }
        Trouble::Hash(name) => {
            server.announce(name, &"0".repeat(64));
            (server, format!("{name}: another hash"), true)
        }
        Trouble::Broken(name, _) => (server, format!("{name}: broken"), false),
    }
}
