//! Part `full-disk`: nothing more can be written. The command fails, and what was there before stays.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use fs_err as fs;

use super::Torture;
use super::compare::results;
use super::dice::Dice;
use super::inputs::{must, words};
use super::judge::{Fault, judge};
use super::tally::{Case, copy, tell};
use super::watch::Invocation;

/// What makes each file or folder, and what is run to write it anew where there is no room.
const COMMANDS: [(&str, &str); 6] = [
    (
        "eval --task induction --method sae,random,mean-difference --seeds 1 --examples 6 --resamples 3 --steps 5 --output out",
        "eval --task induction --method sae,random,mean-difference --seeds 6 --examples 6 --resamples 3 --steps 5 --output out",
    ),
    (
        "discover --task induction --examples 6 --method eap --output out",
        "discover --task induction --examples 7 --method eap --output out",
    ),
    (
        "discover --task induction --examples 6 --method mean-difference --save-activations out.safetensors",
        "discover --task induction --examples 7 --method mean-difference --save-activations out.safetensors",
    ),
    (
        "capture --task induction --examples 2 --sites logits --output out.safetensors",
        "capture --task induction --examples 3 --sites logits --output out.safetensors",
    ),
    (
        "train --activations heads.safetensors --codes 6 --steps 3 --train-examples 4 --output out",
        "train --activations heads.safetensors --codes 7 --steps 3 --train-examples 4 --output out",
    ),
    (
        "encode --sae sae --activations heads.safetensors --output out.safetensors",
        "encode --sae sae --activations heads.safetensors --output out.safetensors",
    ),
];

/// A small file system, taken down at the end.
#[derive(Debug)]
struct Small(PathBuf);

impl Small {
    /// Mounted at `folder` where that is allowed.
    fn mount(folder: &Path) -> Option<Self> {
        let small = Self(folder.to_owned());
        small
            .call("mount", &["-t", "tmpfs", "-o", "size=64m", "none"])
            .then_some(small)
    }

    /// Makes it as large as what it holds and `more` bytes; or large.
    fn resize(&self, more: Option<u64>) -> bool {
        let size = more.map_or(64 << 20, |more| used(&self.0) + more);
        self.call("mount", &["-o", &format!("remount,size={size}")])
    }

    fn call(&self, program: &str, args: &[&str]) -> bool {
        let status = Command::new(program)
            .args(args)
            .arg(&self.0)
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if !self.call("umount", &[]) {
            tell(&format!("cannot unmount {}", self.0.display()));
        }
    }
}

/// Bytes that a folder takes in whole pages.
fn used(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => used(&entry.path()),
        Ok(about) => about.len().div_ceil(4096) * 4096,
        Err(_) => 0,
    });
    sizes.sum()
}

/// Runs `tries` commands with too little room, and commands whose output nobody can take.
pub(crate) fn run(torture: &mut Torture, tries: usize) -> Result<()> {
    let inputs = tempfile::tempdir_in(torture.work.path())?;
    must(
        &torture.program,
        inputs.path(),
        "discover --task induction --examples 4 --method mean-difference --save-activations heads.safetensors -q",
    )?;
    must(
        &torture.program,
        inputs.path(),
        "train --activations heads.safetensors --output sae --codes 6 --steps 3 --train-examples 4 -q",
    )?;
    let mount = tempfile::tempdir_in(torture.work.path())?;
    let small = Small::mount(mount.path());
    if small.is_none() {
        tell("full-disk: no file system can be mounted here; files are limited in size instead");
    }
    for index in 0..tries {
        let mut dice = Dice::new(torture.seed, "full-disk", index as u64);
        let (before, after) = COMMANDS[dice.below(COMMANDS.len())];
        let small = small.as_ref().filter(|_| !dice.one_in(3));
        let place = tempfile::tempdir_in(small.map_or(torture.work.path(), |small| &small.0))?;
        copy(inputs.path(), place.path())?;
        must(&torture.program, place.path(), before)?;
        let old = results(place.path())?;
        let mut invocation = Invocation::new(&torture.program, place.path(), &words(after));
        let about = if let Some(small) = small {
            let more = 4096 * dice.below(6) as u64;
            ensure!(
                small.resize(Some(more)),
                "cannot make {} smaller",
                small.0.display()
            );
            format!(
                "{more} bytes left on the disk; input is the folder afterwards, made by {before}"
            )
        } else {
            // Room for what is said, but not for a file of results.
            let blocks = 8 + dice.below(16) as u64;
            invocation.blocks = Some(blocks);
            format!(
                "no file over {blocks} blocks of 512 bytes; input is the folder afterwards, made by {before}"
            )
        };
        let ended = invocation.run()?;
        let now = results(place.path())?;
        let mut faults = judge(&ended, false);
        faults.extend(now.broken().or_else(|| now.left()));
        // A single file is the old one or the new one; a folder may be renewed in part.
        if ended.code == Some(1) && after.ends_with(".safetensors") {
            faults.extend(old.differ(&now));
        }
        if let Some(small) = small {
            small.resize(None);
        }
        let case = Case {
            name: format!("full-disk-{index}"),
            invocation: &invocation,
            ended: &ended,
            faults,
            about,
        };
        torture
            .tally
            .count(&case, |folder| copy(place.path(), folder))?;
        // With room again, the same command goes on.
        let again = Invocation::new(&torture.program, place.path(), &words(after));
        let name = format!("full-disk-{index}-again");
        torture.attempt(name, &again, "with room again", |ended| {
            let lost = (ended.code != Some(0))
                .then(|| Fault::Lost("the same command fails with room again".to_owned()));
            Ok(Vec::from_iter(lost))
        })?;
    }
    outputs(torture, inputs.path())
}

/// Commands whose stdout or stderr is a full disk.
fn outputs(torture: &mut Torture, inputs: &Path) -> Result<()> {
    let full = PathBuf::from("/dev/full");
    if !full.exists() {
        return Ok(());
    }
    let lines = [
        "--help",
        "discover --task induction --examples 4 --method mean-difference",
        "discover --task induction --examples 4 --method mean-difference --format json",
        "discover --task induction --examples 4 --method mean-difference -vv",
        "discover --task nothing",
        "discover --pairs nothing.jsonl",
        "encode --sae sae --activations heads.safetensors --output out.safetensors",
        "eval --task induction --method random --seeds 1 --examples 4 --resamples 2 --output out -v",
        "report out",
        "doctor --device cpu",
    ];
    for (index, line) in lines.into_iter().enumerate() {
        for on_stderr in [false, true] {
            let mut invocation = Invocation::new(&torture.program, inputs, &words(line));
            if on_stderr {
                invocation.stderr = Some(full.clone());
            } else {
                invocation.stdout = Some(full.clone());
            }
            let ended = invocation.run()?;
            let mut faults = judge(&ended, false);
            if on_stderr {
                // What it would have said of its errors is nowhere.
                faults.retain(|fault| fault.kind() != "message");
            } else if ended.code == Some(0) {
                faults.push(Fault::Lost(format!(
                    "exit code 0, though nothing could be printed: {line}"
                )));
            }
            let case = Case {
                name: format!("full-output-{index}"),
                invocation: &invocation,
                ended: &ended,
                faults,
                about: String::new(),
            };
            torture.tally.count(&case, |_| Ok(()))?;
        }
    }
    Ok(())
}
