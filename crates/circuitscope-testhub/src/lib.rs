//! A hub of one repository on the loopback interface, which answers as it should or as it is told to. Nothing of burn is
//! in here, so that chores which ask it are built in a moment.

#![expect(
    clippy::unwrap_used,
    reason = "a server of tests fails by panicking, as tests do"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use circuitscope_files::{hex, sha256_of};
use serde_json::json;
use sha1::{Digest as _, Sha1};

/// The only commit of the repository.
pub const COMMIT: &str = "c0ffee0123456789c0ffee0123456789c0ffee01";

/// A request that the server got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path.
    pub path: String,
    /// The host that was asked: redirects to the contents name another than the hub.
    pub host: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// Bytes of the body that were sent.
    pub sent: usize,
}

/// What the server does instead of answering a request as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Accepts the connection and says nothing.
    Silence,
    /// Sends the headers and so many bytes of the body, then nothing.
    Stall(usize),
    /// Sends a header every 50 ms, for ever.
    TrickledHeaders,
    /// Sends headers as fast as they are read, for ever.
    EndlessHeaders,
    /// Sends a byte of the body every 50 ms, for ever.
    TrickledBody,
    /// Sends brackets of JSON as fast as they are read, for ever.
    EndlessBody,
    /// Sends this body instead.
    Body(Vec<u8>),
    /// Sends the client to this location.
    Redirect(String),
    /// Sends this status and these headers, with `\r\n` between them, and no body.
    Answer(String),
}

/// Serves the repository `owner/tiny`, branch `main`, as the hub does: small files directly with
/// git's SHA-1 as entity tag, safetensors by a redirect to another host with their SHA-256.
#[derive(Debug)]
pub struct HubServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    asked: Vec<Asked>,
    cuts: Vec<(String, usize)>,
    faults: Vec<(String, Fault, usize)>,
    tags: BTreeMap<String, String>,
    token: Option<String>,
    ranges: bool,
}

impl HubServer {
    /// Starts serving. The thread ends with the process.
    ///
    /// # Panics
    /// If no port is free.
    pub fn start(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            files: files.into_iter().collect(),
            ranges: true,
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that hangs up is no concern of the server's.
                std::thread::spawn(move || answer(stream, address, &shared).ok());
            }
        });
        Self { address, state }
    }

    /// For `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next time the contents of `file` are asked for, breaks the connection after `bytes` of the
    /// body; one call breaks one connection.
    pub fn cut(&self, file: &str, bytes: usize) {
        self.with(|state| state.cuts.push((file.to_owned(), bytes)));
    }

    /// Makes the next `times` requests that begin so, as in `GET /api/`, go wrong.
    pub fn fault(&self, request: &str, fault: Fault, times: usize) {
        self.with(|state| state.faults.push((request.to_owned(), fault, times)));
    }

    /// Announces another hash for a file.
    pub fn announce(&self, file: &str, hash: &str) {
        self.with(|state| state.tags.insert(file.to_owned(), hash.to_owned()));
    }

    /// Answers 401 to whoever does not send this token.
    pub fn require_token(&self, token: &str) {
        self.with(|state| state.token = Some(token.to_owned()));
    }

    /// Ignores the header `Range` from now on.
    pub fn ignore_ranges(&self) {
        self.with(|state| state.ranges = false);
    }

    /// Everything that was asked so far, which is then forgotten.
    pub fn take_asked(&self) -> Vec<Asked> {
        self.with(|state| std::mem::take(&mut state.asked))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap())
    }
}

