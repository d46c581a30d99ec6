//! What is wrong with how a command ended, and with what it wrote.

use std::path::Path;

use circuitscope_core::Seed;
use fs_err as fs;
use serde_json::Value;

use super::watch::{Finished, MEMORY};

/// What a program says that panicked.
const BUG: &str = "this is a bug in circuitscope";

/// Something that must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A panic, or death by a signal that nobody sent.
    Panic(String),
    /// No end within the time that it has.
    Hang(String),
    /// Too much memory, in bytes.
    Memory(u64),
    /// A result that is no number, though the command says that it succeeded.
    NotANumber(String),
    /// An exit code, a message or a character that users should not get.
    Message(String),
    /// Results that are lost, half-written, mixed or other than they should be.
    Lost(String),
}

impl Fault {
    /// What kind it is, in a word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Panic(_) => "panic",
            Self::Hang(_) => "hang",
            Self::Memory(_) => "memory",
            Self::NotANumber(_) => "nan",
            Self::Message(_) => "message",
            Self::Lost(_) => "lost",
        }
    }

    /// Kind and particulars.
    pub(crate) fn said(&self) -> String {
        let said = match self {
            Self::Memory(bytes) => format!("{} MB", bytes / 1_000_000),
            Self::Panic(said)
            | Self::Hang(said)
            | Self::NotANumber(said)
            | Self::Message(said)
            | Self::Lost(said) => said.clone(),
        };
        format!("{}: {}", self.kind(), shown(&said, 300))
    }

    /// The same for faults that are likely one and the same: the place of a panic, else the message without numbers,
    /// names and what is quoted.
    pub(crate) fn likeness(&self) -> String {
        let said = match self {
            Self::Memory(_) => String::new(),
            _ => self.said(),
        };
        if let (Self::Panic(_), Some((_, place))) = (self, said.rsplit_once(" at "))
            && place.contains(".rs:")
        {
            return format!("panic at {place}");
        }
        let mut plain = String::new();
        let mut quote = None;
        for letter in said.chars() {
            match quote {
                Some(end) if letter == end => quote = None,
                Some(_) => {}
                None if letter == '`' || letter == '"' => {
                    quote = Some(letter);
                    plain.push('…');
                }
                None if letter.is_ascii_digit() => {
                    if !plain.ends_with('#') {
                        plain.push('#');
                    }
                }
                None => plain.push(letter),
            }
        }
        format!("{} {}", self.kind(), shown(&plain, 90))
    }
}

/// Faults of how a command ended and of what it printed; `json` if it was asked for JSON.
pub(crate) fn judge(ended: &Finished, json: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    let stdout = String::from_utf8_lossy(&ended.stdout);
    let killed = ended.sent == Some(libc::SIGKILL);
    if ended.peak > MEMORY {
        faults.push(Fault::Memory(ended.peak));
    }
    if ended.hung {
        let after = ended
            .sent
            .map_or(String::new(), |sent| format!(", after signal {sent}"));
        faults.push(Fault::Hang(format!(
            "ended after {:.0} s{after}",
            ended.time.as_secs_f64()
        )));
    }
    let ours = ended.hung || ended.peak > MEMORY || killed;
    let bug = stderr.lines().find(|line| line.contains(BUG));
    match (bug, ended.signal, ended.code) {
        (Some(line), ..) => faults.push(Fault::Panic(line.to_owned())),
        (None, Some(signal), _) if !ours && ended.sent != Some(signal) => {
            let said = |line: &&str| !line.starts_with("note: run with");
            let last = stderr.lines().rfind(said).unwrap_or_default();
            faults.push(Fault::Panic(format!("died of signal {signal}: {last}")));
        }
        (None, _, Some(101)) => faults.push(Fault::Panic("exit code 101".to_owned())),
        _ => {}
    }
    let interrupted = ended.sent.is_some() && ended.code == Some(130);
    match ended.code {
        _ if interrupted || faults.iter().any(|fault| fault.kind() == "panic") => {}
        Some(1 | 2) => {
            let errors = stderr
                .lines()
                .filter(|line| line.starts_with("error"))
                .count();
            let what = match errors {
                0 => "no line of error",
                1 => "",
                _ => "several lines of error",
            };
            if !what.is_empty() {
                faults.push(Fault::Message(format!("{what}: {stderr}")));
            }
        }
        Some(0) | None => {}
        Some(code) => faults.push(Fault::Message(format!("exit code {code}"))),
    }
    for (name, text) in [("stdout", &stdout), ("stderr", &stderr)] {
        if let Some((at, letter)) = text.char_indices().find(|(_, letter)| controls(*letter)) {
            let line = text[..at].lines().next_back().unwrap_or_default();
            faults.push(Fault::Message(format!(
                "raw control character \"{:X}\" in {name} after {}",
                letter as u32,
                shown(line, 100)
            )));
        }
    }
    if ended.code == Some(0) {
        if json {
            faults.extend(judge_json("stdout", &ended.stdout));
        } else if let Some(word) = not_a_number(&stdout) {
            faults.push(Fault::NotANumber(format!("{word} in what is printed")));
        }
    }
    faults
}

