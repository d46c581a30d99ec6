//! Part `mutate`: broken files and settings. The program may take them or refuse them, in one line.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use fs_err as fs;

use super::Torture;
use super::dice::Dice;
use super::inputs::{self, Recipe, TINY, words};
use super::judge::{judge, judge_written};
use super::mutator::mutate;
use super::settings;
use super::swapped;
use super::tally::{Case, copy};
use super::watch::{Finished, Invocation};

/// Methods that take a moment; those that run a model of this size all do.
const METHODS: [&str; 14] = [
    "recommended",
    "sae",
    "sae-corrected",
    "recommended-activations",
    "mean-difference",
    "activation-patching",
    "eap",
    "eap-ig",
    "nap",
    "hisp",
    "acdc",
    "cd-t",
    "information-flow-routes",
    "linear-probe",
];

/// The kind that is no file.
const SETTINGS: &str = "settings";
/// The kind that is broken by where it lies.
const SWAPPED: &str = "swapped";

/// Runs `tries` broken inputs, as many of each kind; of `only` these kinds, if any are named.
pub(crate) fn run(torture: &mut Torture, tries: usize, only: &[String]) -> Result<()> {
    let folder = torture.work.path().join("inputs");
    let recipes = inputs::make(&torture.program, &folder)?;
    torture.tally.begin("valid");
    whole(torture, &recipes)?;
    torture.tally.end();
    torture.tally.begin("mutate");
    let kinds: BTreeSet<&str> = recipes
        .iter()
        .map(|recipe| recipe.kind)
        .chain([SETTINGS, SWAPPED])
        .collect();
    let mut kinds: Vec<&str> = kinds.into_iter().collect();
    if let Some(unknown) = only.iter().find(|kind| !kinds.contains(&kind.as_str())) {
        bail!("--kinds {unknown}: expected {}", kinds.join(", "));
    }
    kinds.retain(|kind| only.is_empty() || only.iter().any(|only| only == kind));
    for index in 0..tries {
        // The n-th try of a kind is the same, whichever others are asked for.
        let kind = kinds[index % kinds.len()];
        let index = index / kinds.len();
        if kind == SETTINGS {
            settings::run(torture, &folder.join("own"), index as u64)?;
            continue;
        }
        if kind == SWAPPED {
            swapped::run(torture, &folder.join("finished"), index as u64)?;
            continue;
        }
        let mut dice = Dice::new(torture.seed, &format!("mutate/{kind}"), index as u64);
        let of_kind: Vec<&Recipe> = recipes
            .iter()
            .filter(|recipe| recipe.kind == kind)
            .collect();
        let recipe = of_kind[dice.below(of_kind.len())];
        let whole = fs::read(recipe.template.join(&recipe.file))?;
        // A few stay whole, and meet settings that only they get to.
        let broken = if dice.one_in(6) {
            whole
        } else {
            mutate(&whole, recipe.form, &mut dice)
        };
        let extras = extras(recipe, &mut dice);
        attempt(torture, recipe, &broken, extras, &mut dice, index)?;
    }
    Ok(())
}

/// What is not broken must work, or nothing that follows means anything.
fn whole(torture: &mut Torture, recipes: &[Recipe]) -> Result<()> {
    for (index, recipe) in recipes.iter().enumerate() {
        let mut dice = Dice::new(torture.seed, "mutate/whole", index as u64);
        let bytes = fs::read(recipe.template.join(&recipe.file))?;
        let mut recipe = recipe.clone();
        if recipe.methods {
            // Other methods may refuse so few prompts.
            recipe.methods = false;
            recipe.args.extend(words("--method mean-difference"));
        }
        let ended = attempt(torture, &recipe, &bytes, Vec::new(), &mut dice, index)?;
        ensure!(
            ended.code == Some(0),
            "{} {}: exit code {:?} on a valid input: {}",
            recipe.template.display(),
            recipe.args.join(" "),
            ended.code,
            String::from_utf8_lossy(&ended.stderr)
        );
    }
    Ok(())
}

/// Settings that may be combined with the command, so that broken files meet all that is computed from them.
fn extras(recipe: &Recipe, dice: &mut Dice) -> Vec<String> {
    const METRICS: [&str; 5] = [
        "logit-difference",
        "probability-difference",
        "kl",
        "log-probability",
        "accuracy",
    ];
    const REFERENCES: [&str; 4] = ["zero", "mean", "position-mean", "resample"];
    const RULES: [&str; 5] = ["top:2", "softmax:0.1", "knee", "stability:0.5", "fdr:0.1"];
    let mut args = Vec::new();
    let mut maybe = |one_in: usize, option: &str, values: &[&str], dice: &mut Dice| {
        if dice.one_in(one_in) {
            args.extend([option.to_owned(), dice.pick(values).to_owned()]);
        }
    };
    if recipe.args.iter().any(|arg| arg == "--model") {
        maybe(4, "--dtype", &["f16", "bf16"], dice);
        maybe(3, "--processing", &["raw"], dice);
    }
    if recipe.methods {
        maybe(1, "--method", &METHODS, dice);
        maybe(4, "--metric", &METRICS, dice);
        maybe(4, "--reference", &REFERENCES, dice);
        maybe(4, "--select", &RULES, dice);
        maybe(4, "--faithfulness", &["all", "none"], dice);
        args.extend(words(TINY));
    }
    args
}

/// Runs one command on one file; how it ended.
fn attempt(
    torture: &mut Torture,
    recipe: &Recipe,
    bytes: &[u8],
    extras: Vec<String>,
    dice: &mut Dice,
    index: usize,
) -> Result<Finished> {
    let prepare = |folder: &Path| -> Result<()> {
        copy(&recipe.template, folder)?;
        fs::write(folder.join(&recipe.file), bytes)?;
        Ok(())
    };
    let place = tempfile::tempdir_in(torture.work.path())?;
    prepare(place.path())?;
    let mut args = recipe.args.clone();
    args.extend(extras);
    let json = dice.one_in(2);
    if json {
        args.extend(words("--format json"));
    }
    if dice.one_in(8) {
        args.push("-v".to_owned());
    }
    let invocation = Invocation::new(&torture.program, place.path(), &args);
    let ended = invocation.run()?;
    let mut faults = judge(&ended, json);
    if ended.code == Some(0) {
        // Of a folder that was there before, only what is written anew.
        let written: &[&str] = match recipe.kind {
            "folder" => &["out/results.json", "out/pictures"],
            _ => &["out", "out.safetensors"],
        };
        let written = written.iter().map(|name| place.path().join(name));
        let bad = written
            .filter(|path| path.exists())
            .flat_map(|path| judge_written(&path));
        faults.extend(bad.take(1));
    }
    let case = Case {
        name: format!("{}-{index}", recipe.kind),
        invocation: &invocation,
        ended: &ended,
        faults,
        about: format!("broken: {}", recipe.file),
    };
    torture.tally.count(&case, prepare)?;
    Ok(ended)
}
