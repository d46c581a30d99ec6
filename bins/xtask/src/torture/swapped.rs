//! Finished runs under the names of others, or twice: the program refuses them or makes them anew, and never counts one for
//! another.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::Torture;
use super::compare::counted;
use super::dice::Dice;
use super::inputs::{EVAL, words};
use super::judge::{Fault, judge};
use super::tally::{Case, copy};
use super::watch::Invocation;

/// One finished evaluation, in the folder `out` of `template`, with a run that is not what its name says.
pub(crate) fn run(torture: &mut Torture, template: &Path, index: u64) -> Result<()> {
    let mut dice = Dice::new(torture.seed, "mutate/swapped", index);
    let mut runs: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(template.join("out/runs"))? {
        runs.push(Path::new("out/runs").join(entry?.file_name()));
    }
    runs.sort();
    let from = runs.remove(dice.below(runs.len()));
    let to = if dice.one_in(3) {
        from.with_file_name(format!(
            "copy of {}",
            from.file_name().unwrap_or_default().display()
        ))
    } else {
        runs.remove(dice.below(runs.len()))
    };
    let prepare = |folder: &Path| -> Result<()> {
        copy(template, folder)?;
        fs::copy(folder.join(&from), folder.join(&to))?;
        Ok(())
    };
    let place = tempfile::tempdir_in(torture.work.path())?;
    prepare(place.path())?;
    let line = if dice.one_in(2) {
        "report out".to_owned()
    } else {
        format!("{EVAL} --output out")
    };
    let invocation = Invocation::new(&torture.program, place.path(), &words(&line));
    let ended = invocation.run()?;
    let mut faults = judge(&ended, false);
    if ended.code == Some(0) && faults.is_empty() {
        let whole = counted(&template.join("out"))?;
        let mut rest = whole.clone();
        for run in counted(&place.path().join("out"))? {
            match rest.iter().position(|whole| *whole == run) {
                Some(at) => drop(rest.remove(at)),
                None => faults.push(Fault::Lost("a run counts for another, or twice".to_owned())),
            }
        }
        // `report` may leave out what it does not trust.
        if line != "report out" && !rest.is_empty() {
            faults.push(Fault::Lost("a run is missing".to_owned()));
        }
        faults.truncate(1);
    }
    let case = Case {
        name: format!("swapped-{index}"),
        invocation: &invocation,
        ended: &ended,
        faults,
        about: format!("{} is a copy of {}", to.display(), from.display()),
    };
    torture.tally.count(&case, prepare)
}
