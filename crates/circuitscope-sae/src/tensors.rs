//! The tensors of one file, safetensors, npz or a state dict of PyTorch: read by name and checked for shape, type and values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anamnesis::{NpzDtype, PthDtype, parse_npz, parse_pth};
use circuitscope_core::nearest;
use circuitscope_files as files;
use safetensors::tensor::{Dtype, SafeTensors};

use crate::{Error, Result};

/// The whole of a file. A dictionary may be larger than what is read within bounds.
pub(crate) fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    Ok(if files::is_regular(path) {
        fs_err::read(path)?
    } else {
        Arc::unwrap_or_clone(files::read(path)?)
    })
}

/// How numbers are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Bf16,
    F64,
    /// As its format names it.
    Other(String),
}

#[derive(Debug)]
struct Stored<'a> {
    kind: Kind,
    shape: Vec<usize>,
    /// Little-endian, row by row.
    data: Cow<'a, [u8]>,
}

/// The tensors of one file, by name.
#[derive(Debug)]
pub(crate) struct Tensors<'a> {
    path: &'a Path,
    stored: BTreeMap<String, Stored<'a>>,
}

impl<'a> Tensors<'a> {
    /// Of a safetensors file that holds these bytes.
    ///
    /// # Errors
    /// [`Error::Safetensors`].
    pub(crate) fn of_safetensors(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes).map_err(|source| Error::Safetensors {
            path: path.to_owned(),
            source,
        })?;
        let stored = file.iter().map(|(name, view)| {
            let kind = match view.dtype() {
                Dtype::F32 => Kind::F32,
                Dtype::F16 => Kind::F16,
                Dtype::BF16 => Kind::Bf16,
                Dtype::F64 => Kind::F64,
                other => Kind::Other(format!("{other:?}")),
            };
            let stored = Stored {
                kind,
                shape: view.shape().to_vec(),
                data: Cow::Borrowed(view.data()),
            };
            (name.to_owned(), stored)
        });
        Ok(Self {
            path,
            stored: stored.collect(),
        })
    }

    /// Of an npz archive of numpy.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Npz`].
    pub(crate) fn of_npz(path: &'a Path) -> Result<Self> {
        // Its error names the file.
        fs_err::File::open(path)?;
        let file = parse_npz(path).map_err(|error| Error::Npz {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let stored = file.into_iter().map(|(name, tensor)| {
            let kind = match tensor.dtype {
                NpzDtype::F32 => Kind::F32,
                NpzDtype::F16 => Kind::F16,
                NpzDtype::BF16 => Kind::Bf16,
                NpzDtype::F64 => Kind::F64,
                other => Kind::Other(other.to_string()),
            };
            let stored = Stored {
                kind,
                shape: tensor.shape,
                data: Cow::Owned(tensor.data),
            };
            (name, stored)
        });
        Ok(Self {
            path,
            stored: stored.collect(),
        })
    }

    /// Of a state dict as PyTorch pickles it: only what holds tensors is understood, and nothing runs.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Pickle`].
    pub(crate) fn of_pickle(path: &'a Path) -> Result<Self> {
        // Its error names the file.
        fs_err::File::open(path)?;
        let unreadable = |error: anamnesis::AnamnesisError| Error::Pickle {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let file = parse_pth(path).map_err(unreadable)?;
        let tensors = file.tensors().map_err(unreadable)?.into_iter();
        let stored = tensors.map(|tensor| {
            let kind = match tensor.dtype {
                PthDtype::F32 => Kind::F32,
                PthDtype::F16 => Kind::F16,
                PthDtype::BF16 => Kind::Bf16,
                PthDtype::F64 => Kind::F64,
                other => Kind::Other(other.to_string()),
            };
            let stored = Stored {
                kind,
                shape: tensor.shape,
                data: Cow::Owned(tensor.data.into_owned()),
            };
            (tensor.name, stored)
        });
        Ok(Self {
            path,
            stored: stored.collect(),
        })
    }

    /// Adds a tensor, or puts it in the place of the one by its name.
    pub(crate) fn insert(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        let stored = Stored {
            kind: Kind::F32,
            shape: shape.to_vec(),
            data: Cow::Owned(bytes.collect()),
        };
        self.stored.insert(name.to_owned(), stored);
    }

    /// Calls a tensor by another name.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if let Some(stored) = self.stored.remove(from) {
            self.stored.insert(to.to_owned(), stored);
        }
    }

    /// Fails if there is a tensor by another name. A misspelt tensor is both missing and unexpected: the
    /// latter names what it should be, so that this is asked first.
    pub(crate) fn only(&self, names: &[&str]) -> Result<()> {
        let left = |name: &&String| !names.contains(&name.as_str());
        let Some(tensor) = self.stored.keys().find(left) else {
            return Ok(());
        };
        Err(Error::UnexpectedTensor {
            path: self.path.to_owned(),
            tensor: tensor.clone(),
            nearest: nearest(tensor, names.iter().copied()).map(str::to_owned),
        })
    }

    /// Fails if one of these is not there.
    pub(crate) fn require(&self, names: &[&'static str]) -> Result<()> {
        names
            .iter()
            .try_for_each(|name| self.stored(name).map(drop))
    }

    /// Puts a matrix of this shape the other way round.
    pub(crate) fn transpose(
        &mut self,
        name: &'static str,
        expected: &[usize; 2],
        axes: &'static str,
    ) -> Result<()> {
        let values = self.floats(name, expected, axes)?;
        let [rows, columns] = *expected;
        let mut turned = Vec::with_capacity(values.len());
        for column in 0..columns {
            turned.extend((0..rows).map(|row| values[row * columns + column]));
        }
        self.insert(name, &[columns, rows], &turned);
        Ok(())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.stored.contains_key(name)
    }

    /// Sizes of a matrix, named `axes`.
    pub(crate) fn matrix(&self, name: &'static str, axes: &'static str) -> Result<[usize; 2]> {
        let shape = &self.stored(name)?.shape;
        match *shape.as_slice() {
            [rows, columns] if rows > 0 && columns > 0 => Ok([rows, columns]),
            _ => Err(self.value_error(
                name,
                &format!("shape {shape:?}"),
                &format!("two axes {axes}"),
            )),
        }
    }

    /// Sizes of `W_enc` as it is stored, `[d_in, d_sae]`, and the width of what `W_dec` writes.
    pub(crate) fn sizes(&self) -> Result<[usize; 3]> {
        let [d_in, d_sae] = self.matrix("W_enc", "[d_in, d_sae]")?;
        let [_, d_out] = self.matrix("W_dec", "[d_sae, d_out]")?;
        if i32::try_from(d_sae).is_ok() {
            return Ok([d_in, d_sae, d_out]);
        }
        Err(self.value_error("W_enc", &format!("{d_sae} features"), "at most 2147483647"))
    }

    /// The values of a tensor of this shape, row by row; half precision is widened.
    pub(crate) fn floats(
        &self,
        name: &'static str,
        expected: &[usize],
        axes: &'static str,
    ) -> Result<Vec<f32>> {
        let stored = self.stored(name)?;
        if stored.shape != expected {
            return Err(Error::Shape {
                path: self.path.to_owned(),
                tensor: name,
                expected: expected.to_vec(),
                found: stored.shape.clone(),
                axes,
            });
        }
        let words = |b: &[u8]| [b[0], b[1], b[2], b[3]];
        let halves = || stored.data.chunks_exact(2).map(|b| [b[0], b[1]]);
        let values: Vec<f32> = match &stored.kind {
            Kind::F32 => {
                let words = stored.data.chunks_exact(4).map(words);
                words.map(f32::from_le_bytes).collect()
            }
            Kind::F16 => halves()
                .map(|bytes| half::f16::from_le_bytes(bytes).to_f32())
                .collect(),
            Kind::Bf16 => halves()
                .map(|bytes| half::bf16::from_le_bytes(bytes).to_f32())
                .collect(),
            // SAELens keeps one number so.
            Kind::F64 if expected.is_empty() => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&stored.data[..8]);
                vec![f64::from_le_bytes(bytes) as f32]
            }
            kind => {
                return Err(Error::Dtype {
                    path: self.path.to_owned(),
                    tensor: name,
                    found: kind.name(),
                });
            }
        };
        check_finite(self.path, name, expected, &values)?;
        Ok(values)
    }

    /// The same with values that `fits` takes, of which `wanted` says which they are.
    pub(crate) fn floats_that(
        &self,
        (name, expected, axes): (&'static str, &[usize], &'static str),
        wanted: &str,
        fits: impl Fn(f32) -> bool,
    ) -> Result<Vec<f32>> {
        let values = self.floats(name, expected, axes)?;
        match values.iter().position(|value| !fits(*value)) {
            None => Ok(values),
            Some(at) => {
                let found = format!("{} at {:?}", values[at], index(expected, at));
                Err(self.value_error(name, &found, wanted))
            }
        }
    }

    /// Thresholds of activations.
    pub(crate) fn thresholds(
        &self,
        name: &'static str,
        expected: &[usize],
        axes: &'static str,
    ) -> Result<Vec<f32>> {
        self.floats_that((name, expected, axes), "numbers of at least 0", |value| {
            value >= 0.0
        })
    }

    pub(crate) fn value_error(&self, tensor: &'static str, found: &str, expected: &str) -> Error {
        Error::Tensor {
            path: self.path.to_owned(),
            tensor,
            found: found.to_owned(),
            expected: expected.to_owned(),
        }
    }

    fn stored(&self, name: &'static str) -> Result<&Stored<'a>> {
        self.stored.get(name).ok_or_else(|| Error::MissingTensor {
            path: self.path.to_owned(),
            tensor: name,
            found: self.stored.keys().cloned().collect(),
        })
    }
}

impl Kind {
    fn name(&self) -> String {
        match self {
            Self::F32 => "F32".to_owned(),
            Self::F16 => "F16".to_owned(),
            Self::Bf16 => "BF16".to_owned(),
            Self::F64 => "F64".to_owned(),
            Self::Other(name) => name.clone(),
        }
    }
}

/// Fails with the first value that is not finite.
pub(crate) fn check_finite(
    path: &Path,
    tensor: &'static str,
    shape: &[usize],
    values: &[f32],
) -> Result<()> {
    let Some(at) = values.iter().position(|value| !value.is_finite()) else {
        return Ok(());
    };
    Err(Error::NonFiniteWeight {
        path: path.to_owned(),
        tensor,
        index: index(shape, at),
        value: values[at],
    })
}

/// Where the value `at` of a tensor stands.
fn index(shape: &[usize], at: usize) -> Vec<usize> {
    match *shape {
        [] => Vec::new(),
        [_, width] => vec![at / width, at % width],
        _ => vec![at],
    }
}
