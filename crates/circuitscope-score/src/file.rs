use std::collections::BTreeMap;
use std::path::Path;

use circuitscope_core::formats::ordered_header;
use circuitscope_core::{HeadGrid, Polarity, files, nearest};
use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensors};

use crate::{CodeTable, Error, Result};

/// The tensors and metadata keys of a codes file.
pub mod tensor_names {
    /// `[examples, heads]`, i32: a feature index, −1 where no feature is active.
    pub const CODES: &str = "codes";
    /// `[examples]`, u8: 1 positive, 0 negative.
    pub const LABELS: &str = "labels";
    /// Metadata: number of layers.
    pub const N_LAYERS: &str = "n_layers";
    /// Metadata: number of heads in each layer.
    pub const N_HEADS: &str = "n_heads";
}
use tensor_names::{CODES, LABELS, N_HEADS, N_LAYERS};

impl CodeTable {
    /// Writes a codes file: safetensors with `codes` i32 `[examples, heads]`, `labels` u8
    /// `[examples]`, metadata `n_layers`, `n_heads` and whatever `extra` says of its making.
    /// The file appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Examples
    /// ```
    /// use circuitscope_core::{HeadGrid, Polarity::{Negative, Positive}};
    /// use circuitscope_score::CodeTable;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let table = CodeTable::new(HeadGrid::new(2, 1), vec![Positive, Negative], vec![3, -1, 0, 8])?;
    /// let path = tempfile::tempdir()?.path().join("codes.safetensors");
    /// table.write(&path, &[("seed".to_owned(), "0".to_owned())].into())?;
    /// assert_eq!(CodeTable::read(&path)?, table);
    /// # Ok(())
    /// # }
    /// ```
    pub fn write(&self, path: &Path, extra: &BTreeMap<String, String>) -> Result<()> {
        let grid = self.grid();
        let mut metadata = extra.clone();
        metadata.insert(N_LAYERS.to_owned(), grid.n_layers.to_string());
        metadata.insert(N_HEADS.to_owned(), grid.n_heads.to_string());
        let codes: Vec<u8> = self
            .codes()
            .iter()
            .flat_map(|code| code.to_le_bytes())
            .collect();
        let labels: Vec<u8> = self.labels().iter().map(|label| label.label()).collect();
        let serialise = || {
            let examples = self.examples();
            let tensors = [
                (
                    CODES,
                    TensorView::new(Dtype::I32, vec![examples, grid.len()], &codes)?,
                ),
                (LABELS, TensorView::new(Dtype::U8, vec![examples], &labels)?),
            ];
            safetensors::serialize(tensors, Some(metadata.into_iter().collect()))
        };
        let bytes = serialise().map_err(|error| not_safetensors(path, &error))?;
        let bytes = ordered_header(bytes);
        files::write_atomic(path, |out| out.write_all(&bytes)).map_err(|source| io(path, source))
    }

    /// Reads a codes file, as [`write`](Self::write) makes it; codes and labels may also be i64.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotSafetensors`], or [`Error::Field`] for a tensor or metadata key
    /// that is missing, unknown, or has a wrong type, shape or value.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = files::read(path).map_err(|source| io(path, source))?;
        let parse = || {
            Ok((
                SafeTensors::deserialize(&bytes)?,
                SafeTensors::read_metadata(&bytes)?.1,
            ))
        };
        let (tensors, metadata) = parse().map_err(|error| not_safetensors(path, &error))?;
        File {
            path,
            tensors,
            metadata,
        }
        .table()
    }
}

struct File<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    metadata: Metadata,
}