fn answer(stream: TcpStream, address: SocketAddr, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut asked = Asked {
        host: headers.remove("host").unwrap_or_default(),
        range: headers.remove("range"),
        authorization: headers.remove("authorization"),
        method,
        path,
        sent: 0,
    };
    let mut state = state.lock().unwrap();
    let fault = state.next_fault(&asked);
    let (head, mut body) = state.respond(&asked, address);
    if let Some(Fault::Stall(bytes)) = fault {
        body.truncate(bytes);
    }
    asked.sent = if matches!(fault, None | Some(Fault::Stall(_))) {
        body.len()
    } else {
        0
    };
    state.asked.push(asked);
    drop(state);
    let mut stream = stream;
    if let Some(fault) = fault {
        return misbehave(stream, &fault, &head, &body);
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Waits until the client has read everything, so that closing loses nothing.
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

fn misbehave(mut stream: TcpStream, fault: &Fault, head: &str, body: &[u8]) -> std::io::Result<()> {
    let slowly = || std::thread::sleep(Duration::from_millis(50));
    let ok = "HTTP/1.1 200 OK\r\n";
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
    match fault {
        Fault::Silence => {}
        Fault::Stall(_) => {
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)?;
        }
        Fault::TrickledHeaders | Fault::EndlessHeaders => {
            stream.write_all(ok.as_bytes())?;
            loop {
                stream.write_all(b"X-More: 1\r\n")?;
                if *fault == Fault::TrickledHeaders {
                    slowly();
                }
            }
        }
        Fault::TrickledBody => {
            stream.write_all(endless.as_bytes())?;
            loop {
                stream.write_all(b" ")?;
                slowly();
            }
        }
        Fault::EndlessBody => {
            stream.write_all(endless.as_bytes())?;
            loop {
                stream.write_all(&[b'['; 1 << 13])?;
            }
        }
        Fault::Body(body) => {
            let length = body.len();
            write!(
                stream,
                "{ok}Content-Length: {length}\r\nConnection: close\r\n\r\n"
            )?;
            stream.write_all(body)?;
        }
        Fault::Redirect(to) => write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?,
        Fault::Answer(status_and_headers) => write!(
            stream,
            "HTTP/1.1 {status_and_headers}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )?,
    }
    // Until the client has had enough.
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

impl State {
    fn next_fault(&mut self, asked: &Asked) -> Option<Fault> {
        let request = format!("{} {}", asked.method, asked.path);
        let (_, fault, times) = self
            .faults
            .iter_mut()
            .find(|(start, _, times)| *times > 0 && request.starts_with(start.as_str()))?;
        *times -= 1;
        Some(fault.clone())
    }

    /// Head and body of the answer.
    fn respond(&mut self, asked: &Asked, address: SocketAddr) -> (String, Vec<u8>) {
        let plain = |status: &str, more: &str, body: Vec<u8>| {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n"
            );
            (head, body)
        };
        let contents = asked.path.strip_prefix("/contents/");
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if contents.is_none() && bearer.is_some() && asked.authorization != bearer {
            return plain("401 Unauthorized", "", Vec::new());
        }
        if let Some(file) = contents {
            return self.contents(file, asked);
        }
        if let Some(revision) = asked.path.strip_prefix("/api/models/owner/tiny/revision/") {
            if revision != "main" && revision != COMMIT && revision != "refs%2Fpr%2F1" {
                let code = "X-Error-Code: RevisionNotFound\r\n";
                return plain("404 Not Found", code, Vec::new());
            }
            let siblings: Vec<_> = self
                .files
                .keys()
                .map(|name| json!({ "rfilename": name }))
                .collect();
            let body = json!({ "id": "owner/tiny", "sha": COMMIT, "siblings": siblings });
            return plain("200 OK", "", body.to_string().into_bytes());
        }
        let prefix = format!("/owner/tiny/resolve/{COMMIT}/");
        let file = asked.path.strip_prefix(&prefix).unwrap_or_default();
        let Some(data) = self.files.get(file) else {
            return plain("404 Not Found", "", Vec::new());
        };
        let large = file.ends_with(".safetensors");
        let tag = self.tag(file, data, large);
        if large {
            let more = format!(
                "Location: http://localhost:{}/contents/{file}\r\nX-Linked-Etag: \"{tag}\"\r\nX-Linked-Size: {}\r\n",
                address.port(),
                data.len()
            );
            return plain("302 Found", &more, Vec::new());
        }
        if asked.method == "HEAD" {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\nETag: W/\"{tag}\"\r\n\r\n",
                data.len()
            );
            return (head, Vec::new());
        }
        self.contents(file, asked)
    }

    fn contents(&mut self, file: &str, asked: &Asked) -> (String, Vec<u8>) {
        let data = &self.files[file];
        let start = asked.range.as_deref().filter(|_| self.ranges);
        let start = start.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        let start: Option<usize> = start.and_then(|start| start.parse().ok());
        let mut body = data[start.unwrap_or(0)..].to_vec();
        let mut head = match start {
            Some(start) => format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\n",
                data.len() - 1,
                data.len()
            ),
            None => "HTTP/1.1 200 OK\r\n".to_owned(),
        };
        write!(
            head,
            "Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
        .unwrap();
        if let Some(at) = self.cuts.iter().position(|(name, _)| name == file) {
            body.truncate(self.cuts.remove(at).1);
        }
        (head, body)
    }

    fn tag(&self, file: &str, data: &[u8], large: bool) -> String {
        if let Some(tag) = self.tags.get(file) {
            return tag.clone();
        }
        if large {
            return sha256_of(data);
        }
        let mut hash = Sha1::new();
        hash.update(format!("blob {}\0", data.len()));
        hash.update(data);
        hex(&hash.finalize())
    }
}
