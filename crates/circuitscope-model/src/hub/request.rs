//! Requests that never wait longer than they may.
//!
//! What a request does blocks: connecting, reading headers, reading a body. Each therefore runs in a thread
//! of its own and sends what comes through a channel, at which the caller waits with one eye on the clock
//! and the other on its [`Progress`]. A thread that is given up ends with the next byte, or by its own limit.

use std::io::Read as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use circuitscope_core::Progress;
use ureq::http::response::Parts;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use super::error::shown;
use super::{HubError, HubSettings};
use crate::Error;

const CONNECT: Duration = Duration::from_secs(15);

/// Ends the thread of a request that nobody waits for any more.
const ABANDONED: Duration = Duration::from_mins(5);

/// How often whoever waits looks whether it should stop.
pub(super) const POLL: Duration = Duration::from_millis(150);

const BLOCK: usize = 1 << 16;

/// Blocks that are read ahead.
const AHEAD: usize = 8;

const MAX_HOPS: usize = 10;

/// Why a request brought nothing.
pub(super) enum Failure {
    /// The hub cannot be reached or is out of order: worth another try.
    Network(String),
    /// Anything else.
    Known(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Known(error) => error,
            Failure::Network(reason) => Self::Hub(HubError::Network { reason }),
        }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Known(Error::Hub(error))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Known(error)
    }
}

fn network(error: &impl ToString) -> Failure {
    Failure::Network(shown(&error.to_string()))
}

/// What is asked for.
#[derive(Clone)]
pub(super) enum Question {
    /// The headers. Redirects are followed as long as they stay with the hub and do not say
    /// themselves what was asked.
    Head(String),
    /// The contents from a byte on, wherever they are.
    Get(String, u64),
}

impl Question {
    pub(super) fn get(url: &str) -> Self {
        Self::Get(url.to_owned(), 0)
    }
}

/// What comes through the channel. It ends with the sender.
enum Part {
    Head(Box<Parts>),
    Block(Vec<u8>),
    End,
}

type Sent = Result<Part, Failure>;

/// Asks one hub.
pub(super) struct Requests {
    hub: Hub,
    answer: Duration,
    idle: Duration,
}

/// What the thread of a request has of its own.
#[derive(Clone)]
struct Hub {
    agent: Agent,
    /// Where the token may go.
    home: Option<Origin>,
    token: Option<String>,
}

impl Requests {
    pub(super) fn new(settings: &HubSettings) -> Self {
        let endpoint = settings.endpoint.parse().ok();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ABANDONED))
            .timeout_per_read(Some(ABANDONED))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("circuitscope/", env!("CARGO_PKG_VERSION")));
        if endpoint.as_ref().is_some_and(is_loopback) {
            config = config.proxy(None);
        }
        Self {
            hub: Hub {
                agent: config.build().into(),
                home: endpoint.as_ref().and_then(Origin::of),
                token: settings.token.clone(),
            },
            answer: settings.answer,
            idle: settings.idle,
        }
    }

    /// Sends a request and waits for the headers of its answer.
    pub(super) fn ask<'a>(
        &self,
        question: &Question,
        progress: &'a dyn Progress,
    ) -> Result<Answer<'a>, Failure> {
        let (sender, parts) = sync_channel(AHEAD);
        let (hub, question) = (self.hub.clone(), question.clone());
        let started = Instant::now();
        thread::Builder::new()
            .name("hub".to_owned())
            .spawn(move || {
                if let Err(failure) = hub.send(&question, &sender) {
                    // Who has given up wants no reason either.
                    sender.send(Err(failure)).ok();
                }
            })
            .map_err(|error| network(&error))?;
        let all = Limit {
            started,
            most: self.answer,
            what: "no whole answer came within",
        };
        match wait(&parts, &all, progress)? {
            Part::Head(head) => Ok(Answer {
                head: *head,
                parts,
                all,
                idle: self.idle,
                progress,
            }),
            Part::Block(_) | Part::End => Err(ended()),
        }
    }
}

/// How long a wait may take, and what is said when it took longer.
struct Limit {
    started: Instant,
    most: Duration,
    what: &'static str,
}

