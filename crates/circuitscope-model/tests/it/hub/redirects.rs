//! Where requests are sent, and with what.

use circuitscope_testhub::{Asked, COMMIT, Fault, HubServer};

use super::{Bench, tiny};

const TOKEN: &str = "hf_secret";
const LISTING: &str = "/api/models/owner/tiny/revision/main";

fn with_token() -> Bench {
    let mut bench = Bench::new();
    bench.settings.token = Some(TOKEN.to_owned());
    bench
}

fn tokens(asked: &[Asked], path: &str) -> Vec<bool> {
    let of_path = asked.iter().filter(|asked| asked.path == path);
    of_path.map(|asked| asked.authorization.is_some()).collect()
}

/// Another port of the same host may be another owner's.
#[test]
fn the_token_stays_with_the_port_of_the_hub() {
    let bench = with_token();
    let other = HubServer::start(tiny());
    let config = format!("/owner/tiny/resolve/{COMMIT}/config.json");
    for path in [LISTING, &config] {
        let to = format!("{}{path}", other.endpoint());
        bench
            .server
            .fault(&format!("GET {path}"), Fault::Redirect(to), 1);
    }
    bench.fetch("owner/tiny").unwrap();
    let (here, there) = (bench.server.take_asked(), other.take_asked());
    for path in [LISTING, &config] {
        assert!(tokens(&here, path).iter().all(|sent| *sent), "{here:?}");
        assert_eq!(tokens(&there, path), [false], "{there:?}");
    }
}

#[test]
fn the_token_goes_along_to_another_place_of_the_hub() {
    for absolute in [false, true] {
        let bench = with_token();
        bench.server.require_token(TOKEN);
        let to = if absolute {
            format!("{}{LISTING}", bench.server.endpoint())
        } else {
            "./main".to_owned()
        };
        bench.server.fault("GET /api/", Fault::Redirect(to), 1);
        let head = format!("HEAD /owner/tiny/resolve/{COMMIT}/config.json");
        let to = "../../resolve/main/../".to_owned() + COMMIT + "/config.json";
        bench.server.fault(&head, Fault::Redirect(to), 1);
        bench.fetch("owner/tiny").unwrap();
        let asked = bench.server.take_asked();
        assert_eq!(tokens(&asked, LISTING), [true, true], "{asked:?}");
    }
}

#[test]
fn redirects_end() {
    let bench = with_token();
    let to = Fault::Redirect("main".to_owned());
    bench.server.fault("GET /api/", to, usize::MAX);
    let error = bench.error("owner/tiny").to_string();
    let end = ": Location: found 10 redirects and one more, expected an answer";
    assert!(error.ends_with(end), "{error}");
    assert_eq!(bench.server.take_asked().len(), 11);
}

#[test]
fn redirects_lead_to_http_only() {
    for to in ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://"] {
        let bench = Bench::new();
        let fault = Fault::Redirect(to.to_owned());
        bench.server.fault("GET /api/", fault, 1);
        let error = bench.error("owner/tiny").to_string();
        let end = format!(": Location: found {to:?}, expected a URL of http or https");
        assert!(error.ends_with(&end), "{error}");
    }
}

/// Hash and size are the hub's to say.
#[test]
fn another_server_is_not_asked_for_hashes() {
    let bench = with_token();
    let other = HubServer::start(tiny());
    let config = format!("/owner/tiny/resolve/{COMMIT}/config.json");
    let to = format!("{}{config}", other.endpoint());
    bench.server.fault("HEAD ", Fault::Redirect(to), 1);
    let error = bench.error("owner/tiny").to_string();
    let end = ": ETag: found nothing, expected 40 or 64 hexadecimal digits";
    assert!(error.ends_with(end), "{error}");
    assert_eq!(other.take_asked(), []);
}
