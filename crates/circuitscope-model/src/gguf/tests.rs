use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use circuitscope_files::sha256_of;

use super::tensor::Rewritten;
use super::{front_matter, tensor};
use crate::bytes::map;

fn golden(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/gguf");
    folder.join(name)
}

/// Bit for bit what the Python package `gguf` gives (`golden/gguf/make.py`).
#[test]
fn every_format_is_dequantised_as_defined() {
    let path = golden("formats.gguf");
    let bytes = map(&path).unwrap();
    let front = front_matter(&path, &bytes).unwrap();
    let sums = fs_err::read(golden("formats.json")).unwrap();
    let sums: BTreeMap<String, String> = serde_json::from_slice(&sums).unwrap();
    assert_eq!(sums.len(), 25);
    assert_eq!(front.tensor_infos.len(), sums.len());
    for info in &front.tensor_infos {
        let tensor = tensor(info, Rewritten::No);
        assert_eq!(tensor.problem(), None, "{}", info.name);
        let values = tensor.values(&bytes[tensor.bytes().clone()]).unwrap();
        assert_eq!(values.len(), 4 * 256);
        let sum = sha256_of(bytemuck::cast_slice(&values));
        let name = info.name.strip_suffix(".weight").unwrap();
        assert_eq!(sum, sums[name], "{name}");
    }
}
