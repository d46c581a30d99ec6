//! Headers of safetensors files, whose bytes depend on nothing but what they say.

use std::collections::BTreeMap;

use serde_json::{Value, json};

const METADATA: &str = "__metadata__";

/// Puts the names in the header of a safetensors file into alphabetical order, metadata included: writers that
/// keep them in hash maps give other bytes each time. What is no such file is left as it is.
///
/// ```
/// use circuitscope_core::formats::ordered_header;
///
/// let header = br#"{"__metadata__":{"b":"2","a":"1"}}"#;
/// let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
/// bytes.extend(header);
/// assert!(ordered_header(bytes).ends_with(br#"{"a":"1","b":"2"}}"#));
/// ```
#[must_use]
pub fn ordered_header(mut bytes: Vec<u8>) -> Vec<u8> {
    let Some(written) = ordered(&bytes) else {
        return bytes;
    };
    bytes[8..8 + written.len()].copy_from_slice(&written);
    bytes
}

/// The header in order, in as many bytes.
fn ordered(bytes: &[u8]) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(*bytes.first_chunk::<8>()?);
    let header = bytes.get(8..)?.get(..usize::try_from(length).ok()?)?;
    let mut names: BTreeMap<String, Value> = serde_json::from_slice(header).ok()?;
    if let Some(Value::Object(metadata)) = names.remove(METADATA) {
        let metadata: BTreeMap<String, Value> = metadata.into_iter().collect();
        names.insert(METADATA.to_owned(), json!(metadata));
    }
    let mut written = serde_json::to_vec(&names).ok()?;
    if written.len() > header.len() {
        return None;
    }
    written.resize(header.len(), b' ');
    Some(written)
}

/// The beginning of a safetensors file of f32 tensors that lie one after another, and how many bytes each
/// takes: what is written before the tensors are known.
///
/// `tensors` are names and shapes, in the order in which they lie.
#[must_use]
pub fn f32_header(
    tensors: &[(String, Vec<usize>)],
    metadata: &BTreeMap<String, String>,
) -> (Vec<u8>, Vec<u64>) {
    let mut names = BTreeMap::from([(METADATA.to_owned(), json!(metadata))]);
    let (mut at, mut sizes) = (0, Vec::with_capacity(tensors.len()));
    for (name, shape) in tensors {
        let size = 4 * shape.iter().product::<usize>() as u64;
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]});
        names.insert(name.clone(), entry);
        at += size;
        sizes.push(size);
    }
    let mut header = json!(names).to_string().into_bytes();
    // Tensors are aligned to eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    (bytes, sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_safetensors_file_is_left_alone() {
        for bytes in [&b""[..], b"12345678", b"\xff\xff\xff\xff\xff\xff\xff\xff{}"] {
            assert_eq!(ordered_header(bytes.to_vec()), bytes);
        }
    }

    #[test]
    fn tensors_lie_one_after_another() {
        let tensors = [("b".to_owned(), vec![2, 3]), ("a".to_owned(), vec![1])];
        let metadata = BTreeMap::from([("made_by".to_owned(), "test".to_owned())]);
        let (header, sizes) = f32_header(&tensors, &metadata);
        assert_eq!(sizes, [24, 4]);
        assert_eq!(header.len() % 8, 0);
        assert_eq!(ordered_header(header.clone()), header);
        let value: Value = serde_json::from_slice(&header[8..]).unwrap();
        assert_eq!(value["b"]["data_offsets"], json!([0, 24]));
        assert_eq!(value["a"]["data_offsets"], json!([24, 28]));
        assert_eq!(value["__metadata__"]["made_by"], "test");
    }
}
