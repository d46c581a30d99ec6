//! What several commands read and check.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use circuitscope::Progress;
use circuitscope::files::{self, Pending};
use circuitscope::model::{Loaded, read_config};
use circuitscope::tasks;
use circuitscope::{CaptureSettings, CircuitChoice, ModelSource, conformance, read_circuits};

use crate::args::{MODEL_VARIABLE, ModelArgs};
use crate::device::{B, Device, quietly};
use crate::memory;
use crate::output::note;

/// Loads the model that `--model` names.
pub(crate) fn load_model(
    args: &ModelArgs,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Loaded<B>> {
    memory::return_freed();
    let loaded = named_model(args, device, progress);
    memory::keep_freed();
    let loaded = if args.is_from_environment() {
        loaded.with_context(|| format!("{MODEL_VARIABLE}, as --model is not given"))?
    } else {
        loaded?
    };
    for file in &loaded.provenance.files {
        files::protect(&Path::new(&args.model).join(&file.name));
    }
    files::protect(Path::new(&args.model));
    for assumed in &loaded.provenance.notes {
        note(&format!("note: {}: {assumed}", loaded.provenance.name));
    }
    if !args.trust_device {
        // A driver that fails does so by panicking inside burn.
        let checked = quietly(|| conformance::require::<B>(device.plain(), &loaded.model));
        checked.and_then(|checked| Ok(checked?)).with_context(|| {
            format!(
                "{device} computes wrongly; see `circuitscope doctor --device {}`, or go on all the \
                 same with --trust-device",
                device.name
            )
        })?;
    }
    Ok(loaded)
}

fn named_model(args: &ModelArgs, device: &Device, progress: &dyn Progress) -> Result<Loaded<B>> {
    let settings = args.load_settings().with_exec(device.exec());
    let source = ModelSource::named(&args.model).map_err(|error| anyhow!("--model {error}"))?;
    #[cfg(feature = "hub")]
    if let ModelSource::Hub(id) = &source {
        let snapshot = crate::hub::fetch(id, progress)
            .with_context(|| format!("--model {id}: no such folder, so taken from the hub"))?;
        return Ok(snapshot.load(settings, device.plain(), progress)?);
    }
    Ok(source.load(settings, device.plain(), progress)?)
}

/// Fails where a circuit in a file cannot be one of the model that `--model` names, as far as its config.json tells:
/// before weights are read, which takes time. Of what else is wrong with the model, loading it says more.
pub(crate) fn check_circuit(
    args: &ModelArgs,
    circuit: Option<&CircuitChoice>,
    task: &str,
) -> Result<()> {
    if let Some(CircuitChoice::File(file)) = circuit
        && let Ok(config) = read_config(Path::new(&args.model))
    {
        read_circuits(file, task, &config.graph())?;
    }
    Ok(())
}

/// How prompts are captured on a device.
pub(crate) fn capture_settings(args: &ModelArgs, device: &Device) -> CaptureSettings {
    CaptureSettings::default()
        .with_max_batch_tokens(args.max_batch_tokens.map(|tokens| tokens as usize))
        .with_memory(device.free_memory())
}

/// The prompts of a text file, one a line.
pub(crate) fn read_prompts(path: &Path) -> Result<Vec<String>> {
    let prompts = tasks::read_prompts(path)?;
    if prompts.is_empty() {
        bail!("{}: found no prompt, expected one a line", path.display());
    }
    Ok(prompts)
}

/// A prompt by its number, from 1.
pub(crate) fn prompt(at: usize) -> String {
    format!("prompt {}", at + 1)
}

/// Token ids of prompts; `place` says in errors where a prompt stands.
pub(crate) fn encode(
    model: &Loaded<B>,
    texts: &[String],
    bos: bool,
    place: impl Fn(usize) -> String,
) -> Result<Vec<Vec<u32>>> {
    let tokenizer = model.tokenizer()?;
    texts
        .iter()
        .enumerate()
        .map(|(at, text)| tokenizer.encode(text, bos).with_context(|| place(at)))
        .collect()
}

/// Makes sure, before long work starts, that results can be written into the folder `--output`. A folder that
/// does not exist yet does not exist afterwards either: work that fails leaves nothing behind.
pub(crate) fn writable_folder(folder: &Path) -> Result<()> {
    writable(folder, folder).map_err(|reason| refused("--output", folder, &reason))
}

/// Fails where a folder holds files by names of this command's results that something else made: nothing is
/// overwritten that is not a result of the same command. `own` is what this command leaves in each of its folders.
pub(crate) fn own_folder(folder: &Path, own: &str, results: &[&str]) -> Result<()> {
    if folder.join(own).exists() {
        return Ok(());
    }
    if let Some(found) = results.iter().find(|name| folder.join(name).exists()) {
        bail!(
            "--output {}: found {found} and no {own} of this command, expected a new folder, or one that it wrote",
            folder.display()
        );
    }
    Ok(())
}

/// The same for the file that `flag` names, which is no input, either.
pub(crate) fn writable_file(flag: &str, file: &Path) -> Result<()> {
    files::check_output(file).map_err(|error| anyhow!("{flag} {}: {error}", file.display()))?;
    let outcome = writable(files::folder_of(file), file);
    outcome.map_err(|reason| refused(flag, file, &reason))
}

fn refused(flag: &str, output: &Path, reason: &str) -> anyhow::Error {
    anyhow!("{flag} {}: cannot write here: {reason}", output.display())
}

/// `output` is what the user named.
fn writable(folder: &Path, output: &Path) -> Result<(), String> {
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    let outcome = fs_err::create_dir_all(folder)
        // A folder above the one that was asked for is named, too.
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists if folder == output => {
                "found a file, expected a folder or nothing".to_owned()
            }
            kind if folder == output => kind.to_string(),
            _ => error.to_string(),
        })
        // A temporary file under a name of its own: others may look at the same moment.
        .and_then(|()| {
            let probe = Pending::new(&folder.join("probe"));
            probe.map(drop).map_err(|error| match error.io_kind() {
                Some(kind) => kind.to_string(),
                None => error.to_string(),
            })
        });
    for folder in missing {
        // It may hold something by now, or never have come to be.
        fs_err::remove_dir(folder).ok();
    }
    outcome
}
