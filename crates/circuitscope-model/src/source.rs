//! Where weights come from: safetensors, mapped or embedded, or another format that is mapped.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use circuitscope_files::{FileError, read};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError};
use serde::Deserialize;

use crate::bytes::{Bytes, KnownFile, hash_file, map};
use crate::family::layout::Layout;
use crate::gguf::tensor::GgufTensor;
use crate::numbers::{exchange, plain};
use crate::provenance::FileHash;
use crate::quantised::{Place, Quantised};
use crate::{Error, Result};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Where a tensor lies and how its numbers are written.
pub(crate) struct Stored {
    file: usize,
    /// In the layout that families read.
    shape: Vec<usize>,
    encoding: Encoding,
}

impl Stored {
    pub(crate) const fn new(file: usize, shape: Vec<usize>, encoding: Encoding) -> Self {
        Self {
            file,
            shape,
            encoding,
        }
    }

    pub(crate) fn into_parts(self) -> (usize, Vec<usize>, Encoding) {
        (self.file, self.shape, self.encoding)
    }
}

/// How numbers are written.
pub(crate) enum Encoding {
    /// One after the other.
    Plain { dtype: Dtype, bytes: Range<usize> },
    /// As in a GGUF file.
    Gguf(GgufTensor),
    /// In several tensors.
    Quantised(Box<Quantised>),
}

impl Encoding {
    /// Why the numbers cannot be read, if so.
    fn problem(&self) -> Option<String> {
        match self {
            Self::Plain { dtype, .. } => (!matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16))
                .then(|| format!("type {dtype:?}, expected F32, F16 or BF16")),
            Self::Gguf(tensor) => tensor.problem(),
            Self::Quantised(_) => None,
        }
    }
}

/// Gives the name that a tensor has in its file.
type Label = Box<dyn Fn(&str) -> String>;

/// All tensors of a model by name.
///
/// They are taken twice. At first only names, types and shapes are checked; [`Source::checked`] reports
/// all problems together. Then the values are read and checked, tensor by tensor, and [`Source::finish`]
/// reports those.
pub(crate) struct Source<'a> {
    path: PathBuf,
    files: Vec<(PathBuf, Bytes<'a>)>,
    index: BTreeMap<String, Stored>,
    taken: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<String>>,
    /// Whether [`Source::take`] only checks and gives nothing.
    dry: Cell<bool>,
    /// How the family names tensors, where they may lie under other names.
    layout: Cell<Option<Layout>>,
    /// A tensor that is read in the place of another.
    instead: Cell<Option<(&'static str, &'static str)>>,
    /// The name of a tensor in the file, where families know it by another.
    label: Option<Label>,
    /// The files to hash, where `files` are parts of them.
    hashed: Option<Vec<PathBuf>>,
}

impl Source<'static> {
    /// Whether a folder has weights for [`Source::open`].
    pub(crate) fn has_safetensors(folder: &Path) -> bool {
        folder.join(SINGLE).exists() || folder.join(INDEX).exists()
    }

    /// The weights in a model folder: `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` names.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let single = folder.join(SINGLE);
        if single.exists() {
            let bytes = map(&single)?;
            return Self::new(single.clone(), vec![(single, bytes)]);
        }
        let index = folder.join(INDEX);
        if index.exists() {
            return Self::sharded(folder, &index);
        }
        Err(Error::NotAModel {
            path: folder.to_owned(),
            missing: SINGLE.to_owned(),
            expected: "a folder with config.json and model.safetensors, or shards with their index",
        })
    }

    fn sharded(folder: &Path, index: &Path) -> Result<Self> {
        let weight_map = weight_map(index)?;
        let bad = |reason: String| Error::Config {
            path: index.to_owned(),
            reason,
        };
        let shards: BTreeSet<&String> = weight_map.values().collect();
        let mut files = Vec::new();
        for shard in shards {
            if Path::new(shard).components().count() != 1 {
                return Err(bad(format!("shard {shard:?} is not a file of this folder")));
            }
            let path = folder.join(shard);
            files.push((path.clone(), map(&path)?));
        }
        let source = Self::new(index.to_owned(), files)?;
        for (name, shard) in &weight_map {
            let holds = source
                .index
                .get(name)
                .is_some_and(|stored| source.files[stored.file].0.ends_with(shard));
            if !holds {
                source.problem(format!(
                    "{name}: the index places it in {shard}, which does not hold it"
                ));
            }
        }
        Ok(source)
    }
}