fn wait(parts: &Receiver<Sent>, limit: &Limit, progress: &dyn Progress) -> Result<Part, Failure> {
    loop {
        if progress.cancelled() {
            return Err(Failure::Known(Error::Cancelled));
        }
        let left = limit.most.saturating_sub(limit.started.elapsed());
        match parts.recv_timeout(left.min(POLL)) {
            Ok(part) => return part,
            Err(RecvTimeoutError::Timeout) if left > POLL => {}
            Err(RecvTimeoutError::Timeout) => {
                let seconds = limit.most.as_secs_f64();
                return Err(Failure::Network(format!("{} {seconds} s", limit.what)));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(ended()),
        }
    }
}

fn ended() -> Failure {
    Failure::Network("the request ended without an answer".to_owned())
}

/// The headers of an answer, and its body as far as it has come.
pub(super) struct Answer<'a> {
    head: Parts,
    parts: Receiver<Sent>,
    all: Limit,
    idle: Duration,
    progress: &'a dyn Progress,
}

impl Answer<'_> {
    pub(super) fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    pub(super) fn is_redirection(&self) -> bool {
        self.head.status.is_redirection()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// The next bytes of the body, `None` at its end. A server may be silent for a while, but not
    /// for long.
    pub(super) fn block(&self) -> Result<Option<Vec<u8>>, Failure> {
        self.part(&Limit {
            started: Instant::now(),
            most: self.idle,
            what: "nothing came for",
        })
    }

    /// The whole body, of which one byte more than `most` is kept. Headers and body together have the
    /// time of an answer.
    pub(super) fn whole(&self, most: usize) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while body.len() <= most {
            match self.part(&self.all)? {
                Some(block) => body.extend(block),
                None => break,
            }
        }
        body.truncate(most.saturating_add(1));
        Ok(body)
    }

    fn part(&self, limit: &Limit) -> Result<Option<Vec<u8>>, Failure> {
        match wait(&self.parts, limit, self.progress)? {
            Part::Block(block) => Ok(Some(block)),
            Part::Head(_) | Part::End => Ok(None),
        }
    }
}

impl Hub {
    /// The work of a request's thread. Ends early, without an error, where nobody listens any more.
    fn send(&self, question: &Question, sender: &SyncSender<Sent>) -> Result<(), Failure> {
        let (head, body) = self.follow(question)?.into_parts();
        if sender.send(Ok(Part::Head(Box::new(head)))).is_err() {
            return Ok(());
        }
        if matches!(question, Question::Get(..)) {
            let mut body = body.into_reader();
            let mut block = vec![0; BLOCK];
            loop {
                let read = body.read(&mut block).map_err(|error| network(&error))?;
                if read == 0 {
                    break;
                }
                if sender
                    .send(Ok(Part::Block(block[..read].to_vec())))
                    .is_err()
                {
                    return Ok(());
                }
            }
        }
        sender.send(Ok(Part::End)).ok();
        Ok(())
    }

    /// The answer at the end of all redirects.
    fn follow(&self, question: &Question) -> Result<Response<Body>, Failure> {
        let (Question::Head(first) | Question::Get(first, _)) = question;
        let mut at: Uri = first.parse().map_err(|error| network(&error))?;
        for _ in 0..=MAX_HOPS {
            let response = self.call(question, &at)?;
            let moved = matches!(response.status().as_u16(), 301..=303 | 307 | 308);
            let Some(to) = text(&response, "Location").filter(|_| moved) else {
                return Ok(response);
            };
            let next = resolve(&at, to);
            if matches!(question, Question::Head(_)) {
                let told = ["X-Linked-Etag", "X-Linked-Size"]
                    .iter()
                    .all(|name| text(&response, name).is_some());
                let inside = next.as_ref().is_some_and(|next| self.is_home(next));
                if told || !inside {
                    return Ok(response);
                }
            }
            at = next.ok_or_else(|| HubError::Protocol {
                url: first.clone(),
                field: "Location",
                found: format!("{to:?}"),
                expected: "a URL of http or https",
            })?;
        }
        Err(HubError::Protocol {
            url: first.clone(),
            field: "Location",
            found: format!("{MAX_HOPS} redirects and one more"),
            expected: "an answer",
        }
        .into())
    }