/// Characters that change what a terminal shows, and that no text here needs.
fn controls(letter: char) -> bool {
    (letter.is_control() && letter != '\n' && letter != '\t')
        || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A word of a table that is no number; what is quoted, such as a prompt, may say so.
fn not_a_number(text: &str) -> Option<&str> {
    let unquoted = text.lines().flat_map(|line| line.split('`').step_by(2));
    let unquoted = unquoted.flat_map(|part| part.split('"').step_by(2));
    let words = unquoted.flat_map(|part| {
        part.split(|letter: char| letter.is_whitespace() || "(),:;%±[]".contains(letter))
    });
    let mut words = words.map(|word| word.trim_end_matches('.'));
    words.find(|word| {
        matches!(
            *word,
            "NaN" | "nan" | "-NaN" | "inf" | "-inf" | "+inf" | "Infinity" | "-Infinity"
        )
    })
}

/// Faults of files that a command wrote which says that it succeeded: all in `path`, or that file.
pub(crate) fn judge_written(path: &Path) -> Vec<Fault> {
    if path.is_dir() {
        let Ok(entries) = fs::read_dir(path) else {
            return Vec::new();
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        return paths.iter().flat_map(|path| judge_written(path)).collect();
    }
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if name.starts_with(".circuitscope-") {
        return vec![Fault::Lost(format!("temporary file left: {name}"))];
    }
    let Ok(bytes) = fs::read(path) else {
        return Vec::new();
    };
    let kind = path
        .extension()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    match kind.as_str() {
        "json" => judge_json(&name, &bytes),
        "safetensors" => judge_tensors(&name, &bytes),
        "svg" => {
            let text = String::from_utf8_lossy(&bytes);
            let bad = [
                "=\"NaN", "=\"inf", "=\"-inf", ">NaN<", ">inf<", "NaN,", ",NaN",
            ];
            let bad = bad.iter().find(|bad| text.contains(**bad));
            bad.map(|bad| Fault::NotANumber(format!("{bad} in a picture")))
                .into_iter()
                .collect()
        }
        _ => Vec::new(),
    }
}

fn judge_json(name: &str, bytes: &[u8]) -> Vec<Fault> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => {
            let mut bad = Vec::new();
            // In this form of another tool, heads alone have scores.
            if name != "importances.json" && name != "neuronpedia.json" {
                numbers(&value, "", false, &mut bad);
            }
            bad.into_iter()
                .take(1)
                .map(|bad| Fault::NotANumber(format!("{name}: {bad}")))
                .collect()
        }
        Err(_)
            if bytes
                .windows(3)
                .any(|part| part == b"NaN" || part == b"Inf") =>
        {
            vec![Fault::NotANumber(format!("{name}: bare NaN or Infinity"))]
        }
        Err(error) => vec![Fault::Lost(format!("{name}: not JSON: {error}"))],
    }
}

/// Names under which every value is a number.
const SCORES: [&str; 6] = ["nodes", "edges", "score", "scores", "signed", "node_auc"];
/// Names of shares, from 0 to 1.
const SHARES: [&str; 5] = ["node_auc", "edge_auc", "best_f1", "jaccard", "share"];

fn numbers(value: &Value, key: &str, score: bool, bad: &mut Vec<String>) {
    match value {
        Value::Null if score => bad.push(format!("null in {key}")),
        Value::Number(number) => {
            let share = SHARES.contains(&key);
            if share
                && !number
                    .as_f64()
                    .is_some_and(|number| (-1e-9..=1.0 + 1e-9).contains(&number))
            {
                bad.push(format!("{key} {number} is no share"));
            }
        }
        Value::Array(values) => {
            for value in values {
                numbers(value, key, score, bad);
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                // Provenance holds settings, where null stands for what was not asked.
                if key != "provenance" {
                    let score = (score && !value.is_object()) || SCORES.contains(&key.as_str());
                    numbers(value, key, score, bad);
                }
            }
        }
        _ => {}
    }
}

/// Numbers of type f32 that are none.
fn judge_tensors(name: &str, bytes: &[u8]) -> Vec<Fault> {
    let header = || {
        let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk::<8>()?)).ok()?;
        let rest = bytes.get(8..)?;
        let header: Value = serde_json::from_slice(rest.get(..length)?).ok()?;
        Some((header, rest.get(length..)?))
    };
    let Some((header, data)) = header() else {
        return vec![Fault::Lost(format!("{name}: no safetensors file"))];
    };
    let tensors = header.as_object().into_iter().flatten();
    for (tensor, about) in tensors.filter(|(_, about)| about["dtype"] == "F32") {
        let offset = |i: usize| Some(about["data_offsets"][i].as_u64()? as usize);
        let (Some(start), Some(end)) = (offset(0), offset(1)) else {
            continue;
        };
        let cells = data.get(start..end).unwrap_or_default().chunks_exact(4);
        let mut cells = cells.map(|cell| f32::from_le_bytes(cell.try_into().unwrap_or_default()));
        // Masked attention scores are minus infinity on purpose.
        let masked = tensor.ends_with("attn_scores");
        if cells.any(|number| number.is_nan() || (number.is_infinite() && !masked)) {
            return vec![Fault::NotANumber(format!(
                "`{tensor}` in a file of tensors"
            ))];
        }
    }
    Vec::new()
}

