use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use circuitscope_core::formats::ordered_header;
use circuitscope_core::{HeadGrid, Polarity, files};
use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensors, View};

use crate::{Error, Result};

/// The tensors and metadata keys of an activations file.
pub mod tensor_names {
    /// `[examples, heads, d]`, f32, f16 or bf16.
    pub const ACTIVATIONS: &str = "activations";
    /// `[examples]`, u8 or i64: 1 positive, 0 negative.
    pub const LABELS: &str = "labels";
    /// Metadata: number of layers.
    pub const N_LAYERS: &str = "n_layers";
    /// Metadata: number of heads in each layer.
    pub const N_HEADS: &str = "n_heads";
}

/// One vector for each head and example, with the label of each example: what the method starts
/// from.
///
/// On disk it is a safetensors file: `activations` `[examples, heads, d]` (f32 is written; f16 and
/// bf16 are read too and widened), `labels` `[examples]` (u8 is written; i64 is read too), metadata
/// `n_layers` and `n_heads` with `n_layers * n_heads = heads`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadActivations {
    /// Shape of the model.
    pub grid: HeadGrid,
    /// Width of each vector: `d_model` for head outputs.
    pub d: usize,
    /// One label for each example.
    pub labels: Vec<Polarity>,
    /// `[examples, heads, d]`, row-major.
    pub data: Vec<f32>,
}

impl HeadActivations {
    /// Checks the shapes.
    ///
    /// # Panics
    /// Unless `data.len() == labels.len() * grid.len() * d`.
    #[must_use]
    pub fn new(grid: HeadGrid, d: usize, labels: Vec<Polarity>, data: Vec<f32>) -> Self {
        assert_eq!(
            data.len(),
            labels.len() * grid.len() * d,
            "data against [examples, heads, d]"
        );
        Self {
            grid,
            d,
            labels,
            data,
        }
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.labels.len()
    }

    /// The vectors of example `index`, `[heads, d]`.
    pub fn example(&self, index: usize) -> &[f32] {
        let width = self.grid.len() * self.d;
        &self.data[index * width..(index + 1) * width]
    }

