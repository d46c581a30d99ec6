use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata as Header, TensorInfo};

use crate::{FileError, METADATA_KEY, Metadata, Number, Pending, Result};

/// A tensor that is to be written: what the header says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Sizes of its axes.
    pub shape: Vec<usize>,
}

impl Entry {
    /// A tensor of numbers of type `T`.
    pub fn of<T: Number>(name: impl Into<String>, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            dtype: T::DTYPE,
            shape: shape.to_vec(),
        }
    }
}

/// A safetensors file on its way: at its place once it is [finished](Self::finish), nowhere before. Values go to the
/// file as they come, so that it may be larger than memory.
///
/// # Determinism
/// Equal tensors and metadata give equal bytes: tensors lie by size of their type, then by name, and metadata is one
/// text.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: Pending,
    places: BTreeMap<String, Place>,
    length: u64,
}

#[derive(Debug)]
struct Place {
    dtype: Dtype,
    /// Of its first byte in the file.
    start: u64,
    /// In bytes.
    length: u64,
    /// How many bytes of it have come.
    written: u64,
}

impl Writer {
    /// Begins a file of these tensors.
    ///
    /// # Errors
    /// Those of [`Pending::new`] and of writing the header, and two tensors of one name.
    pub fn create(path: &Path, tensors: Vec<Entry>, metadata: Metadata) -> Result<Self> {
        let own = (!metadata.is_empty()).then(|| {
            let fields = metadata.into_iter().collect();
            let text = serde_json::Value::Object(fields).to_string();
            (METADATA_KEY.to_owned(), text)
        });
        Self::new(path, tensors, own)
    }

    /// The same with one text among the file's own metadata that other programs expect there, e.g. `format` = `pt`.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_for_others(
        path: &Path,
        tensors: Vec<Entry>,
        key: &str,
        text: &str,
    ) -> Result<Self> {
        Self::new(path, tensors, Some((key.to_owned(), text.to_owned())))
    }

    fn new(
        path: &Path,
        mut tensors: Vec<Entry>,
        metadata: Option<(String, String)>,
    ) -> Result<Self> {
        let cannot = |why: String| FileError::cannot_write(path, io::Error::other(why));
        tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        let mut places = BTreeMap::new();
        let (mut at, mut infos) = (0, Vec::with_capacity(tensors.len()));
        for Entry { name, dtype, shape } in tensors {
            let size = shape
                .iter()
                .try_fold(dtype.bitsize() / 8, |size, &axis| size.checked_mul(axis));
            let end = size.and_then(|size| size.checked_add(at));
            let end =
                end.ok_or_else(|| cannot(format!("tensor `{name}` of {shape:?} is too large")))?;
            let place = Place {
                dtype,
                start: at as u64,
                length: (end - at) as u64,
                written: 0,
            };
            if places.insert(name.clone(), place).is_some() {
                return Err(cannot(format!("found two tensors `{name}`, expected one")));
            }
            let info = TensorInfo {
                dtype,
                shape,
                data_offsets: (at, end),
            };
            infos.push((name, info));
            at = end;
        }
        let header = Header::new(metadata.map(|text| [text].into()), infos)
            .map_err(|error| cannot(error.to_string()))?;
        let mut header = serde_json::to_vec(&header).map_err(|error| cannot(error.to_string()))?;
        // Tensors are aligned to eight bytes.
        header.resize(header.len().next_multiple_of(8), b' ');
        let start = 8 + header.len() as u64;
        for place in places.values_mut() {
            place.start += start;
        }
        let mut writer = Self {
            path: path.to_owned(),
            file: Pending::new(path)?,
            places,
            length: start + at as u64,
        };
        writer.put(0, &(header.len() as u64).to_le_bytes())?;
        writer.put(8, &header)?;
        Ok(writer)
    }

    /// Bytes of the whole file.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Writes all values of a tensor, row-major.
    ///
    /// # Errors
    /// Those of writing.
    ///
    /// # Panics
    /// As [`rows`](Self::rows).
    pub fn fill<T: Number>(&mut self, name: &str, values: &[T]) -> Result<()> {
        self.rows(name, 0, values)
    }

    /// Writes values of a tensor from its element `first` on.
    ///
    /// # Errors
    /// Those of writing.
    ///
    /// # Panics
    /// If the file has no such tensor, or one of another type or with fewer elements.
    pub fn rows<T: Number>(&mut self, name: &str, first: usize, values: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let Some(place) = self.places.get_mut(name) else {
            panic!("no tensor `{name}` was announced")
        };
        let at = (first * size_of::<T>()) as u64;
        let fits = place.dtype == T::DTYPE && at + bytes.len() as u64 <= place.length;
        assert!(fits, "values of tensor `{name}`");
        place.written += bytes.len() as u64;
        let at = place.start + at;
        self.put(at, bytes)
    }

    /// Puts the file at its place.
    ///
    /// # Errors
    /// Those of [`Pending::finish`].
    ///
    /// # Panics
    /// If values of a tensor have not come.
    pub fn finish(self) -> Result<()> {
        for (name, place) in &self.places {
            assert_eq!(place.written, place.length, "bytes of tensor `{name}`");
        }
        self.file.finish()
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let write = |file: &mut File| {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)
        };
        write(self.file.file()).map_err(|error| FileError::cannot_write(&self.path, error))
    }
}
