//! Where weights come from: one or more safetensors files, mapped or embedded.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::family::Layout;
use crate::host::transpose;
use crate::loaded::FileHash;
use crate::{Error, Result};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The bytes of a file.
pub(crate) enum Bytes<'a> {
    Mapped(Mmap),
    Embedded(&'a [u8]),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }
}

/// Maps a file into memory.
pub(crate) fn map(path: &Path) -> Result<Bytes<'static>> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let file = fs_err::File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if length == 0 {
        return Err(Error::NotSafetensors {
            path: path.to_owned(),
            reason: "the file is empty".to_owned(),
        });
    }
    #[expect(
        unsafe_code,
        reason = "mapping a file is unsafe in general: see the safety comment"
    )]
    // SAFETY: the map is read-only and lives as long as loading takes; a program that truncates the
    // file meanwhile can only stop the process, as with every mapped file.
    let mapped = unsafe { Mmap::map(file.file()) };
    mapped.map(Bytes::Mapped).map_err(io)
}

impl Bytes<'_> {
    /// Lets go of the pages of a mapped file that lie wholly within a range which has been read. They
    /// are read again from the file if they are needed again.
    fn release(&self, offset: usize, length: usize) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            let page = 1 << 16; // a multiple of every platform's page
            let start = offset.next_multiple_of(page);
            let end = (offset + length) / page * page;
            if start < end {
                #[expect(unsafe_code, reason = "advice on a map: see the safety comment")]
                // SAFETY: the map is of a file and never written to, so dropping its pages loses
                // nothing; a later access reads the same bytes from the file.
                let advised = unsafe {
                    map.unchecked_advise_range(
                        memmap2::UncheckedAdvice::DontNeed,
                        start,
                        end - start,
                    )
                };
                if let Err(error) = advised {
                    tracing::debug!(%error, "pages of a weights file stay in memory");
                }
            }
        }
    }
}

/// Hashes a file piece by piece, letting go of what was read.
fn hash_file(name: &str, bytes: &Bytes<'_>) -> FileHash {
    const PIECE: usize = 16 << 20;
    let mut digest = Sha256::new();
    for (at, piece) in bytes.chunks(PIECE).enumerate() {
        digest.update(piece);
        bytes.release(at * PIECE, piece.len());
    }
    file_hash(name, bytes.len(), digest.finalize().as_slice())
}

pub(crate) fn hash(name: &str, bytes: &[u8]) -> FileHash {
    file_hash(name, bytes.len(), Sha256::digest(bytes).as_slice())
}

fn file_hash(name: &str, bytes: usize, digest: &[u8]) -> FileHash {
    FileHash {
        name: name.to_owned(),
        bytes: bytes as u64,
        sha256: hex(digest),
    }
}