impl<'a> Source<'a> {
    /// Weights in memory; `name` stands for the file in errors.
    pub(crate) fn embedded(name: &str, bytes: &'a [u8]) -> Result<Self> {
        let path = PathBuf::from(name);
        Self::new(path.clone(), vec![(path, Bytes::Embedded(bytes))])
    }

    fn new(path: PathBuf, files: Vec<(PathBuf, Bytes<'a>)>) -> Result<Self> {
        let mut index = BTreeMap::new();
        let mut problems = Vec::new();
        for (at, (path, bytes)) in files.iter().enumerate() {
            let (start, header) =
                header(bytes).map_err(|error| FileError::not_safetensors(path, error))?;
            for name in header.offset_keys() {
                let Some(tensor) = header.info(&name) else {
                    continue;
                };
                let (first, end) = tensor.data_offsets;
                let encoding = Encoding::Plain {
                    dtype: tensor.dtype,
                    bytes: start + first..start + end,
                };
                let stored = Stored::new(at, tensor.shape.clone(), encoding);
                if let Some(earlier) = index.get(&name).map(|stored: &Stored| stored.file) {
                    let [first, second] = [&files[earlier].0, path].map(|path| file_name(path));
                    problems.push(format!("{name}: in both {first} and {second}"));
                } else {
                    index.insert(name, stored);
                }
            }
        }
        Ok(Self::of(path, files, index, problems))
    }

    /// Tensors that were found elsewhere. `path` stands for all files in errors.
    pub(crate) fn of(
        path: PathBuf,
        files: Vec<(PathBuf, Bytes<'a>)>,
        index: BTreeMap<String, Stored>,
        problems: Vec<String>,
    ) -> Self {
        Self {
            path,
            files,
            index,
            taken: RefCell::default(),
            problems: RefCell::new(problems),
            dry: Cell::new(true),
            layout: Cell::new(None),
            instead: Cell::new(None),
            label: None,
            hashed: None,
        }
    }

    /// The same, of which `files` are only parts of these.
    pub(crate) fn of_files(mut self, paths: impl Iterator<Item = &'a Path>) -> Self {
        self.hashed = Some(paths.map(Path::to_owned).collect());
        self
    }

    /// The same, with other names in errors.
    pub(crate) fn labelled(mut self, label: impl Fn(&str) -> String + 'static) -> Self {
        self.label = Some(Box::new(label));
        self
    }

    /// The name of a tensor in its file.
    fn label(&self, name: &str) -> String {
        match &self.label {
            Some(label) => label(name),
            None => name.to_owned(),
        }
    }

    /// Names and hashes of the files; `known` are those of which they need not be computed.
    pub(crate) fn hashes(&self, known: &[KnownFile]) -> Result<Vec<FileHash>> {
        let told = |path: &Path| {
            let mut known = known.iter();
            known.find_map(|known| known.hash_of(&file_name(path), path))
        };
        let Some(paths) = &self.hashed else {
            let files = self.files.iter().map(|(path, bytes)| {
                told(path).unwrap_or_else(|| hash_file(&file_name(path), bytes))
            });
            return Ok(files.collect());
        };
        let files = paths.iter().map(|path| match told(path) {
            Some(hash) => Ok(hash),
            None => Ok(hash_file(&file_name(path), &map(path)?)),
        });
        files.collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// From now on tensors are also found under the names that `layout` allows.
    pub(crate) fn set_layout(&self, layout: Layout) {
        self.layout.set(Some(layout));
    }

    /// From now on `stored` is read in the place of `wanted`.
    pub(crate) fn stands_for(&self, stored: &'static str, wanted: &'static str) {
        self.instead.set(Some((wanted, stored)));
    }

    /// A tensor, with the name that it lies under.
    fn find(&self, name: &str) -> Option<(&str, &Stored)> {
        let name = match self.instead.get() {
            Some((wanted, stored)) if wanted == name => stored,
            _ => name,
        };
        let at = |name: &str| self.index.get_key_value(name);
        let other = || {
            let names = self.layout.get()?.alternatives(name);
            names.iter().find_map(|name| at(name))
        };
        let (name, stored) = at(name).or_else(other)?;
        Some((name, stored))
    }

    /// Whether two tensors hold the same numbers.
    pub(crate) fn equal(&self, one: &str, other: &str) -> bool {
        const PIECE: usize = 16 << 20;
        let (Some((_, one)), Some((_, other))) = (self.find(one), self.find(other)) else {
            return false;
        };
        if one.shape != other.shape {
            return false;
        }
        let run = |stored: &Stored| match &stored.encoding {
            Encoding::Plain { dtype, bytes } => Some((*dtype, stored.file, bytes.clone())),
            _ => None,
        };
        let (Some((kind, a, x)), Some((other_kind, b, y))) = (run(one), run(other)) else {
            return self.same_values(one, other);
        };
        if kind != other_kind {
            return self.same_values(one, other);
        }
        let [a, b] = [a, b].map(|file| &self.files[file].1);
        let (first, second) = (&a[x.clone()], &b[y.clone()]);
        let mut pieces = first.chunks(PIECE).zip(second.chunks(PIECE)).enumerate();
        let same = |(at, (one, other)): (usize, (&[u8], &[u8]))| {
            let same = one == other;
            a.release(x.start + at * PIECE, one.len());
            b.release(y.start + at * PIECE, other.len());
            same
        };
        first.len() == second.len() && pieces.all(same)
    }

    /// The same for tensors that are stored in different ways.
    fn same_values(&self, one: &Stored, other: &Stored) -> bool {
        let sound = |stored: &Stored| stored.encoding.problem().is_none();
        let values = |stored| self.decode(stored, None).ok();
        sound(one) && sound(other) && values(one) == values(other)
    }

    /// What is stored under another name than the family's own: an example, and how many there are.
    pub(crate) fn renamed(&self) -> Option<String> {
        let layout = self.layout.get()?;
        let taken = self.taken.borrow();
        let mut others = taken.iter().filter_map(|name| {
            let (stored, _) = self.find(name)?;
            let by_layout = layout
                .alternatives(name)
                .iter()
                .any(|other| other == stored);
            by_layout.then(|| format!("{stored} stands for {name}"))
        });
        let first = others.next()?;
        Some(match others.count() {
            0 => first,
            more => format!("{first}, and {more} more alike"),
        })
    }

    /// All names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.index.keys().cloned().collect()
    }

    pub(crate) fn insert(&mut self, name: String, stored: Stored) {
        self.index.insert(name, stored);
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Stored> {
        self.index.remove(name)
    }

    /// The type of a tensor that is one run of numbers.
    pub(crate) fn dtype(&self, name: &str) -> Option<Dtype> {
        match self.index.get(name)?.encoding {
            Encoding::Plain { dtype, .. } => Some(dtype),
            _ => None,
        }
    }

    pub(crate) fn bytes(&self, place: &Place) -> &[u8] {
        &self.files[place.file].1[place.bytes.clone()]
    }

    /// Makes a tensor a leftover if it is there and all its numbers are 0.
    pub(crate) fn pass_over_if_zero(&self, name: &str) {
        if let Some(Stored { file, encoding, .. }) = self.index.get(name)
            && let Encoding::Plain { bytes, .. } = encoding
            && self.files[*file].1[bytes.clone()]
                .iter()
                .all(|&byte| byte == 0)
        {
            self.taken.borrow_mut().insert(name.to_owned());
        }
    }

    pub(crate) fn problem(&self, problem: String) {
        let mut problems = self.problems.borrow_mut();
        // A tensor that several parts read is reported once.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// Whether this is the first round, in which no values are read.
    pub(crate) fn only_checks(&self) -> bool {
        self.dry.get()
    }

    /// Number of tensors.
    pub(crate) fn tensors(&self) -> usize {
        self.index.len()
    }

    /// The tensor `name` widened to f32, or nothing: in the first round, and with a recorded
    /// problem if it does not fit. Nothing, because the size that a broken configuration asks
    /// for may not fit into memory.
    pub(crate) fn take(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        let values = self.read(name, shape, None);
        self.sound_or(name, values)
    }

    /// The matrix `name`, stored `[rows, cols]`, with rows and columns exchanged: `[cols, rows]`.
    /// Otherwise as [`Source::take`].
    pub(crate) fn take_transposed(&self, name: &str, rows: usize, cols: usize) -> Vec<f32> {
        let values = self.read(name, &[rows, cols], Some([rows, cols]));
        self.sound_or(name, values)
    }

    fn sound_or(&self, name: &str, values: Result<Vec<f32>, String>) -> Vec<f32> {
        values.unwrap_or_else(|problem| {
            self.problem(format!("{}: {problem}", self.label(name)));
            Vec::new()
        })
    }

    fn read(
        &self,
        name: &str,
        shape: &[usize],
        exchanged: Option<[usize; 2]>,
    ) -> Result<Vec<f32>, String> {
        self.taken.borrow_mut().insert(name.to_owned());
        let Some((_, stored)) = self.find(name) else {
            return Err(format!("missing, expected shape {shape:?}"));
        };
        if stored.shape != shape {
            return Err(format!("shape {:?}, expected {shape:?}", stored.shape));
        }
        if let Some(problem) = stored.encoding.problem() {
            return Err(problem);
        }
        if self.dry.get() {
            return Ok(Vec::new());
        }
        let values = self.decode(stored, exchanged)?;
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                let value = values[at];
                let at = exchanged.map_or(at, |[rows, cols]| at % rows * cols + at / rows);
                Err(format!("{value} at entry {at}, expected finite numbers"))
            }
            None => Ok(values),
        }
    }

    /// The values of a tensor, with rows and columns exchanged if so asked.
    fn decode(&self, stored: &Stored, exchanged: Option<[usize; 2]>) -> Result<Vec<f32>, String> {
        let file = &self.files[stored.file].1;
        match &stored.encoding {
            Encoding::Plain { dtype, bytes } => {
                let values = plain(&file[bytes.clone()], *dtype, exchanged);
                file.release(bytes.start, bytes.len());
                Ok(values)
            }
            Encoding::Gguf(tensor) => {
                let bytes = tensor.bytes();
                let values = tensor.values(&file[bytes.clone()]);
                file.release(bytes.start, bytes.len());
                let values = values?;
                Ok(if exchanged.is_some() == tensor.is_transposed() {
                    values
                } else {
                    let [rows, cols] = tensor.stored();
                    exchange(&values, rows, cols)
                })
            }
            Encoding::Quantised(tensor) => {
                let values = tensor.values(|place| self.bytes(place));
                for place in tensor.places() {
                    self.files[place.file]
                        .1
                        .release(place.bytes.start, place.bytes.len());
                }
                let values = values?;
                Ok(match *stored.shape.as_slice() {
                    [rows, cols] if exchanged.is_some() != tensor.is_transposed() => {
                        let [rows, cols] = if tensor.is_transposed() {
                            [cols, rows]
                        } else {
                            [rows, cols]
                        };
                        exchange(&values, rows, cols)
                    }
                    _ => values,
                })
            }
        }
    }

    /// Ends the first round: reports every tensor that is missing, unused or of another type or shape.
    /// `leftover` says which unused tensors are known and harmless.
    pub(crate) fn checked(&self, leftover: impl Fn(&str) -> bool) -> Result<()> {
        let taken = self.taken.borrow();
        let found = taken
            .iter()
            .filter_map(|name| Some(self.find(name)?.0.to_owned()));
        let used: BTreeSet<String> = found.collect();
        let unused = self
            .index
            .keys()
            .filter(|name| !used.contains(*name) && !leftover(name));
        let unused = unused.map(|name| {
            let name = self.label(name);
            format!("{name}: unused, the configuration has no place for it")
        });
        self.problems.borrow_mut().extend(unused);
        self.dry.set(false);
        self.finish()
    }

    /// Reports the problems so far.
    pub(crate) fn finish(&self) -> Result<()> {
        let problems = self.problems.take();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Weights {
            path: self.path.clone(),
            problems,
        })
    }
}

/// The header of a safetensors file, and where the numbers begin. It is copied before it is read: the file may be
/// mapped, and what is found here decides what of it is accessed.
fn header(file: &[u8]) -> Result<(usize, Metadata), SafeTensorError> {
    /// As in the crate `safetensors`.
    const LARGEST: usize = 100_000_000;

    let size = file.first_chunk().ok_or(SafeTensorError::HeaderTooSmall)?;
    let size = usize::try_from(u64::from_le_bytes(*size)).ok();
    let size = size.filter(|size| *size <= LARGEST);
    let start = 8 + size.ok_or(SafeTensorError::HeaderTooLarge)?;
    let text = file.get(8..start);
    let text = text.ok_or(SafeTensorError::InvalidHeaderLength)?.to_vec();
    let text = str::from_utf8(&text).map_err(SafeTensorError::InvalidHeader)?;
    let header: Metadata =
        serde_json::from_str(text).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    // That tensors follow each other without gaps was seen as it was parsed.
    if start + header.data_len() != file.len() {
        return Err(SafeTensorError::MetadataIncompleteBuffer);
    }
    Ok((start, header))
}

/// Which shard holds each tensor, as `model.safetensors.index.json` says.
pub(crate) fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = read(index)?;
    let parsed: Result<Index, _> = serde_json::from_slice(&text);
    let index = parsed.map_err(|error| Error::Config {
        path: index.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(index.weight_map)
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
