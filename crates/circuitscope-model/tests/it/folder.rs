//! Copies of model folders that a test may spoil.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};
use tempfile::TempDir;

/// A tensor as it lies in a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

impl Stored {
    pub(crate) fn f32s(shape: &[usize], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            data,
        }
    }

    pub(crate) fn to_f32s(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32);
        let (numbers, _) = self.data.as_chunks();
        numbers.iter().copied().map(f32::from_le_bytes).collect()
    }
}

pub(crate) type Tensors = BTreeMap<String, Stored>;

/// A temporary copy of a model folder.
pub(crate) struct ModelFolder(TempDir);

impl ModelFolder {
    pub(crate) fn empty() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn copy_of(folder: &Path) -> Self {
        let copy = TempDir::new().unwrap();
        for entry in fs_err::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            fs_err::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        Self(copy)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, file: &str, bytes: &[u8]) {
        fs_err::write(self.path().join(file), bytes).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        fs_err::remove_file(self.path().join(file)).unwrap();
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        fs_err::read(self.path().join(file)).unwrap()
    }

    pub(crate) fn edit_config(&self, edit: impl FnOnce(&mut Map<String, Value>)) {
        let mut config = serde_json::from_slice(&self.read("config.json")).unwrap();
        edit(&mut config);
        self.write("config.json", &serde_json::to_vec(&config).unwrap());
    }

    pub(crate) fn tensors(&self, file: &str) -> Tensors {
        let bytes = self.read(file);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let stored = |view: &TensorView<'_>| Stored {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            data: view.data().to_vec(),
        };
        let tensors = file.tensors().into_iter();
        tensors.map(|(name, view)| (name, stored(&view))).collect()
    }

    pub(crate) fn write_tensors(&self, file: &str, tensors: &Tensors) {
        let views: Vec<(&str, TensorView<'_>)> = tensors
            .iter()
            .map(|(name, t)| {
                let view = TensorView::new(t.dtype, t.shape.clone(), &t.data).unwrap();
                (name.as_str(), view)
            })
            .collect();
        self.write(file, &safetensors::serialize(views, None).unwrap());
    }

    pub(crate) fn edit_tensors(&self, edit: impl FnOnce(&mut Tensors)) {
        let mut tensors = self.tensors("model.safetensors");
        edit(&mut tensors);
        self.write_tensors("model.safetensors", &tensors);
    }
}
