//! What the hub says, in messages.

use circuitscope_testhub::Fault;

use super::{Bench, sharded, tiny};

fn harmless(error: &str) {
    let odd = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!error.contains(odd), "{error:?}");
    assert!(error.chars().count() < 1000, "{error:?}");
}

#[test]
fn names_of_files_cannot_write_to_the_terminal() {
    let mut files = tiny();
    files[1].0 = format!("\u{1b}[2J\u{202e}{}.bin", "x".repeat(5000));
    let error = Bench::with(files).error("owner/tiny").to_string();
    harmless(&error);
    assert!(error.contains(r"only \u{1b}[2J\u{202e}xxx"), "{error}");

    for name in ["a\u{1b}[2J\u{202e}", &"x/".repeat(5000)] {
        let shard = format!("{name}/.safetensors");
        let bench = Bench::with(sharded([&shard, "b.safetensors"]));
        harmless(&bench.fetch("owner/tiny").unwrap_err().to_string());
    }
    let shard = "a\u{1b}[2J\u{202e}.safetensors";
    let bench = Bench::with(sharded([shard, "b.safetensors"]));
    harmless(&bench.fetch("owner/tiny").unwrap_err().to_string());
}

#[test]
fn headers_are_cut() {
    let long = "x".repeat(5000);
    for (request, answer) in [
        ("HEAD ", format!("200 OK\r\nETag: \"{long}\"")),
        (
            "HEAD ",
            format!(
                "200 OK\r\nETag: \"{}\"\r\nX-Linked-Size: {long}",
                "0".repeat(40)
            ),
        ),
        ("GET /api/", format!("302 Found\r\nLocation: x:{long}")),
        ("GET /api/", format!("200 {long}")),
    ] {
        let bench = Bench::new();
        bench.server.fault(request, Fault::Answer(answer), 1);
        let error = bench.error("owner/tiny").to_string();
        harmless(&error);
        assert!(!error.contains(&"x".repeat(201)), "{error}");
    }
}
