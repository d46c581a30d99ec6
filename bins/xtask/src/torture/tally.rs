//! Counts how tries ended, keeps those that failed, and prints the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use fs_err as fs;

use super::judge::{Fault, digest};
use super::watch::{Finished, Invocation};

/// How often progress is said.
const EVERY: Duration = Duration::from_secs(5);
/// Cases that are kept of faults that are alike.
const KEPT: usize = 2;

/// How many tries of a part ended how.
#[derive(Debug, Default)]
struct Counts {
    tries: usize,
    done: usize,
    refused: usize,
    stopped: usize,
    faults: BTreeMap<&'static str, usize>,
    time: Duration,
}

/// Faults that are alike.
#[derive(Debug)]
struct Likes {
    count: usize,
    said: String,
    first: String,
}

/// All that was found.
#[derive(Debug)]
pub(crate) struct Tally {
    keep: PathBuf,
    parts: Vec<(String, Counts)>,
    found: BTreeMap<String, Likes>,
    said: Instant,
    began: Instant,
}

/// One try: what ran and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) name: String,
    pub(crate) invocation: &'a Invocation,
    pub(crate) ended: &'a Finished,
    pub(crate) faults: Vec<Fault>,
    /// What to know besides the command line, such as when it was killed.
    pub(crate) about: String,
}

impl Tally {
    pub(crate) fn new(keep: &Path) -> Self {
        Self {
            keep: keep.to_owned(),
            parts: Vec::new(),
            found: BTreeMap::new(),
            said: Instant::now(),
            began: Instant::now(),
        }
    }

    /// From now on tries count for this part.
    pub(crate) fn begin(&mut self, part: &str) {
        self.parts.push((part.to_owned(), Counts::default()));
        self.began = Instant::now();
    }

    /// The part is over.
    pub(crate) fn end(&mut self) {
        let time = self.began.elapsed();
        if let Some((_, counts)) = self.parts.last_mut() {
            counts.time = time;
        }
    }

    /// Counts a try, and keeps it if something is wrong with it: `input` writes into a folder what the command
    /// reads.
    pub(crate) fn count(
        &mut self,
        case: &Case<'_>,
        input: impl Fn(&Path) -> Result<()>,
    ) -> Result<()> {
        let Some((part, counts)) = self.parts.last_mut() else {
            return Ok(());
        };
        counts.tries += 1;
        match case.ended.code {
            Some(0) => counts.done += 1,
            Some(1 | 2) => counts.refused += 1,
            _ if case.ended.sent.is_some() => counts.stopped += 1,
            _ => {}
        }
        for fault in &case.faults {
            *counts.faults.entry(fault.kind()).or_default() += 1;
        }
        if self.said.elapsed() > EVERY {
            self.said = Instant::now();
            let (tries, faults) = (counts.tries, counts.faults.values().sum::<usize>());
            tell(&format!(
                "{part}: {tries} tries, {faults} faults, {:.0} s",
                self.began.elapsed().as_secs_f64()
            ));
        }
        for fault in &case.faults {
            let likeness = fault.likeness();
            let name = format!("{}-{}-{}", fault.kind(), digest(&likeness), case.name);
            let likes = self.found.entry(likeness).or_insert_with(|| Likes {
                count: 0,
                said: fault.said(),
                first: name.clone(),
            });
            likes.count += 1;
            if likes.count == 1 {
                tell(&format!("{}: {}", case.name, fault.said()));
            }
            if likes.count <= KEPT {
                keep(&self.keep.join(name), case, fault, &input)?;
            }
        }
        Ok(())
    }

    /// The table and the list of faults; nothing is wrong if that is empty.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "part         tries  exit 0  refused  stopped  panics  hangs  memory  NaN  messages  lost  seconds\n",
        );
        for (part, counts) in &self.parts {
            let fault = |kind: &str| counts.faults.get(kind).copied().unwrap_or(0);
            writeln!(
                text,
                "{part:<12} {:>5} {:>7} {:>8} {:>8} {:>7} {:>6} {:>7} {:>4} {:>9} {:>5} {:>8.0}",
                counts.tries,
                counts.done,
                counts.refused,
                counts.stopped,
                fault("panic"),
                fault("hang"),
                fault("memory"),
                fault("nan"),
                fault("message"),
                fault("lost"),
                counts.time.as_secs_f64(),
            )
            .ok();
        }
        if !self.found.is_empty() {
            writeln!(
                text,
                "\nfaults, those that are alike as one; cases in {}",
                self.keep.display()
            )
            .ok();
        }
        for likes in self.found.values() {
            writeln!(
                text,
                "{:>5}  {}\n       first: {}",
                likes.count, likes.said, likes.first
            )
            .ok();
        }
        text
    }

    /// Whether anything is wrong.
    pub(crate) fn failed(&self) -> bool {
        !self.found.is_empty()
    }
}

/// Keeps what a command read, its command line and what it said, with a line how to run it again.
fn keep(
    folder: &Path,
    case: &Case<'_>,
    fault: &Fault,
    input: impl Fn(&Path) -> Result<()>,
) -> Result<()> {
    let place = folder.join("input");
    fs::create_dir_all(&place)?;
    input(&place)?;
    let args: Vec<String> = case.invocation.args.iter().map(|arg| quoted(arg)).collect();
    let limit = case.invocation.blocks.map_or(String::new(), |blocks| {
        format!("trap '' XFSZ; ulimit -f {blocks}; ")
    });
    let mut line = format!("(cd input && {limit}circuitscope {})", args.join(" "));
    for (sink, to) in [
        (">", &case.invocation.stdout),
        ("2>", &case.invocation.stderr),
    ] {
        if let Some(to) = to {
            write!(line, " {sink}{}", to.display())?;
        }
    }
    let code = match (case.ended.code, case.ended.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    };
    let readme = format!("{line}\n-> {}; {code}\n{}\n", fault.said(), case.about);
    fs::write(folder.join("README"), readme)?;
    fs::write(folder.join("stdout"), &case.ended.stdout)?;
    fs::write(folder.join("stderr"), &case.ended.stderr)?;
    Ok(())
}

/// An argument as a shell takes it.
fn quoted(arg: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=,:".contains(letter);
    if !arg.is_empty() && arg.chars().all(plain) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let new = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &new)?;
        } else {
            fs::copy(entry.path(), new)?;
        }
    }
    Ok(())
}

/// Tells what goes on.
#[expect(clippy::print_stderr, reason = "progress goes to stderr")]
pub(crate) fn tell(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_for_a_shell() {
        assert_eq!(quoted("--top=3"), "--top=3");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
