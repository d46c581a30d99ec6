//! Making a plan: what its names stand for, by content.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use circuitscope::eval::About;
use circuitscope::eval::methods::parse_list;
use circuitscope::files;
use circuitscope::model::LoadSettings;
use circuitscope::tasks::TaskSpec;
use circuitscope::{ModelSource, Progress, REFERENCE, load_reference};
use circuitscope_sweep::{Plan, PlanFile, PlannedMethod, PlannedModel, PlannedTask};
use serde_json::json;

use super::{open, options, program};
use crate::args::{TaskArg, parse_task};
use crate::device::{B, DeviceName};
use crate::output::{Printer, count, table};
use crate::provenance;

/// Endings of the files of a model in a folder that what it computes may depend on.
const MODEL_FILES: [&str; 8] = [
    "json",
    "safetensors",
    "bin",
    "pth",
    "pt",
    "model",
    "txt",
    "jinja",
];

pub(super) fn run(path: &Path, printer: Printer, progress: &dyn Progress) -> Result<()> {
    let file = PlanFile::read(path)?;
    let plan = make(&file, progress)?;
    let store = open(&file, true)?;
    plan.write(&store)?;
    let done = circuitscope_sweep::done(&store, &plan)?;
    let is_done = |key: &str| done.iter().any(|cell| cell.key == key);
    let value = json!({
        "plan": store.address("plan.json"),
        "cells": plan.cells.iter().enumerate().map(|(number, cell)| {
            json!({
                "number": number,
                "key": cell.key,
                "settings": cell.settings,
                "model": cell.model,
                "task": cell.task,
                "method": cell.method,
                "seed": cell.seed,
                "done": is_done(&cell.key),
            })
        }).collect::<Vec<_>>(),
    });
    printer.print(&value, || {
        let rows: Vec<Vec<String>> = plan
            .cells
            .iter()
            .enumerate()
            .map(|(number, cell)| {
                vec![
                    number.to_string(),
                    cell.key[..12].to_owned(),
                    cell.settings.clone(),
                    cell.model.clone(),
                    cell.task.clone(),
                    cell.method.clone(),
                    cell.seed.to_string(),
                    if is_done(&cell.key) { "done" } else { "open" }.to_owned(),
                ]
            })
            .collect();
        let header = [
            "cell", "key", "settings", "model", "task", "method", "seed", "state",
        ];
        format!(
            "{}\n{} ({} done) in {}; run them with `circuitscope sweep run {}`\n",
            table(&header, &rows),
            count(plan.cells.len(), "cell"),
            done.len(),
            store.location(),
            path.display()
        )
    })
}

/// The device of a plan.
pub(super) fn device(file: &PlanFile) -> Result<DeviceName> {
    let device: Result<DeviceName, String> = file.device.parse();
    device.map_err(|said| {
        anyhow!(
            "{}: device: found {:?}: {said}",
            file.path.display(),
            file.device
        )
    })
}

/// The plan of a file, with everything in it known by its content.
pub(super) fn make(file: &PlanFile, progress: &dyn Progress) -> Result<Plan> {
    device(file)?;
    let mut settings = BTreeMap::new();
    for (set, given) in &file.settings {
        settings.insert(set.clone(), options::effective(file, set, given)?);
    }
    let methods = methods(file)?.into_iter().map(|about| PlannedMethod {
        name: about.name.clone().into_owned(),
        uses_seed: about.uses_seed,
    });
    let methods = methods.collect();
    let mut tasks = Vec::new();
    for (at, given) in file.tasks.iter().enumerate() {
        tasks.push(task(file, at, given)?);
    }
    let mut models = Vec::new();
    let _stage = progress.stage("hashing models", file.models.len() as u64);
    for (at, name) in file.models.iter().enumerate() {
        if progress.cancelled() {
            bail!("interrupted before model {name}");
        }
        progress.at(name);
        let planned = model(file, name, progress);
        let field = format!("models[{at}]");
        models.push(planned.with_context(|| format!("{}: {field}", file.path.display()))?);
        progress.advance(1);
    }
    Ok(Plan::new(
        file,
        &program(),
        models,
        tasks,
        methods,
        settings,
    )?)
}

/// The methods of a plan, groups resolved.
pub(super) fn methods(file: &PlanFile) -> Result<Vec<&'static About>> {
    let mut all: Vec<&'static About> = Vec::new();
    for (at, entry) in file.methods.iter().enumerate() {
        let members =
            parse_list(entry).with_context(|| format!("{}: methods[{at}]", file.path.display()))?;
        for member in members {
            if !all.contains(&member) {
                all.push(member);
            }
        }
    }
    Ok(all)
}

fn task(file: &PlanFile, at: usize, given: &str) -> Result<PlannedTask> {
    let field = || format!("{}: tasks[{at}]", file.path.display());
    let spec = open_task(file, given).with_context(field)?;
    planned_task(file, given, &spec)
}

/// A task with the hashes of its files.
pub(super) fn planned_task(file: &PlanFile, given: &str, spec: &TaskSpec) -> Result<PlannedTask> {
    let folder = file.folder().join(given);
    let mut files = BTreeMap::new();
    for path in &spec.files {
        let name = path.strip_prefix(&folder).unwrap_or(path);
        files.insert(name.to_string_lossy().into_owned(), files::sha256(path)?);
    }
    Ok(PlannedTask {
        name: spec.name.clone().into_owned(),
        given: given.to_owned(),
        files,
    })
}

