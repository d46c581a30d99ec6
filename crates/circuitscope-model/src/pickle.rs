//! State dicts as PyTorch pickles them: `pytorch_model.bin`, `.pth`, `.pt`.
//!
//! The pickle is interpreted by the crate `anamnesis`, which knows dictionaries, numbers, texts and
//! tensors and runs nothing: any other class is an error that names it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anamnesis::{ParsedPth, PthDtype, parse_pth};
use circuitscope_files::FileError;
use safetensors::Dtype;

use crate::bytes::Bytes;
use crate::source::{Encoding, Source, Stored, file_name, weight_map};
use crate::{Error, Result};

const SINGLE: &str = "pytorch_model.bin";
const INDEX: &str = "pytorch_model.bin.index.json";

/// The pickles of a model, parsed; their numbers stay in the mapped files.
pub(crate) struct Pickles {
    /// What stands for all files in errors.
    path: PathBuf,
    files: Vec<(PathBuf, ParsedPth)>,
    /// Which file holds each tensor, if an index says.
    places: BTreeMap<String, String>,
}

/// Whether a file's name is that of a PyTorch pickle.
pub(crate) fn is_pickle(name: &Path) -> bool {
    let extension = name.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| ["bin", "pt", "pth", "ckpt"].contains(&extension))
}

impl Pickles {
    /// The pickles in a model folder, if there are any: `pytorch_model.bin`, or the parts that its index
    /// names, or else the only file whose name is that of a pickle.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>> {
        let index = folder.join(INDEX);
        if !folder.join(SINGLE).exists() && index.exists() {
            let places = weight_map(&index)?;
            let names: BTreeSet<&String> = places.values().collect();
            let mut files = Vec::new();
            for name in names {
                if Path::new(name).components().count() != 1 {
                    return Err(Error::Config {
                        path: index,
                        reason: format!("part {name:?} is not a file of this folder"),
                    });
                }
                files.push(parsed(folder.join(name))?);
            }
            return Ok(Some(Self {
                path: index,
                files,
                places,
            }));
        }
        let Some(path) = only_one(folder)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            files: vec![parsed(path.clone())?],
            path,
            places: BTreeMap::new(),
        }))
    }

    /// Their tensors. Those that are no simple run of numbers in their file (views of others, big-endian
    /// numbers) are copied.
    pub(crate) fn source(&self) -> Result<Source<'_>> {
        let mut files = Vec::new();
        let mut index = BTreeMap::new();
        let mut problems = Vec::new();
        for (path, parsed) in &self.files {
            let tensors = parsed.tensors().map_err(|error| unreadable(path, &error))?;
            if tensors.is_empty() {
                return Err(Error::Pickle {
                    path: path.clone(),
                    reason: "no tensor lies at its top level, where a state dict has them".into(),
                });
            }
            let name = file_name(path);
            for tensor in tensors {
                let place = self.places.get(&tensor.name);
                if !self.places.is_empty() && place != Some(&name) {
                    problems.push(format!(
                        "{}: in {name}, where the index has no such tensor",
                        tensor.name
                    ));
                }
                let bytes = match tensor.data {
                    Cow::Borrowed(bytes) => Bytes::Lent(bytes),
                    Cow::Owned(bytes) => Bytes::Owned(bytes),
                };
                bytes.release(0, bytes.len());
                let encoding = Encoding::Plain {
                    dtype: dtype(tensor.dtype),
                    bytes: 0..bytes.len(),
                };
                let stored = Stored::new(files.len(), tensor.shape, encoding);
                files.push((path.clone(), bytes));
                if index.insert(tensor.name.clone(), stored).is_some() {
                    problems.push(format!("{}: in two files", tensor.name));
                }
            }
        }
        for (tensor, place) in &self.places {
            if !index.contains_key(tensor) {
                problems.push(format!(
                    "{tensor}: the index places it in {place}, which does not hold it"
                ));
            }
        }
        let paths = self.files.iter().map(|(path, _)| path.as_path());
        Ok(Source::of(self.path.clone(), files, index, problems).of_files(paths))
    }
}

fn parsed(path: PathBuf) -> Result<(PathBuf, ParsedPth)> {
    let parsed = parse_pth(&path).map_err(|error| unreadable(&path, &error))?;
    Ok((path, parsed))
}

fn unreadable(path: &Path, error: &anamnesis::AnamnesisError) -> Error {
    Error::Pickle {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// `pytorch_model.bin`, or the only other pickle of a folder. What trainers leave beside a model is none.
fn only_one(folder: &Path) -> Result<Option<PathBuf>> {
    const NOT_WEIGHTS: [&str; 5] = [
        "training_args.bin",
        "optimizer.pt",
        "optimizer.bin",
        "scheduler.pt",
        "rng_state.pth",
    ];
    let single = folder.join(SINGLE);
    if single.exists() {
        return Ok(Some(single));
    }
    let entries =
        std::fs::read_dir(folder).map_err(|error| FileError::cannot_read(folder, error))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| is_pickle(path) && !NOT_WEIGHTS.contains(&file_name(path).as_str()))
        .collect();
    paths.sort();
    match paths.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [first, second, ..] => Err(Error::Pickle {
            path: first.clone(),
            reason: format!(
                "{} lies beside it: found two, expected one state dict, or {SINGLE}",
                file_name(second)
            ),
        }),
    }
}

const fn dtype(dtype: PthDtype) -> Dtype {
    match dtype {
        PthDtype::F16 => Dtype::F16,
        PthDtype::BF16 => Dtype::BF16,
        PthDtype::F32 => Dtype::F32,
        PthDtype::U8 => Dtype::U8,
        PthDtype::I8 => Dtype::I8,
        PthDtype::I16 => Dtype::I16,
        PthDtype::I32 => Dtype::I32,
        PthDtype::I64 => Dtype::I64,
        PthDtype::Bool => Dtype::BOOL,
        _ => Dtype::F64,
    }
}
