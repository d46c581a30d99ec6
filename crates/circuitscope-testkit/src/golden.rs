use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::Values;

/// The tensors of a golden file: F32 as [`Values`], I64 as integers.
#[derive(Debug, Clone)]
pub struct Golden {
    name: String,
    floats: BTreeMap<String, Values>,
    ints: BTreeMap<String, (Vec<usize>, Vec<i64>)>,
}

impl Golden {
    /// Reads a safetensors file.
    ///
    /// # Panics
    /// If it cannot be read, or holds other types than F32 and I64.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let name = path.display().to_string();
        let bytes = fs_err::read(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self::from_bytes(&name, &bytes)
    }

    /// Reads a safetensors file in memory, called `name` in messages.
    ///
    /// # Panics
    /// As [`Golden::read`].
    #[must_use]
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Self {
        let file =
            SafeTensors::deserialize(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut golden = Self {
            name: name.to_owned(),
            floats: BTreeMap::new(),
            ints: BTreeMap::new(),
        };
        for (tensor, view) in file.tensors() {
            let shape = view.shape().to_vec();
            match view.dtype() {
                Dtype::F32 => {
                    let (numbers, _) = view.data().as_chunks();
                    let data = numbers.iter().copied().map(f32::from_le_bytes).collect();
                    golden.floats.insert(tensor, Values::new(shape, data));
                }
                Dtype::I64 => {
                    let (numbers, _) = view.data().as_chunks();
                    let data = numbers.iter().copied().map(i64::from_le_bytes).collect();
                    golden.ints.insert(tensor, (shape, data));
                }
                other => panic!("{name}: {tensor} is {other:?}, a golden file holds F32 and I64"),
            }
        }
        golden
    }

    /// The F32 tensor `name`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn floats(&self, name: &str) -> &Values {
        let values = self.floats.get(name);
        values.unwrap_or_else(|| panic!("{}: no F32 tensor `{name}`", self.name))
    }

    /// All F32 tensors whose names start with `prefix`, without it, in order of their names.
    pub fn floats_under(&self, prefix: &str) -> impl Iterator<Item = (&str, &Values)> {
        self.floats
            .iter()
            .filter_map(move |(name, values)| Some((name.strip_prefix(prefix)?, values)))
    }

    /// The I64 tensor `name`, row by row: everything after the first axis is one row.
    ///
    /// # Panics
    /// If there is none, or it has no axes.
    #[must_use]
    pub fn int_rows(&self, name: &str) -> Vec<Vec<i64>> {
        let Some((shape, data)) = self.ints.get(name) else {
            panic!("{}: no I64 tensor `{name}`", self.name)
        };
        let width = shape[1..].iter().product::<usize>().max(1);
        data.chunks_exact(width).map(<[i64]>::to_vec).collect()
    }

    /// The I64 tensor `name` as an attention mask: 1 real, 0 padding.
    ///
    /// # Panics
    /// As [`Golden::int_rows`], or if an entry is neither.
    #[must_use]
    pub fn mask(&self, name: &str) -> Vec<Vec<u8>> {
        let entry = |real: &i64| match real {
            0 => 0,
            1 => 1,
            other => panic!("{}: {name}: found {other}, expected 0 or 1", self.name),
        };
        let rows = self.int_rows(name);
        rows.iter()
            .map(|row| row.iter().map(entry).collect())
            .collect()
    }

    /// The I64 tensor `name` as rows of token ids.
    ///
    /// # Panics
    /// As [`Golden::int_rows`], or if an entry is no token id.
    #[must_use]
    pub fn tokens(&self, name: &str) -> Vec<Vec<u32>> {
        let token = |id: &i64| {
            u32::try_from(*id)
                .unwrap_or_else(|error| panic!("{}: {name}: {id}: {error}", self.name))
        };
        let rows = self.int_rows(name);
        rows.iter()
            .map(|row| row.iter().map(token).collect())
            .collect()
    }
}
