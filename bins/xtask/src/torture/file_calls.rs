//! Part `file-calls`: SIGKILL at the calls to the system that make, write, move, lock and remove files, at each in a run
//! of its own; then the same command to its end.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use fs_err as fs;

use super::Torture;
use super::compare::results;
use super::kill::{again, whole};
use super::tally::tell;
use super::watch::Invocation;

/// Commands that write a folder, with as few files as show all that is written.
const COMMANDS: [&str; 2] = [
    "eval --task induction --method random,mean-difference --seeds 2 --examples 6 --resamples 3 --output out",
    "discover --task induction --examples 6 --method eap --output out",
];

/// What changes files, or makes others wait.
const CALLS: [&str; 17] = [
    "openat",
    "write",
    "pwrite64",
    "writev",
    "ftruncate",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "rmdir",
    "flock",
];

/// A tracer's command line; `more` says what it does.
fn tracer(more: &[&str]) -> Vec<String> {
    let fixed = ["strace", "-f", "-qq"];
    let line = fixed.iter().chain(more);
    line.map(|word| (*word).to_owned()).collect()
}

fn can_trace() -> bool {
    let line = tracer(&["-e", "trace=openat", "true"]);
    let (program, args) = (&line[0], &line[1..]);
    let mut command = Command::new(program);
    command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Ends each command at up to `tries` of its calls, evenly spread over them.
pub(crate) fn run(torture: &mut Torture, tries: usize) -> Result<()> {
    if !can_trace() {
        tell("file-calls: not tried, strace cannot trace a program here");
        return Ok(());
    }
    for (number, whole) in whole(torture, &COMMANDS)?.iter().enumerate() {
        let log = torture.work.path().join("calls");
        let place = tempfile::tempdir_in(torture.work.path())?;
        let mut invocation = Invocation::new(&torture.program, place.path(), &whole.args);
        let which = format!("trace={}", CALLS.join(","));
        let to = log.display().to_string();
        invocation.under = tracer(&["-o", &to, "-e", &which]);
        let ended = invocation.run()?;
        ensure!(ended.code == Some(0), "strace: exit code {:?}", ended.code);
        let calls = calls(&log)?;
        let step = (calls.len() / tries.max(1)).max(1);
        let mut died = 0;
        for (index, (call, nth)) in calls.iter().step_by(step).take(tries).enumerate() {
            let place = tempfile::tempdir_in(torture.work.path())?;
            let name = format!("file-calls-{number}-{index}");
            let mut invocation = Invocation::new(&torture.program, place.path(), &whole.args);
            let (which, how) = (
                format!("trace={call}"),
                format!("inject={call}:signal=SIGKILL:when={nth}"),
            );
            invocation.under = tracer(&["-o", "/dev/null", "-e", &which, "-e", &how]);
            // What a tracer reports is the death of what it traced.
            invocation.dies = true;
            let about = format!("SIGKILL at call {nth} of {call}");
            let ended = torture.attempt(name.clone(), &invocation, &about, |_| {
                Ok(Vec::from_iter(results(&place.path().join("out"))?.broken()))
            })?;
            died += usize::from(ended.sent.is_some());
            again(torture, name, whole, place.path())?;
        }
        // Threads share out a few calls anew in each run; a tracer that kills nobody shows nothing.
        let all = calls.len().min(tries);
        ensure!(2 * died >= all, "strace ended {died} of {all} commands");
    }
    Ok(())
}

/// The calls of a log, as the tracer counts them: in each thread anew, so that those of the busiest one are told.
fn calls(log: &Path) -> Result<Vec<(String, usize)>> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let text = fs::read_to_string(log)?;
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((call, _)) = rest.trim_start().split_once('(') else {
            continue;
        };
        if !CALLS.contains(&call) {
            continue;
        }
        let nth = counts.entry((thread, call)).or_default();
        *nth += 1;
        let of_any = (call.to_owned(), *nth);
        let reads = call == "openat" && rest.contains("O_RDONLY");
        if !reads && !found.contains(&of_any) {
            found.push(of_any);
        }
    }
    ensure!(!found.is_empty(), "strace: found no calls in its log");
    Ok(found)
}