impl File<'_> {
    fn table(&self) -> Result<CodeTable> {
        let mut names = self.tensors.names();
        names.sort_unstable();
        if let Some(&unknown) = names.iter().find(|name| !matches!(**name, CODES | LABELS)) {
            let meant = nearest(
                unknown,
                [CODES, LABELS]
                    .into_iter()
                    .filter(|name| !names.contains(name)),
            );
            let expected = match meant {
                Some(name) => format!("`{name}`"),
                None => format!("only `{CODES}` and `{LABELS}`"),
            };
            return Err(self.wrong(
                &format!("tensor `{unknown}`"),
                "an unknown tensor",
                &expected,
            ));
        }
        let grid = self.grid()?;
        let (shape, codes) = self.integers(CODES, Dtype::I32)?;
        let &[examples, heads] = shape.as_slice() else {
            return Err(self.wrong_tensor(
                CODES,
                format!("shape {shape:?}"),
                "two axes [examples, heads]",
            ));
        };
        if heads != grid.len() || heads == 0 {
            let expected = format!(
                "n_layers × n_heads = {} × {} heads",
                grid.n_layers, grid.n_heads
            );
            return Err(self.wrong_tensor(CODES, format!("{heads} heads"), &expected));
        }
        let (shape, labels) = self.integers(LABELS, Dtype::U8)?;
        if shape != [examples] {
            let expected = format!("[{examples}], one label for each example of `{CODES}`");
            return Err(self.wrong_tensor(LABELS, format!("shape {shape:?}"), &expected));
        }
        let labels = labels.iter().enumerate().map(|(at, &label)| {
            Polarity::from_label(label).ok_or_else(|| {
                let found = format!("{label} at example {at}");
                self.wrong_tensor(LABELS, found, "1 (positive) or 0 (negative)")
            })
        });
        let labels = labels.collect::<Result<_>>()?;
        let codes = codes.iter().enumerate().map(|(at, &code)| {
            i32::try_from(code)
                .ok()
                .filter(|code| *code >= crate::INACTIVE)
                .ok_or_else(|| {
                    let found = format!(
                        "{code} at example {}, head {}",
                        at / heads,
                        grid.head(at % heads)
                    );
                    self.wrong_tensor(CODES, found, "a feature index or -1 (inactive)")
                })
        });
        CodeTable::new(grid, labels, codes.collect::<Result<_>>()?)
    }

    fn wrong(&self, field: &str, found: impl Into<String>, expected: &str) -> Error {
        Error::Field {
            path: self.path.to_owned(),
            field: field.to_owned(),
            found: found.into(),
            expected: expected.to_owned(),
        }
    }

    fn wrong_tensor(&self, name: &str, found: impl Into<String>, expected: &str) -> Error {
        self.wrong(&format!("tensor `{name}`"), found, expected)
    }

    /// Shape and values of an integer tensor of type `narrow` or i64.
    fn integers(&self, name: &str, narrow: Dtype) -> Result<(Vec<usize>, Vec<i64>)> {
        let Ok(view) = self.tensors.tensor(name) else {
            return Err(self.wrong_tensor(name, "no such tensor", "it to be there"));
        };
        let bytes = view.data();
        let values = match view.dtype() {
            Dtype::U8 if narrow == Dtype::U8 => bytes.iter().map(|&byte| byte.into()).collect(),
            Dtype::I32 if narrow == Dtype::I32 => {
                let words = bytes.as_chunks::<4>().0.iter();
                words.map(|&word| i32::from_le_bytes(word).into()).collect()
            }
            Dtype::I64 => bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|&word| i64::from_le_bytes(word))
                .collect(),
            other => {
                let expected = format!("{narrow:?} (or I64)");
                return Err(self.wrong_tensor(name, format!("type {other:?}"), &expected));
            }
        };
        Ok((view.shape().to_vec(), values))
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
                    self.wrong(&format!("metadata `{key}`"), found, "a number")
                })
        };
        let grid = HeadGrid::new(number(N_LAYERS)?, number(N_HEADS)?);
        if grid.n_layers.checked_mul(grid.n_heads).is_none() {
            let found = grid.n_heads.to_string();
            return Err(self.wrong(&format!("metadata `{N_HEADS}`"), found, "a number of heads"));
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