/// Text in one line without control characters, at most `longest` characters.
pub(crate) fn shown(text: &str, longest: usize) -> String {
    let plain = text.chars().map(|letter| {
        if controls(letter) || letter == '\n' {
            '·'
        } else {
            letter
        }
    });
    plain.take(longest).collect()
}

/// A short name for a fault, to keep it under.
pub(crate) fn digest(likeness: &str) -> String {
    format!("{:08x}", Seed::default().stream(likeness).value() >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::{Duration, Instant};

    use super::super::watch::Invocation;

    fn ended(script: &str, signal: Option<(i32, u64)>) -> Finished {
        let folder = tempfile::tempdir().unwrap();
        let args = ["-c".to_owned(), script.to_owned()];
        let mut invocation = Invocation::new("/bin/sh".as_ref(), folder.path(), &args);
        if let Some((signal, after)) = signal {
            invocation = invocation.with_signal(signal, Duration::from_millis(after));
        }
        invocation.run().unwrap()
    }

    fn kinds(script: &str) -> Vec<&'static str> {
        let faults = judge(&ended(script, None), false);
        faults.iter().map(Fault::kind).collect()
    }

    #[test]
    fn what_must_not_happen_is_found() {
        assert_eq!(
            kinds(
                "echo 'error: this is a bug in circuitscope, please report it: x at a.rs:1:2' >&2; exit 101"
            ),
            ["panic"]
        );
        assert_eq!(kinds("exit 101"), ["panic"]);
        assert_eq!(kinds("kill -ABRT $$"), ["panic"]);
        assert_eq!(kinds("echo 'L0H0  NaN'"), ["nan"]);
        assert_eq!(kinds("echo '0.5 (-inf to 1.0)'"), ["nan"]);
        assert_eq!(
            kinds("echo error: a >&2; echo error: b >&2; exit 1"),
            ["message"]
        );
        assert_eq!(kinds("exit 1"), ["message"]);
        assert_eq!(kinds("exit 7"), ["message"]);
        assert_eq!(kinds("printf 'a\\033[2J'"), ["message"]);
        assert_eq!(kinds("printf '\\342\\200\\256'"), ["message"]);
    }

    #[test]
    fn what_may_happen_is_not() {
        assert!(kinds("echo 'first prompt: `NaN` informs'; echo note: x >&2").is_empty());
        assert!(kinds("echo 'error: no' >&2; exit 1").is_empty());
        assert!(kinds("printf 'error: no\n\nUsage: x\n' >&2; exit 2").is_empty());
    }

    #[test]
    fn who_does_not_stop_is_killed() {
        let stubborn = "trap '' INT; while :; do sleep 0.1; done";
        let before = Instant::now();
        let faults = judge(&ended(stubborn, Some((libc::SIGINT, 50))), false);
        assert_eq!(faults.iter().map(Fault::kind).collect::<Vec<_>>(), ["hang"]);
        assert!(before.elapsed() < Duration::from_secs(30));
        let stops = "trap 'exit 130' INT; while :; do sleep 0.1; done";
        assert_eq!(judge(&ended(stops, Some((libc::SIGINT, 300))), false), []);
    }

    #[test]
    fn json_that_is_no_number_is_found() {
        let kinds = |text: &str| {
            judge_json("x.json", text.as_bytes())
                .iter()
                .map(Fault::kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(r#"{"score": NaN}"#), ["nan"]);
        assert_eq!(kinds(r#"{"heads": [{"score": null}]}"#), ["nan"]);
        assert_eq!(kinds(r#"{"scores": {"nodes": [1.0, null]}}"#), ["nan"]);
        assert_eq!(kinds(r#"{"node_auc": 7.5}"#), ["nan"]);
        assert_eq!(kinds(r#"{"node_auc": 0.5"#), ["lost"]);
        assert!(
            kinds(r#"{"paper_edge_auc": null, "node_auc": 1, "provenance": {"scores": null}}"#)
                .is_empty()
        );
    }

    #[test]
    fn tensors_that_are_no_numbers_are_found() {
        let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let file = |number: f32| {
            let length = (header.len() as u64).to_le_bytes();
            [&length[..], header, &number.to_le_bytes()].concat()
        };
        assert_eq!(judge_tensors("w", &file(f32::NAN)).len(), 1);
        assert!(judge_tensors("w", &file(1.0)).is_empty());
    }

    #[test]
    fn like_faults_are_one() {
        let panic = |said: &str| Fault::Panic(format!("{said} at a/b.rs:90:5")).likeness();
        assert_eq!(panic("x"), panic("y at z"));
        let message = |said: &str| Fault::Message(said.to_owned()).likeness();
        assert_eq!(message("3 lines of `a`"), message("12 lines of `b`"));
    }
}