/// In hexadecimal.
pub(crate) fn hex(digest: &[u8]) -> String {
    let digits: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// Where a tensor lies.
struct Stored {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

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
}

impl Source<'static> {
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
        if let Some(path) = pickle(folder) {
            return Err(Error::Pickle { path });
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
            let parsed =
                SafeTensors::deserialize(bytes).map_err(|error| Error::NotSafetensors {
                    path: path.clone(),
                    reason: error.to_string(),
                })?;
            for (name, view) in parsed.tensors() {
                let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
                let stored = Stored {
                    file: at,
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                    bytes: start..start + view.data().len(),
                };
                if let Some(earlier) = index.get(&name).map(|stored: &Stored| stored.file) {
                    let [first, second] = [&files[earlier].0, path].map(|path| file_name(path));
                    problems.push(format!("{name}: in both {first} and {second}"));
                } else {
                    index.insert(name, stored);
                }
            }
        }
        Ok(Self {
            path,
            files,
            index,
            taken: RefCell::default(),
            problems: RefCell::new(problems),
            dry: Cell::new(true),
            layout: Cell::new(None),
            instead: Cell::new(None),
        })
    }

    /// Names and hashes of the files.
    pub(crate) fn hashes(&self) -> Vec<FileHash> {
        self.files
            .iter()
            .map(|(path, bytes)| hash_file(&file_name(path), bytes))
            .collect()
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
        let [(a, first), (b, second)] = [one, other].map(|stored| {
            let file = &self.files[stored.file].1;
            (file, &file[stored.bytes.clone()])
        });
        if one.dtype != other.dtype {
            return widened_as_stored(one, first) == widened_as_stored(other, second);
        }
        let mut pieces = first.chunks(PIECE).zip(second.chunks(PIECE)).enumerate();
        let same = |(at, (x, y)): (usize, (&[u8], &[u8]))| {
            let same = x == y;
            a.release(one.bytes.start + at * PIECE, x.len());
            b.release(other.bytes.start + at * PIECE, y.len());
            same
        };
        first.len() == second.len() && pieces.all(same)
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
        let values = self.read(name, shape, widened_as_stored, |at| at);
        self.sound_or(name, values)
    }

    /// The matrix `name`, stored `[rows, cols]`, with rows and columns exchanged: `[cols, rows]`.
    /// Otherwise as [`Source::take`].
    pub(crate) fn take_transposed(&self, name: &str, rows: usize, cols: usize) -> Vec<f32> {
        let decode = |stored: &Stored, data: &[u8]| match stored.dtype {
            Dtype::F16 => transposed(data, rows, cols, f16),
            Dtype::BF16 => transposed(data, rows, cols, bf16),
            _ => transposed(data, rows, cols, f32::from_le_bytes),
        };
        let values = self.read(name, &[rows, cols], decode, |at| {
            at % rows * cols + at / rows
        });
        self.sound_or(name, values)
    }

    fn sound_or(&self, name: &str, values: Result<Vec<f32>, String>) -> Vec<f32> {
        values.unwrap_or_else(|problem| {
            self.problem(format!("{name}: {problem}"));
            Vec::new()
        })
    }

    /// `place` tells where an entry of the result was stored.
    fn read(
        &self,
        name: &str,
        shape: &[usize],
        decode: impl FnOnce(&Stored, &[u8]) -> Vec<f32>,
        place: impl Fn(usize) -> usize,
    ) -> Result<Vec<f32>, String> {
        self.taken.borrow_mut().insert(name.to_owned());
        let Some((_, stored)) = self.find(name) else {
            return Err(format!("missing, expected shape {shape:?}"));
        };
        if stored.shape != shape {
            return Err(format!("shape {:?}, expected {shape:?}", stored.shape));
        }
        if !matches!(stored.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(format!(
                "type {:?}, expected F32, F16 or BF16",
                stored.dtype
            ));
        }
        if self.dry.get() {
            return Ok(Vec::new());
        }
        let file = &self.files[stored.file].1;
        let values = decode(stored, &file[stored.bytes.clone()]);
        file.release(stored.bytes.start, stored.bytes.len());
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                let (value, at) = (values[at], place(at));
                Err(format!("{value} at entry {at}, expected finite numbers"))
            }
            None => Ok(values),
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
        let unused =
            unused.map(|name| format!("{name}: unused, the configuration has no place for it"));
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

/// Which shard holds each tensor, as `model.safetensors.index.json` says.
pub(crate) fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = fs_err::read(index).map_err(|source| Error::Io {
        path: index.to_owned(),
        source,
    })?;
    let parsed: Result<Index, _> = serde_json::from_slice(&text);
    let index = parsed.map_err(|error| Error::Config {
        path: index.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(index.weight_map)
}

/// Whether a file's name is that of a PyTorch pickle.
pub(crate) fn is_pickle(name: &Path) -> bool {
    let extension = name.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| ["bin", "pt", "pth", "ckpt"].contains(&extension))
}

/// The first file of a folder that looks like a PyTorch pickle.
fn pickle(folder: &Path) -> Option<PathBuf> {
    let entries = fs_err::read_dir(folder).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| is_pickle(path)).min()
}

fn widened_as_stored(stored: &Stored, data: &[u8]) -> Vec<f32> {
    match stored.dtype {
        Dtype::F16 => widened(data, f16),
        Dtype::BF16 => widened(data, bf16),
        _ => bytemuck::pod_collect_to_vec(data),
    }
}

fn f16(bytes: [u8; 2]) -> f32 {
    half::f16::from_le_bytes(bytes).to_f32()
}

fn bf16(bytes: [u8; 2]) -> f32 {
    half::bf16::from_le_bytes(bytes).to_f32()
}

fn widened(data: &[u8], widen: impl Fn([u8; 2]) -> f32) -> Vec<f32> {
    let (numbers, _) = data.as_chunks();
    numbers.iter().copied().map(widen).collect()
}

/// `[rows, cols]` numbers of `N` bytes as `[cols, rows]`.
fn transposed<const N: usize>(
    data: &[u8],
    rows: usize,
    cols: usize,
    decode: impl Fn([u8; N]) -> f32,
) -> Vec<f32> {
    let (numbers, _) = data.as_chunks::<N>();
    let mut to = vec![0.0; numbers.len()];
    transpose([rows, cols], |at| decode(numbers[at]), &mut to, rows, 0);
    to
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
