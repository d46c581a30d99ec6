//! What several commands read and check.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anamnesis::resolve_ollama_model;
use anyhow::{Context as _, Result, anyhow, bail};
use circuitscope::files::{self, Pending};
use circuitscope::model::{LoadSettings, Loaded, is_gguf, load_dir, load_gguf, read_config};
use circuitscope::tasks;
use circuitscope::{CaptureSettings, CircuitChoice, conformance, load_reference, read_circuits};
use circuitscope::{Progress, did_you_mean, nearest};

use crate::args::{MODEL_VARIABLE, ModelArgs, REFERENCE};
use crate::device::{B, Device, quietly};
use crate::memory;
use crate::output::note;

/// What stands before the name of a model that Ollama keeps.
pub(crate) const OLLAMA: &str = "ollama:";

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
    if args.model == REFERENCE {
        return Ok(load_reference(settings, device.plain())?);
    }
    if args.model.starts_with(OLLAMA) {
        let file = resolve_ollama_model(&args.model)
            .with_context(|| format!("--model {}: no model of Ollama's", args.model))?;
        let mut loaded = load_gguf(&file, settings, device.plain(), progress)?;
        loaded.provenance.name.clone_from(&args.model);
        return Ok(loaded);
    }
    let folder = Path::new(&args.model);
    if folder.is_dir() {
        if let Some(file) = only_gguf(folder)? {
            return Ok(load_gguf(&file, settings, device.plain(), progress)?);
        }
        return Ok(load_dir(folder, settings, device.plain(), progress)?);
    }
    if folder.is_file() {
        return file_model(folder, settings, device, progress);
    }
    #[cfg(feature = "hub")]
    let detail = match args.model.parse() {
        Ok(id) => {
            let snapshot = crate::hub::fetch(&id, progress)
                .with_context(|| format!("--model {id}: no such folder, so taken from the hub"))?;
            return Ok(snapshot.load(settings, device.plain(), progress)?);
        }
        Err(error) if args.model.contains(['/', '@']) => format!("; as a name of the hub, {error}"),
        Err::<circuitscope::model::hub::HubId, _>(_) => String::new(),
    };
    #[cfg(not(feature = "hub"))]
    let detail = if args.model.contains('/') {
        "; this program was built without the feature `hub`"
    } else {
        ""
    };
    let hint = did_you_mean(nearest(&args.model, [REFERENCE]));
    bail!(
        "--model {}: no such file or folder{hint}, expected `{REFERENCE}`, a folder with config.json and model.safetensors, a GGUF file, ollama:NAME, or owner/name[@revision] of the hub{detail}",
        args.model
    );
}

/// The only GGUF file of a folder that holds no model in another layout.
pub(crate) fn only_gguf(folder: &Path) -> Result<Option<PathBuf>> {
    if folder.join("config.json").exists() {
        return Ok(None);
    }
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "gguf")
        {
            files.push(path);
        }
    }
    files.sort();
    match files.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, ..] => bail!(
            "--model {}: found {} GGUF files, expected one; name it, as in --model {}",
            folder.display(),
            files.len(),
            first.display()
        ),
    }
}

/// A model in one file.
fn file_model(
    file: &Path,
    settings: LoadSettings,
    device: &Device,
    progress: &dyn Progress,
) -> Result<Loaded<B>> {
    if is_gguf(file) {
        return Ok(load_gguf(file, settings, device.plain(), progress)?);
    }
    bail!(
        "--model {}: found a file that is not GGUF, expected a GGUF file or the folder that a model lies in",
        file.display()
    );
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
