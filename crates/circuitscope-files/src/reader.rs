use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::{Metadata as Header, SafeTensorError, TensorInfo};
use serde_json::Value;

use crate::{
    FileError, METADATA_KEY, Metadata, Number, Result, bf16_to_f32, f16_to_f32, is_regular, read,
};

/// Bytes of the number that says how long the header is.
const LENGTH: usize = 8;

/// The longest header that is read, in bytes: that of the format's own library.
const LONGEST: usize = 100_000_000;

/// A safetensors file whose header has been checked. Tensors are read when they are asked for, so that a large file
/// is in memory once.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    source: Source,
    header: Header,
    metadata: Metadata,
    /// Where the tensors begin.
    start: usize,
}

#[derive(Debug)]
enum Source {
    File(RefCell<File>),
    Read(Arc<Vec<u8>>),
    Embedded(&'static [u8]),
}

impl Source {
    /// Fills `to` from byte `at` on.
    fn read(&self, at: usize, to: &mut [u8]) -> io::Result<()> {
        let bytes: &[u8] = match self {
            Self::File(file) => {
                let mut file = file.borrow_mut();
                file.seek(SeekFrom::Start(at as u64))?;
                return file.read_exact(to);
            }
            Self::Read(bytes) => bytes,
            Self::Embedded(bytes) => bytes,
        };
        let rest = bytes.get(at..).and_then(|rest| rest.get(..to.len()));
        to.copy_from_slice(rest.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Reader {
    /// Opens a file; what is no regular one is read within bounds.
    ///
    /// # Errors
    /// A file that cannot be read, and one that is no safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        if !is_regular(path) {
            let bytes = read(path)?;
            let length = bytes.len();
            return Self::new(path, Source::Read(bytes), length);
        }
        let cannot = |error| FileError::cannot_read(path, error);
        let file = File::open(path).map_err(cannot)?;
        let length = file.metadata().map_err(cannot)?.len();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Self::new(path, Source::File(RefCell::new(file)), length)
    }

    /// A file in memory; `name` stands for it in errors.
    ///
    /// # Errors
    /// What is no safetensors file.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Self::new(Path::new(name), Source::Embedded(bytes), bytes.len())
    }