    /// Writes the file atomically. `extra` metadata (what made it) is stored beside the shape.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path, extra: &BTreeMap<String, String>) -> Result<()> {
        let mut metadata: BTreeMap<String, String> = extra.clone();
        metadata.insert(
            tensor_names::N_LAYERS.into(),
            self.grid.n_layers.to_string(),
        );
        metadata.insert(tensor_names::N_HEADS.into(), self.grid.n_heads.to_string());
        let labels: Vec<u8> = self.labels.iter().map(|label| label.label()).collect();
        let tensors = [
            (
                tensor_names::ACTIVATIONS,
                Bytes {
                    dtype: Dtype::F32,
                    shape: vec![self.examples(), self.grid.len(), self.d],
                    data: bytemuck::cast_slice(&self.data),
                },
            ),
            (
                tensor_names::LABELS,
                Bytes {
                    dtype: Dtype::U8,
                    shape: vec![self.examples()],
                    data: &labels,
                },
            ),
        ];
        let bytes = safetensors::serialize(tensors, Some(metadata.into_iter().collect()))
            .map_err(|error| not_safetensors(path, &error))?;
        let bytes = ordered_header(bytes);
        files::write_atomic(path, |out| out.write_all(&bytes)).map_err(|source| io(path, source))
    }

    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotSafetensors`], or [`Error::Field`] for a tensor or metadata key
    /// that is missing, has a wrong type, shape or value, or is not finite.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = map(path)?;
        let file = Opened::new(path, &bytes)?;
        let labels = file.labels()?;
        let view = file.tensor(tensor_names::ACTIVATIONS)?;
        let &[examples, heads, d] = view.shape() else {
            return Err(file.wrong(
                tensor_names::ACTIVATIONS,
                format!("shape {:?}", view.shape()),
                "three axes [examples, heads, d]",
            ));
        };
        let grid = file.grid()?;
        if grid.len() != heads || heads == 0 || d == 0 {
            return Err(file.wrong(
                tensor_names::ACTIVATIONS,
                format!("{heads} heads of width {d}"),
                &format!(
                    "n_layers × n_heads = {} × {} heads",
                    grid.n_layers, grid.n_heads
                ),
            ));
        }
        if labels.len() != examples {
            return Err(file.wrong(
                tensor_names::LABELS,
                format!("{} labels", labels.len()),
                &format!("{examples}, one for each example of `activations`"),
            ));
        }
        let data = file.floats(tensor_names::ACTIVATIONS)?;
        if let Some(at) = data.iter().position(|x| !x.is_finite()) {
            return Err(file.wrong(
                tensor_names::ACTIVATIONS,
                format!(
                    "{} at example {}, head {}",
                    data[at],
                    at / (heads * d),
                    grid.head(at / d % heads)
                ),
                "finite numbers",
            ));
        }
        Ok(Self {
            grid,
            d,
            labels,
            data,
        })
    }
}

struct Bytes<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    data: &'a [u8],
}

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.data.into()
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// A checked safetensors file, mapped into memory.
struct Opened<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    metadata: Metadata,
}

/// The bytes of a file.
enum Mapped {
    Map(Mmap),
    Read(Arc<Vec<u8>>),
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Read(bytes) => bytes,
        }
    }
}

/// Maps a file, or reads it if it is a pipe; an empty one cannot be mapped and is refused.
fn map(path: &Path) -> Result<Mapped> {
    if !files::is_regular(path) {
        let bytes = files::read(path).map_err(|source| io(path, source))?;
        return Ok(Mapped::Read(bytes));
    }
    let file = fs_err::File::open(path).map_err(|source| io(path, source))?;
    let length = file.metadata().map_err(|source| io(path, source))?.len();
    if length < 8 {
        let reason = format!("{length} bytes, the header length alone takes 8");
        return Err(Error::NotSafetensors {
            path: path.to_owned(),
            reason,
        });
    }
    #[expect(
        unsafe_code,
        reason = "mapping a file is unsafe in general: see the safety comment"
    )]
    // SAFETY: the map is read-only and private to this call, and nothing here writes to the file. Another program that
    // does so meanwhile breaks what Rust asks of `&[u8]`: that is undefined behaviour, which no program that maps files
    // can rule out; one that truncates it stops the process. Mapping is what lets a file of many gigabytes be read with
    // little more memory than its values take.
    let mapped = unsafe { Mmap::map(file.file()) };
    mapped.map(Mapped::Map).map_err(|source| io(path, source))
}

impl<'a> Opened<'a> {
    fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let parse = || {
            let (_, metadata) = SafeTensors::read_metadata(bytes)?;
            Ok((SafeTensors::deserialize(bytes)?, metadata))
        };
        let (tensors, metadata) = parse().map_err(|error| not_safetensors(path, &error))?;
        Ok(Self {
            path,
            tensors,
            metadata,
        })
    }

    fn wrong(&self, field: &str, found: String, expected: &str) -> Error {
        Error::Field {
            path: self.path.to_owned(),
            field: format!("`{field}`"),
            found,
            expected: expected.to_owned(),
        }
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'a>> {
        self.tensors.tensor(name).ok().ok_or_else(|| {
            let mut names = self.tensors.names();
            names.sort_unstable();
            self.wrong(
                name,
                format!("no such tensor among {names:?}"),
                &format!("a tensor `{name}`"),
            )
        })
    }

    fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let view = self.tensor(name)?;
        let bytes = view.data();
        Ok(match view.dtype() {
            Dtype::F32 => bytemuck::pod_collect_to_vec(bytes),
            Dtype::F16 => bytes
                .chunks_exact(2)
                .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            Dtype::BF16 => bytes
                .chunks_exact(2)
                .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            other => return Err(self.wrong(name, format!("type {other:?}"), "F32, F16 or BF16")),
        })
    }

    fn labels(&self) -> Result<Vec<Polarity>> {
        let name = tensor_names::LABELS;
        let view = self.tensor(name)?;
        if view.shape().len() != 1 {
            return Err(self.wrong(
                name,
                format!("shape {:?}", view.shape()),
                "one axis [examples]",
            ));
        }
        let bytes = view.data();
        let values: Vec<i64> = match view.dtype() {
            Dtype::U8 => bytes.iter().map(|&b| b.into()).collect(),
            Dtype::I64 => bytemuck::pod_collect_to_vec(bytes),
            other => return Err(self.wrong(name, format!("type {other:?}"), "U8 or I64")),
        };
        values
            .iter()
            .enumerate()
            .map(|(at, &value)| {
                Polarity::from_label(value).ok_or_else(|| {
                    self.wrong(
                        name,
                        format!("{value} at example {at}"),
                        "1 (positive) or 0 (negative)",
                    )
                })
            })
            .collect()
    }

    fn grid(&self) -> Result<HeadGrid> {
        let number = |key: &str| {
            let value = self
                .metadata
                .metadata()
                .as_ref()
                .and_then(|map| map.get(key));
            value
                .and_then(|value| value.parse::<usize>().ok())
                .ok_or_else(|| {
                    let found = value
                        .map_or_else(|| "no such key".to_owned(), |value| format!("{value:?}"));
                    self.wrong(&format!("metadata {key}"), found, "a number")
                })
        };
        let grid = HeadGrid::new(
            number(tensor_names::N_LAYERS)?,
            number(tensor_names::N_HEADS)?,
        );
        if grid.n_layers.checked_mul(grid.n_heads).is_none() {
            return Err(self.wrong(
                "metadata n_heads",
                grid.n_heads.to_string(),
                "a number of heads",
            ));
        }
        Ok(grid)
    }
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_owned(),
        source,
    }
}

fn not_safetensors(path: &Path, error: &safetensors::SafeTensorError) -> Error {
    Error::NotSafetensors {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
