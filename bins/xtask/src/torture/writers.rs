//! Part `two-writers`: two evaluations into one new folder at once, with equal and with different settings.

use anyhow::Result;
use fs_err as fs;

use super::Torture;
use super::compare::{Results, results};
use super::dice::Dice;
use super::inputs::words;
use super::judge::{Fault, judge};
use super::tally::{Case, copy};
use super::watch::Invocation;

/// What both do, without `--examples`.
const EVAL: &str = "eval --task induction,ioi --method random,mean-difference,k-means --seeds 2 --resamples 3 --output out";

/// Runs `tries` pairs of commands.
pub(crate) fn run(torture: &mut Torture, tries: usize) -> Result<()> {
    let command = |examples: usize| words(&format!("{EVAL} --examples {examples}"));
    let alone = |examples: usize| -> Result<Results> {
        let place = tempfile::tempdir_in(torture.work.path())?;
        Invocation::new(&torture.program, place.path(), &command(examples)).run()?;
        results(&place.path().join("out"))
    };
    let expected = [(6, alone(6)?), (8, alone(8)?)];
    for index in 0..tries {
        let mut dice = Dice::new(torture.seed, "two-writers", index as u64);
        let same = dice.one_in(3);
        let place = tempfile::tempdir_in(torture.work.path())?;
        if dice.one_in(2) {
            fs::create_dir(place.path().join("out"))?;
        }
        let examples = [6, if same { 6 } else { 8 }];
        let invocations =
            examples.map(|n| Invocation::new(&torture.program, place.path(), &command(n)));
        let running = [invocations[0].start()?, invocations[1].start()?];
        let mut ended = Vec::new();
        for running in running {
            ended.push(running.wait()?);
        }
        let found = results(&place.path().join("out"))?;
        let mut mixed = found.broken().or_else(|| found.left());
        let done: Vec<usize> = (0..2).filter(|i| ended[*i].code == Some(0)).collect();
        if mixed.is_none() {
            // The folder is what one of them makes alone.
            let runs = found.within("runs");
            let of = expected
                .iter()
                .find(|(_, alone)| alone.within("runs") == runs);
            mixed = match (done.as_slice(), of) {
                ([], _) => Some(Fault::Lost("neither writer succeeds".to_owned())),
                (_, None) => Some(Fault::Lost("runs of two settings in one folder".to_owned())),
                ([one], Some((of, _))) if *of != examples[*one] => Some(Fault::Lost(
                    "the results of another command than the one that succeeds".to_owned(),
                )),
                (_, Some((_, alone))) => alone.differ(&found),
            };
        }
        for (i, (invocation, ended)) in invocations.iter().zip(&ended).enumerate() {
            let mut faults = judge(ended, false);
            if i == 0 {
                faults.extend(mixed.take());
            }
            let case = Case {
                name: format!("two-writers-{index}"),
                invocation,
                ended,
                faults,
                about: format!(
                    "at the same time: circuitscope {}; input is the folder afterwards",
                    invocations[1 - i].args.join(" ")
                ),
            };
            torture
                .tally
                .count(&case, |folder| copy(place.path(), folder))?;
        }
    }
    Ok(())
}
