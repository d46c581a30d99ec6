//! Parts `kill` and `signals`: the program is ended at random moments, and its command is given again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Torture;
use super::compare::{Results, results};
use super::dice::Dice;
use super::inputs::words;
use super::judge::Fault;
use super::watch::{Finished, Invocation};

/// Commands that write a folder and take about a second.
const COMMANDS: [&str; 3] = [
    "eval --task induction,ioi --method sae,random,mean-difference,eap,hisp,k-means --seeds 3 --examples 8 --resamples 3 --steps 20 --output out",
    "discover --task ioi --examples 8 --method activation-patching --edges 4 --patch-pairs 4 --output out",
    "discover --task induction --examples 8 --method sae --steps 40 --output out",
];

/// One command, what it gives when nobody ends it, and how long it takes.
pub(crate) struct Whole {
    pub(crate) args: Vec<String>,
    results: Results,
    time: Duration,
}

/// Runs commands that write the folder `out`, which must succeed.
pub(crate) fn whole(torture: &Torture, lines: &[&str]) -> Result<Vec<Whole>> {
    let mut found = Vec::new();
    for line in lines {
        let place = tempfile::tempdir_in(torture.work.path())?;
        let args = words(line);
        let ended = Invocation::new(&torture.program, place.path(), &args).run()?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(
            ended.code == Some(0),
            "{line}: exit code {:?}: {said}",
            ended.code
        );
        found.push(Whole {
            args,
            results: results(&place.path().join("out"))?,
            time: ended.time,
        });
    }
    Ok(found)
}

/// SIGKILL at random moments, up to three times, then the same command to its end.
pub(crate) fn kill(torture: &mut Torture, tries: usize) -> Result<()> {
    end(torture, tries, "kill", &[libc::SIGKILL])
}

/// SIGINT or SIGTERM at random moments: the program ends within seconds, and goes on where it stopped.
pub(crate) fn signals(torture: &mut Torture, tries: usize) -> Result<()> {
    end(torture, tries, "signals", &[libc::SIGINT, libc::SIGTERM])
}

fn end(torture: &mut Torture, tries: usize, part: &str, signals: &[i32]) -> Result<()> {
    let whole = whole(torture, &COMMANDS)?;
    for index in 0..tries {
        let mut dice = Dice::new(torture.seed, part, index as u64);
        // Half of them evaluations, which have most to lose.
        let whole = &whole[if dice.one_in(2) {
            0
        } else {
            dice.below(whole.len())
        }];
        let place = tempfile::tempdir_in(torture.work.path())?;
        let name = format!("{part}-{index}");
        for _ in 0..=dice.below(3) {
            let signal = signals[dice.below(signals.len())];
            let after = whole.time.mul_f64(dice.share());
            let invocation = Invocation::new(&torture.program, place.path(), &whole.args)
                .with_signal(signal, after);
            let about = format!("signal {signal} after {:.3} s", after.as_secs_f64());
            torture.attempt(name.clone(), &invocation, &about, |ended| {
                let out = results(&place.path().join("out"))?;
                let mut faults = Vec::from_iter(unfinished(ended));
                faults.extend(out.broken());
                if ended.sent != Some(libc::SIGKILL) {
                    faults.extend(out.left());
                }
                Ok(faults)
            })?;
        }
        again(torture, name, whole, place.path())?;
    }
    Ok(())
}

/// The same command once more, to its end: its results are those of a run that nobody ended.
pub(crate) fn again(
    torture: &mut Torture,
    name: String,
    whole: &Whole,
    place: &Path,
) -> Result<()> {
    let invocation = Invocation::new(&torture.program, place, &whole.args);
    let about = "the same command after it was ended";
    torture.attempt(name, &invocation, about, |ended| {
        if ended.code != Some(0) {
            return Ok(vec![Fault::Lost(
                "the same command does not go on".to_owned(),
            )]);
        }
        let out = results(&place.join("out"))?;
        let fault = out.left().or_else(|| whole.results.differ(&out));
        Ok(Vec::from_iter(fault))
    })?;
    Ok(())
}

/// An exit code that is none of an interrupted command. Before the program has seen to signals they end it.
fn unfinished(ended: &Finished) -> Option<Fault> {
    let asked = matches!(ended.sent, Some(libc::SIGINT | libc::SIGTERM));
    let expected = matches!(ended.code, Some(0 | 130)) || ended.signal == ended.sent;
    (asked && !expected && !ended.hung).then(|| {
        Fault::Message(format!(
            "exit code {:?} after a signal, expected 130",
            ended.code
        ))
    })
}