    fn new(path: &Path, source: Source, length: usize) -> Result<Self> {
        let not = |why: SafeTensorError| FileError::not_safetensors(path, why.to_string());
        if length < LENGTH {
            let why = format!("{length} bytes, the header length alone takes {LENGTH}");
            return Err(FileError::not_safetensors(path, why));
        }
        let cannot = |error| FileError::cannot_read(path, error);
        let mut bytes = [0; LENGTH];
        source.read(0, &mut bytes).map_err(cannot)?;
        let header = usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        if header > LONGEST {
            if let Some(why) = other_format(bytes) {
                return Err(FileError::not_safetensors(path, why));
            }
            return Err(not(SafeTensorError::HeaderTooLarge));
        }
        let start = LENGTH + header;
        if start > length {
            return Err(not(SafeTensorError::InvalidHeaderLength));
        }
        let mut text = vec![0; header];
        source.read(LENGTH, &mut text).map_err(cannot)?;
        let text =
            str::from_utf8(&text).map_err(|error| not(SafeTensorError::InvalidHeader(error)))?;
        let header: Header = serde_json::from_str(text).map_err(|error| match error.line() {
            // Well-formed, and yet no header.
            0 => FileError::not_safetensors(path, error),
            _ => not(SafeTensorError::InvalidHeaderDeserialization(error)),
        })?;
        if start.checked_add(header.data_len()) != Some(length) {
            return Err(not(SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok(Self {
            metadata: metadata(path, &header)?,
            path: path.to_owned(),
            source,
            header,
            start,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, in alphabetical order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = self.header.offset_keys();
        names.sort_unstable();
        names
    }

    /// What the file says of its making: what [`Writer`](crate::Writer) wrote, and the texts that other programs and
    /// earlier versions put there.
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// A whole number of the metadata, which may be written as a text.
    ///
    /// # Errors
    /// A key that is missing or no such number.
    pub fn number(&self, key: &str) -> Result<usize> {
        let value = self.metadata.get(key);
        let number = value.and_then(|value| match value {
            Value::String(text) => text.parse().ok(),
            value => usize::try_from(value.as_u64()?).ok(),
        });
        number.ok_or_else(|| {
            let found = value.map_or_else(|| "no such key".to_owned(), Value::to_string);
            self.wrong_metadata(key, found, "a number")
        })
    }

    /// A text of the metadata.
    ///
    /// # Errors
    /// A key that is missing or no text.
    pub fn text(&self, key: &str) -> Result<&str> {
        let value = self.metadata.get(key);
        value.and_then(Value::as_str).ok_or_else(|| {
            let found = value.map_or_else(|| "no such key".to_owned(), Value::to_string);
            self.wrong_metadata(key, found, "a text")
        })
    }

    /// An error about a key of the metadata.
    #[must_use]
    pub fn wrong_metadata(
        &self,
        key: &str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> FileError {
        FileError::field(&self.path, format!("metadata `{key}`"), found, expected)
    }

    /// A tensor.
    ///
    /// # Errors
    /// A name that is not there; the error lists those that are.
    pub fn tensor<'r>(&'r self, name: &'r str) -> Result<Tensor<'r>> {
        let info = self.header.info(name).ok_or_else(|| {
            let found = format!("no such tensor among {:?}", self.names());
            let field = format!("tensor `{name}`");
            FileError::field(&self.path, field, found, "it to be there")
        })?;
        Ok(Tensor {
            file: self,
            name,
            info,
        })
    }

    /// A tensor that may be absent.
    #[must_use]
    pub fn get<'r>(&'r self, name: &'r str) -> Option<Tensor<'r>> {
        let info = self.header.info(name)?;
        Some(Tensor {
            file: self,
            name,
            info,
        })
    }
}

/// What a file is that begins with these bytes, where they tell, and how its arrays become safetensors.
const fn other_format(begin: [u8; LENGTH]) -> Option<&'static str> {
    match begin {
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(
            "found a NumPy file (.npy), expected safetensors; safetensors.numpy.save_file writes such a file",
        ),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Some(
            "found a zip archive (.npz, or what torch.save writes), expected safetensors; \
             safetensors.numpy.save_file and safetensors.torch.save_file write such files",
        ),
        [0x80, 2..=5, ..] => Some(
            "found a Python pickle, expected safetensors; safetensors.numpy.save_file and \
             safetensors.torch.save_file write such files",
        ),
        [0x89, b'H', b'D', b'F', ..] => Some("found an HDF5 file, expected safetensors"),
        [b'G', b'G', b'U', b'F', ..] => Some("found a GGUF file, expected safetensors"),
        _ => None,
    }
}

/// Texts that other programs put there, and the one text in which ours lie.
fn metadata(path: &Path, header: &Header) -> Result<Metadata> {
    let Some(texts) = header.metadata() else {
        return Ok(Metadata::new());
    };
    let texts: std::collections::BTreeMap<_, _> = texts.iter().collect();
    let mut metadata = Metadata::new();
    for (key, text) in texts.iter().filter(|(key, _)| **key != METADATA_KEY) {
        metadata.insert((*key).clone(), Value::String((*text).clone()));
    }
    if let Some(text) = texts.get(&METADATA_KEY.to_owned()) {
        let own: Metadata = serde_json::from_str(text).map_err(|error| {
            let found = format!("{text:?} ({error})");
            let field = format!("metadata `{METADATA_KEY}`");
            FileError::field(path, field, found, "one JSON object")
        })?;
        metadata.extend(own);
    }
    Ok(metadata)
}

/// A tensor of a [`Reader`]: read by [`f32`](Self::f32) or [`integers`](Self::integers).
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'r> {
    file: &'r Reader,
    name: &'r str,
    info: &'r TensorInfo,
}

impl<'r> Tensor<'r> {
    /// Sizes of its axes.
    pub fn dims(&self) -> &'r [usize] {
        &self.info.shape
    }

    /// Type of its elements.
    pub const fn dtype(&self) -> Dtype {
        self.info.dtype
    }

    /// The tensor, if it has these sizes.
    ///
    /// # Errors
    /// Other sizes.
    pub fn shape(self, expected: &[usize]) -> Result<Self> {
        if self.info.shape == expected {
            return Ok(self);
        }
        Err(self.wrong(
            format!("shape {:?}", self.info.shape),
            format!("{expected:?}"),
        ))
    }

    /// Its sizes, if it has as many axes as `axes` names, e.g. `["examples", "heads"]`.
    ///
    /// # Errors
    /// Another number of axes.
    pub fn axes<const N: usize>(&self, axes: [&str; N]) -> Result<[usize; N]> {
        self.dims().try_into().ok().ok_or_else(|| {
            let axes = format!("the axes [{}]", axes.join(", "));
            self.wrong(format!("shape {:?}", self.dims()), axes)
        })
    }

    /// Its values, row-major; f16 and bf16 are widened.
    ///
    /// # Errors
    /// Another type, or a file that cannot be read (any more).
    pub fn f32(&self) -> Result<Vec<f32>> {
        match self.dtype() {
            Dtype::F32 => self.values(),
            Dtype::F16 => self.halves(f16_to_f32),
            Dtype::BF16 => self.halves(bf16_to_f32),
            other => Err(self.wrong(format!("type {other:?}"), "F32, F16 or BF16")),
        }
    }

    /// Its values, row-major, of which all are finite; f16 and bf16 are widened.
    ///
    /// # Errors
    /// As [`f32`](Self::f32), and a NaN or an infinity, with its place on each axis.
    pub fn finite(&self) -> Result<Vec<f32>> {
        let values = self.f32()?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let found = format!("{} at {:?}", values[at], self.place(at));
                Err(self.wrong(found, "finite numbers"))
            }
        }
    }

    /// Its whole numbers, row-major, which lie as `T` or as i64.
    ///
    /// # Errors
    /// Another type, or a file that cannot be read (any more).
    pub fn integers<T: Number + Into<i64>>(&self) -> Result<Vec<i64>> {
        match self.dtype() {
            Dtype::I64 => self.values(),
            dtype if dtype == T::DTYPE => {
                let values = self.values::<T>()?;
                Ok(values.into_iter().map(Into::into).collect())
            }
            other => {
                let expected = format!("{:?} or I64", T::DTYPE);
                Err(self.wrong(format!("type {other:?}"), expected))
            }
        }
    }

    /// Its whole numbers as other programs may have written them, row-major: bool, u8, i32 or i64.
    ///
    /// # Errors
    /// Another type, or a file that cannot be read (any more).
    pub fn whole_numbers(&self) -> Result<Vec<i64>> {
        match self.dtype() {
            // One byte each, 0 or 1.
            Dtype::BOOL => Ok(self.values::<u8>()?.into_iter().map(Into::into).collect()),
            Dtype::U8 => self.integers::<u8>(),
            Dtype::I32 | Dtype::I64 => self.integers::<i32>(),
            other => Err(self.wrong(format!("type {other:?}"), "BOOL, U8, I32 or I64")),
        }
    }

    /// Where an element lies on each axis.
    #[must_use]
    pub fn place(&self, mut element: usize) -> Vec<usize> {
        let mut place: Vec<usize> = self
            .dims()
            .iter()
            .rev()
            .map(|&size| {
                let at = element % size.max(1);
                element /= size.max(1);
                at
            })
            .collect();
        place.reverse();
        place
    }

    /// An error about this tensor.
    #[must_use]
    pub fn wrong(&self, found: impl Into<String>, expected: impl Into<String>) -> FileError {
        let field = format!("tensor `{}`", self.name);
        FileError::field(&self.file.path, field, found, expected)
    }

    fn values<T: Number>(&self) -> Result<Vec<T>> {
        let (from, to) = self.info.data_offsets;
        let mut values = vec![T::zeroed(); (to - from) / size_of::<T>()];
        self.fill(bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    fn halves(&self, widen: fn([u8; 2]) -> f32) -> Result<Vec<f32>> {
        let (from, to) = self.info.data_offsets;
        let mut bytes = vec![0; to - from];
        self.fill(&mut bytes)?;
        Ok(bytes.as_chunks().0.iter().copied().map(widen).collect())
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let at = self.file.start + self.info.data_offsets.0;
        let read = self.file.source.read(at, bytes);
        read.map_err(|error| FileError::cannot_read(&self.file.path, error))
    }
}