/// A task of a plan: a name, or a folder from the plan's on.
pub(super) fn open_task(file: &PlanFile, given: &str) -> Result<TaskSpec> {
    let beside = file.folder().join(given);
    let named = match parse_task(given) {
        Ok(TaskArg::Named(task)) => TaskArg::Named(task),
        Ok(TaskArg::Folder(_)) => TaskArg::Folder(beside),
        Err(_) if beside.exists() => TaskArg::Folder(beside),
        Err(error) => return Err(error.into()),
    };
    named.open(&mut provenance::start())
}

/// What to load for a model of a plan: folders and files start from the plan's folder, and one of the hub is the commit that was
/// planned.
pub(super) fn to_load(file: &PlanFile, model: &PlannedModel) -> String {
    if let Some(commit) = &model.commit {
        let repo = model.name.split('@').next().unwrap_or(&model.name);
        return format!("{repo}@{commit}");
    }
    beside(file, &model.name).map_or_else(|| model.name.clone(), |path| path.display().to_string())
}

/// The folder or file of a model that lies beside the plan.
fn beside(file: &PlanFile, name: &str) -> Option<PathBuf> {
    let path = file.folder().join(name);
    (name != REFERENCE && path.exists()).then_some(path)
}

fn model(file: &PlanFile, name: &str, progress: &dyn Progress) -> Result<PlannedModel> {
    let mut planned = PlannedModel {
        name: name.to_owned(),
        files: BTreeMap::new(),
        commit: None,
    };
    if name == REFERENCE {
        let cpu = DeviceName::default().open()?;
        let loaded = load_reference::<B>(LoadSettings::default(), cpu.plain())?;
        let hashes = loaded.provenance.files.into_iter();
        planned.files = hashes.map(|file| (file.name, file.sha256)).collect();
        return Ok(planned);
    }
    let near = if name.starts_with("ollama:") {
        Some(name.to_owned())
    } else {
        beside(file, name).map(|path| path.display().to_string())
    };
    let paths = match near.as_deref().map(ModelSource::named).transpose()? {
        Some(ModelSource::Gguf(file) | ModelSource::Ollama(_, file)) => vec![file],
        Some(ModelSource::Folder(folder)) => model_files(&folder)?,
        _ => {
            planned.commit = Some(commit(name, progress)?);
            return Ok(planned);
        }
    };
    for path in paths {
        let file_name = path.file_name().unwrap_or(path.as_os_str());
        let hash = hash(&path, progress)?;
        planned
            .files
            .insert(file_name.to_string_lossy().into_owned(), hash);
    }
    Ok(planned)
}

/// SHA-256 of a file, which Ctrl-C stops.
fn hash(path: &Path, progress: &dyn Progress) -> Result<String> {
    let mut hash = files::Hash::new();
    let mut file = fs_err::File::open(path)?;
    let mut block = vec![0; 1 << 20];
    loop {
        if progress.cancelled() {
            bail!("interrupted while hashing {}", path.display());
        }
        match file.read(&mut block)? {
            0 => return Ok(hash.finish()),
            bytes => hash.update(&block[..bytes]),
        }
    }
}

/// The files of a model in a folder.
fn model_files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(path)? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_file() && ending.is_some_and(|ending| MODEL_FILES.contains(&ending)) {
            found.push(path);
        }
    }
    if !found.iter().any(|file| file.ends_with("config.json")) {
        return Err(anyhow!(
            "{}: found no config.json, expected the folder of a model",
            path.display()
        ));
    }
    found.sort();
    Ok(found)
}

/// The commit that a name of the hub stands for now. Its files are downloaded, so that workers that share the cache find them.
#[cfg(feature = "hub")]
fn commit(name: &str, progress: &dyn Progress) -> Result<String> {
    let id = name.parse::<circuitscope::model::hub::HubId>();
    let id = id.with_context(|| {
        format!("{name}: no such file or folder beside the plan, and no name of the hub")
    })?;
    Ok(crate::hub::fetch(&id, progress)?.origin.commit)
}

#[cfg(not(feature = "hub"))]
fn commit(name: &str, _: &dyn Progress) -> Result<String> {
    bail!(
        "{name}: no such file or folder beside the plan; this program was built without the feature `hub`"
    )
}

/// Fails where what was loaded is not what was planned.
pub(super) fn check_loaded(
    planned: &PlannedModel,
    loaded: &circuitscope::model::ModelProvenance,
) -> Result<()> {
    if planned.commit.is_some() {
        let found = loaded.hub.as_ref().map(|hub| &hub.commit);
        if found != planned.commit.as_ref() {
            bail!(
                "{}: found commit {found:?}, expected {:?}",
                planned.name,
                planned.commit
            );
        }
        return Ok(());
    }
    for file in &loaded.files {
        let expected = planned.files.get(&file.name);
        if expected != Some(&file.sha256) {
            bail!(
                "{}: {}: found SHA-256 {}, expected {} as planned: the model has changed, or is another one on this machine; \
                 plan anew where it is meant",
                planned.name,
                file.name,
                file.sha256,
                expected.map_or("none", String::as_str)
            );
        }
    }
    Ok(())
}