    fn call(&self, question: &Question, at: &Uri) -> Result<Response<Body>, Failure> {
        let mut request = match question {
            Question::Head(_) => self.agent.head(at),
            Question::Get(..) => self.agent.get(at),
        };
        if let Question::Get(_, start @ 1..) = question {
            request = request.header("Range", format!("bytes={start}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.is_home(at)) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|error| network(&error))
    }

    fn is_home(&self, at: &Uri) -> bool {
        self.home.is_some() && self.home == Origin::of(at)
    }
}

fn text<'r>(response: &'r Response<Body>, name: &str) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}

/// What has to be equal for two URLs to have the same owner.
#[derive(Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` unless it is a whole URL of http or https.
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        Some(Self {
            scheme,
            host: uri.host()?.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(usual),
        })
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// Where a `Location` leads from `base` (RFC 3986, section 5.2). `None` if not to a URL of http or https.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let whole = if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else {
        let authority = base.authority()?;
        let (path, query) = location.split_at(location.find('?').unwrap_or(location.len()));
        let path = match path {
            "" => base.path().to_owned(),
            _ if path.starts_with('/') => path.to_owned(),
            _ => {
                let folder = base
                    .path()
                    .rsplit_once('/')
                    .map_or("", |(folder, _)| folder);
                format!("{folder}/{path}")
            }
        };
        format!("{scheme}://{authority}{}{query}", without_dots(&path))
    };
    whole.parse().ok().filter(|uri| Origin::of(uri).is_some())
}

fn has_scheme(location: &str) -> bool {
    let scheme = location.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

/// A path with its parts `.` and `..` taken away.
fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let folder = ["/.", "/.."].iter().any(|end| path.ends_with(end)) && !parts.is_empty();
    format!("/{}{}", parts.join("/"), if folder { "/" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let home = Origin::of(&uri("https://Hub.example"));
        for same in [
            "https://hub.example/a?b",
            "HTTPS://HUB.EXAMPLE:443/",
            "https://user@hub.example",
        ] {
            assert!(Origin::of(&uri(same)) == home, "{same}");
        }
        for other in [
            "http://hub.example",
            "http://hub.example:443",
            "https://hub.example:8443",
            "https://hub.example.",
            "https://cdn.hub.example",
            "https://hub.example@cdn.example",
        ] {
            assert!(Origin::of(&uri(other)) != home, "{other}");
        }
        assert!(Origin::of(&uri("ftp://hub.example")).is_none());
        assert!(Origin::of(&uri("/only/a/path")).is_none());
    }

    /// Mostly the examples of RFC 3986, section 5.4.
    #[test]
    fn a_location_may_be_relative() {
        let base = uri("http://a:81/b/c/d;p?q");
        for (location, expected) in [
            ("https://h/x", "https://h/x"),
            ("//g/x", "http://g/x"),
            ("/g", "http://a:81/g"),
            ("g", "http://a:81/b/c/g"),
            ("./g", "http://a:81/b/c/g"),
            ("g/", "http://a:81/b/c/g/"),
            ("?y", "http://a:81/b/c/d;p?y"),
            ("g?y/../x", "http://a:81/b/c/g?y/../x"),
            ("g#s", "http://a:81/b/c/g"),
            (".", "http://a:81/b/c/"),
            ("..", "http://a:81/b/"),
            ("../g", "http://a:81/b/g"),
            ("../../../g", "http://a:81/g"),
            ("../..", "http://a:81/"),
            ("/./g", "http://a:81/g"),
            ("g/./h/../i", "http://a:81/b/c/g/i"),
        ] {
            let found = resolve(&base, location).unwrap();
            assert_eq!(found, uri(expected), "{location}");
        }
        for location in ["ftp://h/x", "javascript:1", "http:", "http://", "//"] {
            assert!(resolve(&base, location).is_none(), "{location}");
        }
    }
}
